//! Everything that runs on this machine, and some programs started for the purpose.

use std::process::Command;

use sensor::verify::{Limits, Report, SlotMismatch, Verifier, VerifyError, list_processes, scan};

use crate::fixture::{Child, MARK, PREFIX};
use crate::servers;

/// Sums of a scan.
#[derive(Debug, Default)]
struct Totals {
    processes: u64,
    slots: u64,
    lenient: u64,
    ifunc: u64,
    gaps: u64,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.processes += 1;
        self.slots += report.slots_checked;
        self.lenient += report.slots_lenient;
        self.ifunc += report.slots_ifunc;
        self.gaps += report.gaps.len() as u64;
    }
}

/// Attack fixtures of this project's tests, which may run at the same time: marked by their
/// environment, or with a module in a temporary directory of the tests' prefix.
fn is_own_fixture(mismatch: &SlotMismatch, pid: u32) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let marked = environment.split(|byte| *byte == 0).any(|text| text.starts_with(MARK.as_bytes()));
    let temporary = |path: &str| path.contains(&format!("/{PREFIX}"));
    marked
        || temporary(&mismatch.module.path)
        || mismatch.actual.module.as_ref().is_some_and(|module| temporary(&module.path))
}

#[test]
fn real_programs_are_clean() {
    let mut verifier = Verifier::new(Limits::default());
    let programs = [
        ("sshd", servers::sshd()),
        ("python3", servers::python()),
        ("perl", servers::perl()),
        ("bash", servers::bash()),
    ];
    for (name, server) in programs.into_iter().filter_map(|(name, server)| Some((name, server?))) {
        let report = verifier.check(server.pid()).unwrap();
        let texts: Vec<String> = report.mismatches.iter().map(ToString::to_string).collect();
        assert!(texts.is_empty(), "{name}: {texts:#?}");
        assert!(report.gaps.is_empty() && report.settled, "{name}: {report:?}");
        assert!(report.slots_checked > 300, "{name}: {} slots", report.slots_checked);
        println!(
            "{name}: {} modules, {} slots, {} of them IFUNC, {} lenient",
            report.modules, report.slots_checked, report.slots_ifunc, report.slots_lenient
        );
    }
}

#[test]
fn no_running_process_has_an_unexplained_slot() {
    // There may be no other on this machine; what it repeats it has been linked for.
    let mut ordinary = Child::start(&mut Command::new("cat"));
    assert_eq!(ordinary.ask("linked"), "linked");
    let mut verifier = Verifier::new(Limits::default());
    let mut totals = Totals::default();
    let mut unexplained = Vec::new();
    scan(&mut verifier, list_processes().unwrap(), |pid, outcome| match outcome {
        Ok(report) => {
            totals.add(&report);
            for gap in &report.gaps {
                println!("{pid}: gap: {gap}");
            }
            for mismatch in &report.mismatches {
                if is_own_fixture(mismatch, pid) {
                    println!("{pid}: a test fixture: {mismatch}");
                } else {
                    unexplained.push(format!("{pid}: {mismatch}"));
                }
            }
        }
        // Processes come and go; kernel threads have no slots.
        Err(VerifyError::Gone { .. } | VerifyError::NoMemory { .. }) => {}
        Err(error) => println!("{pid}: not checked: {error}"),
    });
    println!("{totals:?}");
    assert!(totals.slots > 100, "nothing was checked: {totals:?}");
    assert!(unexplained.is_empty(), "{unexplained:#?}");
}
