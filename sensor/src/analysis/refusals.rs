//! Processes that refuse to be checked, until it has lasted too long to be chance.
//!
//! A check meets a loader at work now and then: a start, a `dlopen`. It is repeated for half a second
//! ([`super::recheck`]), and what is still refused then is one refusal here. Guarded programs are
//! visited in every round and root daemons in every tenth, so a row of [`TIMES`] over at least two
//! rounds is not one `dlopen` that was met by chance. What may refuse for longer without a fault:
//!
//! - Held in its loader, by a debugger, by `SIGSTOP`, by a disk or a file server that does not
//!   answer, by the freezer: while none of its threads can run it does no harm either, and is not
//!   counted ([`Refusal::still`]). Where others of its threads run it is counted, since a thread that
//!   is stopped is easily had; what holds it is told, and the finding weighs less for it.
//! - On its way out: its memory goes first, so that a check says it is gone, and its threads are
//!   zombies. Neither is counted.
//! - What cannot be read for want of a right, or of a file ([`crate::detect::CheckFailed::Unread`]),
//!   could be read before: then a process has mapped something over its loader that nobody can open,
//!   or may have. Where several cannot be read any more, and nobody else can, it is none of theirs:
//!   somebody has taken the right from the sensor, which is told once. What never could be read is
//!   told by `doctor`.
//! - A library on a file server that takes minutes: `dlopen` sleeps in its loader all that time, as
//!   any thread sleeps. It is told after two rounds of that, and its evidence says so.
//! - Forked while another thread of its parent was in `dlopen`: the child inherits the state of a
//!   loader at work, and keeps it until it executes a program or opens a library itself. It is told,
//!   but weighs less where nothing else is odd about it, and its evidence says so.
//!
//! A program whose processes are over within seconds (`sudo`, the monitor of one login) never has a
//! row of its own: its processes make one together, where none of them could be checked in between.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::detect::{CheckReport, Refusal, Refused};
use crate::event::FileKey;
use crate::host::{CheckReason, Observation, ProcessId};

/// Refusals in a row before it is told, of one process; or of as many processes of a program.
pub(super) const TIMES: u64 = 3;
/// Rounds that a row must last.
const ROUNDS: u32 = 2;
/// Where there are no rounds.
const ROUND: Duration = Duration::from_mins(1);
/// Rows followed; beyond, the one that was added to least recently is forgotten.
const ROWS_MAX: usize = 1024;
/// Processes that are remembered to have been checked; beyond, the one of the lowest number is
/// forgotten.
const KNOWN_MAX: usize = 4096;

/// The rows.
#[derive(Debug)]
pub(super) struct Refusals {
    span_ns: u64,
    /// In an order of its own: which of two is forgotten must not depend on the run.
    rows: BTreeMap<Whose, Row>,
    /// Those of which refusals count and a check has succeeded.
    known: BTreeMap<ProcessId, Known>,
    /// Since a process could be read at all.
    blind: Option<Blind>,
}

/// Known processes that could not be read, and nobody else could since.
#[derive(Clone, Debug)]
struct Blind {
    since: Timestamp,
    first_ns: u64,
    times: u64,
    processes: BTreeSet<ProcessId>,
    told: bool,
}

/// What it means that a process could not be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It never could.
    Ever,
    /// It could before, and others still can.
    Now,
    /// Nobody can any more; what is to be told of it, once.
    Everybody(Option<Box<Refused>>),
}

/// What a check that succeeded found.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The program it executed then.
    program: FileKey,
    linked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Process(ProcessId),
    Program(String),
}

#[derive(Clone, Copy, Debug)]
struct Row {
    since: Timestamp,
    first_ns: u64,
    last_ns: u64,
    times: u64,
    processes: u64,
    latest: ProcessId,
}

