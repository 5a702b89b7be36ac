//! What a scan found, and the account of what it looked at and what it could not.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::code::CodeTally;
use super::who::Who;
use crate::cli::Exit;
use crate::doctor::missing_capabilities;
use crate::finding::Evidence;
use crate::tool;
use crate::verify::{
    Audit, Category, Linkage, Report, Skipped, SlotCounts, SlotMismatch, VerifyError,
};

/// Failures told one by one; the rest is only counted.
const FAILURES_MAX: usize = 20;

/// One process with findings; one JSON object.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Findings {
    kind: &'static str,
    #[serde(flatten)]
    pub(super) who: Who,
    /// Id of the design's table.
    pub(super) detector: &'static str,
    pub(super) slots_checked: u64,
    /// The same by kind.
    pub(super) slots_by_kind: SlotCounts,
    /// False where the process was still changing.
    pub(super) settled: bool,
    pub(super) evidence: Vec<Evidence>,
    /// What was not covered in this process.
    pub(super) gaps: Vec<String>,
    /// Paths of libraries that were loaded before the program's own.
    pub(super) preloads: Vec<String>,
    /// Debuggers, profilers and tracers whose libraries the evidence speaks of, by those names.
    pub(super) tools: Vec<&'static str>,
}

/// The account.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Processes looked at, kernel threads not counted.
    pub(super) seen: u64,
    /// Whose slots were compared.
    pub(super) checked: u64,
    pub(super) with_findings: u64,
    pub(super) mismatches: u64,
    /// Processes whose loader calls somebody back unrequested.
    pub(super) audited: u64,
    pub(super) slots: SlotCounts,
    /// Relocations that are not compared, by rule.
    pub(super) skipped: Skipped,
    /// Without slots a loader wrote: static programs.
    pub(super) without_loader: u64,
    /// Programs whose loader is not known, or 32-bit ones of another machine than x86.
    pub(super) not_covered: u64,
    /// Slots whose file was written to since the start: nothing can be said about them.
    pub(super) file_changed: u64,
    pub(super) denied: u64,
    /// Capabilities that would have helped.
    pub(super) needed: BTreeSet<&'static str>,
    /// Ended meanwhile.
    pub(super) gone: u64,
    pub(super) failed: u64,
    /// Why, for the first of them.
    pub(super) failures: Vec<String>,
    /// Checked, but not in every part.
    pub(super) with_gaps: u64,
    pub(super) gaps: Vec<String>,
    /// Processes with preloaded libraries.
    pub(super) with_preloads: u64,
    pub(super) code: CodeTally,
}

// === impl Findings ===

impl Findings {
    fn new(report: &Report, detector: &'static str, evidence: Vec<Evidence>) -> Self {
        Self {
            kind: "process",
            who: Who::read(report.pid),
            detector,
            slots_checked: report.slots_checked,
            slots_by_kind: report.slots,
            settled: report.settled,
            evidence,
            gaps: report.gaps.iter().map(ToString::to_string).collect(),
            preloads: report.preloads.iter().map(|module| module.path.clone()).collect(),
            tools: Vec::new(),
        }
    }

    fn libraries(&self) -> impl Iterator<Item = &str> {
        self.evidence.iter().flat_map(|one| match one {
            Evidence::Slot { actual_module, .. } => [actual_module.as_str(), ""],
            Evidence::Code { module, leads_to_module, .. } => [module.as_str(), leads_to_module],
            Evidence::Mapping { module, .. } => [module.as_str(), ""],
            _ => ["", ""],
        })
    }
}

/// Whoever reads one finding of a process is told what all of them show.
fn name_tools(found: &mut [Findings]) {
    let libraries = found.iter().flat_map(Findings::libraries);
    let tools: BTreeSet<&str> =
        libraries.filter_map(tool::by_library).map(|tool| tool.name).collect();
    for findings in found {
        findings.tools = tools.iter().copied().collect();
    }
}

