//! Times against their baseline: limits, drift of the whole machine, and who took the excess.
//!
//! Measured on real logins (shared reference, sshd timing): the median of one series differs from
//! the next by up to 1.76 with what else the machine does, single samples stay below 3.9 times the
//! median in 3,680. A burn sits in one module; a slow machine slows all of them alike.

use std::time::Duration;

use sensor_stats::{Crept, REFERENCE_MAX, Rule, Shift, Weighed, Yardstick};

use super::{Reading, World};
pub(crate) use crate::baseline::drift_percent;
use crate::baseline::{Baseline, START_UP, Summary, share_key};
use crate::host::{LinkTiming, ModuleId};

/// Samples that name a module: fewer may be chance.
pub(crate) const SAMPLES_MIN: u32 = 3;

/// A sample against its stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// How it was judged.
    pub(crate) weighed: Weighed,
    /// What the stream's reference says.
    pub(crate) usual: Summary,
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

/// From where on a single sample alarms, microseconds. `excess` is configured.
pub(crate) fn gross_us(summary: &Summary, excess: Duration) -> u64 {
    let excess_us = u64::try_from(excess.as_micros()).unwrap_or(u64::MAX);
    sensor_stats::gross_limit_us(summary.median_us, summary.mad_us, excess_us)
}

/// Compares a sample with what its stream has learned and bets on it; `None` while there is too little
/// to compare it with. `reading` is filled in.
pub(crate) fn weigh(
    baseline: &Baseline,
    us: u64,
    rule: &Rule,
    world: &World<'_>,
    reading: &mut Reading,
) -> Option<Found> {
    let (shift, yardstick) = reference(baseline, &reading.stream, world)?;
    let (before, length) = (shift.wealth(), world.detect.run_length);
    let weighed = yardstick.weigh(before, us, reading.drift_percent, rule, length);
    reading.wealth = Some(weighed.wealth).filter(|wealth| *wealth != before);
    reading.calm = weighed.calm;
    reading.usual = us <= weighed.levels.usual_us;
    Some(Found { weighed, usual: summary(shift, &yardstick)? })
}

/// What the reference of a stream says; `None` while it has too few samples.
pub(crate) fn usual(baseline: &Baseline, stream: &str, world: &World<'_>) -> Option<Summary> {
    let (shift, yardstick) = reference(baseline, stream, world)?;
    summary(shift, &yardstick)
}

/// The stream's times have crept away from what is usual, and that was not told.
pub(crate) fn crept(baseline: &Baseline, stream: &str) -> Option<Crept> {
    baseline.shifts.get(stream)?.crept()
}

/// The same as a sentence.
pub(crate) fn crept_text(crept: Crept, what: &str) -> String {
    let Crept { usual_us, median_us, count, .. } = crept;
    let (usual, now) = (us_milliseconds(usual_us), us_milliseconds(median_us));
    format!(
        "The last {count} {what} took {now} ms in the middle, those that were learned first {usual} ms; \
         what is usual stays as it was learned"
    )
}

/// Hardly anything speaks for a shift of a stream on which nothing is bet now.
pub(crate) fn is_calm(baseline: &Baseline, stream: &str, world: &World<'_>) -> bool {
    let shift = baseline.shifts.get(stream);
    shift.is_none_or(|shift| shift.wealth().is_calm(world.detect.run_length))
}

fn reference<'a>(
    baseline: &'a Baseline,
    stream: &str,
    world: &World<'_>,
) -> Option<(&'a Shift, Yardstick)> {
    let shift = baseline.shifts.get(stream)?;
    let wanted = u64::from(world.learning.observations).min(REFERENCE_MAX);
    Some((shift, shift.yardstick().filter(|known| known.count >= wanted)?))
}

fn summary(shift: &Shift, known: &Yardstick) -> Option<Summary> {
    let p95_us = shift.reference().percentile(95)?;
    let Yardstick { count, median_us, mad_us, .. } = *known;
    Some(Summary { count, median_us, mad_us, p95_us })
}

/// What a shift that took many samples means, as a sentence.
pub(crate) fn run_length_text(run_length: u64, what: &str) -> String {
    format!("Slow {what} so close together come by chance once in {run_length} {what} at most")
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
            let usual_us = key
                .and_then(|key| baseline.usual_share_us(key).or_else(|| namesake(baseline, key)));
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

/// The usual share of a file that has the same name elsewhere: what a replaced library took.
fn namesake(baseline: &Baseline, path: &str) -> Option<u64> {
    let name = file_name(path);
    let same = baseline.shares.keys().find(|known| file_name(known) == name)?;
    baseline.usual_share_us(same)
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
        assert_eq!(gross_us(&summary(5_000, 200, 7_000), excess), 105_000);
        assert_eq!(gross_us(&summary(5_000, 20_000, 7_000), excess), 165_000);
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
