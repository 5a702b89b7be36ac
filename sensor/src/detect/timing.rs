//! Times against their baseline: limits, drift of the whole machine, and who took the excess.
//!
//! Measured on real logins (shared reference, sshd timing): the median of one series differs from
//! the next by up to 1.76 with what else the machine does, single samples stay below 3.9 times the
//! median in 3,680. A burn sits in one module; a slow machine slows all of them alike.

use std::time::Duration;

use crate::baseline::{Baseline, START_UP, Summary, share_key};
use crate::host::{LinkTiming, ModuleId};

/// Modules with less than this median share say nothing about drift, microseconds.
const SHARE_MIN_US: u64 = 20;
/// Modules needed to tell drift.
const SHARES_MIN: usize = 4;
/// Samples that name a module: fewer may be chance.
pub(crate) const SAMPLES_MIN: u32 = 3;
/// Excess below this never counts, microseconds.
const EXCESS_MIN_US: u64 = 2_000;

/// Limits for one kind of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// A single sample above it alarms, microseconds.
    pub(crate) gross_us: u64,
    /// Several in a row above it alarm, microseconds.
    pub(crate) run_us: u64,
}

/// Which limit a sample crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crossed {
    /// None.
    Neither,
    /// The one for runs.
    Run,
    /// The one for single samples.
    Gross,
}

/// The module that took most of an excess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blame {
    /// Which; `None` for the first stretch, which is nobody's alone.
    pub(crate) module: Option<ModuleId>,
    /// Its share, microseconds.
    pub(crate) share_us: u64,
    /// Its usual share, microseconds; `None` where it has none.
    pub(crate) usual_us: Option<u64>,
}

impl Limits {
    /// `excess` is configured. `tolerance_percent` of the median is what drift alone may make of a
    /// sample; `drift_percent` (100 = none) is how much slower the machine was at this sample.
    pub(crate) fn new(
        summary: &Summary,
        excess: Duration,
        tolerance_percent: u64,
        drift_percent: u64,
    ) -> Self {
        let excess_us = u64::try_from(excess.as_micros()).unwrap_or(u64::MAX);
        let spread = summary.mad_us.saturating_mul(8);
        let drifted = percent(summary.median_us, drift_percent);
        let run_us = percent(summary.median_us, tolerance_percent)
            .max(drifted.saturating_add(percent(summary.median_us, tolerance_percent - 100)))
            .max(percent(summary.p95_us, drift_percent.max(100)))
            .max(summary.median_us.saturating_add(EXCESS_MIN_US));
        Self { gross_us: summary.median_us.saturating_add(excess_us.max(spread)), run_us }
    }

    pub(crate) fn crossed(&self, us: u64) -> Crossed {
        if us > self.gross_us {
            Crossed::Gross
        } else if us > self.run_us {
            Crossed::Run
        } else {
            Crossed::Neither
        }
    }
}

/// How much slower than usual the modules were linked, as the median over modules, percent; `None`
/// where too few are known. A burn in one module does not move it.
pub(crate) fn drift_percent(baseline: &Baseline, timing: &LinkTiming) -> Option<u64> {
    let mut ratios: Vec<u64> = timing
        .shares
        .iter()
        .enumerate()
        .filter(|(_, share)| !share.blocked)
        .filter_map(|(at, share)| {
            let usual = usual_us(baseline, share_key(at, share.module.as_ref())?)?;
            (usual >= SHARE_MIN_US).then(|| share.cpu_ns / 10 / usual)
        })
        .collect();
    ratios.sort_unstable();
    (ratios.len() >= SHARES_MIN).then(|| ratios.get(ratios.len() / 2).copied()).flatten()
}

/// Whose code was at work for most of a start that was sampled: a module's resolvers run while the
/// modules that need it are relocated, so the stretch alone may name another. The loader's own work
/// says nothing.
pub(crate) fn busiest(timing: &LinkTiming) -> Option<&ModuleId> {
    let all: u32 = timing.busy.iter().map(|(_, count)| *count).sum();
    let (module, count) = timing.busy.first()?;
    let loader = module.name().starts_with("ld-") || module.name().starts_with("ld.so");
    (*count >= SAMPLES_MIN && *count * 2 > all && !loader).then_some(module)
}

/// Who took the excess. `asleep` looks at the stretches with sleep instead of those without.
pub(crate) fn blame(
    baseline: &Baseline,
    timing: &LinkTiming,
    drift: u64,
    asleep: bool,
) -> Option<Blame> {
    let shares = timing.shares.iter().enumerate().filter(|(_, share)| share.blocked == asleep);
    shares
        .map(|(at, share)| {
            let key = share_key(at, share.module.as_ref());
            let usual_us =
                key.and_then(|key| usual_us(baseline, key).or_else(|| namesake(baseline, key)));
            let share_us = share.cpu_ns / 1000;
            let excess = share_us.saturating_sub(percent(usual_us.unwrap_or(0), drift));
            let module = share.module.clone().filter(|_| key != Some(START_UP));
            (excess, Blame { module, share_us, usual_us })
        })
        .max_by_key(|(excess, _)| *excess)
        .map(|(_, blame)| match busiest(timing) {
            Some(module) if !asleep && blame.module.as_ref() != Some(module) => {
                Blame { module: Some(module.clone()), ..blame }
            }
            _ => blame,
        })
}

