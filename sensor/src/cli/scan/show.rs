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
    let verdict = match (tally.mismatches, tally.checked) {
        (1, _) => (Tone::Bad, "1 slot leads elsewhere.".to_owned()),
        (2.., _) => (Tone::Bad, format!("{} slots lead elsewhere.", tally.mismatches)),
        (0, _) if tally.audited > 0 => {
            (Tone::Bad, "A loader calls back somebody for auditing unrequested.".to_owned())
        }
        (0, 0) => (Tone::Warn, "Nothing was checked.".to_owned()),
        (0, _) => (Tone::Good, "No slot leads elsewhere.".to_owned()),
    };
    writeln!(out, "{}", style.paint(verdict.0, &verdict.1))?;
    style.table(out, &account(tally))?;
    for (heading, lines) in [("Not checked", &tally.failures), ("Checked in part", &tally.gaps)] {
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
    style.table(out, &rows)?;
    for evidence in &findings.evidence {
        if let Evidence::Audit { callback, callback_module, .. } = evidence {
            let text = "  The loader calls back for auditing, which nobody asked for";
            writeln!(out, "{}", style.paint(Tone::Bold, text))?;
            style
                .table(out, &[row("    leads to", callback), row("    module", callback_module)])?;
        }
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

/// Lines that are zero are left out, but for the first three.
fn account(tally: &Tally) -> Vec<Vec<(Tone, String)>> {
    let denied = format!("not read: {}", tally.why_denied());
    let lines = [
        ("processes", tally.seen, true),
        ("checked", tally.checked, true),
        ("slots compared", tally.slots.total(), true),
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
