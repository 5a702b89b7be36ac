//! `halfsecond explain ID`: why an incident was told, and the samples behind times that are part of
//! it.

mod sum;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::warn;

use super::incidents::show::heading;
use super::incidents::{self, ReadStore};
use super::logins::Around;
use super::save::save;
use super::term::{Style, Tone, escape_json, severity_tone};
use super::{Exit, Failure, Global, ended};
use crate::config::Config;
use crate::finding::{Evidence, Finding};
use crate::incident::{Incident, arithmetic, since_sentence};
use crate::metrics::severity_label;

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The incident: its id, or the beginning of it
    pub id: String,
    /// Write the distributions of login times as a picture to FILE
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub svg: Option<PathBuf>,
}

/// Writes the reasoning to `out`.
pub fn explain(
    global: &Global,
    config: &Config,
    args: &ExplainArgs,
    read_store: ReadStore,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let incident = incidents::one(config, &args.id, read_store)?;
    let around = around(config, &incident);
    if let Some(file) = &args.svg {
        let Some(around) = &around else {
            let text =
                format!("no login times belong to {}: there is nothing to draw", incident.id);
            return Err(Failure::Usage(text));
        };
        save(file, &around.picture(&incident.title)).map_err(|source| Failure::Internal {
            what: format!("cannot write {}", file.display()),
            source: Box::new(source),
        })?;
    }
    let written = if global.json {
        writeln!(out, "{}", escape_json(&object(&incident, around.as_ref()).to_string()))
    } else {
        text(out, &incident, around.as_ref(), Style::stdout())
    };
    ended(written, Exit::Findings)
}

/// The samples of the programs whose times the incident speaks of, where it does and they can be
/// had.
fn around(config: &Config, incident: &Incident) -> Option<Around> {
    let timed = |finding: &&Finding| finding.evidence.iter().any(is_timing);
    let findings = || incident.findings.iter().filter(timed);
    let began: Timestamp = findings().map(|finding| finding.time).min()?;
    let subjects: BTreeSet<&str> = findings().map(|finding| finding.subject.as_str()).collect();
    Around::new(config, &subjects, began, &incident.id)
        .inspect_err(|failure| warn!(reason = failure.told(), "no logins are drawn"))
        .ok()
        .flatten()
}

fn is_timing(evidence: &Evidence) -> bool {
    matches!(evidence, Evidence::Timing { .. })
}

fn text(
    out: &mut impl Write,
    incident: &Incident,
    around: Option<&Around>,
    style: Style,
) -> io::Result<()> {
    heading(out, incident, style)?;
    writeln!(out, "score {} of 100 from {} findings", incident.score, incident.findings.len())?;
    for finding in &incident.findings {
        writeln!(
            out,
            "\n{}  {}  confidence {:.2}",
            style.paint(severity_tone(finding.severity), severity_label(finding.severity)),
            style.paint(Tone::Bold, &finding.detector),
            finding.confidence
        )?;
        writeln!(out, "  {}", style.paint(Tone::Plain, &finding.title))?;
        let since = finding.evidence.iter().filter_map(|one| since_sentence(finding, one));
        for reason in finding.evidence.iter().filter_map(reason).chain(since) {
            writeln!(out, "  {}", style.paint(Tone::Plain, &reason))?;
        }
        if let Some(by) = &finding.explained_by {
            writeln!(out, "  {}", style.paint(Tone::Plain, &format!("explained by {by}")))?;
        }
        if let Some(by) = &finding.suppressed_by {
            writeln!(out, "  {}", style.paint(Tone::Plain, &format!("suppressed by {by}")))?;
        }
    }
    sum::text(out, incident, style)?;
    writeln!(out)?;
    match around {
        Some(around) => around.text(out, style),
        None => writeln!(out, "No login times to draw; `halfsecond incidents` has the evidence."),
    }
}

/// What was found against what the baseline, or the loader's own rules, say, in a sentence.
fn reason(evidence: &Evidence) -> Option<String> {
    Some(match evidence {
        Evidence::Timing { .. } => timing(evidence)?,
        Evidence::Slot { symbol, expected, actual, .. } => {
            format!("{symbol}: the loader would have chosen {expected}, memory has {actual}")
        }
        Evidence::Code { place, length, expected, actual, .. } => {
            format!("{place}: {length} bytes differ; the file has {expected}, memory has {actual}")
        }
        Evidence::Caller { function, caller, known, .. } => {
            format!("{function} was called from {caller}; {}", learned("callers", known))
        }
        Evidence::Opened { library, caller, known, .. } => {
            format!("{library} was opened by {caller}; {}", learned("askers", known))
        }
        Evidence::Environment { name, value } => {
            format!("{name} is set to {value}; the baseline has no such value")
        }
        Evidence::Repeated { count, first, last } => {
            format!("seen {count} times, from {first:.0} to {last:.0}; it counts once")
        }
        _ => return None,
    })
}

/// `learned callers: /usr/sbin/sshd`
fn learned(what: &str, known: &[String]) -> String {
    if known.is_empty() {
        return format!("no {what} were learned");
    }
    format!("learned {what}: {}", known.join(", "))
}

/// A measured time against what was usual.
fn timing(evidence: &Evidence) -> Option<String> {
    let Evidence::Timing {
        metric,
        seconds,
        baseline_seconds,
        limit_seconds,
        samples,
        module,
        module_seconds,
        ..
    } = evidence
    else {
        return None;
    };
    let ms = |seconds: f64| format!("{:.2} ms", seconds * 1e3);
    let mut told = format!(
        "{metric}: {} against a median of {} in {samples} samples; the limit was {}",
        ms(*seconds),
        ms(*baseline_seconds),
        ms(*limit_seconds)
    );
    if let Some(module) = module {
        let share = module_seconds.map(|share| format!(" ({})", ms(share))).unwrap_or_default();
        told = format!("{told}; most of the excess in {module}{share}");
    }
    Some(told)
}

fn object(incident: &Incident, around: Option<&Around>) -> Value {
    let each = |finding: &Finding| {
        let timing: Vec<_> = finding.evidence.iter().filter(|one| is_timing(one)).collect();
        json!({
            "detector": finding.detector, "severity": finding.severity,
            "confidence": finding.confidence, "title": finding.title, "subject": finding.subject,
            "explained_by": finding.explained_by, "suppressed_by": finding.suppressed_by,
            "timing": timing,
        })
    };
    json!({
        "id": incident.id, "title": incident.title, "severity": incident.severity,
        "score": incident.score, "partial": incident.partial,
        "findings": incident.findings.iter().map(each).collect::<Vec<_>>(),
        "arithmetic": arithmetic(&incident.findings),
        "samples": around.map(Around::json),
    })
}
