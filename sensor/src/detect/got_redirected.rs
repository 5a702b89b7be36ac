//! `got_redirected`: an address that the loader wrote leads elsewhere.
//!
//! Needs no baseline: it speaks from the first start on. Blind to what the check does not cover,
//! which its gaps name.

use std::sync::Arc;

use super::check::{Category, CheckReport, Mismatch};
use super::{Detector, Draft, World, instruments};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, ModuleId, Observation};

/// Slots told one by one; the rest is counted.
const SLOTS_TOLD: usize = 16;
/// Gaps told.
const GAPS_TOLD: usize = 4;

/// The detector.
#[derive(Debug)]
pub(super) struct GotRedirected;

// === impl GotRedirected ===

impl Detector for GotRedirected {
    fn id(&self) -> &'static str {
        "got_redirected"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        let Body::Checked(report) = &seen.body else { return };
        let (changed, redirected): (Vec<&Mismatch>, Vec<&Mismatch>) =
            report.mismatches.iter().partition(|m| m.category == Category::FileChanged);
        let guarded = seen.process.program.guarded();
        let excusable = !guarded && seen.process.shown.container.is_none();
        let tool = excusable.then(|| instruments::explain(&redirected, world)).flatten();
        let (slots, severity, confidence) = if let [_, ..] = redirected.as_slice() {
            let severity = match (guarded, &tool) {
                (true, _) => Severity::Critical,
                (false, None) => Severity::High,
                (false, Some(_)) => Severity::Info,
            };
            (redirected, severity, if report.settled { 0.98 } else { 0.8 })
        } else if let [_, ..] = changed.as_slice() {
            (changed, Severity::Low, 0.3)
        } else {
            return;
        };
        let Some(first) = slots.first() else { return };
        out.push(Draft {
            detector: self.id(),
            family: Family::Hook,
            severity,
            confidence,
            title: title(seen, first, slots.len()),
            evidence: evidence(&slots, report),
            attack: &["T1574", "T1556", "T1055"],
            object: object(&slots),
            program: Arc::clone(&seen.process.program),
            ktime_ns: report.taken_ktime_ns,
            explained_by: tool,
        });
    }
}

fn title(seen: &Observation, first: &Mismatch, slots: usize) -> String {
    let program = seen.process.program.name();
    let function = first.symbol.as_deref().unwrap_or("an import");
    let owner = first.actual.owner();
    let more = match slots {
        1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    if first.category == Category::FileChanged {
        return format!("{program}: a library's file changed under it, {function}{more} unclear");
    }
    format!("{program}: {function}{more} leads into {owner}")
}

fn evidence(slots: &[&Mismatch], report: &CheckReport) -> Vec<Evidence> {
    let mut evidence: Vec<Evidence> =
        slots.iter().take(SLOTS_TOLD).map(|mismatch| slot(mismatch)).collect();
    if slots.len() > SLOTS_TOLD {
        let text = format!("{} more slots lead elsewhere", slots.len() - SLOTS_TOLD);
        evidence.push(Evidence::Note { text });
    }
    if slots.iter().any(|mismatch| mismatch.category == Category::AuditRedirect) {
        let text =
            "The redirection came through the loader's audit interface (la_symbind)".to_owned();
        evidence.push(Evidence::Note { text });
    }
    evidence.extend(instruments::named(report));
    let checked = format!("{} slots were compared", report.slots_checked);
    evidence.push(Evidence::Note { text: checked });
    evidence
        .extend(report.gaps.iter().take(GAPS_TOLD).map(|gap| Evidence::Note { text: gap.clone() }));
    evidence
}

fn slot(mismatch: &Mismatch) -> Evidence {
    let symbol = match (&mismatch.symbol, &mismatch.version) {
        (Some(symbol), Some(version)) => format!("{symbol}@{version}"),
        (Some(symbol), None) => symbol.clone(),
        (None, _) => String::new(),
    };
    Evidence::Slot {
        module: mismatch.module.path.clone(),
        slot: format!("{:#x}", mismatch.slot),
        slot_kind: mismatch.kind.clone(),
        symbol,
        expected: mismatch.expected.shown(),
        expected_module: mismatch
            .expected
            .module
            .as_ref()
            .map(|one| one.path.clone())
            .unwrap_or_default(),
        actual: mismatch.actual.shown(),
        actual_module: mismatch.actual.owner_path(),
        actual_build_id: mismatch
            .actual
            .module
            .as_ref()
            .and_then(ModuleId::build_id)
            .map(str::to_owned),
    }
}

/// The same redirection of the same functions is the same object, in whichever process.
fn object(slots: &[&Mismatch]) -> String {
    let mut names: Vec<String> = slots
        .iter()
        .map(|m| format!("{}>{}", m.symbol.as_deref().unwrap_or(""), m.actual.owner_path()))
        .collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(SLOTS_TOLD);
    names.join(" ")
}
