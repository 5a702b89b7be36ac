//! What an arm costs while nothing happens.

use std::fmt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::arm::Arm;
use super::process;
use super::stats;
use crate::sh;

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
    /// MiB of its BPF programs and maps, where bpftool tells.
    bpf: Option<f64>,
    /// Seconds until it watched, the median over all its starts.
    armed: Option<f64>,
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
            let (began, before) = (Instant::now(), process::cpu_time(pid)?);
            // Not a synchronisation: the length of the measurement itself.
            thread::sleep(length);
            let spent = process::cpu_time(pid)?.saturating_sub(before);
            let starts: Vec<_> = arm.starts().iter().map(Duration::as_secs_f64).collect();
            figures.push(Idle {
                name: arm.name(),
                cpu_percent: 100.0 * spent.as_secs_f64() / began.elapsed().as_secs_f64(),
                resident: mib(process::resident(pid)?),
                bpf: bpf_memory(pid),
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
        let Self { name, cpu_percent, resident, .. } = self;
        write!(f, "idle            {name:<12} {cpu_percent:.3} % of a core, {resident:.1} MiB")?;
        if let Some(bpf) = self.bpf {
            write!(f, " + {bpf:.1} MiB BPF")?;
        }
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

/// MiB that bpftool says are locked for the programs and maps held by `pid`.
fn bpf_memory(pid: u32) -> Option<f64> {
    let held = |kind: &str| -> Option<u64> {
        let listed = sh::output(Command::new("bpftool").args(["-j", kind, "show"])).ok()?;
        let listed: Value = serde_json::from_str(&listed).ok()?;
        Some(listed.as_array()?.iter().filter(|object| is_held_by(object, pid)).map(locked).sum())
    };
    Some(mib(held("prog")? + held("map")?))
}

fn is_held_by(object: &Value, pid: u32) -> bool {
    let holders = object.get("pids").and_then(Value::as_array);
    let of = |holder: &Value| holder.get("pid").and_then(Value::as_u64);
    holders.is_some_and(|holders| holders.iter().any(|holder| of(holder) == Some(pid.into())))
}

fn locked(object: &Value) -> u64 {
    object.get("bytes_memlock").and_then(Value::as_u64).unwrap_or(0)
}

fn mib(bytes: u64) -> f64 {
    // Exact for every size below 4 PiB, in KiB.
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) * 1024.0 / MIB
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_memory_of_the_process_in_question_counts() {
        let ours = serde_json::json!({"bytes_memlock": 4096, "pids": [{"pid": 7, "comm": "x"}]});
        let foreign = serde_json::json!({"bytes_memlock": 4096, "pids": [{"pid": 8}]});
        let orphan = serde_json::json!({"bytes_memlock": 4096});
        assert!(is_held_by(&ours, 7));
        assert!(!is_held_by(&foreign, 7) && !is_held_by(&orphan, 7));
        assert_eq!(locked(&ours), 4096);
    }
}
