//! rtld-audit in a process, and whether somebody asked for it.

use sensor::verify::{Audit, AuditRequest, Limits, Verifier};

use crate::fixture::{Child, Workshop, command};

fn audit_of(child: &Child) -> Option<Audit> {
    Verifier::new(Limits::default()).check(child.pid()).unwrap().audit
}

/// Whether this machine's loader shows where it keeps its state; says so where it does not.
fn shown(shop: &Workshop) -> bool {
    let library = shop.library("audit.c", "libprobe.so", &[]);
    let child = Child::ready(command(shop.path("victim")).env("LD_AUDIT", library));
    let shown = audit_of(&child).is_some();
    if !shown {
        println!("not tried: this machine's loader does not show its audit state");
    }
    shown
}

fn victim() -> Workshop {
    let shop = Workshop::new();
    shop.cc("victim.c", "victim", &["-pie", "-Wl,-z,now"]);
    shop
}

#[test]
fn debian_12_shows_its_audit_state() {
    // What the other tests are skipped by must not hide that the reader is broken.
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !release.contains("VERSION_ID=\"12\"") {
        println!("not tried: this machine is not Debian 12");
        return;
    }
    assert!(shown(&victim()));
}

#[test]
fn a_program_nobody_audits_has_no_audit() {
    let shop = victim();
    let child = Child::ready(&mut command(shop.path("victim")));
    assert!(audit_of(&child).is_none());
}

#[test]
fn an_audit_library_from_the_environment_was_asked_for() {
    let shop = victim();
    if !shown(&shop) {
        return;
    }
    let library = shop.library("audit.c", "libaudit.so", &[]);
    let child = Child::ready(command(shop.path("victim")).env("LD_AUDIT", library));
    let audit = audit_of(&child).unwrap();
    assert_eq!((audit.count, audit.requested), (1, Some(AuditRequest::Environment)));
    let callback = audit.callbacks[0].module.as_ref().unwrap();
    assert_eq!(callback.file_name(), "libaudit.so");
    assert_eq!(audit.callbacks[0].symbol.as_deref(), Some("la_symbind64"));
}

#[test]
fn an_audit_library_that_the_program_names_was_asked_for() {
    let shop = victim();
    if !shown(&shop) {
        return;
    }
    let library = shop.library("audit.c", "libaudit.so", &[]);
    let flag = format!("-Wl,--audit,{}", library.display());
    shop.cc("victim.c", "audited", &["-pie", &flag]);
    let child = Child::ready(&mut command(shop.path("audited")));
    assert_eq!(audit_of(&child).unwrap().requested, Some(AuditRequest::Program));
}

#[test]
fn forged_state_of_the_loader_is_found_with_who_is_called_back() {
    let shop = victim();
    if cfg!(not(target_arch = "x86_64")) {
        println!("not tried: the forging library knows x86_64 only");
        return;
    }
    if !shown(&shop) {
        return;
    }
    shop.library("forge_audit.c", "libforge.so", &[]);
    let flags = ["-pie", "-Wl,-z,now", "-Wl,--no-as-needed", "-l:libforge.so"];
    shop.cc("victim.c", "forged", &flags);
    let mut child = Child::ready(&mut command(shop.path("forged")));
    child.assert_answers();
    let audit = audit_of(&child).unwrap();
    assert_eq!((audit.count, audit.requested), (1, None));
    assert_eq!(audit.callbacks[0].module.as_ref().unwrap().file_name(), "libforge.so");
}
