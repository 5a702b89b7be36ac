//! `module_unlinked`: executable memory and the loader's list of modules contradict each other.
//!
//! Needs no baseline. Executable memory without a file is what just-in-time compilers work with: it
//! is a finding in guarded programs only, which have none.

use std::sync::Arc;

use super::check::{CheckReport, StrayCode};
use super::{Detector, Draft, World, instruments};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, ModuleId, Observation};

/// Contradictions told one by one; the rest is counted.
const STRAYS_TOLD: usize = 16;

/// The detector.
#[derive(Debug)]
pub(super) struct ModuleUnlinked;

// === impl ModuleUnlinked ===

impl Detector for ModuleUnlinked {
    fn id(&self) -> &'static str {
        "module_unlinked"
    }

    fn observe(&mut self, seen: &Observation, _world: &World<'_>, out: &mut Vec<Draft>) {
        let Body::Checked(report) = &seen.body else { return };
        let guarded = seen.process.program.guarded();
        let told = |stray: &&StrayCode| guarded || !stray.usual;
        let mut strays: Vec<&StrayCode> = report.strays.iter().filter(told).collect();
        strays.sort_by_key(|stray| std::cmp::Reverse(severity(stray, guarded)));
        let Some(first) = strays.first() else { return };
        let confidence = match first {
            StrayCode { usual: true, .. } => 0.4,
            StrayCode { differing: Some(0), .. } => 0.5,
            _ if report.settled => 0.9,
            _ => 0.6,
        };
        out.push(Draft {
            detector: self.id(),
            family: Family::Hook,
            severity: severity(first, guarded),
            confidence,
            title: title(seen, first, strays.len()),
            evidence: evidence(&strays, report),
            attack: &["T1055", "T1574", "T1620"],
            object: object(&strays),
            program: Arc::clone(&seen.process.program),
            ktime_ns: report.taken_ktime_ns,
            explained_by: None,
        });
    }
}

fn severity(stray: &StrayCode, guarded: bool) -> Severity {
    // Code that was moved to memory of another kind, as tools for large pages do it.
    let harmless = stray.usual || stray.differing == Some(0);
    match (harmless, guarded) {
        (false, true) => Severity::Critical,
        (false, false) => Severity::High,
        (true, true) => Severity::Medium,
        (true, false) => Severity::Low,
    }
}

fn title(seen: &Observation, first: &StrayCode, strays: usize) -> String {
    let program = seen.process.program.name();
    let more = match strays {
        1 => String::new(),
        n => format!(", and {} more", n - 1),
    };
    match &first.module {
        Some(module) => format!("{program}: {} {}{more}", module.name(), first.problem),
        None => format!(
            "{program}: {} bytes of executable memory {} ({}){more}",
            first.size, first.problem, first.memory
        ),
    }
}

fn evidence(strays: &[&StrayCode], report: &CheckReport) -> Vec<Evidence> {
    let mut evidence: Vec<Evidence> = strays.iter().take(STRAYS_TOLD).map(|s| mapping(s)).collect();
    if strays.len() > STRAYS_TOLD {
        let text = format!("{} more mappings contradict the list", strays.len() - STRAYS_TOLD);
        evidence.push(Evidence::Note { text });
    }
    evidence.extend(instruments::named(report));
    if !report.settled {
        let text = "The loader was at work while this was seen".to_owned();
        evidence.push(Evidence::Note { text });
    }
    evidence
}

fn mapping(stray: &StrayCode) -> Evidence {
    let module = stray.module.as_ref();
    Evidence::Mapping {
        module: module.map(|module| module.path.clone()).unwrap_or_default(),
        build_id: module.and_then(ModuleId::build_id).map(str::to_owned),
        problem: stray.problem.to_owned(),
        address: match stray.address {
            0 => String::new(),
            address => format!("{address:#x}"),
        },
        size: stray.size,
        memory: stray.memory.clone(),
        differing: stray.differing,
    }
}

fn object(strays: &[&StrayCode]) -> String {
    let name = |stray: &&StrayCode| {
        let module = stray.module.as_ref().map_or(&stray.memory, |module| &module.path);
        format!("{module} {}", stray.problem)
    };
    let mut names: Vec<String> = strays.iter().map(name).collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(STRAYS_TOLD);
    names.join(", ")
}
