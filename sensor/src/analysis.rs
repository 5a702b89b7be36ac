//! The analysis: observations in, incidents out. Holds detectors, baselines and incidents together.
//!
//! One synchronous object on the event clock alone: the same observations give the same bytes.

mod check;
mod dates;
mod doubts;
mod family;
mod hold;
mod learn;
mod obey;
mod origins;
mod recheck;
mod refusals;
mod waits;
mod writers;

use jiff::{SignedDuration, Timestamp};

use crate::baseline::{Baseline, Baselines, Changed, Measure, Opened, Store, StoreTally};
use crate::config::{Config, Detect, Learning};
use crate::detect::{self, Detector, Draft, Reading, SlotCheck, World, judge, upgrade};
use crate::finding::{Evidence, Family, Finding, Severity};
use crate::host::{Body, Directive, Lineage, Observation};
use crate::incident::{IncidentUpdate, Incidents};
use dates::Dates;
use doubts::Doubts;
use family::Families;
use hold::Hold;
use learn::Learner;
use origins::Origins;
use recheck::Rechecks;
use refusals::Refusals;
use waits::{Due, Waits};
use writers::Writers;

/// What the analysis counts of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Findings by detector id, repeats included.
    pub findings: Vec<(&'static str, u64)>,
    /// Slot checks done.
    pub checks: u64,
    /// Slots compared in all of them.
    pub slots_checked: u64,
    /// Checks that could not be done, for other reasons than the process's end.
    pub checks_failed: u64,
    /// Baselines in memory.
    pub baselines: usize,
    /// Those of them that have learned enough for their detectors to speak.
    pub settled: usize,
    /// Those in memory whose times or libraries have begun to move.
    pub drifting: usize,
    /// Baselines lost unwritten.
    pub baselines_lost: u64,
    /// The store's own counts.
    pub store: StoreTally,
}

/// Detectors, baselines and incidents.
pub struct Analysis {
    host: String,
    detect: Detect,
    learning: Learning,
    checker: Box<dyn SlotCheck + Send>,
    detectors: Vec<Box<dyn Detector>>,
    baselines: Baselines,
    incidents: Incidents,
    families: Families,
    hold: Hold,
    learner: Learner,
    measure: Measure,
    origins: Origins,
    rechecks: Rechecks,
    refusals: Refusals,
    doubts: Doubts,
    waits: Waits,
    dates: Dates,
    writers: Writers,
    directives: Vec<Directive>,
    notes: Vec<Opened>,
    found: Vec<(&'static str, Severity)>,
    flushed_ktime_ns: u64,
    now_ktime_ns: u64,
    tally: Tally,
}

// === impl Analysis ===

impl Analysis {
    /// On top of a store. `host` is this machine's name. Nothing is to be expected yet: see
    /// [`Recorded`](crate::record::Recorded), by which an analysis at work is told everything.
    #[must_use]
    pub fn new(
        config: &Config,
        host: String,
        store: Store,
        checker: Box<dyn SlotCheck + Send>,
    ) -> Self {
        let baselines = Baselines::new(store);
        let detectors = detect::all();
        let findings = detectors.iter().map(|detector| (detector.id(), 0)).collect();
        Self {
            incidents: Incidents::new(config.detect.incident_window, host.clone()),
            host,
            detect: config.detect,
            learning: config.learning,
            checker,
            detectors,
            baselines,
            families: Families::default(),
            hold: Hold::default(),
            learner: Learner::new(config.learning, config.detect),
            measure: Measure::new(config),
            origins: Origins::new(),
            rechecks: Rechecks::new(config.detect.settle),
            refusals: Refusals::new(config.patrol.every),
            doubts: Doubts::new(&config.patrol),
            waits: Waits::default(),
            dates: Dates::default(),
            writers: Writers::default(),
            directives: Vec::new(),
            notes: Vec::new(),
            found: Vec::new(),
            flushed_ktime_ns: 0,
            now_ktime_ns: 0,
            tally: Tally { findings, ..Tally::default() },
        }
    }

