//! The vDSO: changed, moved or forged it is found; a program without a loader may do without it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use sensor::verify::{Gap, Limits, Linkage, Patch, Report, StrayKind, Verifier};

use crate::fixture::{Child, Workshop, command, have, wait_for};

const UNMAPPED: Gap = Gap::Vdso { reason: "the program has unmapped it" };
const STATIC: &[&str] = &["-static", "-no-pie"];
const LINKED: &[&str] = &["-pie"];

fn check(pid: u32) -> Report {
    Verifier::new(Limits::default()).check(pid).unwrap()
}

/// A program that has done this to its vDSO; none where it may not, which is said.
fn tampering(shop: &Workshop, flags: &[&str], what: &[&str]) -> Option<Child> {
    let mut child = Child::start(command(shop.cc("vdso.c", "vdso", flags)).args(what));
    let line = child.line();
    if line != "ready" {
        println!("not tried: {what:?} {line}");
    }
    (line == "ready").then_some(child)
}

/// Kinds of the contradictions told.
fn strays(report: &Report) -> Vec<StrayKind> {
    assert!(report.mismatches.is_empty(), "{:?}", report.mismatches);
    assert_eq!(report.text.unexplained().count(), 0, "{:?}", report.text.patches);
    report.text.strays.iter().map(|stray| stray.kind).collect()
}

/// Where it is said to be, and where its end is.
fn area(pid: u32) -> (u64, u64) {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
    let mut ends = line.split(['-', ' ']).map(|end| u64::from_str_radix(end, 16));
    (ends.next().unwrap().unwrap(), ends.next().unwrap().unwrap())
}

#[test]
fn a_changed_vdso_is_found() {
    let shop = Workshop::new();
    let child = Child::ready(&mut command(shop.cc("victim.c", "victim", &["-pie"])));
    let last = area(child.pid()).1 - 1;
    let memory = OpenOptions::new().write(true).open(format!("/proc/{}/mem", child.pid()));
    // Behind the last section: nobody runs it.
    memory.unwrap().write_all_at(&[0x5a], last).unwrap();
    let report = check(child.pid());
    let patches: Vec<&Patch> = report.text.unexplained().collect();
    assert_eq!(patches.len(), 1, "{:#?}", report.text);
    assert_eq!((patches[0].module.path.as_str(), patches[0].addr), ("[vdso]", last));
}

#[test]
fn a_static_program_that_unmaps_its_vdso_is_no_finding_and_told_as_a_gap() {
    let shop = Workshop::new();
    let child = tampering(&shop, STATIC, &["unmap"]).unwrap();
    let report = check(child.pid());
    assert_eq!((report.linkage, strays(&report)), (Linkage::Static, vec![]));
    assert_eq!(report.gaps, [UNMAPPED]);
    assert!(report.is_clean());
}

#[test]
fn a_vdso_that_is_not_where_the_kernel_put_it_is_found_in_static_programs_too() {
    for flags in [STATIC, LINKED] {
        for what in ["move", "copy"] {
            let shop = Workshop::new();
            let child = tampering(&shop, flags, &[what]).unwrap();
            let found = strays(&check(child.pid()));
            assert!(found.contains(&StrayKind::VdsoMoved), "{what} {flags:?}: {found:?}");
        }
    }
}

#[test]
fn a_vdso_that_vanished_behind_the_loaders_back_is_found() {
    let shop = Workshop::new();
    let child = tampering(&shop, LINKED, &["unmap"]).unwrap();
    let report = check(child.pid());
    let found = strays(&report);
    assert!(found.contains(&StrayKind::VdsoMoved), "{found:?}");
    assert!(!report.gaps.contains(&UNMAPPED), "{:?}", report.gaps);
}

#[test]
fn a_forged_address_of_the_vdso_is_found() {
    // None, one where nothing is, and one of other memory: the program's own first page.
    for (flags, address) in [(STATIC, "0"), (STATIC, "1000"), (STATIC, "400000"), (LINKED, "0")] {
        let shop = Workshop::new();
        let Some(child) = tampering(&shop, flags, &["forge", address]) else { return };
        let report = check(child.pid());
        let found = strays(&report);
        assert_eq!(found, [StrayKind::VdsoMoved], "{flags:?} {address}: {report:?}");
    }
}

#[test]
fn valgrind_is_no_finding() {
    if !have("valgrind") {
        return;
    }
    let shop = Workshop::new();
    let program = shop.cc("victim.c", "victim", &["-g"]);
    let child = Child::ready(command("valgrind").arg("-q").arg(&program));
    // What runs is a tool without a loader, which has put its guest beside itself.
    let report = wait_for("valgrind at rest", || {
        let report = check(child.pid());
        report.settled.then_some(report)
    });
    assert_eq!((report.linkage, strays(&report)), (Linkage::Static, vec![]));
    assert!(report.text.loose_bytes() > 0, "it translates what it runs");
}
