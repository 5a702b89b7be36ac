//! The samples of all rounds, and the table made from them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::stats::{self, Estimate};

/// The arm all others are compared with, and the same once more.
const BASE: &str = "off";
const CONTROL: &str = "off again";
const SENSOR: &str = "halfsecond";

/// Seconds per operation: one number for every workload, arm and round.
pub(super) struct Report {
    /// In the order of their first sample.
    series: Vec<Series>,
}

/// What is measured: its name, and the ratio to the bare machine that the sensor must not exceed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) limit: f64,
}

struct Series {
    workload: &'static str,
    limit: f64,
    arm: &'static str,
    by_round: BTreeMap<usize, f64>,
}

// === impl Report ===

impl Report {
    pub(super) fn new() -> Self {
        Self { series: Vec::new() }
    }

    pub(super) fn add(
        &mut self,
        Figure { name, limit }: Figure,
        arm: &'static str,
        round: usize,
        seconds: f64,
    ) {
        let same = |series: &&mut Series| series.workload == name && series.arm == arm;
        if let Some(series) = self.series.iter_mut().find(same) {
            series.by_round.insert(round, seconds);
            return;
        }
        let by_round = BTreeMap::from([(round, seconds)]);
        self.series.push(Series { workload: name, limit, arm, by_round });
    }

    /// Whether no figure of the sensor is sure to be over its limit.
    pub(super) fn within_limits(&self) -> bool {
        self.series
            .iter()
            .filter(|series| series.arm == SENSOR)
            .all(|series| self.ratio(series).is_none_or(|ratio| ratio.low <= series.limit))
    }

    pub(super) fn csv(&self) -> String {
        let mut csv = String::from("workload,arm,round,seconds\n");
        for Series { workload, arm, by_round, .. } in &self.series {
            for (round, seconds) in by_round {
                // Writing to a String cannot fail.
                let _ = writeln!(csv, "{workload},{arm},{round},{seconds:e}");
            }
        }
        csv
    }

    /// The ratio to the bare machine, over the rounds that both have.
    fn ratio(&self, series: &Series) -> Option<Estimate> {
        let base =
            self.series.iter().find(|base| base.arm == BASE && base.workload == series.workload)?;
        let ratios: Vec<f64> = series
            .by_round
            .iter()
            .filter_map(|(round, seconds)| Some(seconds / base.by_round.get(round)?))
            .collect();
        (!ratios.is_empty()).then(|| stats::estimate(&ratios))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<15} {:<12} {:>10}  ratio to off [95 % interval]",
            "workload", "arm", "median"
        )?;
        let mut sorted: Vec<_> = self.series.iter().collect();
        sorted.sort_by_key(|series| (series.workload, order(series.arm)));
        for series in sorted {
            let values: Vec<f64> = series.by_round.values().copied().collect();
            let median = engineering(stats::median(&values));
            write!(f, "{:<15} {:<12} {median:>10}", series.workload, series.arm)?;
            match self.ratio(series) {
                Some(ratio) if series.arm != BASE => {
                    let Estimate { median, low, high } = ratio;
                    write!(f, "  {median:.3} [{low:.3}, {high:.3}]")?;
                    writeln!(f, "{}", verdict(series, ratio))?;
                }
                _ => writeln!(f)?,
            }
        }
        Ok(())
    }
}

/// How the interval lies to what was promised: only its bad end can meet a limit.
fn verdict(series: &Series, ratio: Estimate) -> String {
    match series.arm {
        CONTROL if ratio.low <= 1.0 && 1.0 <= ratio.high => "  control holds 1.00".to_owned(),
        CONTROL => "  CONTROL MISSES 1.00: too noisy to conclude".to_owned(),
        SENSOR => {
            let word = match ratio {
                ratio if ratio.high <= series.limit => "met",
                ratio if ratio.low > series.limit => "MISSED",
                _ => "not settled",
            };
            format!("  limit {:.2}: {word}", series.limit)
        }
        _ => String::new(),
    }
}

fn order(arm: &str) -> usize {
    [BASE, CONTROL, SENSOR].iter().position(|known| *known == arm).unwrap_or(usize::MAX)
}

/// Seconds in the unit that leaves one to three digits before the point.
fn engineering(seconds: f64) -> String {
    match seconds {
        s if s < 1e-6 => format!("{:.1} ns", s * 1e9),
        s if s < 1e-3 => format!("{:.1} us", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAKE: Figure = Figure { name: "fake", limit: 1.05 };

    fn report(sensor: f64) -> Report {
        let mut report = Report::new();
        for round in 0..20 {
            // A machine that slows down over the run: ratios of the same round do not see it.
            let drift = if round < 10 { 1.0 } else { 3.0 };
            report.add(FAKE, BASE, round, drift * 1e-3);
            report.add(FAKE, CONTROL, round, drift * 1e-3);
            report.add(FAKE, SENSOR, round, drift * sensor * 1e-3);
        }
        report
    }

    #[test]
    fn a_machine_that_slows_down_does_not_change_the_ratio() {
        let shown = report(1.04).to_string();
        assert!(shown.contains("1.040 [1.040, 1.040]  limit 1.05: met"), "{shown}");
        assert!(shown.contains("control holds 1.00"), "{shown}");
    }

    #[test]
    fn a_ratio_over_the_limit_is_missed() {
        assert!(!report(1.2).within_limits());
        assert!(report(1.2).to_string().contains("limit 1.05: MISSED"));
        assert!(report(1.04).within_limits());
    }
}
