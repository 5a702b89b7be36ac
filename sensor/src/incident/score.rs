//! Score and severity of an incident, both computable by hand.

use std::collections::{BTreeMap, BTreeSet};

use crate::finding::{Family, Finding, Severity};

/// Each family beyond the first.
const PER_FAMILY: u32 = 10;
/// The top of the scale.
const TOP: u32 = 100;

/// 0–100: for every detector that spoke, the points of its worst finding times that finding's
/// confidence (info 1, low 5, medium 15, high 35, critical 60), rounded; plus 10 for every family
/// beyond the first that has a finding above info; at most 100.
#[must_use]
pub fn score(findings: &[Finding]) -> u32 {
    let mut worst: BTreeMap<&str, u32> = BTreeMap::new();
    for finding in findings {
        let points = weigh(finding);
        let entry = worst.entry(&finding.detector).or_default();
        *entry = points.max(*entry);
    }
    let families = u32::try_from(families(findings).len()).unwrap_or(TOP);
    let sum = worst.values().fold(0_u32, |sum, points| sum.saturating_add(*points));
    sum.saturating_add(families.saturating_sub(1).saturating_mul(PER_FAMILY)).min(TOP)
}

/// The worst finding's; one step higher, up to high, where two families have findings of medium or
/// more. Critical is never made of parts: it needs a finding that proves it.
pub(super) fn severity(findings: &[Finding]) -> Severity {
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Info);
    let strong = findings.iter().filter(|finding| finding.severity >= Severity::Medium);
    let families: BTreeSet<Family> = strong.map(|finding| finding.family).collect();
    if families.len() > 1 && worst == Severity::Medium { Severity::High } else { worst }
}

/// Families with a finding above info.
pub(super) fn families(findings: &[Finding]) -> BTreeSet<Family> {
    let strong = findings.iter().filter(|finding| finding.severity > Severity::Info);
    strong.map(|finding| finding.family).collect()
}

fn weigh(finding: &Finding) -> u32 {
    let points = match finding.severity {
        Severity::Info => 1.0,
        Severity::Low => 5.0,
        Severity::Medium => 15.0,
        Severity::High => 35.0,
        Severity::Critical => 60.0,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 60, by the clamp"
    )]
    let weighed = (points * finding.confidence.clamp(0.0, 1.0)).round() as u32;
    weighed
}