// === impl Tally ===

impl Tally {
    /// Adds the outcome of one process to the account.
    pub(super) fn add(&mut self, pid: u32, outcome: &Result<Report, VerifyError>) -> Vec<Findings> {
        match outcome {
            Ok(report) => return self.add_report(report),
            Err(VerifyError::NoMemory { .. }) => return Vec::new(),
            Err(VerifyError::Gone { .. }) => self.gone += 1,
            Err(VerifyError::Permission { capability, .. }) => {
                self.denied += 1;
                self.needed.insert(capability);
            }
            Err(error) => {
                self.failed += 1;
                if self.failures.len() < FAILURES_MAX {
                    self.failures.push(told(pid, error));
                }
            }
        }
        self.seen += 1;
        Vec::new()
    }

    fn add_report(&mut self, report: &Report) -> Vec<Findings> {
        self.seen += 1;
        match report.linkage {
            Linkage::Glibc | Linkage::Musl => self.checked += 1,
            Linkage::Static => self.without_loader += 1,
            Linkage::UnknownLoader | Linkage::ThirtyTwoBit => self.not_covered += 1,
        }
        self.add_anyway(report)
    }

    /// Adds what was found in a process that counts as failed.
    pub(super) fn add_anyway(&mut self, report: &Report) -> Vec<Findings> {
        self.slots.merge(&report.slots);
        self.skipped.merge(&report.skipped);
        self.with_preloads += u64::from(!report.preloads.is_empty());
        self.add_gaps(report);
        let (changed, deviating): (Vec<_>, Vec<_>) =
            report.mismatches.iter().partition(|one| one.category == Category::FileChanged);
        self.file_changed += count(&changed);
        self.mismatches += count(&deviating);
        let mut found = Vec::new();
        if !deviating.is_empty() {
            let evidence = deviating.into_iter().map(evidence).collect();
            found.push(Findings::new(report, "got_redirected", evidence));
        }
        if let Some(audit) = report.audit.as_ref().filter(|audit| audit.requested.is_none()) {
            self.audited += 1;
            found.push(Findings::new(report, "audit_unrequested", vec![audited(audit)]));
        }
        let code = self.code.add(report).into_iter();
        found.extend(code.map(|(detector, evidence)| Findings::new(report, detector, evidence)));
        self.with_findings += u64::from(!found.is_empty());
        name_tools(&mut found);
        found
    }

    fn add_gaps(&mut self, report: &Report) {
        self.with_gaps += u64::from(!report.gaps.is_empty());
        for gap in &report.gaps {
            if self.gaps.len() < FAILURES_MAX {
                self.gaps.push(format!("process {}: {gap}", report.pid));
            }
        }
    }

    /// Findings come first; a scan that could read nothing for lack of privilege has not scanned.
    pub(super) fn exit(&self) -> Exit {
        let read = self.checked + self.without_loader + self.not_covered;
        match (self.with_findings, read, self.denied) {
            (1.., _, _) => Exit::Findings,
            (0, 0, 1..) => Exit::Unsupported,
            _ => Exit::Success,
        }
    }

    /// The capabilities that are missing; where none is, the kernel has other reasons.
    pub(super) fn why_denied(&self) -> String {
        let missing = missing_capabilities();
        let named =
            self.needed.iter().filter(|needed| missing.iter().any(|one| needed.contains(one)));
        let named = named.copied().collect::<Vec<_>>().join(", ");
        if named.is_empty() {
            return "refused by a security module or for another user namespace".to_owned();
        }
        format!("needs {named}")
    }