    /// One observation, in order. Blocks for milliseconds where a check is due.
    pub fn on_observation(&mut self, seen: Observation) -> Vec<IncidentUpdate> {
        let mut updates = self.advance(seen.ktime_ns);
        let seen = match seen.body {
            Body::Dated(dated) => {
                if let Some((seen, draft)) = self.dates.answered(*dated) {
                    self.tell(&seen, draft, &mut updates);
                }
                return updates;
            }
            body => Observation { body, ..seen },
        };
        self.writers.note(&seen);
        self.origins.note_asked(&seen);
        let Some(seen) = self.waits.pass(seen) else { return updates };
        for seen in self.hold.pass(seen) {
            self.judge(seen, 0, &mut updates);
        }
        updates
    }

    /// Records were lost: what is open now may lack some.
    pub fn on_loss(&mut self) {
        self.incidents.mark_partial();
    }

    /// Tells the time when no observation does: repeats checks, closes incidents, writes the store.
    /// Call it at least every `learning.flush_every`.
    pub fn tick(&mut self, now_ktime_ns: u64) -> Vec<IncidentUpdate> {
        let mut updates = self.advance(now_ktime_ns);
        updates.extend(self.incidents.tick(now_ktime_ns));
        let every = u64::try_from(self.learning.flush_every.as_nanos()).unwrap_or(u64::MAX);
        if now_ktime_ns.saturating_sub(self.flushed_ktime_ns) >= every {
            self.flushed_ktime_ns = now_ktime_ns;
            self.notes.extend(self.baselines.flush(false));
        }
        updates
    }

    /// Tells what still waits: nothing more will come.
    pub fn finish(&mut self) -> Vec<IncidentUpdate> {
        let mut updates = Vec::new();
        while let Some(due) = self.waits.pop(u64::MAX) {
            self.tell_due(due, &mut updates);
        }
        while let Some((seen, draft)) = self.dates.pop(u64::MAX) {
            self.tell(&seen, draft, &mut updates);
        }
        updates
    }

    /// Whether what changed before a shift is asked for from now on, by [`Self::questions`]: then
    /// findings of one wait for the answer, not for long.
    pub fn ask_dates(&mut self, asks: bool) {
        self.dates.ask(asks);
    }

    /// What the provenance station is to be asked since the last call; it answers with observations.
    pub fn questions(&mut self) -> Vec<Observation> {
        self.dates.questions()
    }

    /// Writes everything, mere counts included: before the end.
    pub fn flush(&mut self) {
        self.notes.extend(self.baselines.flush(true));
    }

    /// `CLOCK_MONOTONIC` of the next check to repeat, or of what has waited for long enough, ns.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        let waits = self.waits.next_due().into_iter().chain(self.dates.next_due());
        self.rechecks.next_due().into_iter().chain(waits).min()
    }

    /// What the kernel side is asked for since the last call.
    pub fn directives(&mut self) -> Vec<Directive> {
        std::mem::take(&mut self.directives)
    }

    /// What happened to the store since the last call: a file set aside while running.
    pub fn store_notes(&mut self) -> Vec<Opened> {
        std::mem::take(&mut self.notes)
    }

    /// Why baselines could not be written at the last attempt; `None` if they were.
    #[must_use]
    pub fn store_failure(&self) -> Option<&str> {
        self.baselines.failure()
    }

    /// The incidents: what is open, and what is to be saved. What changes them otherwise has a method of
    /// [`Recorded`](crate::record::Recorded).
    pub fn incidents(&mut self) -> &mut Incidents {
        &mut self.incidents
    }

    /// Detector and severity of every finding since the last call, repeats included.
    pub fn found(&mut self) -> Vec<(&'static str, Severity)> {
        std::mem::take(&mut self.found)
    }

    /// A subject's baseline.
    pub fn baseline(&mut self, subject: &str) -> &Baseline {
        self.baselines.get(subject)
    }

