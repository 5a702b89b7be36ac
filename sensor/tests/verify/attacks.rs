//! Redirected slots are found, and named exactly.

use std::fs::File;
use std::time::{Duration, SystemTime};

use sensor::verify::{Category, Limits, Linkage, Report, SlotKind, Verifier};

use crate::fixture::{Child, Workshop, command, have};

const RELRO_ROUTE: &[&str] = &["-DTARGET=getppid", "-DRELRO_ROUTE"];

fn check(child: &Child) -> Report {
    Verifier::new(Limits::default()).check(child.pid()).unwrap()
}

/// Exactly the one redirected slot, with the true and the actual owner.
fn assert_only(report: &Report, kind: SlotKind, symbol: &str, expected: &str, actual: &str) {
    let texts: Vec<String> = report.mismatches.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 1, "{texts:#?} {:?}", report.gaps);
    let found = &report.mismatches[0];
    assert_eq!((found.kind, found.symbol.as_deref()), (kind, Some(symbol)));
    assert_eq!(found.module.file_name(), "victim");
    assert_eq!(found.expected.module.as_ref().unwrap().file_name(), expected, "{texts:?}");
    assert_eq!(found.actual.module.as_ref().unwrap().file_name(), actual, "{texts:?}");
    assert!(found.module.build_id.is_some());
    assert!(report.settled && report.gaps.is_empty(), "{report:?}");
}

fn run_with_preload(shop: &Workshop, library: &str) -> Child {
    Child::ready(command(shop.path("victim")).env("LD_PRELOAD", shop.path(library)))
}

#[test]
fn a_constructor_that_lifts_relro_is_found() {
    let shop = Workshop::new();
    shop.cc("victim.c", "victim", &["-pie", "-Wl,-z,now"]);
    shop.library("redirect.c", "libevil.so", RELRO_ROUTE);
    let mut child = run_with_preload(&shop, "libevil.so");
    let report = check(&child);
    assert_only(&report, SlotKind::JumpSlot, "getppid", "libc.so.6", "libevil.so");
    let found = &report.mismatches[0];
    assert_eq!(found.category, Category::Redirected);
    let version = found.version.as_deref().unwrap();
    assert!(version.starts_with("GLIBC_2."), "{version}");
    assert_eq!(found.expected.symbol.as_deref(), Some("getppid"));
    assert_eq!(found.expected.symbol_offset, Some(0));
    assert_eq!(report.preloads[0].file_name(), "libevil.so");
    let text = found.to_string();
    let (slot, expected) = (found.slot_vaddr, found.expected.offset.unwrap());
    let actual = found.actual.offset.unwrap();
    assert_eq!(
        text,
        format!(
            "victim+{slot:#x} JUMP_SLOT getppid@{version}: expected libc.so.6+{expected:#x}, \
             actual libevil.so+{actual:#x}"
        )
    );
    child.assert_answers();
}

#[test]
fn a_tail_jumping_wrapper_is_found() {
    let shop = Workshop::new();
    shop.cc("victim.c", "victim", &["-pie", "-Wl,-z,now", "-fno-plt"]);
    shop.library("redirect.c", "libevil.so", &[RELRO_ROUTE, &["-DTAIL_JUMP"]].concat());
    let mut child = run_with_preload(&shop, "libevil.so");
    child.assert_answers();
    assert_only(&check(&child), SlotKind::GlobDat, "getppid", "libc.so.6", "libevil.so");
}

/// Build flags of victims without RELRO, and the relocation that holds the slot.
#[test]
fn programs_without_relro_are_no_blind_spot() {
    let cases: [(&[&str], SlotKind); 4] = [
        (&["-pie", "-Wl,-z,norelro", "-Wl,-z,lazy"], SlotKind::JumpSlot),
        (&["-no-pie", "-fno-pie", "-Wl,-z,norelro", "-Wl,-z,lazy"], SlotKind::JumpSlot),
        (&["-pie", "-Wl,-z,norelro", "-fno-plt"], SlotKind::GlobDat),
        (&["-pie", "-Wl,-z,lazy", "-Wl,--hash-style=sysv"], SlotKind::JumpSlot),
    ];
    for (flags, kind) in cases {
        let shop = Workshop::new();
        shop.cc("victim.c", "victim", flags);
        shop.library("redirect.c", "libevil.so", &["-DTARGET=getppid"]);
        let mut child = run_with_preload(&shop, "libevil.so");
        child.assert_answers();
        assert_only(&check(&child), kind, "getppid", "libc.so.6", "libevil.so");
    }
}

#[test]
fn a_needed_library_is_as_suspicious_as_a_preloaded_one() {
    let shop = Workshop::new();
    shop.library("redirect.c", "libevil.so", &["-DTARGET=getppid"]);
    let flags = ["-pie", "-Wl,-z,lazy", "-Wl,--no-as-needed", "-l:libevil.so"];
    shop.cc("victim.c", "victim", &flags);
    let mut child = Child::ready(&mut command(shop.path("victim")));
    child.assert_answers();
    let report = check(&child);
    assert_only(&report, SlotKind::JumpSlot, "getppid", "libc.so.6", "libevil.so");
    assert!(report.preloads.is_empty(), "{:?}", report.preloads);
}

