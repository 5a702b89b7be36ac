//! Sequential change detection by betting, with a proven average run length.
//!
//! J. Shin, A. Ramdas, A. Rinaldo: E-detectors: a nonparametric framework for sequential change
//! detection, New England Journal of Statistics in Data Science 2(2), 2024 (arXiv:2203.03532). Used
//! are their Shiryaev-Roberts e-detector (e-SR), a mixture of such, and the theorem of section 2 that
//! an e-detector that alarms at `1/alpha` has an average run length of at least `1/alpha`.
//!
//! **The null.** A login may exceed two levels. Whatever has come before, it exceeds the small one
//! with a chance of at most one in six and the large one of at most one in 32:
//! `P(X_t > small_t | past) <= 1/6` and `P(X_t > large_t | past) <= 1/32` for every t. Nothing else is
//! assumed: no distribution, no independence, no exchangeability, no constancy. A drift that stays
//! within the levels, samples that depend on each other and levels that move by what came before are
//! all inside the null.
//!
//! **The bets.** On each login every bet stakes a part s of its wealth that the level is exceeded, at
//! the odds of the null: it multiplies by `1 - s + s/p` if it is, by `1 - s` if not. The mean of that
//! factor, given the past, is at most 1. A unit is paid in before each login, so that each is also the
//! first of a bet of its own: `M_t = (M_{t-1} + 1) * factor_t`.
//!
//! **The bound.** `E[M_t - t | past] <= M_{t-1} - (t - 1)`, so `E[M_T] <= E[T]` for the time T of the
//! alarm (they show it for every stopping time). At the alarm `M_T >= N`, hence `E[T] >= N`: on average
//! at least N logins until a false alarm. A mean of several such M with fixed weights keeps the bound.
//! Wealth is kept in millionths and always rounded down, which can only lengthen the run. An alarm ends
//! the run: the bets start with nothing again, so that each run that follows has the bound as well.
//!
//! **What it does not say.** The levels come from samples, and no theorem makes the null true. Where
//! slow logins come in bursts, so that one slow login makes the next exceed a level with a chance above
//! one in six (or 32), the null is broken while that lasts and the bound with it. That is why the
//! levels lie far above what the reference saw (`shift.rs`), and why `cargo xtask arl` counts alarms
//! over series with bursts and drift instead of trusting the theorem. An average run length is no
//! guarantee for one host on one day either: of a run with the mean N, some end early.

use serde::{Deserialize, Serialize};

/// Average run lengths that can be asked for, logins per false alarm of one stream. The upper end is
/// more than one stream sees, the lower more than anybody wants to be told.
pub const RUN_LENGTHS: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000;

/// Wealth is counted in millionths of what is paid in before each login.
const UNIT: u64 = 1_000_000;
/// A bet holds at most so many times the run length: what has stood for long falls soon.
const CAP: u64 = 4;
/// What is stored can hold no more than the longest run length allows.
const STORED_MAX: u64 = CAP * 1_000_000_000 * UNIT;
/// Below this part of the run length samples may teach, or below [`CALM_MIN`].
const CALM_PART: u64 = 100_000;
/// Wealth that one small excess cannot reach and one large or two small ones do.
const CALM_MIN: u64 = 10;

/// One bet.
struct Bet {
    on: Exceeded,
    /// The null: one in so many.
    one_in: u64,
    /// Factor where the level is exceeded, and where not; thousandths.
    factors: (u64, u64),
    weight: u64,
}

/// A shift far above everything has five logins; one that small is seen in the long run only, and
/// then by whichever stake suits how often it exceeds the level.
const BETS: [Bet; 3] = [
    // Stakes of 0.7, 0.5 and 0.7.
    Bet { on: Exceeded::Large, one_in: 32, factors: (22_700, 300), weight: 2 },
    Bet { on: Exceeded::Small, one_in: 6, factors: (3_500, 500), weight: 1 },
    Bet { on: Exceeded::Small, one_in: 6, factors: (4_500, 300), weight: 1 },
];