    /// Counts of this moment.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally {
            baselines: self.baselines.resident(),
            settled: self.baselines.settled(self.learning.observations),
            drifting: self.baselines.drifting(self.learning.observations, self.detect.run_length),
            baselines_lost: self.baselines.lost(),
            store: self.baselines.tally(),
            ..self.tally.clone()
        }
    }

    fn advance(&mut self, now_ktime_ns: u64) -> Vec<IncidentUpdate> {
        self.now_ktime_ns = self.now_ktime_ns.max(now_ktime_ns);
        let mut updates = Vec::new();
        while let Some((mut seen, tries)) = self.rechecks.pop(self.now_ktime_ns) {
            let later = self.now_ktime_ns.saturating_sub(seen.ktime_ns);
            seen.time = after(seen.time, later);
            seen.ktime_ns = self.now_ktime_ns;
            self.judge(seen, tries, &mut updates);
        }
        while let Some(due) = self.waits.pop(self.now_ktime_ns) {
            self.tell_due(due, &mut updates);
        }
        while let Some((seen, draft)) = self.dates.pop(self.now_ktime_ns) {
            self.tell(&seen, draft, &mut updates);
        }
        updates
    }

    fn tell_due(&mut self, due: Due, updates: &mut Vec<IncidentUpdate>) {
        match due {
            Due::Finding(seen, draft) => self.tell(&seen, draft, updates),
            Due::Held(seen) => self.judge(seen, 0, updates),
        }
    }

    fn judge(&mut self, mut seen: Observation, tries: u32, updates: &mut Vec<IncidentUpdate>) {
        if let Body::CheckDue(reason) = seen.body
            && !self.check(&mut seen, reason, tries)
        {
            return;
        }
        if matches!(seen.body, Body::Ended) {
            self.refusals.ended(seen.process.id);
            self.doubts.ended(seen.process.id);
        }
        let answered = self.note_answer(&mut seen);
        let own = seen.process.program.subject.clone();
        let login = seen.connection.as_ref().map(|connection| connection.program.subject.clone());
        self.baselines.get(&own);
        if let Some(login) = &login {
            self.baselines.get(login);
        }
        let empty = Baseline::default();
        let world = World {
            own: self.baselines.peek(&own).unwrap_or(&empty),
            login: login.as_ref().and_then(|login| self.baselines.peek(login)),
            detect: &self.detect,
            learning: &self.learning,
            packages: &self.origins,
        };
        let judged = match &seen.body {
            Body::Library(library) => Some((library, judge::library(&seen, library, &world))),
            _ => None,
        };
        let mut drafts = Vec::new();
        let mut readings = Vec::new();
        for detector in &mut self.detectors {
            detector.observe(&seen, &world, &mut drafts);
            readings.append(&mut detector.readings());
        }
        let lessons = Learner::lessons(&seen, &world, &drafts, &readings);
        self.note_readings(seen.time, &readings);
        if let Some((library, judged)) = judged {
            self.origins.judged(seen.process.id, &library.module.path, judged);
        }
        let Self { learner, origins, baselines, directives, .. } = self;
        learner.take(&seen, lessons, origins, baselines, directives);
        for (seen, draft) in answered {
            self.report(&seen, draft, updates);
        }
        for draft in drafts {
            self.report(&seen, draft, updates);
        }
    }

    /// How the evidence for shifts stands, and when a time was last as usual.
    fn note_readings(&mut self, time: Timestamp, readings: &[Reading]) {
        for Reading { subject, stream, wealth, usual, crept, .. } in readings {
            if *crept {
                self.baselines.learn(subject, Changed::Learned).told_crept(stream);
            }
            if let Some(wealth) = wealth {
                self.baselines.learn(subject, Changed::Count).stand(stream, *wealth);
            }
            if *usual {
                self.baselines.learn(subject, Changed::Count).was_usual(stream, time);
            }
        }
    }

    /// Takes in what the provenance station tells of a library; the findings that waited for it.
    fn note_answer(&mut self, seen: &mut Observation) -> Vec<(Observation, Draft)> {
        let Body::Traced(mut traced) = seen.body.clone() else { return Vec::new() };
        self.origins.note(seen, &mut traced);
        let answered = self.waits.answered(seen.process.id, &traced.library.module.path);
        seen.body = Body::Traced(traced);
        answered
    }

    fn report(&mut self, seen: &Observation, draft: Draft, updates: &mut Vec<IncidentUpdate>) {
        let draft = match self.awaited(seen) {
            Some(awaited) => self.waits.hold(seen, awaited, draft),
            None => Some(draft),
        };
        let draft = draft.and_then(|draft| {
            let baseline = self.baselines.peek(&draft.program.subject);
            self.dates.hold(seen, draft, baseline)
        });
        if let Some(draft) = draft {
            self.tell(seen, draft, updates);
        }
    }

    /// The library whose package is asked about, and might explain findings on this; whether by an
    /// upgrade.
    fn awaited(&self, seen: &Observation) -> Option<(String, bool)> {
        let empty = Baseline::default();
        let own = self.baselines.peek(&seen.process.program.subject).unwrap_or(&empty);
        let mut files = upgrade::awaited(seen, own).into_iter();
        let awaited = files.find(|(module, _)| self.origins.awaits(seen.process.id, &module.path));
        awaited.map(|(module, upgrade)| (module.path.clone(), upgrade))
    }

    /// Says of a finding what an upgrade accounts for.
    fn explain(&self, seen: &Observation, draft: &mut Draft) {
        let empty = Baseline::default();
        let own = self.baselines.peek(&seen.process.program.subject).unwrap_or(&empty);
        let (detect, learning) = (&self.detect, &self.learning);
        let world = World { own, login: None, detect, learning, packages: &self.origins };
        upgrade::explain(seen, draft, &world);
    }

    fn tell(&mut self, seen: &Observation, mut draft: Draft, updates: &mut Vec<IncidentUpdate>) {
        self.explain(seen, &mut draft);
        if let Some((_, count)) =
            self.tally.findings.iter_mut().find(|(id, _)| *id == draft.detector)
        {
            *count += 1;
        }
        self.origins.add_to(&seen.process.program.subject, &mut draft.evidence);
        self.writers.add_to(seen, &mut draft.evidence);
        self.found.push((draft.detector, draft.severity));
        let (lineage, served) = (lineage(seen, &draft), seen.connection.is_some());
        let finding = finding(&self.host, seen, draft);
        let ktime_ns = finding.ktime_ns;
        let window = u64::try_from(self.detect.incident_window.as_nanos()).unwrap_or(u64::MAX);
        let lineage = self.families.of(lineage, &finding.subject, served, ktime_ns, window);
        updates.extend(self.incidents.join(finding, &lineage, ktime_ns));
    }
}