    pub(super) fn summary(&self) -> Value {
        let mut summary = json!({
            "kind": "summary",
            "processes": self.seen,
            "checked": self.checked,
            "with_findings": self.with_findings,
            "mismatches": self.mismatches,
            "audit_unrequested": self.audited,
            "slots_checked": self.slots.total(),
            "slots_by_kind": self.slots,
            "slots_skipped": self.skipped,
            "without_loader": self.without_loader,
            "not_covered": self.not_covered,
            "file_changed": self.file_changed,
            "denied": self.denied,
            "needed_capabilities": self.needed,
            "gone": self.gone,
            "failed": self.failed,
            "failures": self.failures,
            "with_gaps": self.with_gaps,
            "gaps": self.gaps,
            "with_preloads": self.with_preloads,
        });
        if let Value::Object(keys) = &mut summary {
            self.code.summary(keys);
        }
        summary
    }
}

fn count(items: &[&SlotMismatch]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

/// The error and its causes; names the process, where the error does not.
fn told(pid: u32, error: &VerifyError) -> String {
    let mut text = error.to_string();
    if !text.contains(&pid.to_string()) {
        text = format!("process {pid}: {text}");
    }
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn audited(audit: &Audit) -> Evidence {
    let callback = audit.callbacks.first();
    let module = callback.and_then(|callback| callback.module.as_ref());
    Evidence::Audit {
        count: audit.count,
        callback: callback.map(ToString::to_string).unwrap_or_default(),
        callback_module: module.map(|module| module.path.clone()).unwrap_or_default(),
        callback_build_id: module.and_then(|module| module.build_id.clone()),
    }
}

fn evidence(mismatch: &SlotMismatch) -> Evidence {
    let symbol = mismatch.symbol.clone().unwrap_or_default();
    let version = mismatch.version.iter().map(|version| format!("@{version}"));
    let (expected, actual) = (mismatch.expected.module.as_ref(), mismatch.actual.module.as_ref());
    Evidence::Slot {
        module: mismatch.module.path.clone(),
        slot: format!("{:#x}", mismatch.slot_vaddr),
        slot_kind: mismatch.kind.to_string(),
        symbol: version.fold(symbol, |symbol, version| symbol + &version),
        expected: mismatch.expected.to_string(),
        expected_module: expected.map(|module| module.path.clone()).unwrap_or_default(),
        actual: mismatch.actual.to_string(),
        actual_module: actual.map(|module| module.path.clone()).unwrap_or_default(),
        actual_build_id: actual.and_then(|module| Some(module.build_id.as_ref()?.clone())),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::verify::{ModuleRef, SlotKind, Target, Text};

    fn report(pid: u32, category: Option<Category>) -> Report {
        let target = |path: &str| Target {
            addr: 0x1000,
            module: Some(ModuleRef {
                path: path.into(),
                dev: 1,
                ino: 2,
                build_id: Some("ab12".into()),
            }),
            offset: Some(0x10),
            symbol: None,
            symbol_offset: None,
            memory: None,
        };
        let mismatch = |category| SlotMismatch {
            module: ModuleRef { path: "/usr/sbin/sshd".into(), dev: 1, ino: 1, build_id: None },
            slot_vaddr: 0x0013_4218,
            slot_addr: 0x5555_0013_4218,
            kind: SlotKind::JumpSlot,
            category,
            sealed: true,
            symbol: Some("RSA_public_decrypt".to_owned()),
            version: Some("OPENSSL_3.0.0".to_owned()),
            expected: target("/lib/libcrypto.so.3"),
            actual: target("/lib/liblzma.so.5"),
        };
        let slots = [(SlotKind::JumpSlot, 60), (SlotKind::Relative, 40)].into_iter().collect();
        Report {
            pid,
            start_ticks: 1,
            slots_checked: 100,
            slots,
            skipped: Skipped { tls: 3, ..Skipped::default() },
            slots_lenient: 0,
            slots_ifunc: 0,
            modules: 3,
            mismatches: category.into_iter().map(mismatch).collect(),
            gaps: Vec::new(),
            settled: true,
            linkage: Linkage::Glibc,
            preloads: Vec::new(),
            audit: None,
            namespaces: Vec::new(),
            text: Text::default(),
        }
    }

    fn denied(pid: u32) -> Result<Report, VerifyError> {
        let source = io::ErrorKind::PermissionDenied.into();
        Err(VerifyError::Permission { pid, what: "maps", capability: "CAP_SYS_PTRACE", source })
    }

    #[test]
    fn a_redirected_slot_is_a_finding_with_the_keys_of_the_interface() {
        let mut tally = Tally::default();
        let findings = tally.add(7, &Ok(report(7, Some(Category::Redirected))));
        assert_eq!(tally.summary()["slots_by_kind"]["jump_slot"], 60);
        assert_eq!(tally.summary()["slots_skipped"]["tls"], 3);
        let json = serde_json::to_value(&findings[0]).unwrap();
        assert_eq!(json["slots_by_kind"]["relative"], 40);
        assert_eq!(json["kind"], "process");
        assert_eq!(json["pid"], 7);
        assert_eq!(json["detector"], "got_redirected");
        assert_eq!(json["evidence"][0]["kind"], "slot");
        assert_eq!(json["evidence"][0]["symbol"], "RSA_public_decrypt@OPENSSL_3.0.0");
        assert_eq!(json["evidence"][0]["expected"], "libcrypto.so.3+0x10");
        assert_eq!(json["evidence"][0]["actual_module"], "/lib/liblzma.so.5");
        assert_eq!(json["evidence"][0]["actual_build_id"], "ab12");
        assert_eq!(tally.exit(), Exit::Findings);
    }

    #[test]
    fn an_unrequested_audit_is_a_finding_and_a_requested_one_is_none() {
        let mut tally = Tally::default();
        let mut seen = report(7, Some(Category::Redirected));
        let callback = seen.mismatches[0].actual.clone();
        seen.mismatches.clear();
        seen.audit = Some(Audit { count: 1, callbacks: vec![callback], requested: None });
        let findings = tally.add(7, &Ok(seen.clone()));
        assert_eq!(findings[0].detector, "audit_unrequested");
        let json = serde_json::to_value(&findings[0]).unwrap();
        assert_eq!(json["evidence"][0]["callback"], "liblzma.so.5+0x10");
        assert_eq!((tally.exit(), tally.audited), (Exit::Findings, 1));
        if let Some(audit) = &mut seen.audit {
            audit.requested = Some(crate::verify::AuditRequest::Environment);
        }
        assert!(tally.add(8, &Ok(seen)).is_empty());
    }

    #[test]
    fn a_file_written_since_the_start_is_told_and_no_finding() {
        let mut tally = Tally::default();
        assert!(tally.add(7, &Ok(report(7, Some(Category::FileChanged)))).is_empty());
        assert_eq!((tally.exit(), tally.file_changed), (Exit::Success, 1));
    }

    #[test]
    fn only_a_scan_that_read_nothing_lacks_privilege() {
        let mut tally = Tally::default();
        assert!(tally.add(7, &denied(7)).is_empty());
        assert_eq!(tally.exit(), Exit::Unsupported);
        assert_eq!(tally.summary()["needed_capabilities"], json!(["CAP_SYS_PTRACE"]));
        assert!(tally.add(8, &Ok(report(8, None))).is_empty());
        assert_eq!(tally.exit(), Exit::Success);
        assert_eq!(tally.summary()["denied"], 1);
    }

    #[test]
    fn kernel_threads_are_no_processes_and_failures_are_bounded() {
        let mut tally = Tally::default();
        assert!(tally.add(2, &Err(VerifyError::NoMemory { pid: 2 })).is_empty());
        for pid in 10..100 {
            tally.add(pid, &Err(VerifyError::Malformed { pid, what: "maps text" }));
        }
        assert_eq!((tally.seen, tally.failed), (90, 90));
        assert_eq!(tally.failures.len(), FAILURES_MAX);
    }
}
