//! The samples of all rounds, and the table made from them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::stats::{self, Estimate};

/// The arms that mean something beyond their figures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    /// All others are compared with it.
    pub(super) base: &'static str,
    /// The same once more.
    pub(super) control: &'static str,
    /// What has limits.
    pub(super) judged: &'static str,
}

/// The sensor next to the bare machine.
pub(super) const SENSOR: Names = Names { base: "off", control: "off again", judged: "halfsecond" };

/// Seconds per operation: one number for every workload, arm and round.
pub(super) struct Report {
    names: Names,
    /// In the order of their first sample.
    series: Vec<Series>,
}

/// What is measured: its name, and the ratio to the base that must not be exceeded, if there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) limit: Option<f64>,
}

struct Series {
    workload: &'static str,
    limit: Option<f64>,
    arm: &'static str,
    by_round: BTreeMap<usize, f64>,
}

// === impl Report ===

impl Report {
    pub(super) fn of(names: Names) -> Self {
        Self { names, series: Vec::new() }
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

    /// Whether no figure of the judged arm is sure to be over its limit.
    pub(super) fn within_limits(&self) -> bool {
        self.series
            .iter()
            .filter(|series| series.arm == self.names.judged)
            .filter_map(|series| Some((self.ratio(series)?, series.limit?)))
            .all(|(ratio, limit)| ratio.low <= limit)
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

    /// The ratio to the base, over the rounds that both have.
    fn ratio(&self, series: &Series) -> Option<Estimate> {
        let is_base =
            |base: &&Series| base.arm == self.names.base && base.workload == series.workload;
        let base = self.series.iter().find(is_base)?;
        let ratios: Vec<f64> = series
            .by_round
            .iter()
            .filter_map(|(round, seconds)| Some(seconds / base.by_round.get(round)?))
            .collect();
        (!ratios.is_empty()).then(|| stats::estimate(&ratios))
    }

    /// How the interval lies to what was promised: only its bad end can meet a limit.
    fn verdict(&self, series: &Series, ratio: Estimate) -> String {
        let Names { control, judged, .. } = self.names;
        match series.limit {
            _ if series.arm == control && ratio.low <= 1.0 && 1.0 <= ratio.high => {
                "  control holds 1.00".to_owned()
            }
            _ if series.arm == control => "  CONTROL MISSES 1.00: too noisy to conclude".to_owned(),
            Some(limit) if series.arm == judged => {
                let word = match ratio {
                    ratio if ratio.high <= limit => "met",
                    ratio if ratio.low > limit => "MISSED",
                    _ => "not settled",
                };
                format!("  limit {limit:.2}: {word}")
            }
            _ => String::new(),
        }
    }

    fn order(&self, arm: &str) -> usize {
        let Names { base, control, judged } = self.names;
        [base, control, judged].iter().position(|known| *known == arm).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<15} {:<12} {:>10}  ratio to {} [95 % interval]",
            "workload", "arm", "median", self.names.base
        )?;
        let mut sorted: Vec<_> = self.series.iter().collect();
        sorted.sort_by_key(|series| (series.workload, self.order(series.arm)));
        for series in sorted {
            let values: Vec<f64> = series.by_round.values().copied().collect();
            let median = engineering(stats::median(&values));
            write!(f, "{:<15} {:<12} {median:>10}", series.workload, series.arm)?;
            match self.ratio(series) {
                Some(ratio) if series.arm != self.names.base => {
                    let Estimate { median, low, high } = ratio;
                    write!(f, "  {median:.3} [{low:.3}, {high:.3}]")?;
                    writeln!(f, "{}", self.verdict(series, ratio))?;
                }
                _ => writeln!(f)?,
            }
        }
        Ok(())
    }
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

    const FAKE: Figure = Figure { name: "fake", limit: Some(1.05) };

    fn report(sensor: f64) -> Report {
        let mut report = Report::of(SENSOR);
        for round in 0..20 {
            // A machine that slows down over the run: ratios of the same round do not see it.
            let drift = if round < 10 { 1.0 } else { 3.0 };
            report.add(FAKE, SENSOR.base, round, drift * 1e-3);
            report.add(FAKE, SENSOR.control, round, drift * 1e-3);
            report.add(FAKE, SENSOR.judged, round, drift * sensor * 1e-3);
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

    #[test]
    fn without_a_limit_nothing_is_missed_and_other_arms_can_be_compared() {
        const NAMES: Names = Names { base: "less", control: "less again", judged: "more" };
        let mut report = Report::of(NAMES);
        let figure = Figure { name: "fake", limit: None };
        for round in 0..5 {
            for (arm, seconds) in [("more", 5e-3), ("less again", 1e-3), ("less", 1e-3)] {
                report.add(figure, arm, round, seconds);
            }
        }
        assert!(report.within_limits());
        let shown = report.to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].contains("ratio to less ["), "{shown}");
        assert!(lines[2].contains("less again") && lines[2].ends_with("control holds 1.00"));
        assert!(lines[3].ends_with("5.000 [5.000, 5.000]"), "{shown}");
    }
}
