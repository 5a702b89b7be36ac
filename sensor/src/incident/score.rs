//! How bad an incident is: its severity and its score.
//!
//! Severity is the worst finding's. It is raised one step, at most to critical, where two families
//! or more each have a finding of at least medium that nothing explains.
//!
//! The score takes each family's strongest finding, and the families as independent witnesses:
//!
//! ```text
//! strength of a finding = weight(severity) × confidence / 100, halved where something explains it
//!                         weight: info 0, low 20, medium 45, high 70, critical 90
//! s(family)             = its strongest finding
//! score                 = 100 × (1 − Π over the families of (1 − s)), rounded
//! ```
//!
//! Worked example, the one the tests repeat: `got_redirected`, critical, 0.98 gives the hook family
//! 0.90 × 0.98 = 0.882; `link_time_shift`, medium, 0.9 gives linker 0.405; `auth_cpu_shift`,
//! medium, 0.8 gives sshd 0.36. 1 − 0.118 × 0.595 × 0.64 = 0.955, so 96 (alone the hook would
//! give 88).

use crate::finding::{Family, Finding, Severity};

const FAMILIES: [Family; 4] = [Family::Linker, Family::Hook, Family::Sshd, Family::Sensor];

/// The severity of an incident with these findings.
pub(super) fn severity(findings: &[Finding]) -> Severity {
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Info);
    let witnesses = FAMILIES
        .into_iter()
        .filter(|family| findings.iter().any(|finding| testifies(finding, *family)))
        .count();
    if witnesses >= 2 { raised(worst) } else { worst }
}

/// The score, 0–100.
pub(super) fn score(findings: &[Finding]) -> u32 {
    let doubt: f64 = FAMILIES.into_iter().map(|family| 1.0 - strongest(findings, family)).product();
    let score = 100.0 * (1.0 - doubt);
    (0..=100).rev().find(|whole| f64::from(*whole) - 0.5 <= score).unwrap_or(0)
}

fn testifies(finding: &Finding, family: Family) -> bool {
    finding.family == family
        && finding.severity >= Severity::Medium
        && finding.explained_by.is_none()
}

fn strongest(findings: &[Finding], family: Family) -> f64 {
    findings
        .iter()
        .filter(|finding| finding.family == family)
        .map(strength)
        .fold(0.0, f64::max)
        .min(1.0)
}

fn strength(finding: &Finding) -> f64 {
    let weight = match finding.severity {
        Severity::Info => 0.0,
        Severity::Low => 0.20,
        Severity::Medium => 0.45,
        Severity::High => 0.70,
        Severity::Critical => 0.90,
    };
    let explained = if finding.explained_by.is_some() { 0.5 } else { 1.0 };
    weight * finding.confidence * explained
}

fn raised(severity: Severity) -> Severity {
    match severity {
        Severity::Info => Severity::Low,
        Severity::Low => Severity::Medium,
        Severity::Medium => Severity::High,
        Severity::High | Severity::Critical => Severity::Critical,
    }
}
