//! The analysis on a thread of its own: takes observations, gives incidents to the outputs and
//! requests to the kernel side, keeps both stores.

mod decisions;

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::analysis::Tally;
use crate::baseline::{Orders, Store};
use crate::cli::Failure;
use crate::config::Config;
use crate::host::{Body, Clock, Directive, Observation, seconds};
use crate::incident::{Incident, IncidentStore, IncidentUpdate, Reason, State};
use crate::metrics::{Metrics, SEVERITIES, severity_label};
use crate::provenance::Asker;
use crate::record::{Recorded, Recorder};
use crate::sink::Incidents;
use crate::status::Status;
use crate::trouble::{Troubles, Turn, chain};
use crate::verify::OwnProbes;

use super::decisions::suppressions;
use super::incidents::{Kept, open_store};
use super::logins::Logins;
use super::queue::{self, Idle, Receiver, Sender};
use super::slots::Slots;

/// Label of the channel's metric.
const QUEUE: &str = "analysis";
/// Observations held back at most: beyond that the analysis begins while more are made.
const HELD_MAX: usize = 256;
/// What is kept in files of the state directory.
const INCIDENTS: &str = "incidents";
const BASELINES: &str = "baselines";
/// What people leave there.
const ORDERS: &str = "orders";

#[derive(Debug)]
enum Work {
    Seen(Box<Observation>),
    /// Records or observations before this one are missing.
    Loss,
}

/// The way into the analysis: never waits.
#[derive(Debug)]
pub(super) struct Intake {
    work: Sender<Work>,
    metrics: Metrics,
    /// Not handed over yet.
    held: Vec<Work>,
    /// Something could not be handed over and the analysis has not been told yet.
    owed_loss: bool,
}

/// What the thread is made of.
pub(super) struct AnalysisThread {
    pub(super) config: Config,
    pub(super) host: String,
    pub(super) store: Store,
    /// What commands ask of the baselines; `None` where another sensor answers them.
    pub(super) orders: Option<Orders>,
    pub(super) metrics: Metrics,
    pub(super) outputs: Incidents,
    pub(super) requests: mpsc::Sender<Directive>,
    pub(super) logins: Logins,
    pub(super) status: Arc<Status>,
    /// Probes of the sensor's own.
    pub(super) own_probes: OwnProbes,
    /// Who is asked what changed before a shift, once there is somebody.
    pub(super) asker: Arc<OnceLock<Asker>>,
    /// Where everything that the analysis is told is recorded.
    pub(super) recorder: Option<Recorder>,
}

struct Worker {
    analysis: Recorded,
    orders: Option<Orders>,
    incidents: Option<Arc<IncidentStore>>,
    config: Config,
    metrics: Metrics,
    outputs: Incidents,
    requests: mpsc::Sender<Directive>,
    logins: Logins,
    status: Arc<Status>,
    asker: Arc<OnceLock<Asker>>,
    told: Tally,
    troubles: Troubles,
    /// Of the ways on which people reach the sensor.
    ways: Troubles,
}

// === impl Intake ===

impl Intake {
    /// Another way in, for what comes from beside the line.
    pub(super) fn another(&self) -> Self {
        let (work, metrics) = (self.work.clone(), self.metrics.clone());
        Self { work, metrics, held: Vec::new(), owed_loss: false }
    }

    /// Hands an observation on, or counts it as dropped.
    pub(super) fn offer(&mut self, seen: Observation) {
        self.hold(seen);
        self.hand_over();
    }

    /// The same, but with those that follow, until [`Intake::hand_over`].
    pub(super) fn hold(&mut self, seen: Observation) {
        self.settle_debt();
        self.held.push(Work::Seen(Box::new(seen)));
        if self.held.len() >= HELD_MAX {
            self.hand_over();
        }
    }

    /// Tells the analysis that something is missing.
    pub(super) fn loss(&mut self) {
        self.hand_over();
        self.owed_loss = true;
        self.settle_debt();
    }

    /// Hands on what is held; what there is no room for is counted as dropped.
    pub(super) fn hand_over(&mut self) {
        // Also where nothing came since.
        self.settle_debt();
        self.work.offer(&mut self.held);
        if self.held.is_empty() {
            return;
        }
        let lost = self.held.drain(..).filter(|work| matches!(work, Work::Seen(_))).count();
        let lost = u64::try_from(lost).unwrap_or(u64::MAX);
        self.metrics.queue_dropped.with_label_values(&[QUEUE]).inc_by(lost);
        self.owed_loss = true;
    }

    /// What was lost is told before what comes next.
    fn settle_debt(&mut self) {
        if std::mem::take(&mut self.owed_loss) {
            self.held.push(Work::Loss);
        }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.hand_over();
    }
}

// === impl AnalysisThread ===

