//! A process that refuses to be checked is checked all the same: its code without its help, its slots
//! as far as its loader's list goes.

use std::collections::BTreeSet;
use std::fs;

use sensor::verify::{Gap, Limits, Linkage, Report, SlotKind, Standing, Verifier, VerifyError};

use crate::fixture::{Child, Workshop, command};
use crate::mutation::Target;

/// How the fixture refuses, and what is passed over for it.
const WAYS: [(&str, &str); 4] = [
    ("state", "is being changed, it says"),
    ("back", "says otherwise backwards than forwards"),
    ("loop", "leads back to a module before"),
    ("namespaces", "leads back to a namespace before"),
];

fn hostile(shop: &Workshop, mode: &str) -> Child {
    let program = shop.cc("hostile.c", "hostile", &["-pie", "-Wl,-z,now"]);
    let mut child = Child::ready(command(program).arg(mode));
    assert_eq!(child.line(), "done");
    child
}

fn refused(verifier: &mut Verifier, pid: u32, mode: &str) -> VerifyError {
    let error = verifier.check(pid).expect_err(mode);
    assert!(error.is_refusal(), "{mode}: {error}");
    error
}

fn flawed(report: &Report, flaw: &str) {
    assert!(!report.settled, "{report:?}");
    assert_eq!(report.gaps, [Gap::List { detail: flaw_of(flaw) }], "{report:?}");
}

fn flaw_of(flaw: &str) -> &'static str {
    WAYS.iter().map(|(_, one)| *one).find(|one| *one == flaw).unwrap()
}

/// A function's code and one slot, as a hook would change them; the process is stopped meanwhile.
fn hook(pid: u32) -> (u64, u64) {
    let target = Target::new(pid);
    let code = target.function("/libc.so", "getppid");
    target.write(code, target.read(code) ^ 0xff);
    let (slot, _) = target.slots.iter().find(|(_, kind)| **kind == SlotKind::GlobDat).unwrap();
    target.write(*slot, target.function("/libc.so", "system"));
    (code, *slot)
}

#[test]
fn a_list_that_is_refused_is_followed_as_far_as_it_goes_by_who_insists() {
    let shop = Workshop::new();
    let plain = hostile(&shop, "");
    let plain = Verifier::new(Limits::default()).check(plain.pid()).unwrap();
    for (mode, flaw) in WAYS {
        let child = hostile(&shop, mode);
        let mut verifier = Verifier::new(Limits::default());
        let why = refused(&mut verifier, child.pid(), mode).reason();
        let report = verifier.insist(child.pid()).unwrap();
        println!("{mode}: {why}: {:?}", report.gaps);
        flawed(&report, flaw);
        assert!(report.is_clean(), "{mode}: {report:?}");
        assert_eq!((report.slots_checked, report.modules), (plain.slots_checked, plain.modules));
        refused(&mut verifier, child.pid(), mode);
        let (code, slot) = hook(child.pid());
        let report = verifier.insist(child.pid()).unwrap();
        flawed(&report, flaw);
        let slots: BTreeSet<u64> = report.mismatches.iter().map(|one| one.slot_addr).collect();
        assert!(slots.contains(&slot), "{mode}: {:?}", report.mismatches);
        let patched = report.text.unexplained().any(|one| one.addr <= code && code < one.addr + 8);
        assert!(patched, "{mode}: {:?}", report.text.patches);
    }
}

#[test]
fn slots_that_the_loader_has_sealed_are_told_from_those_it_may_still_write() {
    let shop = Workshop::new();
    let lazy = shop.cc("hostile.c", "hostile", &["-pie", "-Wl,-z,lazy", "-Wl,-z,relro"]);
    let mut child = Child::ready(command(lazy).arg("state"));
    assert_eq!(child.line(), "done");
    let target = Target::new(child.pid());
    let elsewhere = target.function("/libc.so", "system");
    let areas = fs::read_to_string(format!("/proc/{}/maps", child.pid())).unwrap();
    let writable = |slot: u64| {
        areas.lines().any(|line| {
            let (range, rest) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            (address(start)..address(end)).contains(&slot) && rest.as_bytes()[1] == b'w'
        })
    };
    let slot_of = |open: bool| {
        let kinds = [SlotKind::GlobDat, SlotKind::JumpSlot];
        let mut slots = target.slots.iter().filter(|(_, kind)| kinds.contains(kind));
        *slots.find(|(slot, _)| writable(**slot) == open).unwrap().0
    };
    let (open, sealed) = (slot_of(true), slot_of(false));
    target.write(open, elsewhere);
    target.write(sealed, elsewhere);
    let report = Verifier::new(Limits::default()).insist(child.pid()).unwrap();
    let told = |slot: u64| report.mismatches.iter().find(|one| one.slot_addr == slot);
    assert_eq!(told(open).map(|one| one.sealed), Some(false), "{report:?}");
    assert_eq!(told(sealed).map(|one| one.sealed), Some(true), "{report:?}");
}

