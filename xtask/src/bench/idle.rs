//! What an arm costs while nothing happens.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::arm::Arm;
use super::process;
use super::stats;

/// Limits of the sensor.
const CPU_PERCENT: f64 = 0.5;
const RESIDENT: f64 = 40.0;
const ARMED: f64 = 1.0;

const MIB: f64 = 1024.0 * 1024.0;

/// One arm's figures.
pub(super) struct Idle {
    name: &'static str,
    /// Of one core.
    cpu_percent: f64,
    /// MiB of its process.
    resident: f64,
    /// MiB of its BPF programs and maps.
    bpf: f64,
    /// Seconds until it watched, the median over all its starts.
    armed: Option<f64>,
    /// Seconds on a CPU until it came to rest after its start.
    start: f64,
}

/// Lets every arm that has a process run for `length` with no workload.
///
/// The machine's other work goes on and is seen by the arms, so this is an upper bound.
pub(super) fn measure(arms: &mut [Box<dyn Arm>], length: Duration) -> Result<Vec<Idle>> {
    let mut figures = Vec::new();
    for arm in arms {
        arm.start().with_context(|| format!("{} does not start", arm.name()))?;
        if let Some(pid) = arm.pid() {
            eprintln!("idle: {} for {} s", arm.name(), length.as_secs());
            let start = process::settle(pid)?.as_secs_f64();
            let (began, before) = (Instant::now(), process::cpu_time(pid)?);
            // Not a synchronisation: the length of the measurement itself.
            thread::sleep(length);
            let spent = process::cpu_time(pid)?.saturating_sub(before);
            let starts: Vec<_> = arm.starts().iter().map(Duration::as_secs_f64).collect();
            figures.push(Idle {
                name: arm.name(),
                cpu_percent: 100.0 * spent.as_secs_f64() / began.elapsed().as_secs_f64(),
                resident: mib(process::resident(pid)?),
                bpf: mib(process::bpf_memory(pid)?),
                start,
                armed: (!starts.is_empty()).then(|| stats::median(&starts)),
            });
        }
        arm.stop().with_context(|| format!("{} does not stop", arm.name()))?;
    }
    Ok(figures)
}

// === impl Idle ===

impl Idle {
    /// Only the sensor has limits.
    pub(super) fn within_limits(&self) -> bool {
        self.name != "halfsecond"
            || (self.cpu_percent <= CPU_PERCENT
                && self.resident <= RESIDENT
                && self.armed.is_none_or(|armed| armed <= ARMED))
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, cpu_percent, resident, bpf, start, .. } = self;
        write!(f, "idle            {name:<12} {cpu_percent:.3} % of a core, ")?;
        write!(f, "{resident:.1} MiB + {bpf:.1} MiB BPF, {start:.2} s of CPU to start")?;
        if let Some(armed) = self.armed {
            write!(f, ", armed after {armed:.2} s")?;
        }
        if name == &"halfsecond" {
            let verdict = if self.within_limits() { "met" } else { "MISSED" };
            write!(f, "  (limits {CPU_PERCENT} %, {RESIDENT} MiB, {ARMED} s: {verdict})")?;
        }
        Ok(())
    }
}

fn mib(bytes: u64) -> f64 {
    // Exact for every size below 4 PiB, in KiB.
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) * 1024.0 / MIB
}
