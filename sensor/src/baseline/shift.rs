//! The streams of times that are watched for shifts: what each is compared with, and how slow the
//! machine was.

use jiff::Timestamp;
use sensor_stats::{Shift, Wealth};

use super::subject::{Baseline, CONSTRUCTORS, share_key};
use crate::host::{LinkTiming, Method};

/// CPU time of linking.
pub(crate) const LINK: &str = "link";
/// CPU time of all constructors.
pub(crate) const CONSTRUCTOR: &str = "constructors";
/// Streams of one subject: the two above, and logins by each method.
pub(super) const STREAMS_MAX: usize = 16;
/// Modules with less than this median share say nothing about drift, microseconds.
const SHARE_MIN_US: u64 = 20;
/// Modules needed to tell drift.
const SHARES_MIN: usize = 4;

/// What streams of earlier versions begin with that hold all CPU time since accept: another measure.
const SINCE_ACCEPT: &str = "auth ";

/// The stream of logins by a method: CPU time of checking the proof, from the question for the user to
/// the verdict.
pub(crate) fn check(method: Method) -> String {
    format!("check {method}")
}

// === impl Baseline ===

impl Baseline {
    /// Takes a time into what its stream is compared with, as long as that is incomplete.
    pub(super) fn learn_time(&mut self, stream: &str, ns: u64, drift_percent: Option<u64>) {
        if let Some(shift) = self.shift_mut(stream) {
            shift.learn(ns / 1000, drift_percent);
        }
    }

    /// How the evidence for a shift of this stream stands from now on.
    pub(crate) fn stand(&mut self, stream: &str, wealth: Wealth) {
        if let Some(shift) = self.shift_mut(stream) {
            shift.stand(wealth);
        }
    }

    /// It was told that the times of this stream have crept away from what is usual.
    pub(crate) fn told_crept(&mut self, stream: &str) {
        if let Some(shift) = self.shifts.get_mut(stream) {
            shift.told();
        }
    }

    /// A time of this stream was as usual. Where a shift begins is looked for after the latest such
    /// time: half of all times are, and after a shift that is worth telling hardly any.
    pub(crate) fn was_usual(&mut self, stream: &str, time: Timestamp) {
        if self.shifts.contains_key(stream) {
            let last = self.usual_at.entry(stream.to_owned()).or_insert(time);
            *last = time.max(*last);
        }
    }

    /// Fills what a baseline of an earlier version lacks from the samples that it has: its detectors
    /// need not start anew. What checking a login's proof costs is learned anew, as all CPU time since
    /// accept is no measure for it: those streams go.
    pub(super) fn adopt(&mut self) {
        self.shifts.retain(|stream, _| !stream.starts_with(SINCE_ACCEPT));
        self.usual_at.retain(|stream, _| self.shifts.contains_key(stream));
        // Only a guarded program's starts are all seen, and only of one are shares kept.
        if !self.shares.is_empty() {
            let link = self.link.latest_us().to_vec();
            self.adopt_stream(LINK, &link);
        }
        let constructors = self.shares.get(CONSTRUCTORS);
        let constructors = constructors.map(|samples| samples.latest_us().to_vec());
        self.adopt_stream(CONSTRUCTOR, &constructors.unwrap_or_default());
    }

    fn adopt_stream(&mut self, stream: &str, samples_us: &[u32]) {
        if samples_us.is_empty() || self.shifts.contains_key(stream) {
            return;
        }
        for us in samples_us {
            self.learn_time(stream, u64::from(*us) * 1000, None);
        }
    }

    fn shift_mut(&mut self, stream: &str) -> Option<&mut Shift> {
        if self.shifts.len() >= STREAMS_MAX && !self.shifts.contains_key(stream) {
            return None;
        }
        Some(self.shifts.entry(stream.to_owned()).or_default())
    }

