//! `halfsecond scan --self-test`: changes slots, code and the loader's list of children and sees
//! that each change is found.
//!
//! The children are this command's own and wait for input: this program once more, and a small one
//! of the host. They are killed afterwards.

use std::io::{self, Write};

use serde::Serialize;

use super::line;
use super::mutate::Target;
use super::trial::Trial;
use crate::cli::progress::Progress;
use crate::cli::term::{Style, Tone};
use crate::cli::{Exit, Failure, Global, ended};
use crate::verify::{Limits, SlotKind};

/// Missed changes told one by one, of each kind.
const MISSED_MAX: usize = 8;
/// Changes beside those of slots.
pub(super) const CODE: &str = "code";
pub(super) const VDSO: &str = "vdso";
pub(super) const UNLINKED: &str = "unlinked_module";
pub(super) const FALSE_ADDRESS: &str = "false_address";
pub(super) const SWAPPED: &str = "anonymous_code";

/// What became of one kind of change; one JSON object.
#[derive(Debug, Serialize)]
struct Row {
    kind: &'static str,
    what: &'static str,
    tried: u32,
    found: u32,
    /// The first that were not found.
    missed: Vec<String>,
    /// Why none was tried.
    skipped: Option<&'static str>,
}

/// What became of every kind.
#[derive(Debug)]
pub(super) struct Rows {
    rows: Vec<Row>,
    progress: Progress,
}

/// What all of them amount to; the last JSON object.
#[derive(Debug, Serialize)]
struct Summary {
    kind: &'static str,
    programs: Vec<String>,
    tried: u32,
    found: u32,
}

/// Runs every trial, and writes what was found to `out`.
pub(super) fn run(global: &Global, out: &mut impl Write) -> Result<Exit, Failure> {
    let targets = Target::start().map_err(|error| refused("start a child to change", error))?;
    let (rows, summary) = test(targets, Limits::default(), global.json)?;
    let exit = summary.exit();
    ended(write(global, out, &rows, &summary), exit)
}

/// Every trial with verifiers of these limits.
fn test(targets: Vec<Target>, limits: Limits, quiet: bool) -> Result<(Vec<Row>, Summary), Failure> {
    let mut rows = Rows::new(Progress::new("changing a child", quiet));
    let mut programs = Vec::new();
    for target in targets {
        let mut trial = Trial::begin(target, limits)?;
        programs.push(trial.program());
        let ran = trial.run(&mut rows);
        rows.progress.clear();
        ran?;
    }
    let rows = rows.ended();
    let sum = |number: fn(&Row) -> u32| rows.iter().map(number).sum::<u32>();
    let (tried, found) = (sum(|row| row.tried), sum(|row| row.found));
    Ok((rows, Summary { kind: "summary", programs, tried, found }))
}

// === impl Rows ===

impl Rows {
    fn new(progress: Progress) -> Self {
        let slots = SlotKind::ALL.into_iter().map(SlotKind::key);
        let others = [CODE, VDSO, UNLINKED, FALSE_ADDRESS, SWAPPED];
        Self { rows: slots.chain(others).map(Row::new).collect(), progress }
    }

    /// One more change; `told` names it where it was not found.
    pub(super) fn add(&mut self, what: &str, found: bool, told: impl FnOnce() -> String) {
        let Some(row) = self.rows.iter_mut().find(|row| row.what == what) else { return };
        row.tried += 1;
        row.found += u32::from(found);
        if !found && row.missed.len() < MISSED_MAX {
            row.missed.push(told());
        }
        self.progress.doing(what);
    }

    /// Why a kind is not tried.
    pub(super) fn skip(&mut self, what: &str, why: &'static str) {
        let row = self.rows.iter_mut().find(|row| row.what == what);
        if let Some(row) = row {
            row.skipped = Some(why);
        }
    }