#[test]
fn where_there_is_no_list_the_code_is_compared_without_one() {
    let shop = Workshop::new();
    let child = hostile(&shop, "none");
    let mut verifier = Verifier::new(Limits::default());
    let reason = refused(&mut verifier, child.pid(), "none").reason();
    let report = verifier.insist(child.pid()).unwrap();
    assert_eq!(report.gaps, [Gap::CodeOnly { reason }], "{report:?}");
    assert!(report.is_clean() && report.slots_checked == 0, "{report:?}");
    let (code, _) = hook(child.pid());
    let report = verifier.insist(child.pid()).unwrap();
    let patches: Vec<u64> = report.text.unexplained().map(|one| one.addr).collect();
    assert!(patches.iter().any(|addr| (code..code + 8).contains(addr)), "{report:?}");
}

#[test]
fn who_takes_too_long_is_compared_without_its_list() {
    let shop = Workshop::new();
    let child = hostile(&shop, "");
    let mut verifier = Verifier::new(Limits::default());
    let report = verifier.insist_on_code(child.pid()).unwrap();
    assert!(report.is_clean() && report.slots_checked == 0 && !report.settled, "{report:?}");
    assert!(matches!(report.gaps[..], [Gap::CodeOnly { .. }]), "{report:?}");
    let (code, _) = hook(child.pid());
    let report = verifier.insist_on_code(child.pid()).unwrap();
    let mut patches = report.text.unexplained().map(|one| one.addr);
    assert!(patches.any(|addr| (code..code + 8).contains(&addr)), "{report:?}");
}

#[test]
fn who_refuses_nothing_is_found_as_well_by_who_insists() {
    let shop = Workshop::new();
    let child = hostile(&shop, "");
    let mut verifier = Verifier::new(Limits::default());
    let report = verifier.check(child.pid()).unwrap();
    let insisted = verifier.insist(child.pid()).unwrap();
    assert!(insisted.is_clean() && insisted.gaps.is_empty() && !insisted.settled);
    assert_eq!(insisted.slots_checked, report.slots_checked);
}

#[test]
fn a_packed_program_is_told_as_not_covered_and_refuses_nothing() {
    let shop = Workshop::new();
    let packed = Child::ready(&mut command(shop.cc("packed.c", "packed", &["-static", "-no-pie"])));
    let report = Verifier::new(Limits::default()).check(packed.pid()).unwrap();
    assert!(report.is_clean() && report.settled, "{report:?}");
    assert_eq!(report.gaps, [Gap::Packed]);
    assert_eq!(report.linkage, Linkage::UnknownLoader);
}

#[test]
fn a_program_with_a_loader_that_says_it_has_none_is_refused() {
    let shop = Workshop::new();
    for mode in ["no-loader", "no-headers"] {
        let program = shop.cc("hostile.c", "hostile", &["-pie", "-Wl,-z,now"]);
        let mut child = Child::ready(command(program).arg(mode));
        if child.line() == "denied" {
            println!("{mode}: this kernel has no PR_SET_MM_MAP: not tried");
            continue;
        }
        let error = refused(&mut Verifier::new(Limits::default()), child.pid(), mode);
        assert!(!error.is_passing(), "{error}");
    }
}

#[test]
fn a_file_mapped_over_the_loaders_headers_is_not_taken_for_the_loader() {
    let shop = Workshop::new();
    let child = hostile(&shop, "other-loader");
    let mut verifier = Verifier::new(Limits::default());
    let error = refused(&mut verifier, child.pid(), "other-loader");
    assert!(!error.is_passing(), "{error}");
    // Its code is compared all the same.
    let (code, _) = hook(child.pid());
    let report = verifier.insist(child.pid()).unwrap();
    let mut patches = report.text.unexplained().map(|one| one.addr);
    assert!(patches.any(|addr| (code..code + 8).contains(&addr)), "{report:?}");
}

#[test]
fn who_is_stopped_stands_still() {
    let shop = Workshop::new();
    let child = hostile(&shop, "state");
    assert!(!Standing::of(child.pid()).unwrap().is_still());
    Target::new(child.pid());
    let standing = Standing::of(child.pid()).unwrap();
    assert!(standing.is_still(), "{standing:?}");
    assert_eq!(standing.to_string(), "of its 1 threads 1 stopped");
}
