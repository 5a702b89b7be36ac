//! The arithmetic of an incident's severity and score, step by step.

use std::io::{self, Write};

use crate::cli::term::{Style, Tone};
use crate::finding::Family;
use crate::incident::{Arithmetic, Incident, Term, arithmetic};
use crate::metrics::severity_label;

/// Writes how severity and score come about, so that a reader can compute them by hand.
pub(super) fn text(out: &mut impl Write, incident: &Incident, style: Style) -> io::Result<()> {
    let sum = arithmetic(&incident.findings);
    writeln!(out, "\n{}", style.paint(Tone::Bold, "How the score comes about"))?;
    let said = "strength of a finding = weight of its severity × confidence, halved where something \
                explains it, nothing where it is suppressed; of each family the strongest counts";
    writeln!(out, "{}", style.paint(Tone::Plain, said))?;
    let rows: Vec<_> = sum.terms.iter().map(row).collect();
    style.table(out, &rows)?;
    for line in [score(&sum), severity(&sum)].into_iter().chain(former(incident, &sum)) {
        writeln!(out, "{}", style.paint(Tone::Plain, &line))?;
    }
    Ok(())
}

fn row(term: &Term) -> Vec<(Tone, String)> {
    let factor = match term.factor {
        factor if factor <= 0.0 => " × 0 (suppressed)",
        factor if factor < 1.0 => " × 0.5 (explained)",
        _ => "",
    };
    let product = format!(
        "{} {:.2} × {:.2}{factor} = {:.3}",
        severity_label(term.severity),
        term.weight,
        term.confidence,
        term.strength
    );
    let counts = if term.counts { "counts" } else { "" };
    vec![
        (Tone::Plain, format!("  {}", family(term.family))),
        (Tone::Plain, term.detector.clone()),
        (Tone::Plain, product),
        (Tone::Plain, counts.to_owned()),
    ]
}

/// `score = 100 × (1 − 0.118 × 0.595) = 93`
fn score(sum: &Arithmetic) -> String {
    let factors: Vec<String> = sum
        .terms
        .iter()
        .filter(|term| term.counts)
        .map(|term| format!("{:.3}", 1.0 - term.strength))
        .collect();
    if factors.is_empty() {
        return "score = 0: nothing counts".to_owned();
    }
    format!("score = 100 × (1 − {}) = {}, rounded", factors.join(" × "), sum.score)
}

/// What the severity rests on.
fn severity(sum: &Arithmetic) -> String {
    let worst = severity_label(sum.worst);
    let witnesses: Vec<&str> = sum.witnesses.iter().map(|one| family(*one)).collect();
    let told = match witnesses.as_slice() {
        [] => "no family has an unexplained finding of medium or worse".to_owned(),
        [only] => format!("only {only} has an unexplained finding of medium or worse"),
        all => format!("{} each have an unexplained finding of medium or worse", all.join(", ")),
    };
    let raised = match sum.severity {
        same if same == sum.worst && witnesses.len() < 2 => format!("so it is {worst}"),
        same if same == sum.worst => format!("and nothing is worse than {worst}"),
        raised => format!("so it is raised to {}", severity_label(raised)),
    };
    format!("severity: the worst finding is {worst}; {told}, {raised}")
}

/// Neither ever falls, though findings may have been displaced by others or suppressed since.
fn former(incident: &Incident, sum: &Arithmetic) -> Option<String> {
    let as_told = (incident.severity, incident.score);
    (as_told != (sum.severity, sum.score)).then(|| {
        format!(
            "It is told as {}, {}: neither falls while it is open, and findings that made it so were \
             suppressed, merged or displaced since.",
            severity_label(incident.severity),
            incident.score
        )
    })
}

fn family(family: Family) -> &'static str {
    match family {
        Family::Linker => "linker",
        Family::Hook => "hook",
        Family::Sshd => "sshd",
        Family::Sensor => "sensor",
    }
}
