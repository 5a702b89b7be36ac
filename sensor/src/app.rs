//! The one place that wires the stations: kernel side → source → host → analysis → outputs.
//!
//! One task owns source → host; one bounded channel leads on to the analysis, which has a thread of
//! its own because a slot check blocks for milliseconds. Nothing here waits for what is downstream.

mod adapters;
mod allowance;
mod analysis;
mod code;
mod decisions;
mod incidents;
mod instrument;
mod kernel;
mod loader_files;
mod logins;
mod queue;
mod slots;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::baseline::{Bounds, Opened, Orders, Store, WriterLock};
use crate::cli::Failure;
use crate::cli::run::Surroundings;
use crate::config::host_name;
use crate::event::Event;
use crate::host::{
    Attached, Clock, Directive, Observation, Patient, PatientLocate, Pipeline, Procfs,
};
use crate::metrics::Metrics;
use crate::provenance::Provenance;
use crate::record::Recorder;
use crate::source::{Source, SourceStats};
use crate::status::Status;
use crate::watch::Told;

use self::adapters::Places;
use self::analysis::{AnalysisThread, Intake};
use self::kernel::Kernel;
use self::loader_files::LoaderFiles;
use self::logins::Logins;

pub use self::decisions::ACCESS;
pub use self::incidents::read_store;

/// How long an ordinary record may wait for the agent: the timer of the bulk ring.
const BULK_EVERY: Duration = Duration::from_millis(100);
/// How long a command may be at work on the store when the sensor starts.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);
/// Requests of the analysis to the kernel side that may wait.
const REQUESTS: usize = 1024;
/// Files whose probes are there that the host station may still have to be told of.
const ATTACHED: usize = 4096;

/// Runs every station until the sensor is told to stop. What the analysis is told goes to `recorder` as
/// well, which is dropped at the end.
pub async fn stations(around: Surroundings, recorder: Option<Recorder>) -> Result<(), Failure> {
    let Surroundings { config, metrics, incidents, status, mut stop } = around;
    let (store, orders) = {
        let (dir, keep) = (config.state_dir.clone(), config.learning.keep);
        blocking(move || open_store(&dir, keep)).await?
    };
    let logins = {
        let (config, metrics, status) = (config.clone(), metrics.clone(), Arc::clone(&status));
        blocking(move || Logins::start(&config, &metrics, &status)).await?
    };
    let (done, attached) = mpsc::channel(ATTACHED);
    let (kernel, mut programs, rings) = {
        let (config, metrics) = (config.clone(), metrics.clone());
        blocking(move || Kernel::load(&config, &metrics, done)).await??
    };
    let places = Box::new(PatientLocate::new(Places::default));
    let outside = Box::new(Patient::new(Procfs));
    let mut host = Pipeline::new(&config, Clock::now(), outside, places);
    // Reads /proc of every process.
    let mut host = blocking(move || {
        host.start(Clock::ktime_ns());
        host
    })
    .await?;
    // Roles first, so that nothing of a guarded program is missed from the first record on; the
    // program of the function probes is loaded with the others.
    let (functions, roles): (Vec<_>, Vec<_>) =
        host.directives().into_iter().partition(Directive::needs_probes);
    kernel.apply(roles);
    let (programs, probes, instrumenting) = blocking(move || {
        let probes = programs.attach()?;
        programs.apply(functions);
        let perf_events = programs.perf_events();
        let own = programs.ids();
        Ok::<_, Failure>((programs, probes, (perf_events, own)))
    })
    .await??;
    host.armed(Clock::ktime_ns());
    kernel.serve_metrics(&metrics, programs.memory(), programs.programs())?;
    let own_probes = programs.own_probes();
    let probing =
        programs.start().map_err(|error| internal("cannot start the probes' thread", error))?;

    let (requests, wanted) = mpsc::channel(REQUESTS);
    let asker = Arc::new(OnceLock::new());
    let thread = AnalysisThread {
        config: config.clone(),
        host: host_name(),
        store,
        orders,
        metrics: metrics.clone(),
        outputs: incidents,
        requests,
        logins,
        status: Arc::clone(&status),
        own_probes,
        asker: Arc::clone(&asker),
        recorder,
    };
    let (intake, analysis) = thread.start()?;
    let instruments = instrument::start(&config, instrumenting, &intake, &status, &metrics);
    let provenance = if config.provenance { start_provenance(&intake) } else { None };
    if let Some(provenance) = &provenance {
        // Empty so far: only this sets it.
        let _ = asker.set(provenance.asker());
    }
    let source = Source::new(rings, BULK_EVERY).map_err(|error| internal("rings", error))?;
    let (files, unwatched) = {
        let (config, metrics) = (config.clone(), metrics.clone());
        blocking(move || LoaderFiles::start(&config, &metrics)).await?
    };
    status.armed(probes.into_iter().chain(unwatched).collect());
    let told = SourceStats::default();
    let mut line = Line {
        host,
        intake,
        provenance,
        kernel,
        files,
        status: Arc::clone(&status),
        metrics,
        attached,
        told,
    };
    let ended = line.run(source, wanted, &mut stop).await;
    // Dropping the line ends the analysis, which writes what it has learned, and the probes' thread.
    drop((line, instruments));
    if spawn_blocking(move || probing.join()).await.is_ok_and(|joined| joined.is_err()) {
        status.failed("probes", "their thread has panicked");
    }
    if spawn_blocking(move || analysis.join()).await.is_ok_and(|joined| joined.is_err()) {
        status.failed("analysis", "its thread has panicked");
    }
    ended
}

