//! A frozen reference of what is usual, the levels above it, and the detector that bets on them.

use serde::{Deserialize, Serialize};

use crate::detector::{Exceeded, Wealth};
use crate::rank;
use crate::sketch::{ERROR_PERCENT, Sketch};
use crate::stored::or_default;

/// Samples after which a reference is complete and never changes again.
pub const REFERENCE_MAX: u64 = 200;
/// A shift of less is none, microseconds.
const EXCESS_MIN_US: u64 = 2_000;
/// What a drift of the machine may be, percent of its usual time: what lies outside is not believed.
/// Up to 1.8 times was measured. Twice that and a little more is room for busier machines; beyond, the
/// levels would rise so far that whoever slows every module alike could hide what he likes.
const DRIFTS: (u64, u64) = (50, 400);
/// Median distances from the median that one sample may lie above it at least.
const GROSS_MADS: u64 = 8;
/// Samples learned after the reference was complete whose median is compared with its own.
pub const WINDOW: u64 = 100;
/// From where on a median has crept away, percent of the one before, and microseconds. Of the drift that
/// was measured some 10 % may be wrong.
const CREPT_PERCENT: u64 = 125;
const CREPT_MIN_US: u64 = 300;

/// One stream of times: its reference and how the bets against it stand.
///
/// The reference takes the first [`REFERENCE_MAX`] samples that were learned and then stays: who
/// raises a time little by little does not move what it is compared with. Each sample is divided by
/// the drift at its time, so that a machine that was slow while learning is no other machine.
///
/// A shift that sets in before that leaves the reference as it is, for as long as it lasts: with fewer
/// samples the levels lie higher, and with fewer than 26 only the large one is bet on. Once it is calm
/// again, learning goes on.
///
/// Whoever goes slowly stays below the levels, which have to let single slow samples pass. So what is
/// learned once the reference is complete is collected by windows, and the median of each is compared with
/// the reference's ([`Shift::crept`]). That moves nothing: how far it has been told is remembered, and
/// told again when it has crept as far once more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    #[serde(default, deserialize_with = "or_default")]
    reference: Sketch,
    #[serde(default, deserialize_with = "or_default")]
    wealth: Wealth,
    /// Learned since the reference was complete, divided by the drift like it.
    #[serde(default, skip_serializing_if = "Sketch::is_empty", deserialize_with = "or_default")]
    latest: Sketch,
    /// Median that was told to have crept so far, microseconds; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "or_default")]
    told_us: u64,
}

/// A median that has moved by little and little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crept {
    /// Of the reference, microseconds.
    pub usual_us: u64,
    /// Of the latest window, microseconds.
    pub median_us: u64,
    /// Samples of that.
    pub count: u64,
    /// From where on it counts, microseconds.
    pub limit_us: u64,
}

/// How far above the usual time the levels lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// Of the median, at which the small level lies at least; 100 is the median itself.
    pub small_percent: u64,
    /// The same for the large level.
    pub large_percent: u64,
}

/// The levels of one kind of time, chosen so that the detector's null holds (`detector.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where the machine's drift was measured in the same start.
    pub measured: Tolerance,
    /// Where it was not: then drift alone can make so much of a sample.
    pub blind: Tolerance,
    /// The large level lies at least so far above the usual time, microseconds.
    pub large_us: u64,
}

/// What a reference says of the samples to come; costs a walk over its bins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Yardstick {
    /// Samples of the reference.
    pub count: u64,
    /// Their median, microseconds.
    pub median_us: u64,
    /// Their median distance from it, microseconds.
    pub mad_us: u64,
    /// Their tolerance limit, or the largest where there are too few for one, microseconds.
    bound_us: u64,
    has_limit: bool,
}

/// What one sample is compared with, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// The usual time at the machine's present speed.
    pub usual_us: u64,
    /// The small level; bets on it need more samples than the large one.
    pub small_us: u64,
    /// The large level.
    pub large_us: u64,
}

/// One sample against its reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighed {
    /// What it was compared with.
    pub levels: Levels,
    /// Which level it exceeds.
    pub exceeded: Exceeded,
    /// How the bets stand with it; after an alarm they start anew.
    pub wealth: Wealth,
    /// They have reached the run length, and this sample is one of those that speak for it.
    pub alarm: bool,
    /// It may be learned: hardly anything speaks for a shift, told or not.
    pub calm: bool,
}

// === impl Rule ===

impl Rule {
    /// Linking, and constructors. Drift of a whole series was measured up to 1.76 times the fastest;
    /// with it taken out, one login in a hundred lies above 1.6 times the median and one in a thousand
    /// above twice (9.2) or three and a half times (10.0) that. The levels leave room for errors of the
    /// measured drift of some 10 %; where exactly they lie was chosen by `cargo xtask arl`.
    pub const LINK: Self = Self {
        measured: Tolerance { small_percent: 147, large_percent: 275 },
        blind: Tolerance { small_percent: 250, large_percent: 300 },
        large_us: 6_000,
    };

    /// Checking the proof of a login, from the question for the user to the verdict. Of all time since
    /// accept, series differ by up to 1.65 with what else the machine does, and one login in a hundred
    /// lies up to 38 ms above the median. How much of that lies in the check is not known: the levels,
    /// chosen by `cargo xtask arl`, have room for all of it, and for a drift that moves the check less
    /// than linking, by which it is measured.
    pub const AUTH: Self = Self {
        measured: Tolerance { small_percent: 175, large_percent: 200 },
        blind: Tolerance { small_percent: 250, large_percent: 300 },
        large_us: 17_000,
    };
}