impl std::fmt::Debug for Analysis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Analysis").field("tally", &self.tally()).finish_non_exhaustive()
    }
}

/// A helper below a connection counts for its sshd.
fn lineage(seen: &Observation, draft: &Draft) -> Lineage {
    // Measured by the host's baseline, but a story of whoever instruments it.
    if matches!(seen.body, Body::Instrument(_)) {
        return seen.process.lineage.clone();
    }
    match &seen.process.lineage {
        Lineage::Program(_) => Lineage::Program(draft.program.subject.clone()),
        sshd @ Lineage::Sshd(_) => sshd.clone(),
    }
}

fn finding(host: &str, seen: &Observation, draft: Draft) -> Finding {
    let ktime_ns = draft.ktime_ns.unwrap_or(seen.ktime_ns).max(seen.ktime_ns);
    let later = ktime_ns - seen.ktime_ns;
    let mut evidence = draft.evidence;
    // Who changes a file of the loader is not who is linked by it.
    let linking = draft.family == Family::Linker && !matches!(seen.body, Body::LoaderConfig(_));
    if let Some(uncovered) = draft.program.uncovered.filter(|_| linking) {
        evidence.push(Evidence::Note { text: format!("{} is {uncovered}", draft.program.name()) });
    }
    if let Some(connection) = &seen.connection {
        let since = ktime_ns.saturating_sub(connection.accepted_ktime_ns);
        evidence.push(Evidence::Connection {
            peer: connection.peer.map(|peer| peer.to_string()),
            method: connection
                .method
                .or(connection.attempted.last().copied())
                .map(|method| method.name().to_owned()),
            authenticated: connection.authenticated,
            since_accept_seconds: crate::host::seconds(since),
        });
    }
    let id = crate::incident::content_id(&[
        host,
        draft.detector,
        &draft.object,
        &ktime_ns.to_string(),
        &seen.process.id.tgid.to_string(),
        &seen.process.id.start_ticks.to_string(),
    ]);
    Finding {
        time: after(seen.time, later),
        ktime_ns,
        id,
        detector: draft.detector.to_owned(),
        family: draft.family,
        severity: draft.severity,
        confidence: draft.confidence,
        title: draft.title,
        host: host.to_owned(),
        process: seen.process.shown.clone(),
        subject: draft.program.subject.clone(),
        evidence,
        attack: draft.attack.iter().map(|id| (*id).to_owned()).collect(),
        explained_by: draft.explained_by,
        suppressed_by: None,
    }
}

fn after(time: Timestamp, ns: u64) -> Timestamp {
    let later = SignedDuration::from_nanos(i64::try_from(ns).unwrap_or(i64::MAX));
    time.checked_add(later).unwrap_or(time)
}

#[cfg(test)]
mod tests;