/// Source → host: what one task owns.
struct Line {
    host: Pipeline,
    intake: Intake,
    /// Asked about every library; none where it is switched off or has no thread.
    provenance: Option<Provenance>,
    kernel: Kernel,
    files: LoaderFiles,
    status: Arc<Status>,
    metrics: Metrics,
    /// What probes are there.
    attached: mpsc::Receiver<Attached>,
    /// What the metrics have been told of the source.
    told: SourceStats,
}

// === impl Line ===

impl Line {
    async fn run(
        &mut self,
        mut source: Source,
        mut wanted: mpsc::Receiver<Directive>,
        stop: &mut tokio::sync::watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let mut events = Vec::new();
        loop {
            let due = self.until_next_check();
            tokio::select! {
                // Nothing is lost where another branch wins: the batch stays in the ring.
                read = source.next_batch(&mut events) => {
                    read.map_err(|error| internal("cannot wait for the rings", error))?;
                    let lost = self.note_loss();
                    self.take(&mut events);
                    self.count(source.stats(), lost);
                }
                () = tokio::time::sleep(due) => {}
                Some(directive) = wanted.recv() => self.kernel.apply([directive]),
                told = self.files.next() => self.on_files(told),
                Some(attached) = self.attached.recv() => self.host.attached(&attached),
                stopped = stop.wait_for(|stop| *stop) => {
                    // An error means that the signal task is gone: end as well.
                    drop(stopped);
                    info!("the stations end");
                    return Ok(());
                }
            }
            let Self { host, intake, provenance, .. } = self;
            host.tick(Clock::ktime_ns(), &mut |seen| pass(provenance.as_ref(), intake, seen));
            intake.hand_over();
            self.kernel.apply(self.host.directives());
            self.metrics.tell_host(self.host.tally());
        }
    }

    fn on_files(&mut self, told: Told) {
        let Self { host, intake, .. } = self;
        match told {
            Told::Change(change) => {
                host.on_loader_change(*change, &mut |seen| intake.offer(seen));
            }
            Told::Report(report) => self.status.tell(report),
        }
    }

    fn take(&mut self, events: &mut Vec<Event>) {
        let Self { host, intake, provenance, metrics, .. } = self;
        for event in events.drain(..) {
            metrics.count_event(&event.body);
            host.on_event(event, &mut |seen| pass(provenance.as_ref(), intake, seen));
        }
        if let Some(provenance) = provenance {
            metrics.tell_provenance(provenance.tally());
        }
    }

    /// Before the events that were read: what they lack was lost by now, and a verdict that is among
    /// it must not be missed. True if there was a loss.
    fn note_loss(&mut self) -> bool {
        let lost = self.kernel.lost_since_last_look();
        if lost.priority {
            self.host.on_proof_loss(Clock::ktime_ns());
        }
        if lost.state {
            self.host.call_missed(Clock::ktime_ns());
        }
        lost.any
    }

    /// Tells the metrics what the source read, and every station downstream what was lost.
    fn count(&mut self, now: SourceStats, lost: bool) {
        kernel::count_source(&self.metrics, &self.told, &now);
        self.told = now;
        if lost {
            self.host.on_loss();
            self.intake.loss();
        }
    }

    fn until_next_check(&self) -> Duration {
        const LONGEST: Duration = Duration::from_secs(1);
        let Some(due) = self.host.next_due() else { return LONGEST };
        Duration::from_nanos(due.saturating_sub(Clock::ktime_ns())).min(LONGEST)
    }
}

/// To the analysis, and to those who look further.
fn pass(provenance: Option<&Provenance>, intake: &mut Intake, mut seen: Observation) {
    if let Some(provenance) = provenance {
        provenance.look(&mut seen);
    }
    intake.hold(seen);
}

/// Nothing depends on it but what findings say of packages.
fn start_provenance(intake: &Intake) -> Option<Provenance> {
    let mut answers = intake.another();
    let started = Provenance::start(Box::new(move |seen| answers.offer(seen)));
    started.inspect_err(|error| warn!(%error, "packages are not asked about")).ok()
}

/// Not before a command that writes to the store is done: else it would be opened as in use, and what
/// is stored would count as never learned.
fn open_store(dir: &Path, keep: Bounds) -> (Store, Option<Orders>) {
    let lock = std::fs::create_dir_all(dir).and_then(|()| WriterLock::take(dir, COMMAND_PATIENCE));
    let lock = lock.unwrap_or_else(|error| {
        warn!(%error, "the lock of the baselines cannot be taken");
        None
    });
    let (store, opened) = Store::open(dir);
    tell_opened(&opened);
    if lock.is_none() {
        warn!(
            "another holds the lock of the baselines: `halfsecond baseline` cannot reach this sensor"
        );
    }
    (store.bounded(keep), lock.map(|lock| Orders::new(dir, lock)))
}

fn tell_opened(opened: &Opened) {
    match opened {
        Opened::Ready => {}
        Opened::SetAside { moved_to, reason } => {
            warn!(moved_to = %moved_to.display(), %reason, "baselines could not be read: learning anew");
        }
        Opened::InMemory { reason } => {
            warn!(%reason, "baselines are kept in memory only; trying again");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    spawn_blocking(work).await.map_err(|error| internal("a station has panicked", error))
}

fn internal(what: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::Internal { what: what.to_owned(), source: source.into() }
}
