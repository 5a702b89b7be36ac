//! A scan for people: what was found, slot by slot, then the account.

use std::io::{self, Write};

use super::found::{Findings, Tally};
use crate::cli::term::{Style, Tone};
use crate::finding::Evidence;

pub(super) fn text(
    out: &mut impl Write,
    found: &[Findings],
    tally: &Tally,
    style: Style,
) -> io::Result<()> {
    for findings in found {
        write_findings(out, findings, style)?;
    }
    let code = &tally.code;
    let verdict = match (tally.mismatches, tally.checked) {
        (0, _) if code.patches > 0 => {
            let text = format!("Code was changed in {} places.", code.patches);
            (Tone::Bad, text.replace("in 1 places", "in 1 place"))
        }
        (0, _) if code.strays > 0 => {
            (Tone::Bad, "Code is mapped that the loader does not account for.".to_owned())
        }
        (1, _) => (Tone::Bad, "1 slot leads elsewhere.".to_owned()),
        (2.., _) => (Tone::Bad, format!("{} slots lead elsewhere.", tally.mismatches)),
        (0, _) if tally.audited > 0 => {
            (Tone::Bad, "A loader calls back somebody for auditing unrequested.".to_owned())
        }
        (0, 0) => (Tone::Warn, "Nothing was checked.".to_owned()),
        (0, _) => (Tone::Good, "No slot leads elsewhere, no code was changed.".to_owned()),
    };
    writeln!(out, "{}", style.paint(verdict.0, &verdict.1))?;
    style.table(out, &account(tally))?;
    let lists = [
        ("Explained", &code.notes),
        ("Not checked", &tally.failures),
        ("Checked in part", &tally.gaps),
    ];
    for (heading, lines) in lists {
        if lines.is_empty() {
            continue;
        }
        writeln!(out, "\n{}", style.paint(Tone::Bold, heading))?;
        for line in lines {
            writeln!(out, "  {}", style.paint(Tone::Plain, line))?;
        }
    }
    Ok(())
}

fn write_findings(out: &mut impl Write, findings: &Findings, style: Style) -> io::Result<()> {
    let who = &findings.who;
    let uid = who.uid.map_or_else(|| "?".to_owned(), |uid| uid.to_string());
    let heading = format!("{}  {}", who.pid, who.exe);
    writeln!(out, "{}", style.paint(Tone::Bold, &heading))?;
    let mut rows = vec![row("  command", &who.cmdline.join(" ")), row("  uid", &uid)];
    rows.extend(findings.preloads.iter().map(|path| row("  preloads", path)));
    rows.extend(findings.tools.iter().map(|tool| row("  by name", tool)));
    style.table(out, &rows)?;
    for evidence in &findings.evidence {
        if let Evidence::Audit { callback, callback_module, .. } = evidence {
            let text = "  The loader calls back for auditing, which nobody asked for";
            writeln!(out, "{}", style.paint(Tone::Bold, text))?;
            style
                .table(out, &[row("    leads to", callback), row("    module", callback_module)])?;
        }
        write_code(out, evidence, style)?;
        let Evidence::Slot { module, slot, slot_kind, symbol, expected, actual, .. } = evidence
        else {
            continue;
        };
        let symbol = if symbol.is_empty() { "(no symbol)" } else { symbol };
        writeln!(out, "  {}", style.paint(Tone::Bad, symbol))?;
        let place = format!("{module} {slot} {slot_kind}");
        let rows =
            [row("    slot", &place), row("    expected", expected), row("    leads to", actual)];
        style.table(out, &rows)?;
    }
    if !findings.settled {
        let text = "  The process was still changing; check it again with --pid.";
        writeln!(out, "{}", style.paint(Tone::Warn, text))?;
    }
    writeln!(out)
}

/// Changed code and stray mappings; nothing for other evidence.
fn write_code(out: &mut impl Write, evidence: &Evidence, style: Style) -> io::Result<()> {
    match evidence {
        Evidence::Code {
            module,
            place,
            expected,
            actual,
            expected_code,
            actual_code,
            leads_to,
            ..
        } => {
            writeln!(out, "  {}", style.paint(Tone::Bad, place))?;
            let mut rows = vec![row("    code of", module), row("    file has", expected)];
            rows.extend(expected_code.iter().map(|line| row("", line)));
            rows.push(row("    memory has", actual));
            rows.extend(actual_code.iter().map(|line| row("", line)));
            if !leads_to.is_empty() {
                rows.push(row("    leads to", leads_to));
            }
            style.table(out, &rows)
        }
        Evidence::Mapping { module, problem, address, size, memory, differing, .. } => {
            writeln!(out, "  {}", style.paint(Tone::Bad, &format!("{module} {problem}")))?;
            let place = format!("{address}, {size} bytes");
            let mut rows = vec![row("    at", &place), row("    memory", memory)];
            if let Some(bytes) = differing {
                rows.push(row("    bytes differing", &bytes.to_string()));
            }
            style.table(out, &rows)
        }
        _ => Ok(()),
    }
}

/// Lines that are zero are left out, but for the first three.
fn account(tally: &Tally) -> Vec<Vec<(Tone, String)>> {
    let denied = format!("not read: {}", tally.why_denied());
    let lines = [
        ("processes", tally.seen, true),
        ("checked", tally.checked, true),
        ("slots compared", tally.slots.total(), true),
        ("code pages compared with their file", tally.code.pages, false),
        ("code changed", tally.code.patches, false),
        ("mappings and modules that contradict", tally.code.strays, false),
        ("code changed by probes and debuggers", tally.code.explained, false),
        ("code pages written to and as they were", tally.code.restored, false),
        ("with executable memory of no module", tally.code.with_loose, false),
        ("code whose file changed since the start", tally.code.file_changed, false),
        ("audited by the loader unrequested", tally.audited, false),
        ("static, no slots", tally.without_loader, false),
        ("not covered: unknown loader, 32-bit ARM", tally.not_covered, false),
        ("slots whose file changed since the start", tally.file_changed, false),
        ("with preloaded libraries", tally.with_preloads, false),
        ("checked in part", tally.with_gaps, false),
        (&denied, tally.denied, false),
        ("failed", tally.failed, false),
        ("ended meanwhile", tally.gone, false),
    ];
    let told = lines.into_iter().filter(|(_, number, always)| *always || *number > 0);
    told.map(|(name, number, _)| row(&format!("  {name}"), &number.to_string())).collect()
}

fn row(name: &str, fact: &str) -> Vec<(Tone, String)> {
    vec![(Tone::Plain, name.to_owned()), (Tone::Plain, fact.to_owned())]
}