#[test]
fn an_audit_library_that_answers_for_another_function_is_its_own_category() {
    // glibc asks auditors about PLT relocations only, bound at start or on first call.
    for binding in ["-Wl,-z,now", "-Wl,-z,lazy"] {
        let shop = Workshop::new();
        shop.cc("victim.c", "victim", &["-pie", binding]);
        shop.library("audit.c", "libaudit.so", &["-DREDIRECT"]);
        let audit = shop.path("libaudit.so");
        let mut child = Child::ready(command(shop.path("victim")).env("LD_AUDIT", audit));
        child.assert_answers();
        let report = check(&child);
        assert_only(&report, SlotKind::JumpSlot, "getppid", "libc.so.6", "libaudit.so");
        assert_eq!(report.mismatches[0].category, Category::AuditRedirect);
    }
}

#[test]
fn a_redirected_ifunc_is_found() {
    let shop = Workshop::new();
    shop.library("ifunc.c", "libwork.so", &[]);
    let flags = ["-DWITH_WORK", "-pie", "-Wl,-z,lazy", "-Wl,-z,norelro", "-l:libwork.so"];
    shop.cc("victim.c", "victim", &flags);
    let clean = Child::ready(&mut command(shop.path("victim")));
    assert!(check(&clean).mismatches.is_empty());
    shop.library("redirect.c", "libevil.so", &["-DTARGET=work"]);
    let child = run_with_preload(&shop, "libevil.so");
    let report = check(&child);
    assert_only(&report, SlotKind::JumpSlot, "work", "libwork.so", "libevil.so");
    assert_eq!(report.mismatches[0].category, Category::IfuncRedirected);
}

#[test]
fn a_library_opened_at_run_time_may_be_the_culprit() {
    let shop = Workshop::new();
    let host = shop.cc("host.c", "victim", &["-pie", "-Wl,-z,lazy"]);
    shop.library("redirect.c", "libevil.so", &["-DTARGET=puts"]);
    shop.library(
        "plugin.c",
        "libplugin.so",
        &["-DNUMBER=1", "-Wl,--no-as-needed", "-l:libevil.so"],
    );
    let argument = format!("l:{}", shop.path("libplugin.so").display());
    let child = Child::ready(command(host).arg(argument));
    assert_only(&check(&child), SlotKind::JumpSlot, "puts", "libc.so.6", "libevil.so");
}

#[test]
fn a_file_written_to_after_the_start_marks_what_rests_on_it() {
    let shop = Workshop::new();
    let victim = shop.cc("victim.c", "victim", &["-pie", "-Wl,-z,now"]);
    shop.library("redirect.c", "libevil.so", RELRO_ROUTE);
    let child = run_with_preload(&shop, "libevil.so");
    let later = SystemTime::now() + Duration::from_mins(1);
    File::open(victim).unwrap().set_modified(later).unwrap();
    let report = check(&child);
    assert_only(&report, SlotKind::JumpSlot, "getppid", "libc.so.6", "libevil.so");
    assert_eq!(report.mismatches[0].category, Category::FileChanged);
}

/// The redirecting library defines the function itself, so that it would be a legitimate target in
/// another search order: only the order tells.
#[test]
fn a_definition_outside_the_search_order_is_no_excuse() {
    let shop = Workshop::new();
    let host = shop.cc("host.c", "host", &["-pie"]);
    let flags = ["-DTARGET=getppid", "-DIN_MODULE=libplugin", "-DEXPORT"];
    shop.library("redirect.c", "libevil.so", &flags);
    shop.library("plugin.c", "libplugin.so", &["-DNUMBER=1", "-Wl,-z,lazy"]);
    shop.library(
        "plugin.c",
        "libsecond.so",
        &["-DNUMBER=2", "-Wl,--no-as-needed", "-l:libevil.so"],
    );
    let argument = |name: &str| format!("l:{}", shop.path(name).display());
    let child =
        Child::ready(command(host).args([argument("libplugin.so"), argument("libsecond.so")]));
    let report = check(&child);
    let texts: Vec<String> = report.mismatches.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 1, "{texts:#?} {:?}", report.gaps);
    assert!(texts[0].starts_with("libplugin.so+"), "{texts:?}");
    assert!(texts[0].contains(" JUMP_SLOT getppid@"), "{texts:?}");
    assert!(texts[0].contains(", actual libevil.so+"), "{texts:?}");
    assert!(report.gaps.is_empty(), "{:?}", report.gaps);
}

#[test]
fn a_musl_program_is_no_blind_spot() {
    if !have("musl-gcc") {
        return;
    }
    let shop = Workshop::new();
    shop.compile("musl-gcc", "victim.c", "victim", &["-pie"]);
    let flags = [&["-shared", "-fPIC"], RELRO_ROUTE].concat();
    shop.compile("musl-gcc", "redirect.c", "libevil.so", &flags);
    let mut clean = Child::ready(&mut command(shop.path("victim")));
    clean.assert_answers();
    let report = check(&clean);
    assert_eq!(report.linkage, Linkage::Musl);
    assert!(report.mismatches.is_empty() && report.slots_checked > 5, "{report:?}");
    let mut child = run_with_preload(&shop, "libevil.so");
    child.assert_answers();
    assert_only(&check(&child), SlotKind::JumpSlot, "getppid", "libc.so", "libevil.so");
}