impl AnalysisThread {
    /// Starts it. It ends, with everything written, when the intake is dropped.
    pub(super) fn start(self) -> Result<(Intake, JoinHandle<()>), Failure> {
        let (work, todo) = queue::bounded(self.config.limits.queue);
        let metrics = self.metrics.clone();
        let intake = Intake { work, metrics, held: Vec::new(), owed_loss: false };
        let Self {
            config,
            host,
            store,
            orders,
            metrics,
            outputs,
            requests,
            logins,
            status,
            own_probes,
            asker,
            recorder,
        } = self;
        let slots = Slots::new(metrics.clone(), own_probes, &config.patrol);
        let mut analysis = Recorded::new(&config, host, store, Box::new(slots), recorder);
        analysis.ask_dates(config.provenance);
        let told = analysis.tally();
        let mut worker = Worker {
            analysis,
            orders,
            incidents: None,
            config,
            metrics,
            outputs,
            requests,
            logins,
            status,
            asker,
            told,
            troubles: Troubles::default(),
            ways: Troubles::default(),
        };
        worker.open_incidents();
        worker.obey();
        let thread = thread::Builder::new()
            .name("analysis".to_owned())
            .spawn(move || worker.run(&todo))
            .map_err(|error| super::internal("cannot start the analysis", error))?;
        Ok((intake, thread))
    }
}

// === impl Worker ===

