//! One stream through what the sensor does with it: learn, judge by the gross limit, bet.

use sensor_stats::{REFERENCE_MAX, Rule, Shift, Yardstick, gross_limit_us};

use super::recorded::Login;

/// The sensor's default of `learning.observations`.
const OBSERVATIONS: u64 = 20;

/// What is told of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    /// By itself.
    Gross,
    /// For the run that it belongs to.
    Shift,
    /// For the window before it, as low.
    Crept,
}

/// How a stream is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge {
    pub(super) rule: Rule,
    /// The sensor's default of `detect.link_gross_excess` or `detect.auth_gross_excess`.
    pub(super) excess_us: u64,
    pub(super) run_length: u64,
}

/// A stream's state, as the sensor keeps it.
#[derive(Debug)]
pub(super) struct Replay {
    judge: Judge,
    shift: Shift,
    yardstick: Option<Yardstick>,
}

impl Replay {
    pub(super) fn new(judge: Judge) -> Self {
        Self { judge, shift: Shift::default(), yardstick: None }
    }

    pub(super) fn login(&mut self, (us, drift): Login) -> Told {
        let Judge { rule, excess_us, run_length } = self.judge;
        let Some(known) = self.yardstick.filter(|known| known.count >= OBSERVATIONS) else {
            self.learn((us, drift));
            return Told::Nothing;
        };
        if us > gross_limit_us(known.median_us, known.mad_us, excess_us) {
            return Told::Gross;
        }
        let weighed = known.weigh(self.shift.wealth(), us, drift, &rule, run_length);
        self.shift.stand(weighed.wealth);
        if weighed.alarm {
            return Told::Shift;
        }
        if self.shift.crept().is_some() {
            self.shift.told();
            return Told::Crept;
        }
        if weighed.calm {
            self.learn((us, drift));
        }
        Told::Nothing
    }

    fn learn(&mut self, (us, drift): Login) {
        self.shift.learn(us, drift);
        // A complete reference never changes.
        if self.yardstick.is_none_or(|known| known.count < REFERENCE_MAX) {
            self.yardstick = self.shift.yardstick();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUDGE: Judge = Judge { rule: Rule::LINK, excess_us: 100_000, run_length: 1_000_000 };

    fn learned() -> Replay {
        let mut replay = Replay::new(JUDGE);
        for at in 0..60 {
            assert_eq!(replay.login((5_000 + at % 7 * 20, Some(100))), Told::Nothing);
        }
        replay
    }

    #[test]
    fn a_gross_login_is_told_at_once_and_teaches_nothing() {
        let mut replay = learned();
        let before = replay.shift.clone();
        assert_eq!(replay.login((305_000, Some(100))), Told::Gross);
        assert_eq!(replay.shift, before);
    }

    #[test]
    fn a_shift_that_lasts_is_told_for_each_run_of_it() {
        let mut replay = learned();
        for _ in 0..2 {
            let told: Vec<Told> = (0..5).map(|_| replay.login((25_000, Some(100)))).collect();
            assert_eq!(told[4], Told::Shift);
            assert!(told[..4].iter().all(|told| *told == Told::Nothing));
        }
    }
}
