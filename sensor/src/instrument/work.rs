//! The thread that looks, compares with the look before, and tells what is new.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::owner::Owners;
use super::protect::{Protected, Site};
use super::report;
use super::survey::{Glance, Surveyor};
use super::{AskPerf, Instrument, Owner, What};
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
/// What stands for an executable that cannot be told.
const UNKNOWN: &str = "unknown";

/// Something that was not there at the look before.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// The running thread; told to end when dropped, which nobody waits for: it may be reading.
#[derive(Debug)]
pub struct Watch {
    _stop: Sender<()>,
}

struct Work {
    surveyor: Surveyor,
    protected: Protected,
    clock: Clock,
    known: BTreeSet<String>,
    /// Uprobes among them in a file that is not known to be a protected one: nobody has mapped it
    /// yet, and the prober's name for it says nothing.
    elsewhere: BTreeSet<String>,
    /// Seen at the last look, but not whose it was: the holder may have ended that moment.
    unclear: BTreeSet<String>,
    told: Option<ProbeReport>,
    tell: Box<dyn FnMut(Told) + Send>,
}

// === impl Watch ===

impl Watch {
    /// Starts it; the first survey follows at once. `tell` must not wait.
    pub fn start(
        guarded: &[GuardedProgram],
        ask: Box<AskPerf>,
        tell: Box<dyn FnMut(Told) + Send>,
    ) -> io::Result<Self> {
        let mut work = Work {
            surveyor: Surveyor::new(ask),
            protected: Protected::new(guarded),
            clock: Clock::now(),
            known: BTreeSet::new(),
            elsewhere: BTreeSet::new(),
            unclear: BTreeSet::new(),
            told: None,
            tell,
        };
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
        let report = report::report(&survey.sources);
        if self.told.as_ref() != Some(&report) {
            self.told = Some(report.clone());
            (self.tell)(Told::Report(report));
        }
        (self.tell)(Told::Count(count(&survey.foreign)));
        let is_there = |id: &String| survey.foreign.iter().any(|one| one.id == *id);
        self.known.retain(is_there);
        self.elsewhere.retain(is_there);
        let (known, news): (Vec<Instrument>, Vec<Instrument>) =
            survey.foreign.into_iter().partition(|one| self.known.contains(&one.id));
        let is_all = news.len() <= NEWS_MAX;
        let is_quiet = news.is_empty();
        // Forgotten afterwards: packages take memory, and what is mapped changes.
        self.protected.forget();
        self.tell_arrived(known);
        self.tell_news(news);
        if is_quiet {
            let process = process(None);
            self.offer(process, Body::Surveyed);
        }
        is_all && self.unclear.is_empty()
    }

    /// What a process held goes a little after its end, that of a sensor before this one as well: whose
    /// owner cannot be told is told only if it is still there at the next look.
    fn tell_news(&mut self, news: Vec<Instrument>) {
        let waited = std::mem::take(&mut self.unclear);
        if news.is_empty() {
            return;
        }
        let mut owners = Owners::new(self.clock);
        for instrument in news.into_iter().take(NEWS_MAX) {
            let owner = instrument.holders.iter().find_map(|pid| owners.describe(*pid));
            if is_unclear(&instrument, owner.as_ref()) && !waited.contains(&instrument.id) {
                self.unclear.insert(instrument.id);
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
        let mut owners = Owners::new(self.clock);
        let waiting = known.into_iter().filter(|one| self.elsewhere.contains(&one.id));
        for instrument in waiting.take(NEWS_MAX).collect::<Vec<_>>() {
            let What::Uprobe(probe) = &instrument.what else { continue };
            if let Some(site) = self.protected.site(probe) {
                self.elsewhere.remove(&instrument.id);
                let owner = instrument.holders.iter().find_map(|pid| owners.describe(*pid));
                self.offer_seen(instrument, owner, Some(site));
            }
        }
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

/// Processes hold it, or should, and none of them can be described.
fn is_unclear(instrument: &Instrument, owner: Option<&Owner>) -> bool {
    let is_program = matches!(instrument.what, What::Program(_));
    let is_held = is_program || !instrument.holders.is_empty();
    is_held && owner.is_none_or(|owner| owner.shown.exe.is_empty())
}

fn count(foreign: &[Instrument]) -> Vec<(&'static str, usize)> {
    super::KINDS
        .iter()
        .map(|kind| (*kind, foreign.iter().filter(|one| one.label() == *kind).count()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Program as Loaded;
    use super::*;

    fn program(id: u32, holders: &[u32]) -> Instrument {
        let loaded = Loaded {
            kind: "kprobe".to_owned(),
            name: "x".to_owned(),
            tag: 1,
            loaded: None,
            uid: None,
            places: Vec::new(),
        };
        let (id, what) = (format!("program {id}"), What::Program(loaded));
        Instrument { id, what, holders: holders.to_vec() }
    }

    /// What is told of several looks.
    fn told(looks: Vec<Vec<Instrument>>) -> Vec<Vec<String>> {
        let (out, said) = channel();
        let mut work = Work {
            surveyor: Surveyor::new(Box::new(|_, _| Ok(None))),
            protected: Protected::new(&[]),
            clock: Clock::now(),
            known: BTreeSet::new(),
            elsewhere: BTreeSet::new(),
            unclear: BTreeSet::new(),
            told: None,
            tell: Box::new(move |one| drop(out.send(one))),
        };
        let look = |news| {
            work.tell_news(news);
            let seen = said.try_iter().filter_map(|one| match one {
                Told::Seen(seen) => match seen.body {
                    Body::Instrument(found) => Some(found.instrument.id),
                    _ => None,
                },
                _ => None,
            });
            seen.collect()
        };
        looks.into_iter().map(look).collect()
    }

    #[test]
    fn what_nobody_holds_is_told_only_if_it_lasts() {
        let own = std::process::id();
        let gone = u32::MAX;
        let first = vec![program(1, &[own]), program(2, &[]), program(3, &[gone])];
        let second = vec![program(3, &[gone])];
        let found = told(vec![first, second, vec![program(2, &[])]]);
        assert_eq!(found[0], ["program 1"]);
        assert_eq!(found[1], ["program 3"], "its holder hides");
        assert!(found[2].is_empty(), "2 was gone meanwhile");
    }
}