    fn ended(mut self) -> Vec<Row> {
        for row in &mut self.rows {
            if row.tried > 0 {
                row.skipped = None;
            } else {
                row.skipped.get_or_insert("no child has any");
            }
        }
        self.rows
    }
}

// === impl Row ===

impl Row {
    fn new(what: &'static str) -> Self {
        Self { kind: "mutation", what, tried: 0, found: 0, missed: Vec::new(), skipped: None }
    }

    fn shown(&self) -> Vec<(Tone, String)> {
        let tone = if self.found < self.tried { Tone::Bad } else { Tone::Plain };
        vec![
            (Tone::Plain, format!("  {}", self.what)),
            (Tone::Plain, self.tried.to_string()),
            (tone, self.found.to_string()),
            (Tone::Plain, self.skipped.unwrap_or_default().to_owned()),
        ]
    }
}

// === impl Summary ===

impl Summary {
    fn exit(&self) -> Exit {
        if self.found == self.tried { Exit::Success } else { Exit::Findings }
    }
}

fn write(global: &Global, out: &mut impl Write, rows: &[Row], sum: &Summary) -> io::Result<()> {
    if global.json {
        rows.iter().try_for_each(|row| line(out, row))?;
        return line(out, sum);
    }
    let style = Style::stdout();
    let of = sum.programs.join(" and ");
    let (tone, verdict) = match sum.tried - sum.found {
        0 => (Tone::Good, format!("All {} changes of {of} were found.", sum.tried)),
        missed => (Tone::Bad, format!("{missed} of {} changes of {of} were missed.", sum.tried)),
    };
    writeln!(out, "{}", style.paint(tone, &verdict))?;
    let heads = ["  kind", "tried", "found", ""];
    let mut table = vec![heads.map(|head| (Tone::Bold, head.to_owned())).to_vec()];
    table.extend(rows.iter().map(Row::shown));
    style.table(out, &table)?;
    for row in rows {
        for missed in &row.missed {
            let text = format!("  missed: {}: {missed}", row.what);
            writeln!(out, "{}", style.paint(Tone::Bad, &text))?;
        }
    }
    Ok(())
}

/// EIO is what a kernel answers that was started with `proc_mem.force_override=never`.
pub(super) fn refused(what: &str, error: io::Error) -> Failure {
    let denied = error.kind() == io::ErrorKind::PermissionDenied
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    if denied {
        return Failure::Unsupported(format!("cannot {what}: {error}; run as root"));
    }
    Failure::Internal { what: format!("cannot {what}"), source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Depth;

    #[test]
    fn a_verifier_that_does_not_look_misses_changes_and_fails_the_test() {
        let Some(target) = Target::of_host() else {
            println!("skipped: there is no cat here");
            return;
        };
        let limits = Limits { depth: Depth::Got, text: false, ..Limits::default() };
        let (rows, summary) = match test(vec![target], limits, true) {
            Err(Failure::Unsupported(why)) => {
                println!("skipped: {why}");
                return;
            }
            ran => ran.unwrap(),
        };
        let row = |what: &str| rows.iter().find(|row| row.what == what).unwrap();
        for blind in [SlotKind::Dynamic.key(), CODE, UNLINKED, FALSE_ADDRESS] {
            let row = row(blind);
            assert!(row.tried > 0 && row.found == 0, "{row:?}");
            assert!(!row.missed.is_empty() && row.missed.len() <= MISSED_MAX, "{row:?}");
        }
        let seen = row(SlotKind::GlobDat.key());
        assert!(seen.tried > 0 && seen.found == seen.tried, "{seen:?}");
        assert_eq!(summary.exit(), Exit::Findings);
        let (mut out, missed) = (Vec::new(), summary.tried - summary.found);
        let global = Global { config: None, json: false, verbose: 0, log_level: None };
        write(&global, &mut out, &rows, &summary).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(&format!("{missed} of {} changes of ", summary.tried)), "{text}");
        assert!(text.contains("\n  missed: code: 0x"), "{text}");
    }
}