/// No factor has a mean above one under the null: what every proof above rests on.
const _: () = {
    let mut at = 0;
    while at < BETS.len() {
        let Bet { one_in, factors: (hit, miss), .. } = BETS[at];
        assert!(hit + (one_in - 1) * miss <= 1000 * one_in, "a bet that grows by itself");
        at += 1;
    }
};

/// Which level a sample exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exceeded {
    /// None.
    Neither,
    /// The small one.
    Small,
    /// Both.
    Large,
}

/// What each bet holds, millionths. Starts with nothing.
///
/// Stored as a list of numbers; what is read back is cut to what can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<u64>", into = "Vec<u64>")]
pub struct Wealth {
    /// Since the latest alarm: what the next one is told by.
    held: [u64; BETS.len()],
    /// As if no alarm had been told: what is learned by, never less than `held`. A shift that lasts
    /// is no less of one for having been told.
    lasting: [u64; BETS.len()],
}

// === impl Wealth ===

impl Wealth {
    /// The wealth after one more sample. `has_small`: there is a small level to bet on; else those
    /// bets sit out and keep what they hold, which is less than the bound allows.
    #[must_use]
    pub fn after(mut self, exceeded: Exceeded, has_small: bool, run_length: u64) -> Self {
        let most = run_length.saturating_mul(CAP * UNIT).min(STORED_MAX);
        for (at, bet) in BETS.iter().enumerate() {
            if bet.on == Exceeded::Small && !has_small {
                continue;
            }
            let factor = if exceeded >= bet.on { bet.factors.0 } else { bet.factors.1 };
            for held in [&mut self.held[at], &mut self.lasting[at]] {
                let grown = (u128::from(*held) + u128::from(UNIT)) * u128::from(factor) / 1000;
                *held = u64::try_from(grown).unwrap_or(u64::MAX).min(most);
            }
        }
        self
    }

    /// After an alarm: the bets start with nothing, and it is no calmer than it was.
    #[must_use]
    pub fn anew(self) -> Self {
        Self { held: [0; BETS.len()], ..self }
    }

    /// The mixture: what all bets hold together, in units, rounded down.
    #[must_use]
    pub fn total(&self) -> u64 {
        units(&self.held)
    }

    /// The same as if no alarm had been told: a shift that lasts still stands here after it was. Never
    /// less than [`Wealth::total`].
    #[must_use]
    pub fn lasting(&self) -> u64 {
        units(&self.lasting)
    }

    /// It has reached the run length: an alarm.
    #[must_use]
    pub fn stands(&self, run_length: u64) -> bool {
        millionths(&self.held) >= u128::from(run_length) * u128::from(UNIT)
    }

    /// So little speaks for a shift, alarms or no, that what was just measured may become what is
    /// usual: less than a hundred-thousandth of an alarm, or than two small excesses in a row give.
    #[must_use]
    pub fn is_calm(&self, run_length: u64) -> bool {
        units(&self.lasting) < CALM_MIN.max(run_length / CALM_PART)
    }
}

impl From<Vec<u64>> for Wealth {
    fn from(stored: Vec<u64>) -> Self {
        let mut wealth = Self::default();
        for (at, held) in wealth.held.iter_mut().enumerate() {
            *held = stored.get(at).copied().unwrap_or(0).min(STORED_MAX);
            let lasting = stored.get(BETS.len() + at).copied().unwrap_or(0);
            wealth.lasting[at] = lasting.min(STORED_MAX).max(*held);
        }
        wealth
    }
}

impl From<Wealth> for Vec<u64> {
    fn from(wealth: Wealth) -> Self {
        [wealth.held, wealth.lasting].concat()
    }
}

fn units(held: &[u64; BETS.len()]) -> u64 {
    u64::try_from(millionths(held) / u128::from(UNIT)).unwrap_or(u64::MAX)
}

fn millionths(held: &[u64; BETS.len()]) -> u128 {
    let weights: u64 = BETS.iter().map(|bet| bet.weight).sum();
    let weighted = held.iter().zip(&BETS);
    weighted.map(|(held, bet)| u128::from(*held) * u128::from(bet.weight)).sum::<u128>()
        / u128::from(weights)
}

#[cfg(test)]
mod tests;
