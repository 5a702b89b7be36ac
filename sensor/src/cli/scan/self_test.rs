//! `halfsecond scan --self-test`: changes slots and code of a child and sees that each is found.
//!
//! The child is this command's own, stopped while it is changed and killed afterwards: nothing that
//! is written into it is ever called.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::line;
use super::mutate::{Area, Target};
use super::not_checked;
use crate::cli::progress::Progress;
use crate::cli::term::{Style, Tone};
use crate::cli::{Exit, Failure, Global, ended};
use crate::verify::{Limits, Place, Places, SlotKind, Verifier, VerifyError};

/// Slots of each kind that are changed, spread over all of them.
const SAMPLE: usize = 4;
/// Missed changes told one by one, of each kind.
const MISSED_MAX: usize = 8;

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
    skipped: Option<String>,
}

/// What all of them amount to; the last JSON object.
#[derive(Debug, Serialize)]
struct Summary {
    kind: &'static str,
    program: String,
    tried: u32,
    found: u32,
}

/// The child with who looks at it.
struct Trial {
    target: Target,
    verifier: Verifier,
    /// For code, which takes longer to compare.
    reader: Verifier,
    areas: Vec<Area>,
    system: Option<u64>,
}

/// Runs every trial, and writes what was found to `out`.
pub(super) fn run(global: &Global, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut progress = Progress::new("changing a child", global.json);
    let target = Target::start().map_err(|error| refused("start a child to change", error))?;
    let limits = Limits { recheck_after: Duration::ZERO, text: false, ..Limits::default() };
    let mut verifier = Verifier::new(limits);
    let places = verifier.places(target.pid()).map_err(not_checked)?;
    let areas = target.areas().map_err(|error| refused("read the maps of the child", error))?;
    let reader = Verifier::new(Limits { text: true, ..limits });
    let program = target.program.display().to_string();
    let mut trial = Trial { target, verifier, reader, areas, system: places.system };
    trial.require_clean()?;
    let rows = trial.rows(&places, &mut progress);
    progress.clear();
    let rows = rows?;
    let sum = |number: fn(&Row) -> u32| rows.iter().map(number).sum::<u32>();
    let (tried, found) = (sum(|row| row.tried), sum(|row| row.found));
    let summary = Summary { kind: "summary", program, tried, found };
    let exit = if found == tried { Exit::Success } else { Exit::Findings };
    ended(write(global, out, &rows, &summary), exit)
}

impl Trial {
    /// A child that is not clean to begin with would prove nothing.
    fn require_clean(&mut self) -> Result<(), Failure> {
        let report = self.reader.check(self.target.pid()).map_err(not_checked)?;
        if report.is_clean() && report.settled {
            return Ok(());
        }
        let program = self.target.program.display();
        let text = format!("{program} is changed already, before the test; run halfsecond scan");
        Err(Failure::Internal {
            what: "the self-test cannot begin".to_owned(),
            source: text.into(),
        })
    }

