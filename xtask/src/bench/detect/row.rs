//! The samples of one route, and the line of the table made from them.

use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::bench::stats;

/// From the hook to the line of the incident, for 99 of 100 hooks; none may be missed.
const LIMIT: f64 = 0.250;

/// Times from the hook on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Until the slot was read, by the finding's own clock.
    pub(super) read: Duration,
    /// Until the incident's line could be read on the sensor's standard output.
    pub(super) told: Duration,
}

/// All trials of one route.
pub(in crate::bench) struct Row {
    route: String,
    /// Those that were never found are none.
    samples: Vec<Option<Sample>>,
}

// === impl Row ===

impl Row {
    pub(super) fn new(route: String, samples: Vec<Option<Sample>>) -> Self {
        Self { route, samples }
    }

    pub(in crate::bench) fn within_limit(&self) -> bool {
        let told = self.seconds(|sample| sample.told);
        self.missed() == 0 && stats::percentile(&told, 99) <= LIMIT
    }

    /// A line for each trial; empty fields where it was not found.
    pub(super) fn csv(&self) -> String {
        let mut csv = String::new();
        for (trial, sample) in self.samples.iter().enumerate() {
            let seconds = |time: fn(&Sample) -> Duration| {
                sample.as_ref().map(|sample| format!("{:e}", time(sample).as_secs_f64()))
            };
            let (read, told) = (seconds(|sample| sample.read), seconds(|sample| sample.told));
            let (read, told) = (read.unwrap_or_default(), told.unwrap_or_default());
            // Writing to a String cannot fail.
            let _ = writeln!(csv, "\"{}\",{trial},{read},{told}", self.route);
        }
        csv
    }

    fn missed(&self) -> usize {
        self.samples.iter().filter(|sample| sample.is_none()).count()
    }

    /// In ascending order.
    fn seconds(&self, time: fn(&Sample) -> Duration) -> Vec<f64> {
        let found = self.samples.iter().flatten();
        let mut seconds: Vec<f64> = found.map(|sample| time(sample).as_secs_f64()).collect();
        seconds.sort_by(f64::total_cmp);
        seconds
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, samples } = self;
        writeln!(f, "hook -> finding {route}: {} trials, {} missed", samples.len(), self.missed())?;
        for (until, time) in [
            ("the slot is read", (|sample| sample.read) as fn(&Sample) -> Duration),
            ("its incident is told", |sample| sample.told),
        ] {
            let seconds = self.seconds(time);
            let ms = |percent| stats::percentile(&seconds, percent) * 1e3;
            let [p50, p90, p99, most] = [50, 90, 99, 100].map(ms);
            write!(f, "  until {until:<20} p50 {p50:>6.1} ms, p90 {p90:>6.1} ms, ")?;
            write!(f, "p99 {p99:>6.1} ms, max {most:>6.1} ms")?;
            if until == "the slot is read" {
                writeln!(f)?;
            }
        }
        let verdict = if self.within_limit() { "met" } else { "MISSED" };
        write!(f, "  (limit {:.0} ms at p99, none missed: {verdict})", LIMIT * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(told: u64) -> Sample {
        let (read, told) = (Duration::from_millis(told / 2), Duration::from_millis(told));
        Sample { read, told }
    }

    #[test]
    fn one_of_a_hundred_may_be_late_and_none_may_be_missed() {
        let row = |last: [Option<Sample>; 2]| {
            let mut samples: Vec<_> = (1..=98).map(|told| Some(sample(told))).collect();
            samples.extend(last);
            Row::new("x".to_owned(), samples)
        };
        let late = row([Some(sample(249)), Some(sample(900))]);
        assert!(late.within_limit());
        let shown = late.to_string();
        assert!(shown.contains("p99  249.0 ms, max  900.0 ms  (limit 250 ms"), "{shown}");
        assert!(shown.contains("100 trials, 0 missed"), "{shown}");
        assert!(!row([Some(sample(251)), Some(sample(900))]).within_limit());
        let missed = row([Some(sample(100)), None]);
        assert!(!missed.within_limit());
        assert!(missed.csv().ends_with("\"x\",99,,\n"), "{}", missed.csv());
        assert!(!Row::new("x".to_owned(), vec![None]).within_limit());
    }
}
