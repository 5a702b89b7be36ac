//! The kernel programs' own counters and memory, read at every scrape.

use std::fmt;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, IntCounterVec, IntGauge};
use sensor_common::counters::{COUNTERS, Counter, Ring};

use super::define::{Build, Definition};
use crate::loader::ProgramStats;

pub(super) const DEFINITIONS: [Definition; 8] = [
    Definition {
        name: "halfsecond_records_emitted_total",
        help: "Records the kernel programs tried to put into a ring: consumed + lost.",
        labels: &["ring"],
    },
    Definition {
        name: "halfsecond_records_lost_total",
        help: "Records for which a ring had no room.",
        labels: &["ring"],
    },
    Definition {
        name: "halfsecond_records_filtered_total",
        help: "Records left out in the kernel because they say nothing new.",
        labels: &["kind"],
    },
    Definition {
        name: "halfsecond_kernel_failures_total",
        help: "Things the kernel programs could not do.",
        labels: &["reason"],
    },
    Definition {
        name: "halfsecond_bpf_memory_bytes",
        help: "Kernel memory of the sensor's programs and maps.",
        labels: &[],
    },
    Definition {
        name: "halfsecond_program_runs_total",
        help: "Runs of each kernel program, counted while the sysctl kernel.bpf_stats_enabled is 1.",
        labels: &["program"],
    },
    Definition {
        name: "halfsecond_program_seconds_total",
        help: "Time of those runs.",
        labels: &["program"],
    },
    Definition {
        name: "halfsecond_program_missed_total",
        help: "Hits that a kernel program missed because it was running on that CPU already.",
        labels: &["program"],
    },
];

/// One reading of the kernel side.
#[derive(Clone, Debug, Default)]
pub struct KernelReading {
    /// Sum over CPUs, indexed by [`Counter`].
    pub counters: [u64; COUNTERS as usize],
    /// Memory of programs and maps, bytes.
    pub memory_bytes: u64,
    /// Of every loaded program.
    pub programs: Vec<ProgramStats>,
}

pub(super) struct KernelCollector {
    read: Box<dyn Fn() -> Option<KernelReading> + Send + Sync>,
    descriptions: Vec<Desc>,
}

struct Families {
    emitted: IntCounterVec,
    lost: IntCounterVec,
    filtered: IntCounterVec,
    failures: IntCounterVec,
    memory: IntGauge,
    runs: IntCounterVec,
    seconds: CounterVec,
    missed: IntCounterVec,
}

// === impl KernelReading ===

impl KernelReading {
    fn get(&self, counter: Counter) -> u64 {
        self.counters.get(counter as usize).copied().unwrap_or_default()
    }
}

// === impl KernelCollector ===

impl KernelCollector {
    pub(super) fn new(
        read: impl Fn() -> Option<KernelReading> + Send + Sync + 'static,
    ) -> prometheus::Result<Self> {
        let descriptions =
            Families::new()?.all().iter().flat_map(|one| one.desc()).cloned().collect();
        Ok(Self { read: Box::new(read), descriptions })
    }
}

impl fmt::Debug for KernelCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelCollector").finish_non_exhaustive()
    }
}

impl Collector for KernelCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (Some(reading), Ok(families)) = ((self.read)(), Families::new()) else {
            return Vec::new();
        };
        families.fill(&reading);
        families.all().iter().flat_map(|one| one.collect()).collect()
    }
}

// === impl Families ===

impl Families {
    /// Fresh ones per scrape: a counter cannot be set, only raised from 0.
    fn new() -> prometheus::Result<Self> {
        let [emitted, lost, filtered, failures, memory, runs, seconds, missed] = &DEFINITIONS;
        Ok(Self {
            emitted: Build::build(emitted, &[])?,
            lost: Build::build(lost, &[])?,
            filtered: Build::build(filtered, &[])?,
            failures: Build::build(failures, &[])?,
            memory: Build::build(memory, &[])?,
            runs: Build::build(runs, &[])?,
            seconds: Build::build(seconds, &[])?,
            missed: Build::build(missed, &[])?,
        })
    }

    fn all(&self) -> [&dyn Collector; 8] {
        [
            &self.emitted,
            &self.lost,
            &self.filtered,
            &self.failures,
            &self.memory,
            &self.runs,
            &self.seconds,
            &self.missed,
        ]
    }

    fn fill(&self, reading: &KernelReading) {
        for (ring, label) in [(Ring::Bulk, "bulk"), (Ring::Priority, "priority")] {
            self.emitted.with_label_values(&[label]).inc_by(reading.get(ring.emitted()));
            self.lost.with_label_values(&[label]).inc_by(reading.get(ring.lost()));
        }
        for (counter, label) in [(Counter::MapFiltered, "map"), (Counter::LinkFiltered, "link")] {
            self.filtered.with_label_values(&[label]).inc_by(reading.get(counter));
        }
        for (counter, label) in [
            (Counter::ReadFailed, "read"),
            (Counter::StateFull, "state_full"),
            (Counter::EnvTruncated, "environment_truncated"),
            (Counter::SealOverflow, "seal_overflow"),
        ] {
            self.failures.with_label_values(&[label]).inc_by(reading.get(counter));
        }
        self.memory.set(i64::try_from(reading.memory_bytes).unwrap_or(i64::MAX));
        for program in &reading.programs {
            let label = [program.name.as_str()];
            self.runs.with_label_values(&label).inc_by(program.runs);
            let seconds = Duration::from_nanos(program.run_ns).as_secs_f64();
            self.seconds.with_label_values(&label).inc_by(seconds);
            self.missed.with_label_values(&label).inc_by(program.missed);
        }
    }
}