/// How long a row must last, ns. `round` is the time from one visit of a guarded program to the next.
pub(super) fn span_ns(round: Option<Duration>) -> u64 {
    let span = round.unwrap_or(ROUND).saturating_mul(ROUNDS);
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

// === impl Refusals ===

impl Refusals {
    /// `round` is the time from one visit of a guarded program to the next.
    pub(super) fn new(round: Option<Duration>) -> Self {
        Self { span_ns: span_ns(round), rows: BTreeMap::new(), known: BTreeMap::new(), blind: None }
    }

    /// Whether refusals of this process count: a guarded program, or a root daemon, which a round
    /// tells.
    pub(super) fn matters(&self, seen: &Observation, reason: CheckReason) -> bool {
        seen.process.program.guarded()
            || reason == CheckReason::Daemon
            || self.rows.contains_key(&Whose::Process(seen.process.id))
    }

    /// One more refusal; what is to be told of the row, once it is long enough.
    pub(super) fn refused(
        &mut self,
        seen: &Observation,
        reason: CheckReason,
        refusal: &Refusal,
    ) -> Option<Refused> {
        if refusal.still || !self.matters(seen, reason) {
            return None;
        }
        let id = seen.process.id;
        let own = self.add(Whose::Process(id), seen);
        let all = self.add(Whose::Program(seen.process.program.subject.clone()), seen);
        let lasts = |row: &Row| row.last_ns.saturating_sub(row.first_ns) >= self.span_ns;
        let row = Some(own).filter(|row| row.times >= TIMES && lasts(row));
        let row = row.or(Some(all).filter(|row| row.processes >= TIMES && lasts(row)))?;
        Some(Refused {
            refusal: refusal.clone(),
            times: row.times,
            processes: row.processes,
            since: row.since,
            seconds: row.last_ns.saturating_sub(row.first_ns) / 1_000_000_000,
            compared: true,
            everybody: false,
        })
    }

    /// A check succeeded: the rows are over.
    pub(super) fn checked(
        &mut self,
        seen: &Observation,
        reason: CheckReason,
        report: &CheckReport,
    ) {
        let id = seen.process.id;
        if self.matters(seen, reason) {
            if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&id) {
                self.known.pop_first();
            }
            let program = seen.process.program.file;
            self.known.insert(id, Known { program, linked: report.linked });
        }
        if !self.rows.is_empty() {
            self.rows.remove(&Whose::Process(id));
            self.rows.remove(&Whose::Program(seen.process.program.subject.clone()));
        }
    }

    /// Whether a process whose slots could be compared, and that has executed no other program since,
    /// cannot be made out any more: what its loader is, the kernel has said once and for all.
    pub(super) fn hides_its_loader(&self, seen: &Observation, report: &CheckReport) -> bool {
        report.settled && !report.linked && self.known(seen).is_some_and(|known| known.linked)
    }

    fn known(&self, seen: &Observation) -> Option<&Known> {
        let known = self.known.get(&seen.process.id)?;
        (known.program == seen.process.program.file).then_some(known)
    }

    /// A process could be read, whatever it holds.
    pub(super) fn could_read(&mut self) {
        self.blind = None;
    }

    /// A process could not be read.
    pub(super) fn unread(&mut self, seen: &Observation, refusal: &Refusal) -> Unread {
        let (id, now) = (seen.process.id, seen.ktime_ns);
        if self.known(seen).is_none() {
            return Unread::Ever;
        }
        let blind = self.blind.get_or_insert_with(|| Blind {
            since: seen.time,
            first_ns: now,
            times: 0,
            processes: BTreeSet::new(),
            told: false,
        });
        blind.times += 1;
        if blind.processes.len() < KNOWN_MAX {
            blind.processes.insert(id);
        }
        if blind.processes.len() == 1 {
            return Unread::Now;
        }
        let lasted = now.saturating_sub(blind.first_ns);
        if blind.told || blind.times < TIMES || lasted < self.span_ns {
            return Unread::Everybody(None);
        }
        blind.told = true;
        Unread::Everybody(Some(Box::new(Refused {
            refusal: refusal.clone(),
            times: blind.times,
            processes: blind.processes.len() as u64,
            since: blind.since,
            seconds: lasted / 1_000_000_000,
            compared: false,
            everybody: true,
        })))
    }

    /// A process is over.
    pub(super) fn ended(&mut self, process: ProcessId) {
        self.rows.remove(&Whose::Process(process));
        self.known.remove(&process);
    }

    fn add(&mut self, whose: Whose, seen: &Observation) -> Row {
        if self.rows.len() >= ROWS_MAX && !self.rows.contains_key(&whose) {
            let oldest = self.rows.iter().min_by_key(|(_, row)| row.last_ns);
            if let Some(oldest) = oldest.map(|(whose, _)| whose.clone()) {
                self.rows.remove(&oldest);
            }
        }
        let (now, id) = (seen.ktime_ns, seen.process.id);
        let row = self.rows.entry(whose).or_insert(Row {
            since: seen.time,
            first_ns: now,
            last_ns: now,
            times: 0,
            processes: 1,
            latest: id,
        });
        row.times += 1;
        row.last_ns = row.last_ns.max(now);
        row.processes += u64::from(row.latest != id);
        row.latest = id;
        *row
    }
}
