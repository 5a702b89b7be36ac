//! How far a baseline has come, in one word and the reasons for it: learning, settled or drifting.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::subject::Baseline;

/// A stream drifts once the evidence for a shift is worth this part of what an alarm takes: one in so
/// many. Four times in a row far above the usual come there, one before the alarm, and smaller ones sooner
/// before theirs; noise alone rarely does.
const DRIFT_PART: u64 = 100;

/// How far a baseline has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Too little was seen: its detectors are silent.
    Learning,
    /// Its detectors speak.
    Settled,
    /// They do, and something moves: a stream of times, or libraries that came late.
    Drifting,
}

/// What decides about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Criteria {
    /// `learning.observations`.
    pub observations: u32,
    /// `detect.run_length`.
    pub run_length: u64,
    /// The program is a guarded one.
    pub guarded: bool,
    /// What is counted of it: `starts`, or `logins` of sshd's programs.
    pub unit: &'static str,
}

/// A state with its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The state.
    pub state: State,
    /// Why, one clause each; never empty.
    pub reasons: Vec<String>,
}

// === impl State ===

impl State {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Learning => "learning",
            Self::Settled => "settled",
            Self::Drifting => "drifting",
        }
    }
}

// === impl Criteria ===

impl Criteria {
    /// Evidence (units of [`sensor_stats::Wealth`]) from which on a stream drifts.
    #[must_use]
    pub fn drifts_from(&self) -> u64 {
        (self.run_length / DRIFT_PART).max(1)
    }
}

// === impl Baseline ===

impl Baseline {
    /// The state, and why.
    ///
    /// Libraries that come late put a program that nobody guards back to waiting for a stretch without
    /// new ones: that is drifting, not learning, as its detectors had spoken before.
    #[must_use]
    pub fn standing(&self, criteria: &Criteria) -> Standing {
        let Criteria { observations, unit, .. } = *criteria;
        let mut reasons = self.drifts(criteria);
        let late = self.is_late(observations);
        if late {
            let (late, ago) = (self.late, self.since_new);
            reasons.push(format!(
                "{late} libraries came after it had settled, the last {ago} {unit} ago"
            ));
        }
        if !self.speaks(criteria) {
            return Standing { state: State::Learning, reasons: vec![self.lacks(criteria)] };
        }
        if !reasons.is_empty() {
            return Standing { state: State::Drifting, reasons };
        }
        let since = match self.settled_at {
            Some(time) => format!("since {time:.0}"),
            None => format!("after {} {unit}; since when is not recorded", self.starts),
        };
        Standing { state: State::Settled, reasons: vec![since] }
    }

    /// [`State::Drifting`], without the reasons.
    pub(crate) fn is_drifting(&self, criteria: &Criteria) -> bool {
        let moves = || self.moving(criteria).next().is_some();
        self.speaks(criteria) && (self.is_late(criteria.observations) || moves())
    }

    /// Its detectors speak, or did until a library came late.
    fn speaks(&self, criteria: &Criteria) -> bool {
        let Criteria { observations, guarded, .. } = *criteria;
        let enough = self.starts >= observations.into();
        enough && (self.settled(observations, guarded) || self.is_late(observations))
    }

    /// A library came after it had settled, not long ago.
    fn is_late(&self, observations: u32) -> bool {
        self.late > 0 && self.since_new < observations.into()
    }

    /// Notes since when its detectors may speak; call it after each accepted observation.
    pub(crate) fn note_settled(&mut self, observations: u32, guarded: bool, time: Timestamp) {
        if !self.settled(observations, guarded) {
            self.settled_at = None;
        } else if self.settled_at.is_none() {
            self.settled_at = Some(time);
        }
    }

    fn lacks(&self, criteria: &Criteria) -> String {
        let Criteria { observations, guarded, unit, .. } = *criteria;
        let mut told = format!("{} of {observations} {unit}", self.starts);
        if !guarded && !self.libraries.is_empty() {
            let _ = write!(told, "; last new library {} {unit} ago", self.since_new);
            if self.since_new < observations.into() {
                let _ = write!(told, " (wanted are {observations})");
            }
        }
        told
    }

    fn drifts(&self, criteria: &Criteria) -> Vec<String> {
        let (from, alarm) = (criteria.drifts_from(), criteria.run_length);
        let told = self.moving(criteria).map(|(stream, held)| {
            format!("{stream}: evidence of a shift {held}, drifting from {from}, told at {alarm}")
        });
        told.collect()
    }

    /// Streams with evidence of a shift, and how much.
    fn moving(&self, criteria: &Criteria) -> impl Iterator<Item = (&str, u64)> {
        let from = criteria.drifts_from();
        let held = self.shifts.iter().map(|(name, one)| (name.as_str(), one.wealth().lasting()));
        held.filter(move |(_, held)| *held >= from)
    }
}

