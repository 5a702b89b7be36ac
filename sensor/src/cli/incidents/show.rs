//! Incidents for people: a table, or one with its story, findings, evidence and advice.

use std::io::{self, Write};

use serde_json::Value;

use crate::cli::term::{Style, Tone, severity_tone};
use crate::finding::{Evidence, Finding};
use crate::incident::{Incident, State};
use crate::metrics::severity_label;

pub(super) fn list(out: &mut impl Write, all: &[Incident], style: Style) -> io::Result<()> {
    if all.is_empty() {
        return writeln!(out, "No incidents.");
    }
    let heading = ["ID", "OPENED", "SEVERITY", "STATE", "TITLE"];
    let mut rows = vec![heading.map(|text| (Tone::Bold, text.to_owned())).to_vec()];
    rows.extend(all.iter().map(|incident| {
        vec![
            (Tone::Plain, incident.id.clone()),
            (Tone::Plain, format!("{:.0}", incident.opened)),
            (severity_tone(incident.severity), severity_label(incident.severity).to_owned()),
            (Tone::Plain, state(incident).to_owned()),
            (Tone::Plain, incident.title.clone()),
        ]
    }));
    style.table(out, &rows)
}

pub(super) fn one(out: &mut impl Write, incident: &Incident, style: Style) -> io::Result<()> {
    heading(out, incident, style)?;
    let facts = [
        ("id", incident.id.clone()),
        ("opened", format!("{:.3}", incident.opened)),
        ("updated", format!("{:.3}", incident.updated)),
        ("state", state(incident).to_owned()),
        ("score", incident.score.to_string()),
        ("hosts", incident.hosts.join(", ")),
    ];
    style.table(out, &facts.map(|(name, fact)| row(name, fact)))?;
    if incident.partial {
        let text = "Records were lost while it was open: there may be more than is told here.";
        writeln!(out, "{}", style.paint(Tone::Warn, text))?;
    }
    section(out, style, "Story", &incident.story)?;
    writeln!(out, "\n{}", style.paint(Tone::Bold, "Findings"))?;
    for finding in &incident.findings {
        write_finding(out, finding, style)?;
    }
    section(out, style, "What to do", &incident.recommendation)
}

/// How bad it is and what it is.
pub(in crate::cli) fn heading(
    out: &mut impl Write,
    incident: &Incident,
    style: Style,
) -> io::Result<()> {
    let severity = severity_label(incident.severity);
    writeln!(
        out,
        "{}  {}",
        style.paint(severity_tone(incident.severity), &severity.to_uppercase()),
        style.paint(Tone::Bold, &incident.title)
    )
}

fn write_finding(out: &mut impl Write, finding: &Finding, style: Style) -> io::Result<()> {
    writeln!(
        out,
        "\n{}  {}  {}",
        style.paint(severity_tone(finding.severity), severity_label(finding.severity)),
        style.paint(Tone::Bold, &finding.detector),
        style.paint(Tone::Plain, &finding.title)
    )?;
    let process = &finding.process;
    let mut rows = vec![
        row("  time", format!("{:.3}", finding.time)),
        row("  process", format!("{} {} (uid {})", process.pid, process.exe, process.uid)),
    ];
    rows.extend((!process.cmdline.is_empty()).then(|| row("  command", process.cmdline.join(" "))));
    rows.extend(
        (!process.ancestors.is_empty()).then(|| row("  below", process.ancestors.join(", "))),
    );
    rows.extend(process.container.as_ref().map(|id| row("  container", id.clone())));
    rows.extend(process.pod.as_ref().map(|pod| row("  pod", pod.clone())));
    rows.push(row("  confidence", format!("{:.2}", finding.confidence)));
    rows.extend((!finding.attack.is_empty()).then(|| row("  ATT&CK", finding.attack.join(", "))));
    rows.extend(finding.explained_by.as_ref().map(|by| row("  explained by", by.clone())));
    style.table(out, &rows)?;
    finding.evidence.iter().try_for_each(|evidence| write_evidence(out, evidence, style))
}

/// The keys are the evidence's own, as the interfaces name them.
fn write_evidence(out: &mut impl Write, evidence: &Evidence, style: Style) -> io::Result<()> {
    let value = serde_json::to_value(evidence)?;
    let Some(object) = value.as_object() else { return Ok(()) };
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    writeln!(out, "  {}", style.paint(Tone::Bold, kind))?;
    let rows: Vec<_> = object
        .iter()
        .filter(|(key, value)| *key != "kind" && !value.is_null())
        .map(|(key, value)| row(&format!("    {}", key.replace('_', " ")), text(value)))
        .collect();
    style.table(out, &rows)
}

fn section(out: &mut impl Write, style: Style, heading: &str, text: &str) -> io::Result<()> {
    writeln!(out, "\n{}", style.paint(Tone::Bold, heading))?;
    text.lines().try_for_each(|line| writeln!(out, "{}", style.paint(Tone::Plain, line)))
}

fn row(name: &str, fact: String) -> Vec<(Tone, String)> {
    vec![(Tone::Plain, name.to_owned()), (Tone::Plain, fact)]
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn state(incident: &Incident) -> &'static str {
    match incident.state {
        State::Open => "open",
        State::Closed => "closed",
    }
}
