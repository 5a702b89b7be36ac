//! The thread that looks, compares with the look before, and tells what is new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use serde::{Deserialize, Serialize};

use super::owner::Owners;
use super::protect::{Protected, Site};
use super::report;
use super::survey::{Glance, OwnPrograms, Surveyor};
use super::{AskPerf, Instrument, Owner, SOURCES, Source, What};
use crate::config::GuardedProgram;
use crate::event::{FileKey, Role};
use crate::finding::ProcessRef;
use crate::host::{Body, Clock, Lineage, ModuleId, Observation, Process, ProcessId, Program};
use crate::probe::ProbeReport;

/// Between two cheap looks: the longest until something is told, but for a perf event without a BPF
/// program.
const GLANCE: Duration = Duration::from_secs(2);
/// Between two looks at every descriptor.
const SURVEY: Duration = Duration::from_secs(30);
/// It rests this many times as long as a look took, unless that is longer than between surveys.
const REST: u32 = 20;
/// News told of one survey; the rest is told after the next.
const NEWS_MAX: usize = 128;
/// Subject of the baseline that this host's instrumentation has.
const HOST: &str = "(host) instrumentation";
/// Label of what was asked of files and processes that did not answer.
pub const UNANSWERED: &str = "owners and files";
/// What stands for an executable that cannot be told.
const UNKNOWN: &str = "unknown";

/// Something that was not there at the look before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What.
    pub instrument: Instrument,
    /// The process that holds it; none for what lives by itself.
    pub owner: Option<Owner>,
    /// The protected file it sits in.
    pub site: Option<Site>,
}

