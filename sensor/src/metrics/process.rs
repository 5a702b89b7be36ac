//! What the sensor itself costs, under the names every Prometheus client uses.
//!
//! Source: `/proc/self/stat`, `statm` and `fd`; proc(5).

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::Gauge;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::define::{Build, Definition};

pub(super) const DEFINITIONS: [Definition; 5] = [
    Definition {
        name: "process_cpu_seconds_total",
        help: "User and system CPU seconds the sensor has used.",
        labels: &[],
    },
    Definition {
        name: "process_resident_memory_bytes",
        help: "Resident memory of the sensor.",
        labels: &[],
    },
    Definition {
        name: "process_open_fds",
        help: "File descriptors the sensor has open.",
        labels: &[],
    },
    Definition { name: "process_threads", help: "Threads of the sensor.", labels: &[] },
    Definition {
        name: "process_start_time_seconds",
        help: "When the sensor started, Unix time.",
        labels: &[],
    },
];

#[derive(Debug)]
pub(super) struct ProcessCollector {
    cpu: Gauge,
    resident: Gauge,
    descriptors: Gauge,
    threads: Gauge,
    start: Gauge,
}

/// The fields of `/proc/self/stat` that are used.
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    resident_pages: u64,
}

impl ProcessCollector {
    pub(super) fn new() -> prometheus::Result<Self> {
        let [cpu, resident, descriptors, threads, start] = &DEFINITIONS;
        let collector = Self {
            cpu: Build::build(cpu, &[])?,
            resident: Build::build(resident, &[])?,
            descriptors: Build::build(descriptors, &[])?,
            threads: Build::build(threads, &[])?,
            start: Build::build(start, &[])?,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        collector.start.set(now.as_secs_f64());
        Ok(collector)
    }

    fn all(&self) -> [&Gauge; 5] {
        [&self.cpu, &self.resident, &self.descriptors, &self.threads, &self.start]
    }

    fn read(&self) {
        if let Some(stat) =
            fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse)
        {
            let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
            self.cpu.set(real(stat.cpu_ticks) / real(rustix::param::clock_ticks_per_second()));
            self.resident.set(real(stat.resident_pages.saturating_mul(page)));
            self.threads.set(real(stat.threads));
        }
        if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory that is being read.
            let open = descriptors.count().saturating_sub(1);
            self.descriptors.set(real(u64::try_from(open).unwrap_or(u64::MAX)));
        }
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.all().iter().flat_map(|gauge| gauge.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        let mut families: Vec<_> = self.all().iter().flat_map(|gauge| gauge.collect()).collect();
        // Ticks are absolute, so a gauge carries them; to Prometheus it is a counter.
        if let Some(cpu) = families.iter_mut().find(|one| one.name().ends_with("_total")) {
            counter_from_gauge(cpu);
        }
        families
    }
}

impl Stat {
    /// Field numbers as in proc(5), counted after the name, which may hold blanks and brackets.
    fn parse(text: &str) -> Option<Self> {
        let (_, after) = text.rsplit_once(") ")?;
        let field = |number: usize| after.split(' ').nth(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)?.checked_add(field(15)?)?,
            threads: field(20)?,
            resident_pages: field(24)?,
        })
    }
}

fn counter_from_gauge(family: &mut MetricFamily) {
    let value = family.get_metric().first().map_or(0.0, |metric| metric.get_gauge().get_value());
    family.set_field_type(MetricType::COUNTER);
    let mut counter = prometheus::proto::Counter::default();
    counter.set_value(value);
    let mut metric = prometheus::proto::Metric::default();
    metric.set_counter(counter);
    family.set_metric(vec![metric]);
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is far above all of them")]
fn real(value: u64) -> f64 {
    value as f64
}