impl Worker {
    fn run(&mut self, todo: &Receiver<Work>) {
        let flush_ns =
            u64::try_from(self.config.learning.flush_every.as_nanos()).unwrap_or(u64::MAX);
        let mut ticked = Clock::ktime_ns();
        loop {
            let wait = self.until_due(ticked.saturating_add(flush_ns));
            let batch = match todo.take(wait) {
                Ok(batch) => batch,
                Err(Idle::Timeout) => {
                    let updates = self.analysis.tick(Clock::ktime_ns());
                    self.publish(&updates);
                    VecDeque::new()
                }
                Err(Idle::Ended) => break,
            };
            for work in batch {
                self.work(work);
                self.house(&mut ticked, flush_ns);
            }
            self.request();
            self.house(&mut ticked, flush_ns);
        }
        let updates = self.analysis.finish();
        self.publish(&updates);
        self.analysis.flush();
        self.save_incidents();
        self.keep_suppressions();
        self.tell_baselines();
        self.logins.end();
        let unwritten: Vec<_> = self.troubles.now().map(|(what, _)| what).collect();
        if unwritten.is_empty() {
            info!("the analysis has ended; everything is written");
        } else {
            warn!(unwritten = unwritten.join(", "), "the analysis has ended; not all is written");
        }
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::Seen(seen) => {
                self.observe(&seen);
                self.logins.note(&seen);
                let updates = self.analysis.on_observation(*seen);
                self.publish(&updates);
                self.request();
            }
            Work::Loss => {
                self.logins.on_loss();
                self.analysis.on_loss();
            }
        }
    }

    /// Keeps house if it is time to.
    fn house(&mut self, ticked: &mut u64, every_ns: u64) {
        let now = Clock::ktime_ns();
        if now.saturating_sub(*ticked) >= every_ns {
            *ticked = now;
            self.keep_house(now);
        }
    }

    fn until_due(&self, flush_at: u64) -> Duration {
        let due = self.analysis.next_due().unwrap_or(u64::MAX).min(flush_at);
        Duration::from_nanos(due.saturating_sub(Clock::ktime_ns()))
    }

    /// What is to be done now and then: stores, gauges.
    fn keep_house(&mut self, now_ktime_ns: u64) {
        let updates = self.analysis.tick(now_ktime_ns);
        self.publish(&updates);
        self.obey();
        for note in self.analysis.store_notes() {
            super::tell_opened(&note);
        }
        self.take_decisions();
        self.save_incidents();
        self.keep_suppressions();
        self.tell_baselines();
        self.tell_tally();
    }

    fn obey(&mut self) {
        let Some(orders) = &self.orders else { return };
        for told in self.analysis.obey(orders, Timestamp::now()) {
            info!(order = told, "the baselines were changed by hand");
        }
        let outcome = orders.outcome();
        self.tell_way(ORDERS, outcome);
    }

    fn observe(&self, seen: &Observation) {
        match &seen.body {
            Body::Linked(timing) => {
                self.metrics.observe_link(seen.process.program.guarded(), seconds(timing.cpu_ns));
            }
            Body::Verdict(verdict) => {
                let cpu = seconds(verdict.cpu_ns);
                self.metrics.observe_auth(verdict.method.name(), verdict.accepted, cpu);
            }
            _ => {}
        }
    }

    fn publish(&mut self, updates: &[IncidentUpdate]) {
        for (detector, severity) in self.analysis.found() {
            self.metrics.count_finding(detector, severity);
        }
        if updates.is_empty() {
            return;
        }
        for IncidentUpdate { reason, incident } in updates {
            if *reason == Reason::Opened {
                self.metrics.count_incident(incident.severity);
            }
            info!(id = %incident.id, severity = ?incident.severity, ?reason, title = %incident.title, "incident");
            if let Err(error) = self.outputs.send(&incident.id, incident) {
                warn!(%error, id = %incident.id, "the incident cannot be written as JSON");
            }
        }
        self.save_incidents();
        self.tell_open();
    }

    fn request(&mut self) {
        for question in self.analysis.questions() {
            if !self.asker.get().is_some_and(|asker| asker.ask(question.clone())) {
                debug!("what changed before a shift is not asked for");
                // Nobody will answer: the finding is told without.
                let updates = self.analysis.on_observation(question);
                self.publish(&updates);
            }
        }
        for directive in self.analysis.directives() {
            // Full: the source task is behind. What is asked for is asked for again.
            if self.requests.try_send(directive).is_err() {
                self.metrics.queue_dropped.with_label_values(&["requests"]).inc();
            }
        }
    }

    fn open_incidents(&mut self) {
        match open_store(&self.config.state_dir) {
            Ok(store) => {
                match store.open_entries() {
                    Ok(entries) => {
                        let (now, ktime_ns) = (Timestamp::now(), Clock::ktime_ns());
                        self.analysis.restore(entries, now, ktime_ns);
                    }
                    Err(error) => self.store_failed("read", &error),
                }
                self.suppress(suppressions(&self.config, &store));
                self.status.set_incidents(Kept(Arc::clone(&store)));
                self.incidents = Some(store);
            }
            Err(error) => self.store_failed("open", &error),
        }
    }

    fn save_incidents(&mut self) {
        if self.incidents.is_none() {
            self.open_incidents();
        }
        let Some(store) = self.incidents.clone() else { return };
        match self.analysis.incidents().save(|entries| store.put(entries).map(|_| ())) {
            Ok(()) => self.tell_turn(INCIDENTS, Ok(())),
            Err(error) => self.store_failed("write", &error),
        }
    }

    /// The incidents stay in memory and are tried again at the next flush.
    fn store_failed(&mut self, operation: &str, error: &crate::incident::StoreError) {
        self.metrics.store_failures.with_label_values(&[operation]).inc();
        self.tell_turn(INCIDENTS, Err(chain(error)));
    }

    fn tell_baselines(&mut self) {
        let outcome = self.analysis.store_failure().map_or(Ok(()), |reason| Err(reason.to_owned()));
        self.tell_turn(BASELINES, outcome);
    }

    fn tell_turn(&mut self, what: &'static str, outcome: Result<(), String>) {
        match self.troubles.note(what, outcome) {
            Some(Turn::Fails { reason }) => {
                warn!(what, reason, "cannot be written for now: kept in memory, tried again");
            }
            Some(Turn::Works) => info!(what, "written again"),
            None => {}
        }
    }

    /// Whether people can reach the sensor, where that changes.
    fn tell_way(&mut self, what: &'static str, outcome: Result<(), String>) {
        match self.ways.note(what, outcome) {
            Some(Turn::Fails { reason }) => {
                warn!(what, reason, "cannot be taken up for now: what waits there stays");
            }
            Some(Turn::Works) => info!(what, "are taken up again"),
            None => {}
        }
    }

    fn tell_open(&mut self) {
        let mut open = [0_i64; SEVERITIES.len()];
        let unseen = |incident: &&Incident| incident.state == State::Open;
        for incident in self.analysis.incidents().open().filter(unseen) {
            let label = severity_label(incident.severity);
            for (name, count) in SEVERITIES.iter().zip(&mut open) {
                *count += i64::from(*name == label);
            }
        }
        for (name, count) in SEVERITIES.iter().zip(open) {
            self.metrics.incidents_open.with_label_values(&[name]).set(count);
        }
    }

    fn tell_tally(&mut self) {
        self.tell_open();
        let now = self.analysis.tally();
        let metrics = &self.metrics;
        for (label, count) in [("settled", now.settled), ("learning", now.baselines - now.settled)]
        {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metrics.baselines.with_label_values(&[label]).set(count);
        }
        metrics.drifting_baselines.set(i64::try_from(now.drifting).unwrap_or(i64::MAX));
        let failures = now.store.failures.saturating_sub(self.told.store.failures);
        metrics.store_failures.with_label_values(&["baseline"]).inc_by(failures);
        let (store, told) = (now.store, self.told.store);
        for (reason, count, before) in [
            ("evicted", store.evicted, told.evicted),
            ("unwritten", now.baselines_lost, self.told.baselines_lost),
            ("unreadable", store.unreadable, told.unreadable),
        ] {
            let more = count.saturating_sub(before);
            metrics.baselines_forgotten.with_label_values(&[reason]).inc_by(more);
        }
        self.told = now;
    }
}