// === impl Shift ===

impl Shift {
    /// Takes a sample into the reference while that is incomplete. Only samples that were calm
    /// ([`Weighed::calm`]) belong there.
    ///
    /// `drift_percent`: how slow the machine was at this sample, 100 as usual; `None` if unknown.
    pub fn learn(&mut self, us: u64, drift_percent: Option<u64>) {
        let us = us.saturating_mul(100) / drift(drift_percent);
        if self.reference.count() < REFERENCE_MAX {
            self.reference.add(us);
        } else if drift_percent.is_some() {
            // A machine that was slow when nobody could measure it must not look like a drift.
            if self.latest.count() >= WINDOW {
                self.latest = Sketch::default();
            }
            self.latest.add(us);
        }
    }

    /// Whether the median of the latest window, once that is full, has crept away from the reference's;
    /// or from where that was last told.
    #[must_use]
    pub fn crept(&self) -> Option<Crept> {
        if self.latest.count() < WINDOW {
            return None;
        }
        let (usual_us, median_us) = (self.reference.median()?, self.latest.median()?);
        let before = usual_us.max(self.told_us);
        let limit_us = percent(before, CREPT_PERCENT).max(before.saturating_add(CREPT_MIN_US));
        let count = self.latest.count();
        (median_us > limit_us).then_some(Crept { usual_us, median_us, count, limit_us })
    }

    /// That has been told.
    pub fn told(&mut self) {
        if let Some(crept) = self.crept() {
            self.told_us = crept.median_us;
            self.latest = Sketch::default();
        }
    }

    /// The reference alone, for another machine: what speaks for a shift on this one stays here.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self { reference: self.reference.clone(), ..Self::default() }
    }

    /// How the bets stand from now on.
    pub fn stand(&mut self, wealth: Wealth) {
        self.wealth = wealth;
    }

    /// How the bets stand.
    #[must_use]
    pub fn wealth(&self) -> Wealth {
        self.wealth
    }

    /// The reference, for what is shown.
    #[must_use]
    pub fn reference(&self) -> &Sketch {
        &self.reference
    }

    /// What the reference says; `None` without samples.
    #[must_use]
    pub fn yardstick(&self) -> Option<Yardstick> {
        let count = self.reference.count();
        let limit = rank::limit(count);
        // The sample itself may lie above what its bin stands for.
        let bound = self.reference.at_rank(limit.unwrap_or(count))?;
        let bound_us = bound.saturating_mul(100) / (100 - ERROR_PERCENT) + 1;
        Some(Yardstick {
            count,
            median_us: self.reference.median()?,
            mad_us: self.reference.mad()?,
            bound_us,
            has_limit: limit.is_some(),
        })
    }
}

// === impl Yardstick ===

impl Yardstick {
    /// The levels for a sample of a moment at which the machine was so slow.
    ///
    /// The small level is the highest of: the usual time and as much more as the reference's tolerance
    /// limit lies above its median; what is tolerated of the usual time; 2 ms more than usual. The large
    /// one is never below the small one.
    #[must_use]
    pub fn levels(&self, rule: &Rule, drift_percent: Option<u64>) -> Levels {
        let tolerance = if drift_percent.is_some() { rule.measured } else { rule.blind };
        let drift = drift(drift_percent);
        let usual_us = percent(self.median_us, drift);
        let small_us = usual_us
            .saturating_add(self.bound_us.saturating_sub(self.median_us))
            .max(percent(usual_us, tolerance.small_percent))
            .max(usual_us.saturating_add(EXCESS_MIN_US));
        let large_us = percent(usual_us, tolerance.large_percent)
            .max(usual_us.saturating_add(rule.large_us))
            .max(small_us);
        Levels { usual_us, small_us, large_us }
    }

    /// Compares a sample, and bets on it. Not for gross ones, which are told by themselves: leaving
    /// out a sample that wins keeps the bound. A shift that lasts alarms again for every run of samples
    /// that is long enough for it, not for every sample.
    ///
    /// `run_length`: logins per false alarm, within [`crate::RUN_LENGTHS`].
    #[must_use]
    pub fn weigh(
        &self,
        wealth: Wealth,
        us: u64,
        drift_percent: Option<u64>,
        rule: &Rule,
        run_length: u64,
    ) -> Weighed {
        let levels = self.levels(rule, drift_percent);
        let exceeded = if us > levels.large_us {
            Exceeded::Large
        } else if us > levels.small_us {
            Exceeded::Small
        } else {
            Exceeded::Neither
        };
        let wealth = wealth.after(exceeded, self.has_limit, run_length);
        let alarm = exceeded != Exceeded::Neither && wealth.stands(run_length);
        let calm = wealth.is_calm(run_length);
        let wealth = if alarm { wealth.anew() } else { wealth };
        Weighed { levels, exceeded, wealth, alarm, calm }
    }
}

/// From where on a single sample alarms by itself, microseconds: the configured excess above the
/// median, or eight times the samples' spread if that is more.
#[must_use]
pub fn gross_limit_us(median_us: u64, mad_us: u64, excess_us: u64) -> u64 {
    median_us.saturating_add(excess_us.max(mad_us.saturating_mul(GROSS_MADS)))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(us: &u64) -> bool {
    *us == 0
}

fn drift(percent: Option<u64>) -> u64 {
    percent.unwrap_or(100).clamp(DRIFTS.0, DRIFTS.1)
}

fn percent(us: u64, percent: u64) -> u64 {
    us.saturating_mul(percent) / 100
}

#[cfg(test)]
mod tests;