#[cfg(test)]
mod tests {
    use sensor_stats::{Exceeded, Wealth};

    use super::*;
    use crate::baseline::LINK;
    use crate::host::ModuleId;

    const PROGRAM: Criteria =
        Criteria { observations: 20, run_length: 1_000_000, guarded: false, unit: "starts" };
    const SSHD: Criteria = Criteria { guarded: true, unit: "logins", ..PROGRAM };

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn started(times: u32) -> Baseline {
        let mut baseline = Baseline::default();
        let library = ModuleId { path: "/lib/a.so".to_owned(), build: "01".to_owned() };
        baseline.add_library(&library, Timestamp::UNIX_EPOCH, false);
        for _ in 0..times {
            baseline.add_start(Timestamp::UNIX_EPOCH, None);
        }
        baseline
    }

    fn told(baseline: &Baseline, criteria: &Criteria) -> (State, String) {
        let Standing { state, reasons } = baseline.standing(criteria);
        assert_eq!(baseline.is_drifting(criteria), state == State::Drifting);
        (state, reasons.join("; "))
    }

    #[test]
    fn what_is_learned_counts_down_and_what_is_settled_says_since_when() {
        let mut baseline = started(17);
        let reason = "17 of 20 starts; last new library 17 starts ago (wanted are 20)";
        assert_eq!(told(&baseline, &PROGRAM), (State::Learning, reason.to_owned()));
        let reason = "17 of 20 logins";
        assert_eq!(told(&baseline, &SSHD), (State::Learning, reason.to_owned()));
        for _ in 0..3 {
            baseline.add_start(Timestamp::UNIX_EPOCH, None);
        }
        let reason = "after 20 starts; since when is not recorded";
        assert_eq!(told(&baseline, &PROGRAM), (State::Settled, reason.to_owned()));
        baseline.note_settled(20, false, time("2026-11-21T10:00:00Z"));
        baseline.note_settled(20, false, time("2026-11-22T10:00:00Z"));
        let reason = "since 2026-11-21T10:00:00Z";
        assert_eq!(told(&baseline, &PROGRAM), (State::Settled, reason.to_owned()));
    }

    #[test]
    fn a_program_that_grows_while_learning_learns_and_one_that_grows_late_drifts() {
        let mut baseline = started(50);
        let more = |n: u32| ModuleId { path: format!("/lib/{n}.so"), build: "02".to_owned() };
        baseline.add_library(&more(1), Timestamp::UNIX_EPOCH, false);
        assert_eq!(baseline.standing(&PROGRAM).state, State::Learning);
        let mut baseline = started(50);
        baseline.note_settled(20, false, time("2026-11-21T10:00:00Z"));
        baseline.add_library(&more(1), Timestamp::UNIX_EPOCH, true);
        baseline.add_start(Timestamp::UNIX_EPOCH, None);
        baseline.note_settled(20, false, time("2026-11-22T10:00:00Z"));
        let reason = "1 libraries came after it had settled, the last 1 starts ago";
        assert_eq!(told(&baseline, &PROGRAM), (State::Drifting, reason.to_owned()));
        for _ in 0..20 {
            baseline.add_start(Timestamp::UNIX_EPOCH, None);
        }
        baseline.note_settled(20, false, time("2026-11-23T10:00:00Z"));
        let reason = "since 2026-11-23T10:00:00Z";
        assert_eq!(told(&baseline, &PROGRAM), (State::Settled, reason.to_owned()));
    }

    #[test]
    fn a_stream_drifts_from_the_stated_part_of_its_threshold_on_and_after_the_alarm() {
        let mut baseline = started(50);
        baseline.learn_time(LINK, 1_000_000, None);
        let mut wealth = Wealth::default();
        while wealth.lasting() < PROGRAM.drifts_from() {
            baseline.stand(LINK, wealth);
            assert_eq!(baseline.standing(&PROGRAM).state, State::Settled, "{wealth:?}");
            wealth = wealth.after(Exceeded::Large, true, PROGRAM.run_length);
        }
        assert!(!wealth.stands(PROGRAM.run_length), "told before the alarm");
        baseline.stand(LINK, wealth);
        let (state, reason) = told(&baseline, &PROGRAM);
        assert_eq!(state, State::Drifting);
        assert!(reason.starts_with("link: evidence of a shift "), "{reason}");
        assert!(reason.ends_with(", drifting from 10000, told at 1000000"), "{reason}");
        // An alarm is no reason for calm.
        baseline.stand(LINK, wealth.anew());
        assert_eq!(baseline.standing(&PROGRAM).state, State::Drifting);
    }

    #[test]
    fn who_learns_does_not_drift() {
        let mut baseline = started(5);
        baseline.late = 3;
        assert_eq!(baseline.standing(&PROGRAM).state, State::Learning);
        assert_eq!(Baseline::default().standing(&SSHD).reasons, ["0 of 20 logins"]);
    }
}
