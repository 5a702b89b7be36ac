//! The kernel side in the app's hands: its maps, told by the stations and read by every scrape; its
//! probes, on a thread of their own.

mod probes;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use sensor_common::{Counter, Ring};
use tokio::sync::mpsc::Sender;
use tracing::warn;

use crate::cli::Failure;
use crate::config::Config;
use crate::decode::DecodeError;
use crate::event::InodeKey;
use crate::host::{Attached, Directive};
use crate::loader::{BpfMemory, LoadError, Loader, MapWriteError, ProgramHandles, Tables};
use crate::metrics::{KernelReading, Metrics};
use crate::probe::loader_config;
use crate::source::{Rings, SourceStats};
use crate::trouble::chain;

pub(super) use self::probes::Probes;

/// Requests that may wait for the probes' thread.
const WAITING_MAX: usize = 4096;
/// Label of their metric.
const QUEUE: &str = "probes";

/// The loaded kernel side, shared by the source task and the scrapes.
#[derive(Debug)]
pub(super) struct Kernel {
    tables: Tables,
    probes: SyncSender<Directive>,
    metrics: Metrics,
    /// When last looked at: records lost, by ring (bulk, priority), and entries that found no room.
    lost: [AtomicU64; 3],
}

/// In which rings records were lost, and whether a process or what it does found no room in a map.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lost {
    pub(super) any: bool,
    pub(super) priority: bool,
    pub(super) state: bool,
}

// === impl Kernel ===

impl Kernel {
    /// Loads, tries the offsets out, and hands the rings over. Nothing is attached yet.
    pub(super) fn load(
        config: &Config,
        metrics: &Metrics,
        done: Sender<Attached>,
    ) -> Result<(Self, Probes, Rings), Failure> {
        let mut sensor = Loader::load(&loader_config(config)).map_err(load_failure)?;
        let Some(rings) = sensor.take_rings() else {
            return Err(Failure::Unsupported("the kernel object has no rings".to_owned()));
        };
        let (probes, wanted) = sync_channel(WAITING_MAX);
        let tables = sensor.tables().clone();
        let kernel = Self { tables, probes, metrics: metrics.clone(), lost: Default::default() };
        Ok((kernel, Probes::new(sensor, (wanted, done), metrics), rings))
    }

    /// Carries out what the stations ask for, or hands it to the probes' thread: never waits for a
    /// file. A request that fails costs what it was for; it is told and never ends the sensor.
    pub(super) fn apply(&self, directives: impl IntoIterator<Item = Directive>) {
        for directive in directives {
            if directive.needs_probes() {
                self.hand_on(directive);
            } else if let Err(error) = tell(&self.tables, &directive) {
                let error = chain(&error);
                warn!(?directive, error, "the kernel side did not do as asked");
            }
        }
    }

    fn hand_on(&self, directive: Directive) {
        let Err(TrySendError::Full(left) | TrySendError::Disconnected(left)) =
            self.probes.try_send(directive)
        else {
            return;
        };
        self.metrics.queue_dropped.with_label_values(&[QUEUE]).inc();
        // Asked for again with the next process.
        if let Directive::Attach { exe, file, .. } = left {
            let _ = self.tables.forget_mapping(exe, file);
        }
    }

    /// Where records were lost since the last call.
    pub(super) fn lost_since_last_look(&self) -> Lost {
        let Ok(counters) = self.tables.counters() else { return Lost::default() };
        let [bulk, priority] = [Ring::Bulk, Ring::Priority].map(|ring| counters.lost(ring));
        let now = [bulk, priority, counters.get(Counter::StateFull)];
        let mut raised = now.iter().zip(&self.lost);
        let mut next =
            || raised.next().is_some_and(|(now, was)| was.swap(*now, Ordering::Relaxed) != *now);
        let [bulk, priority, state] = [next(), next(), next()];
        Lost { any: bulk || priority, priority, state }
    }

    /// Has the kernel's own counters read at every scrape.
    pub(super) fn serve_metrics(
        &self,
        metrics: &Metrics,
        memory: BpfMemory,
        programs: ProgramHandles,
    ) -> Result<(), Failure> {
        let (tables, memory_bytes) = (self.tables.clone(), memory.maps + memory.programs);
        let read = move || {
            let counters = tables.counters().ok()?.all();
            Some(KernelReading { counters, memory_bytes, programs: programs.stats() })
        };
        metrics
            .set_kernel_source(read)
            .map_err(|error| super::internal("cannot define the kernel's metrics", error))
    }
}

/// A kernel that cannot be used is the host's, not the user's, fault: exit code 3.
#[expect(clippy::needless_pass_by_value, reason = "used as `map_err(load_failure)`")]
pub(super) fn load_failure(error: LoadError) -> Failure {
    Failure::Unsupported(chain(&error))
}

fn tell(tables: &Tables, directive: &Directive) -> Result<(), MapWriteError> {
    match directive {
        Directive::Guard { inode, role } => tables.guard_inode(*inode, *role),
        Directive::SetRole { tgid, role } => tables.set_process_role(*tgid, *role),
        Directive::ForgetMapping { exe, file } => tables.forget_mapping(*exe, *file),
        Directive::ForgetMappings => tables.forget_mappings(),
        Directive::LinkLimit { exe, limit_ns } => {
            let inode = InodeKey { ino: exe.ino, dev: exe.dev, reserved: 0 };
            tables.set_link_limit(inode, Some(*limit_ns))
        }
        // The probes' thread has them.
        Directive::Attach { .. }
        | Directive::Release { .. }
        | Directive::SampleProcess { .. }
        | Directive::StopSampling { .. } => Ok(()),
    }
}

/// Adds what the source has read since it was last told of.
pub(super) fn count_source(metrics: &Metrics, before: &SourceStats, now: &SourceStats) {
    for (ring, label) in [(Ring::Bulk, "bulk"), (Ring::Priority, "priority")] {
        let new = now.consumed(ring).saturating_sub(before.consumed(ring));
        metrics.records_consumed.with_label_values(&[label]).inc_by(new);
    }
    let failures = DecodeError::REASONS.iter().zip(now.undecodable).zip(before.undecodable);
    for ((reason, now), before) in failures {
        if now > before {
            metrics.decode_failures.with_label_values(&[*reason]).inc_by(now - before);
        }
    }
}
