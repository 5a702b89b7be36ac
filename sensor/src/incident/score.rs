//! How bad an incident is: its severity and its score. README.md tells the same to users.
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
//! Suppressed findings count for neither.
//!
//! Worked example, the one the tests repeat: `got_redirected`, critical, 0.98 gives the hook family
//! 0.90 × 0.98 = 0.882; `link_time_shift`, medium, 0.9 gives linker 0.405; `auth_cpu_shift`,
//! medium, 0.8 gives sshd 0.36. 1 − 0.118 × 0.595 × 0.64 = 0.955, so 96 (alone the hook would
//! give 88).

use serde::Serialize;

use crate::finding::{Family, Finding, Severity};

const FAMILIES: [Family; 4] = [Family::Linker, Family::Hook, Family::Sshd, Family::Sensor];

/// How a score comes about, so that it can be computed again by hand.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Arithmetic {
    /// One for each finding, in their order.
    pub terms: Vec<Term>,
    /// The worst severity among the findings that count.
    pub worst: Severity,
    /// Families with an unexplained finding of at least medium.
    pub witnesses: Vec<Family>,
    /// Severity, raised where there are two witnesses or more.
    pub severity: Severity,
    /// 0–100.
    pub score: u32,
}

/// What one finding contributes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Term {
    /// Its detector.
    pub detector: String,
    /// Its family.
    pub family: Family,
    /// Its severity.
    pub severity: Severity,
    /// Of the severity, 0–1.
    pub weight: f64,
    /// 0–1.
    pub confidence: f64,
    /// 0.5 where something explains it, 0 where it is suppressed, else 1.
    pub factor: f64,
    /// Their product.
    pub strength: f64,
    /// It is its family's strongest: the one that counts.
    pub counts: bool,
}

/// How severity and score of these findings come about.
#[must_use]
pub fn arithmetic(findings: &[Finding]) -> Arithmetic {
    let mut terms: Vec<Term> = findings.iter().map(term).collect();
    for family in FAMILIES {
        let of_family = terms.iter_mut().filter(|term| term.family == family);
        // The first of equals.
        let strongest = of_family.rev().max_by(|a, b| a.strength.total_cmp(&b.strength));
        if let Some(strongest) = strongest {
            strongest.counts = strongest.strength > 0.0;
        }
    }
    let counting = || findings.iter().filter(|finding| finding.suppressed_by.is_none());
    let worst = counting().map(|finding| finding.severity).max().unwrap_or(Severity::Info);
    let witnesses: Vec<Family> = FAMILIES
        .into_iter()
        .filter(|family| counting().any(|finding| testifies(finding, *family)))
        .collect();
    let severity = if witnesses.len() >= 2 { raised(worst) } else { worst };
    let counted = terms.iter().filter(|term| term.counts);
    let doubt: f64 = counted.map(|term| 1.0 - term.strength.min(1.0)).product();
    let score = 100.0 * (1.0 - doubt);
    let score = (0..=100).rev().find(|whole| f64::from(*whole) - 0.5 <= score).unwrap_or(0);
    Arithmetic { terms, worst, witnesses, severity, score }
}

fn testifies(finding: &Finding, family: Family) -> bool {
    finding.family == family
        && finding.severity >= Severity::Medium
        && finding.explained_by.is_none()
}

fn term(finding: &Finding) -> Term {
    let weight = weight(finding.severity);
    let factor = match (&finding.suppressed_by, &finding.explained_by) {
        (Some(_), _) => 0.0,
        (None, Some(_)) => 0.5,
        (None, None) => 1.0,
    };
    Term {
        detector: finding.detector.clone(),
        family: finding.family,
        severity: finding.severity,
        weight,
        confidence: finding.confidence,
        factor,
        strength: weight * finding.confidence * factor,
        counts: false,
    }
}

/// Of a severity, 0–1.
fn weight(severity: Severity) -> f64 {
    match severity {
        Severity::Info => 0.0,
        Severity::Low => 0.20,
        Severity::Medium => 0.45,
        Severity::High => 0.70,
        Severity::Critical => 0.90,
    }
}

fn raised(severity: Severity) -> Severity {
    match severity {
        Severity::Info => Severity::Low,
        Severity::Low => Severity::Medium,
        Severity::Medium => Severity::High,
        Severity::High | Severity::Critical => Severity::Critical,
    }
}
