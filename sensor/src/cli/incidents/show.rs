//! Incidents for people: a table, or one with its story, findings, evidence and advice.

use std::io::{self, Write};

use serde_json::Value;

use crate::cli::term::{Style, Tone, severity_tone};
use crate::finding::{Evidence, Finding};
use crate::incident::{Decision, Incident, State, Verb, brief};
use crate::metrics::severity_label;

/// Characters of a line of text.
const LINE: usize = 96;

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
        ("state", format!("{}{}", state(incident), over(incident))),
        ("score", format!("{} of 100", incident.score)),
        ("hosts", incident.hosts.join(", ")),
    ];
    let decided = incident.decisions.iter().map(|one| row(&one.verb.to_string(), decision(one)));
    let rows: Vec<_> =
        facts.into_iter().map(|(name, fact)| row(name, fact)).chain(decided).collect();
    style.table(out, &rows)?;
    if incident.partial {
        let text = "Records were lost while it was open: there may be more than is told here.";
        writeln!(out, "{}", style.paint(Tone::Warn, text))?;
    }
    let brief = brief(incident);
    section(out, style, "What it means", &brief.meaning)?;
    section(out, style, "What happened", &incident.story)?;
    section(out, style, "How sure it is", &brief.sure)?;
    section(out, style, "What is blamed", &brief.blame.join("\n"))?;
    section(out, style, "What would settle it", &brief.decides)?;
    steps(out, style, &brief.steps)?;
    let techniques: Vec<_> = brief.attack.iter().map(|(id, name)| format!("{id} {name}")).collect();
    section(out, style, "MITRE ATT&CK", &techniques.join("\n"))?;
    writeln!(out, "\n{}", style.paint(Tone::Bold, "Findings and their evidence"))?;
    incident.findings.iter().try_for_each(|finding| write_finding(out, finding, style))?;
    let text = format!("`halfsecond explain {}` has the arithmetic of the score.", incident.id);
    writeln!(out, "\n{}", style.paint(Tone::Plain, &text))
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
        (!process.ancestors.is_empty()).then(|| row("  parents", process.ancestors.join(", "))),
    );
    rows.extend(process.container.as_ref().map(|id| row("  container", id.clone())));
    rows.extend(process.pod.as_ref().map(|pod| row("  pod", pod.clone())));
    rows.push(row("  confidence", format!("{:.2}", finding.confidence)));
    rows.extend((!finding.attack.is_empty()).then(|| row("  ATT&CK", finding.attack.join(", "))));
    rows.extend(finding.explained_by.as_ref().map(|by| row("  explained by", by.clone())));
    rows.extend(finding.suppressed_by.as_ref().map(|by| row("  suppressed by", by.clone())));
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
        .filter(|(key, value)| *key != "kind" && !value.is_null() && value.as_str() != Some(""))
        .map(|(key, value)| row(&format!("    {}", key.replace('_', " ")), text(value)))
        .collect();
    style.table(out, &rows)
}

fn section(out: &mut impl Write, style: Style, heading: &str, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", style.paint(Tone::Bold, heading))?;
    for line in text.lines() {
        for line in wrapped(line, LINE) {
            writeln!(out, "{}", style.paint(Tone::Plain, &line))?;
        }
    }
    Ok(())
}

/// Numbered, where there is more than one.
fn steps(out: &mut impl Write, style: Style, steps: &[String]) -> io::Result<()> {
    if let [only] = steps {
        return section(out, style, "What to do", only);
    }
    writeln!(out, "\n{}", style.paint(Tone::Bold, "What to do"))?;
    for (number, step) in (1..).zip(steps) {
        for (index, line) in wrapped(step, LINE - 4).iter().enumerate() {
            let lead = if index == 0 { format!("{number:>2}. ") } else { "    ".to_owned() };
            writeln!(out, "{}", style.paint(Tone::Plain, &format!("{lead}{line}")))?;
        }
    }
    Ok(())
}

/// Lines of at most `width` characters, where blanks allow it. A command in backquotes stays on one
/// line, so that it can be copied.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let (mut quoted, mut from) = (false, 0);
    for word in text.split(' ') {
        let goes_on = quoted;
        quoted ^= word.matches('`').count() % 2 == 1;
        let length = lines.last().map_or(0, |line| line.chars().count());
        // A command that would not fit begins a line of its own.
        let rest = text.get(from..).unwrap_or_default();
        let needed = if !goes_on && quoted { command(rest) } else { word.chars().count() };
        from += word.len() + 1;
        match lines.last_mut() {
            Some(line) if length > 0 && (goes_on || length + 1 + needed <= width) => {
                line.push(' ');
                line.push_str(word);
            }
            Some(line) if length == 0 => line.push_str(word),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Characters up to the end of the first quotation in `text`.
fn command(text: &str) -> usize {
    let mut quotes = text.match_indices('`').skip(1);
    let end = quotes.next().map_or(text.len(), |(at, quote)| at + quote.len());
    text.get(..end).unwrap_or(text).chars().count()
}

/// When, by whom and why.
fn decision(decision: &Decision) -> String {
    let until = decision.until.map(|until| format!(", until {until:.0}")).unwrap_or_default();
    let why = Some(&decision.why).filter(|why| !why.is_empty());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    format!("{:.0} by {} (uid {}){until}{why}", decision.time, decision.who, decision.uid)
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
        State::Acknowledged => "acknowledged",
        State::Suppressed => "suppressed",
        State::Closed => "closed",
    }
}

/// A word for an incident that nobody has closed: it reads as if somebody had.
fn over(incident: &Incident) -> &'static str {
    let is_closed = incident.state == State::Closed;
    let by_somebody = incident.decisions.iter().any(|one| one.verb == Verb::Close);
    if is_closed && !by_somebody {
        " (nothing has joined it for a while; nobody has said that it is settled)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_blanks_and_long_words_stay_whole() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a /a/very/long/path b", 6), ["a", "/a/very/long/path", "b"]);
        assert_eq!(wrapped("", 6), [""]);
        assert_eq!(wrapped("do (`a b c`) now", 9), ["do", "(`a b c`)", "now"]);
        assert_eq!(wrapped("`a b", 3), ["`a b"], "one that never ends");
    }
}
