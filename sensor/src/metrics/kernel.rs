//! The kernel programs' own counters and memory, read at every scrape.

use std::fmt;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge};
use sensor_common::counters::{COUNTERS, Counter, Ring};

use super::define::{Build, Definition};

pub(super) const DEFINITIONS: [Definition; 5] = [
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
];

/// One reading of the kernel side.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelReading {
    /// Sum over CPUs, indexed by [`Counter`].
    pub counters: [u64; COUNTERS as usize],
    /// Memory of programs and maps, bytes.
    pub memory_bytes: u64,
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
        let [emitted, lost, filtered, failures, memory] = &DEFINITIONS;
        Ok(Self {
            emitted: Build::build(emitted, &[])?,
            lost: Build::build(lost, &[])?,
            filtered: Build::build(filtered, &[])?,
            failures: Build::build(failures, &[])?,
            memory: Build::build(memory, &[])?,
        })
    }

    fn all(&self) -> [&dyn Collector; 5] {
        [&self.emitted, &self.lost, &self.filtered, &self.failures, &self.memory]
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
    }
}