    fn rows(&mut self, places: &Places, progress: &mut Progress) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        for (number, kind) in SlotKind::ALL.into_iter().enumerate() {
            progress.left((SlotKind::ALL.len() - number) * SAMPLE * 4);
            let all: Vec<&Place> = places.slots.iter().filter(|one| one.kind == kind).collect();
            let step = (all.len() / SAMPLE).max(1);
            let mut row = Row::new(kind.key());
            for place in all.iter().step_by(step).take(SAMPLE) {
                self.change_slot(place, &mut row)?;
            }
            if all.is_empty() {
                row.skipped = Some("the child has none".to_owned());
            }
            rows.push(row);
        }
        rows.push(self.change_code("code", |area| area.path.starts_with('/'))?);
        rows.push(self.change_code("vdso", |area| area.path == "[vdso]")?);
        let mut strange = Row::new("anonymous_code");
        strange.skipped = Some("cannot be mapped from outside".to_owned());
        rows.push(strange);
        Ok(rows)
    }

    /// Four values one after the other, and each time the old one again.
    fn change_slot(&mut self, place: &Place, row: &mut Row) -> Result<(), Failure> {
        let cannot = |error| refused("change the memory of the child", error);
        let old = self.target.word(place.addr, place.width).map_err(cannot)?;
        for (what, value) in self.values(place, old) {
            self.target.set_word(place.addr, place.width, value).map_err(cannot)?;
            let report = self.verifier.check(self.target.pid());
            self.target.set_word(place.addr, place.width, old).map_err(cannot)?;
            let found = match report {
                Ok(report) => report.mismatches.iter().any(|one| one.slot_addr == place.addr),
                Err(error @ VerifyError::Permission { .. }) => return Err(not_checked(error)),
                Err(_) => false,
            };
            row.add(found, || format!("{:#x} of {}: {what}", place.addr, place.module));
        }
        Ok(())
    }

    /// What an attacker might write: another function, a place inside the right one, memory
    /// without a file, the stack.
    fn values(&self, place: &Place, old: u64) -> [(&'static str, u64); 4] {
        let area = |fits: fn(&Area) -> bool| self.areas.iter().find(|area| fits(area));
        let start = |found: Option<&Area>| found.map_or(0x1000, |area| area.start + 0x10);
        let other = self.areas.iter().find(|area| area.is_code() && area.path != place.module);
        let function = self.system.filter(|system| *system != old);
        let memory = start(area(|area| area.path == "[heap]" || area.path.is_empty()));
        [
            ("another function", function.unwrap_or_else(|| start(other))),
            ("inside the right one", old.wrapping_add(1)),
            ("memory without a file", memory),
            ("the stack", start(area(|area| area.path == "[stack]"))),
        ]
    }

    /// One byte in the middle of each area of code, and the old one again.
    fn change_code(&mut self, what: &'static str, fits: fn(&Area) -> bool) -> Result<Row, Failure> {
        let mut row = Row::new(what);
        let areas: Vec<Area> =
            self.areas.iter().filter(|area| area.is_code() && fits(area)).cloned().collect();
        for area in &areas {
            let addr = area.start + (area.end - area.start) / 2;
            let cannot = |error| refused("change the code of the child", error);
            let old = self.target.byte(addr).map_err(cannot)?;
            self.target.write(addr, &[old ^ 0xff]).map_err(cannot)?;
            let report = self.reader.check(self.target.pid());
            self.target.write(addr, &[old]).map_err(cannot)?;
            let found = report.is_ok_and(|report| {
                let mut patches = report.text.unexplained();
                patches.any(|patch| patch.addr <= addr && addr - patch.addr < patch.length)
            });
            row.add(found, || format!("{addr:#x} of {}", area.path));
        }
        if areas.is_empty() {
            row.skipped = Some("the child has none".to_owned());
        }
        Ok(row)
    }
}

impl Row {
    fn new(what: &'static str) -> Self {
        Self { kind: "mutation", what, tried: 0, found: 0, missed: Vec::new(), skipped: None }
    }

    fn add(&mut self, found: bool, told: impl FnOnce() -> String) {
        self.tried += 1;
        self.found += u32::from(found);
        if !found && self.missed.len() < MISSED_MAX {
            self.missed.push(told());
        }
    }

    fn shown(&self) -> Vec<(Tone, String)> {
        let tone = if self.found < self.tried { Tone::Bad } else { Tone::Plain };
        let note = self.skipped.clone().unwrap_or_default();
        vec![
            (Tone::Plain, format!("  {}", self.what)),
            (Tone::Plain, self.tried.to_string()),
            (tone, self.found.to_string()),
            (Tone::Plain, note),
        ]
    }
}

fn write(global: &Global, out: &mut impl Write, rows: &[Row], sum: &Summary) -> io::Result<()> {
    if global.json {
        rows.iter().try_for_each(|row| line(out, row))?;
        return line(out, sum);
    }
    let style = Style::stdout();
    let (tone, verdict) = if sum.found == sum.tried {
        (Tone::Good, format!("All {} changes of {} were found.", sum.tried, sum.program))
    } else {
        let missed = sum.tried - sum.found;
        (Tone::Bad, format!("{missed} of {} changes were not found.", sum.tried))
    };
    writeln!(out, "{}", style.paint(tone, &verdict))?;
    let heads = ["  kind", "tried", "found", ""];
    let mut table = vec![heads.map(|head| (Tone::Bold, head.to_owned())).to_vec()];
    table.extend(rows.iter().map(Row::shown));
    style.table(out, &table)?;
    for missed in rows.iter().flat_map(|row| &row.missed) {
        writeln!(out, "{}", style.paint(Tone::Bad, &format!("  not found: {missed}")))?;
    }
    Ok(())
}

/// EIO is what a kernel answers that was started with `proc_mem.force_override=never`.
fn refused(what: &str, error: io::Error) -> Failure {
    let denied = error.kind() == io::ErrorKind::PermissionDenied
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    if denied {
        return Failure::Unsupported(format!("cannot {what}: {error}; run as root"));
    }
    Failure::Internal { what: format!("cannot {what}"), source: Box::new(error) }
}