/// What the thread tells.
#[derive(Debug)]
pub enum Told {
    /// For the analysis.
    Seen(Box<Observation>),
    /// It stands differently than it did; for `doctor`.
    Report(ProbeReport),
    /// What instruments the host beside the sensor, by kind, at the end of a survey.
    Count(Vec<(&'static str, usize)>),
    /// Of each source, one of [`SOURCES`] or [`UNANSWERED`], whether something of it could not be
    /// read at that survey.
    Unread(Vec<(&'static str, bool)>),
}

/// The running thread; told to end when dropped, which nobody waits for: it may be reading.
#[derive(Debug)]
pub struct Watch {
    _stop: Sender<()>,
}

struct Work {
    surveyor: Surveyor,
    protected: Protected,
    owners: Owners,
    clock: Clock,
    known: BTreeSet<String>,
    /// Uprobes among them in a file that is not known to be a protected one: nobody has mapped it
    /// yet, and the prober's name for it says nothing.
    elsewhere: BTreeSet<String>,
    /// Seen at the last look, but not whose it was: the holder may have ended that moment. By
    /// [`lasting`].
    unclear: BTreeSet<String>,
    /// Of those at the last look, what runs the sensor's own code.
    alike: BTreeSet<String>,
    /// Questions that were given up until the last look.
    given_up: u64,
    told: Option<ProbeReport>,
    tell: Box<dyn FnMut(Told) + Send>,
}

// === impl Watch ===

impl Watch {
    /// Starts it; the first survey follows at once. `own` are the programs that the sensor has
    /// loaded. `tell` must not wait.
    pub fn start(
        guarded: &[GuardedProgram],
        ask: Box<AskPerf>,
        own: OwnPrograms,
        tell: Box<dyn FnMut(Told) + Send>,
    ) -> io::Result<Self> {
        let mut work = Work::new(guarded, Surveyor::new(ask, own), tell);
        let (stop, stopped) = channel();
        thread::Builder::new().name("instrument".to_owned()).spawn(move || work.run(&stopped))?;
        Ok(Self { _stop: stop })
    }
}

// === impl Seen ===

impl Seen {
    /// What the baseline remembers it by: what, where and by whom.
    #[must_use]
    pub fn key(&self) -> String {
        match &self.owner {
            Some(owner) => format!("{} by {}", self.instrument.form(), owner.form()),
            None => self.instrument.form(),
        }
    }
}

// === impl Work ===

impl Work {
    fn new(
        guarded: &[GuardedProgram],
        surveyor: Surveyor,
        tell: Box<dyn FnMut(Told) + Send>,
    ) -> Self {
        let clock = Clock::now();
        Self {
            surveyor,
            protected: Protected::new(guarded),
            owners: Owners::new(clock),
            clock,
            known: BTreeSet::new(),
            elsewhere: BTreeSet::new(),
            unclear: BTreeSet::new(),
            alike: BTreeSet::new(),
            given_up: 0,
            told: None,
            tell,
        }
    }

    fn run(&mut self, stopped: &Receiver<()>) {
        loop {
            let before = Surveyor::glance();
            let begun = Instant::now();
            let is_settled = self.survey();
            if !Self::rest(&before, is_settled, begun.elapsed(), stopped) {
                return;
            }
        }
    }

    /// Until there is something to look at; false when told to end.
    /// `took` is what the look before cost: whoever makes and closes programs without end does not
    /// make it look without end.
    fn rest(before: &Glance, is_settled: bool, took: Duration, stopped: &Receiver<()>) -> bool {
        let begun = Instant::now();
        let earliest = (took * REST).min(SURVEY);
        loop {
            match stopped.recv_timeout(GLANCE) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return false,
            }
            if begun.elapsed() < earliest {
                continue;
            }
            let due = !is_settled || begun.elapsed() >= SURVEY;
            if due || Surveyor::glance() != *before {
                return true;
            }
        }
    }

    /// Tells what is new; false where something remains to be told.
    fn survey(&mut self) -> bool {
        let survey = self.surveyor.survey();
        self.report(survey.sources);
        (self.tell)(Told::Count(count(&survey.foreign)));
        self.alike = survey.alike;
        let there: BTreeSet<&str> = survey.foreign.iter().map(|one| one.id.as_str()).collect();
        self.known.retain(|id| there.contains(id.as_str()));
        self.elsewhere.retain(|id| there.contains(id.as_str()));
        drop(there);
        let (known, news): (Vec<Instrument>, Vec<Instrument>) =
            survey.foreign.into_iter().partition(|one| self.known.contains(&one.id));
        let is_all = news.len() <= NEWS_MAX;
        let is_quiet = news.is_empty();
        // Forgotten afterwards: packages take memory, and what is mapped changes.
        self.protected.forget();
        self.tell_arrived(known);
        self.tell_news(news);
        if !is_quiet {
            self.owners.forget();
        }
        if is_quiet {
            let process = process(None);
            self.offer(process, Body::Surveyed);
        }
        is_all && self.unclear.is_empty()
    }

    /// How it stands, with what was not answered since the look before.
    fn report(&mut self, mut sources: Vec<Source>) {
        let (of_files, stuck) = self.protected.unanswered();
        let given_up = of_files + self.owners.given_up();
        let is_waiting = given_up != self.given_up || stuck > 0;
        self.given_up = given_up;
        let reason = is_waiting.then(|| {
            "files and processes that instruments lead to do not answer: owners, packages, protected \
             files and functions are not told"
                .to_owned()
        });
        sources.push(Source { name: UNANSWERED, reason });
        let report = report::report(&sources);
        (self.tell)(Told::Unread(unread(&sources)));
        if self.told.as_ref() != Some(&report) {
            self.told = Some(report.clone());
            (self.tell)(Told::Report(report));
        }
    }

    /// What a process held goes a little after its end, that of a sensor before this one as well: whose
    /// owner cannot be told is told only if it is still there at the next look.
    fn tell_news(&mut self, news: Vec<Instrument>) {
        let waited = std::mem::take(&mut self.unclear);
        if news.is_empty() {
            return;
        }
        for instrument in news.into_iter().take(NEWS_MAX) {
            let owner = self.owner(&instrument);
            if is_unclear(&instrument, owner.as_ref()) && !waited.contains(&lasting(&instrument)) {
                self.unclear.insert(lasting(&instrument));
                continue;
            }
            self.known.insert(instrument.id.clone());
            let site = match &instrument.what {
                What::Uprobe(probe) => self.protected.site(probe),
                _ => None,
            };
            if site.is_none() && matches!(instrument.what, What::Uprobe(_)) {
                self.elsewhere.insert(instrument.id.clone());
            }
            self.offer_seen(instrument, owner, site);
        }
    }

    /// Known uprobes whose file turns out to be a protected one now that a process maps it.
    fn tell_arrived(&mut self, known: Vec<Instrument>) {
        if self.elsewhere.is_empty() {
            return;
        }
        let waiting = known.into_iter().filter(|one| self.elsewhere.contains(&one.id));
        for instrument in waiting.take(NEWS_MAX).collect::<Vec<_>>() {
            let What::Uprobe(probe) = &instrument.what else { continue };
            if let Some(site) = self.protected.site(probe) {
                self.elsewhere.remove(&instrument.id);
                let owner = self.owner(&instrument);
                self.offer_seen(instrument, owner, Some(site));
            }
        }
    }

    fn owner(&mut self, instrument: &Instrument) -> Option<Owner> {
        let owners = &mut self.owners;
        let owner = instrument.holders.iter().find_map(|pid| owners.describe(*pid));
        let is_alike = self.alike.contains(&instrument.id);
        owner.map(|owner| Owner { is_twin: owner.is_twin && is_alike, ..owner })
    }

    fn offer_seen(&mut self, instrument: Instrument, owner: Option<Owner>, site: Option<Site>) {
        let owner = owner.map(named);
        let process = process(owner.as_ref());
        let seen = Seen { instrument, owner, site };
        self.offer(process, Body::Instrument(Box::new(seen)));
    }

    fn offer(&mut self, process: Process, body: Body) {
        let ktime_ns = Clock::ktime_ns();
        let time = self.clock.wall(ktime_ns);
        let process = Arc::new(process);
        let seen = Observation { ktime_ns, time, process, connection: None, body };
        (self.tell)(Told::Seen(Box::new(seen)));
    }
}

/// The owner as an observation has it; its program stands for the host's baseline, whoever it is.
/// What one executable does is one story.
fn process(owner: Option<&Owner>) -> Process {
    let shown = owner.map_or_else(
        || ProcessRef { exe: UNKNOWN.to_owned(), ..ProcessRef::default() },
        |owner| owner.shown.clone(),
    );
    let id = owner.and_then(|owner| owner.id);
    let story =
        owner.map_or_else(|| HOST.to_owned(), |owner| format!("{HOST} by {}", owner.form()));
    let module = ModuleId { path: HOST.to_owned(), build: "inode:none".to_owned() };
    let program = Program {
        file: FileKey::default(),
        subject: HOST.to_owned(),
        module,
        role: Role::default(),
        uncovered: None,
        root_unseen: false,
    };
    Process {
        id: id.unwrap_or(ProcessId { tgid: 0, start_ticks: 0 }),
        lineage: Lineage::Program(story),
        program: Arc::new(program),
        euid: shown.uid,
        secure: false,
        injected: false,
        variables: Arc::default(),
        shown,
    }
}

/// A process whose first thread has ended has no executable any more.
fn named(mut owner: Owner) -> Owner {
    if owner.shown.exe.is_empty() {
        UNKNOWN.clone_into(&mut owner.shown.exe);
    }
    owner
}

/// Processes hold it, or should, and none of them can be described; or it is what two lists of the
/// kernel, read one after the other, do not agree on.
fn is_unclear(instrument: &Instrument, owner: Option<&Owner>) -> bool {
    let is_held = match instrument.what {
        What::Program(_) => true,
        What::Ftrace { .. } | What::Kprobe { by: "kernel" | "ftrace", .. } => return true,
        _ => !instrument.holders.is_empty(),
    };
    is_held && owner.is_none_or(|owner| owner.is_unread || owner.shown.exe.is_empty())
}

/// What is the same at two looks. Of what two lists disagree on, the function: whoever puts one more
/// there before every other look, or moves it, does not make it another each time.
fn lasting(instrument: &Instrument) -> String {
    match &instrument.what {
        What::Ftrace { function, .. } => format!("function {function}"),
        What::Kprobe { place, by: "kernel" | "ftrace" } => format!("function {place}"),
        _ => instrument.id.clone(),
    }
}

/// Each source there may be, also those that were not come to.
fn unread(sources: &[Source]) -> Vec<(&'static str, bool)> {
    let told: BTreeMap<&str, bool> =
        sources.iter().map(|source| (source.name, source.reason.is_some())).collect();
    let is_unread = |name: &'static str| (name, told.get(name).copied().unwrap_or(false));
    SOURCES.into_iter().chain([UNANSWERED]).map(is_unread).collect()
}

fn count(foreign: &[Instrument]) -> Vec<(&'static str, usize)> {
    super::KINDS
        .iter()
        .map(|kind| (*kind, foreign.iter().filter(|one| one.label() == *kind).count()))
        .collect()
}

#[cfg(test)]
mod tests;