fn usual_us(baseline: &Baseline, key: &str) -> Option<u64> {
    Some(baseline.shares.get(key)?.summary()?.median_us)
}

/// The usual share of a file that has the same name elsewhere: what a replaced library took.
fn namesake(baseline: &Baseline, path: &str) -> Option<u64> {
    let name = file_name(path);
    let same = baseline.shares.keys().find(|known| file_name(known) == name)?;
    usual_us(baseline, same)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn percent(us: u64, percent: u64) -> u64 {
    us.saturating_mul(percent) / 100
}

/// Microseconds as milliseconds with one decimal.
pub(crate) fn us_milliseconds(us: u64) -> String {
    format!("{}.{}", us / 1000, us % 1000 / 100)
}

/// Microseconds as seconds.
pub(crate) fn us_seconds(us: u64) -> f64 {
    crate::host::seconds(us.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ModuleShare;

    fn summary(median_us: u64, mad_us: u64, p95_us: u64) -> Summary {
        Summary { count: 20, median_us, mad_us, p95_us }
    }

    fn timing(shares_us: &[u64]) -> LinkTiming {
        let shares = shares_us.iter().enumerate().map(|(at, us)| ModuleShare {
            module: Some(ModuleId { path: format!("/lib/{at}.so"), build: "0".to_owned() }),
            wall_ns: us * 1000,
            cpu_ns: us * 1000,
            blocked: false,
        });
        let cpu_ns = shares_us.iter().sum::<u64>() * 1000;
        LinkTiming {
            wall_ns: cpu_ns,
            cpu_ns,
            blocked_ns: 0,
            minor_faults: 0,
            shares: shares.collect(),
            overflow: 0,
            busy: Vec::new(),
        }
    }

    fn learned(shares_us: &[u64]) -> Baseline {
        let mut baseline = Baseline::default();
        for _ in 0..20 {
            baseline.add_link(&timing(shares_us), true);
        }
        baseline
    }

    #[test]
    fn gross_limit_is_median_plus_the_larger_of_excess_and_spread() {
        let excess = Duration::from_millis(100);
        assert_eq!(Limits::new(&summary(5_000, 200, 7_000), excess, 150, 100).gross_us, 105_000);
        assert_eq!(Limits::new(&summary(5_000, 20_000, 7_000), excess, 150, 100).gross_us, 165_000);
    }

    #[test]
    fn run_limit_is_above_the_tail_and_moves_with_the_machine() {
        let excess = Duration::from_millis(100);
        let calm = summary(4_000, 200, 7_200);
        assert_eq!(Limits::new(&calm, excess, 150, 100).run_us, 7_200);
        // 1.76 times slower all over: 1.76 x median + half the median, or 1.76 x p95.
        assert_eq!(Limits::new(&calm, excess, 150, 176).run_us, 12_672);
        assert_eq!(Limits::new(&summary(100, 1, 101), excess, 150, 100).run_us, 2_100);
    }

    #[test]
    fn a_slow_machine_is_drift_and_a_burn_is_not() {
        let usual = [900, 100, 200, 300, 400, 500];
        let baseline = learned(&usual);
        let slow: Vec<u64> = usual.iter().map(|us| us * 176 / 100).collect();
        assert_eq!(drift_percent(&baseline, &timing(&slow)), Some(176));
        let mut burnt = usual;
        burnt[2] += 300_000;
        assert_eq!(drift_percent(&baseline, &timing(&burnt)), Some(100));
        assert_eq!(drift_percent(&Baseline::default(), &timing(&usual)), None);
    }

    #[test]
    fn blame_goes_to_the_largest_excess_not_to_the_largest_share() {
        let baseline = learned(&[900, 100, 5_000, 300, 400]);
        let blame = blame(&baseline, &timing(&[900, 3_000, 5_500, 300, 400]), 100, false).unwrap();
        assert_eq!(blame.module.unwrap().path, "/lib/1.so");
        assert_eq!((blame.share_us, blame.usual_us), (3_000, Some(100)));
    }

    #[test]
    fn a_module_without_a_usual_share_is_blamed_for_all_of_it() {
        let baseline = learned(&[900, 100]);
        let found = blame(&baseline, &timing(&[900, 100, 700]), 100, false).unwrap();
        assert_eq!((found.share_us, found.usual_us), (700, None));
        // The first stretch is nobody's alone.
        let first = blame(&baseline, &timing(&[50_000, 100]), 100, false).unwrap();
        assert_eq!(first.module, None);
    }
}