    /// The usual share of a module, microseconds.
    pub(crate) fn usual_share_us(&self, key: &str) -> Option<u64> {
        Some(self.shares.get(key)?.summary()?.median_us)
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
            let usual = baseline.usual_share_us(share_key(at, share.module.as_ref())?)?;
            (usual >= SHARE_MIN_US).then(|| share.cpu_ns / 10 / usual)
        })
        .collect();
    ratios.sort_unstable();
    (ratios.len() >= SHARES_MIN).then(|| ratios.get(ratios.len() / 2).copied()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{ModuleId, ModuleShare};

    fn timing(shares_us: &[u64]) -> LinkTiming {
        let shares = shares_us.iter().enumerate().map(|(at, us)| ModuleShare {
            module: Some(ModuleId { path: format!("/lib/{at}.so"), build: "0".to_owned() }),
            wall_ns: us * 1000,
            cpu_ns: us * 1000,
            blocked: false,
        });
        let cpu_ns = shares_us.iter().sum::<u64>() * 1000;
        LinkTiming {
            wall_ns: 20 * cpu_ns,
            cpu_ns,
            blocked_ns: 0,
            minor_faults: 0,
            shares: shares.collect(),
            overflow: 0,
            busy: Vec::new(),
        }
    }

    fn median(baseline: &Baseline, stream: &str) -> u64 {
        baseline.shifts[stream].yardstick().unwrap().median_us
    }

    #[test]
    fn a_machine_that_became_slow_while_learning_moves_no_reference() {
        let usual = [900, 200, 300, 400, 500, 700];
        let slow = usual.map(|us| us * 2);
        let mut baseline = Baseline::default();
        for at in 0..300 {
            baseline.add_link(&timing(if at < 50 { &usual } else { &slow }), true);
        }
        assert_eq!(drift_percent(&baseline, &timing(&slow)), Some(200));
        let mut exact = sensor_stats::Sketch::default();
        exact.add(3_000);
        assert_eq!(median(&baseline, LINK), exact.median().unwrap());
        let reference = baseline.shifts[LINK].reference();
        assert_eq!(reference.count(), sensor_stats::REFERENCE_MAX);
        assert_eq!(reference.percentile(100), reference.median());
    }

    #[test]
    fn starts_of_programs_that_are_not_all_seen_have_no_stream() {
        let mut baseline = Baseline::default();
        for _ in 0..50 {
            baseline.add_link(&timing(&[900, 200]), false);
        }
        assert!(baseline.shifts.is_empty());
    }

    #[test]
    fn a_baseline_of_an_earlier_version_is_read_and_adopts_what_it_has() {
        let mut old = Baseline::default();
        for _ in 0..60 {
            old.add_link(&timing(&[900, 100]), true);
            old.add_constructors(300_000);
            old.add_auth(Method::Publickey, 30_000_000, Some(8_000_000), Some(100));
        }
        let mut json = serde_json::to_value(&old).unwrap();
        json.as_object_mut().unwrap().remove("shifts").unwrap();
        let mut read: Baseline = serde_json::from_value(json).unwrap();
        assert!(read.shifts.is_empty());
        read.adopt();
        assert_eq!(read.shifts.keys().collect::<Vec<_>>(), [CONSTRUCTOR, LINK]);
        assert_eq!(read.auth, old.auth);
        for (stream, shift) in &read.shifts {
            let known = old.shifts[stream].yardstick().unwrap();
            assert_eq!(shift.yardstick().unwrap().median_us, known.median_us, "{stream}");
        }
        // What is there is left as it is.
        let again = read.clone();
        read.adopt();
        assert_eq!(read, again);
    }

    #[test]
    fn times_since_accept_that_an_earlier_version_learned_are_not_taken_for_checks() {
        let mut old = Baseline::default();
        for _ in 0..60 {
            old.learn_time("auth publickey", 30_000_000, Some(100));
            old.add_auth(Method::Publickey, 30_000_000, None, Some(100));
        }
        let mut read: Baseline =
            serde_json::from_value(serde_json::to_value(&old).unwrap()).unwrap();
        read.adopt();
        assert_eq!(read.shifts.keys().count(), 0);
        read.add_auth(Method::Publickey, 30_000_000, Some(8_000_000), Some(100));
        let mut exact = sensor_stats::Sketch::default();
        exact.add(8_000);
        assert_eq!(median(&read, &check(Method::Publickey)), exact.median().unwrap());
        assert_eq!(read.auth[&Method::Publickey].total(), 61);
    }

    #[test]
    fn the_latest_usual_time_stays_whatever_order_times_come_in() {
        let mut baseline = Baseline::default();
        baseline.was_usual(LINK, Timestamp::UNIX_EPOCH);
        assert!(baseline.usual_at.is_empty(), "there is no such stream");
        baseline.learn_time(LINK, 1_000_000, None);
        let late: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        for time in [Timestamp::UNIX_EPOCH, late, Timestamp::UNIX_EPOCH] {
            baseline.was_usual(LINK, time);
        }
        assert_eq!(baseline.usual_at[LINK], late);
        let json = serde_json::to_string(&baseline).unwrap();
        assert_eq!(serde_json::from_str::<Baseline>(&json).unwrap(), baseline);
    }

    #[test]
    fn hostile_streams_cost_themselves_only_and_are_bounded() {
        let mut baseline = Baseline::default();
        baseline.add_start(jiff::Timestamp::UNIX_EPOCH, None);
        for shifts in ["null", "7", "{\"link\":[]}", "{\"link\":{\"wealth\":-1}}"] {
            let mut json = serde_json::to_value(&baseline).unwrap();
            json["shifts"] = serde_json::from_str(shifts).unwrap();
            let read: Baseline = serde_json::from_value(json).unwrap();
            assert_eq!(read.starts, 1, "{shifts}");
            assert!(read.shifts.get(LINK).is_none_or(|shift| shift.yardstick().is_none()));
        }
        for at in 0..1000 {
            baseline.learn_time(&format!("{at}"), 1_000_000, None);
            baseline.stand(&format!("{at} more"), Wealth::default());
        }
        assert_eq!(baseline.shifts.len(), STREAMS_MAX);
        for at in 0..1000 {
            baseline.was_usual(&format!("{at}"), Timestamp::UNIX_EPOCH);
        }
        assert!((1..=STREAMS_MAX).contains(&baseline.usual_at.len()));
    }
}
