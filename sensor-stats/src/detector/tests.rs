//! The bound by exact enumeration and by Monte Carlo, and what the bets are good for.

use proptest::prelude::*;

use super::*;

const MILLION: u64 = 1_000_000;

fn after(exceeded: &[Exceeded], run_length: u64) -> Wealth {
    exceeded
        .iter()
        .fold(Wealth::default(), |wealth, exceeded| wealth.after(*exceeded, true, run_length))
}

/// Samples of a calm stream first.
fn settled() -> Wealth {
    after(&[Exceeded::Neither; 100], MILLION)
}

/// Millionths as units.
fn as_units(held: u64) -> f64 {
    let high = f64::from(u32::try_from(held >> 32).unwrap()) * 4_294_967_296.0;
    (high + f64::from(u32::try_from(held & 0xffff_ffff).unwrap())) / 1e6
}

/// A small generator with a fixed seed (G. Marsaglia: Xorshift RNGs, 2003).
struct Random(u64);

impl Random {
    fn one_in(&mut self, many: u64) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) < (1 << 31) / many
    }
}

#[test]
fn mean_wealth_never_exceeds_what_was_paid_in() {
    // Every path of seven logins with its exact chance where the null holds with equality.
    for (at, bet) in BETS.iter().enumerate() {
        let chance = 1.0 / f64::from(u32::try_from(bet.one_in).unwrap());
        for logins in 1..=7_u32 {
            let mut mean = 0.0;
            for path in 0_u32..1 << logins {
                let hits = path.count_ones();
                let weight = chance.powi(hits.cast_signed())
                    * (1.0 - chance).powi((logins - hits).cast_signed());
                let steps: Vec<Exceeded> = (0..logins)
                    .map(|t| if (path >> t) & 1 == 1 { bet.on } else { Exceeded::Neither })
                    .collect();
                // A run length that the cap does not touch.
                mean += weight * as_units(after(&steps, 1_000_000_000).held[at]);
            }
            let paid = f64::from(logins);
            assert!(mean <= paid + 1e-6, "bet {at}: {mean} after {logins}");
            // And it is no idle bound: the bet is fair, but for the rounding.
            assert!(mean > 0.99 * paid, "bet {at}: {mean} after {logins}");
        }
    }
}

/// The mean worth, after two logins, of a bet that starts with one; `then` is how often the level is
/// exceeded where the login before did.
fn mean_worth(bet: &Bet, then: u64, random: &mut Random) -> f64 {
    const TIMES: u32 = 400_000;
    let factor = |hit| if hit { bet.factors.0 } else { bet.factors.1 };
    let sum: u64 = (0..TIMES)
        .map(|_| {
            let first = random.one_in(bet.one_in);
            let second = random.one_in(if first { then } else { bet.one_in });
            factor(first) * factor(second)
        })
        .sum();
    as_units(sum) / f64::from(TIMES)
}

#[test]
fn an_e_process_is_worth_at_most_one_in_the_mean() {
    for (at, bet) in BETS.iter().enumerate() {
        let mut random = Random(0x5eed_0000 + at as u64);
        // At the edge of the null.
        let fair = mean_worth(bet, bet.one_in, &mut random);
        assert!((0.9..1.1).contains(&fair), "bet {at}: {fair}");
        // Within it, each sample depending on the one before.
        let dependent = mean_worth(bet, 2 * bet.one_in, &mut random);
        assert!(dependent < 1.0, "bet {at}: {dependent}");
        // Bursts, which the null excludes: no bound holds, and the test would show it.
        let bursts = mean_worth(bet, 2, &mut random);
        assert!(bursts > 1.1, "bet {at}: {bursts}");
    }
}

#[test]
fn mean_run_is_at_least_what_was_asked_for() {
    // Both levels as often as the null allows, every large excess a small one as well.
    const RUN_LENGTH: u64 = 1_000;
    const RUNS: u64 = 400;
    let mut random = Random(0x00c0_ffee);
    let mut logins = 0;
    for _ in 0..RUNS {
        let mut wealth = Wealth::default();
        while !wealth.stands(RUN_LENGTH) {
            logins += 1;
            // 1/32, and 13/93 of the 31/32 that are left, but for a little: 1/6 in all.
            let exceeded = if random.one_in(32) {
                Exceeded::Large
            } else if random.one_in(8) || random.one_in(60) {
                Exceeded::Small
            } else {
                Exceeded::Neither
            };
            wealth = wealth.after(exceeded, true, RUN_LENGTH);
        }
    }
    assert!(logins / RUNS >= RUN_LENGTH, "{} logins to a false alarm", logins / RUNS);
}

#[test]
fn four_large_excesses_are_no_alarm_and_five_are() {
    let mut wealth = settled();
    for nth in 1..=5 {
        assert!(!wealth.stands(MILLION), "before excess {nth}");
        wealth = wealth.after(Exceeded::Large, true, MILLION);
    }
    assert!(wealth.stands(MILLION), "{}", wealth.total());
    // Without a small level the large one does as well.
    let mut wealth = Wealth::default();
    for _ in 0..5 {
        wealth = wealth.after(Exceeded::Large, false, MILLION);
    }
    assert!(wealth.stands(MILLION), "{}", wealth.total());
}

#[test]
fn small_excesses_take_ten_in_a_row_and_a_miss_costs_two_more() {
    let delay = |exceeds: &dyn Fn(usize) -> bool| {
        let mut wealth = settled();
        (0..200).position(|at| {
            let exceeded = if exceeds(at) { Exceeded::Small } else { Exceeded::Neither };
            wealth = wealth.after(exceeded, true, MILLION);
            wealth.stands(MILLION)
        })
    };
    let at_once = delay(&|_| true).unwrap();
    assert!((9..12).contains(&at_once), "{at_once}");
    let missed = delay(&|at| at != 4).unwrap();
    assert!((at_once + 1..at_once + 4).contains(&missed), "{missed}");
    // Half of the logins, for long.
    assert!(delay(&|at| at % 2 == 0).is_some());
    assert!(delay(&|at| at % 6 == 0).is_none());
}

#[test]
fn two_small_excesses_or_one_large_end_the_calm_and_it_returns() {
    let calm = settled();
    assert!(calm.is_calm(MILLION), "{}", calm.total());
    let once = calm.after(Exceeded::Small, true, MILLION);
    assert!(once.is_calm(MILLION), "{}", once.total());
    let twice = once.after(Exceeded::Small, true, MILLION);
    assert!(!twice.is_calm(MILLION), "{}", twice.total());
    assert!(!calm.after(Exceeded::Large, true, MILLION).is_calm(MILLION));
    // From the very top it takes some tens of ordinary logins.
    let mut top = after(&[Exceeded::Large; 100], MILLION);
    for _ in 0..30 {
        top = top.after(Exceeded::Neither, true, MILLION);
    }
    assert!(top.is_calm(MILLION), "{}", top.total());
}

#[test]
fn after_an_alarm_the_bets_start_anew_and_the_calm_does_not() {
    let told = after(&[Exceeded::Large; 5], MILLION);
    assert!(told.stands(MILLION));
    let mut wealth = told.anew();
    assert!(wealth.total() == 0 && !wealth.is_calm(MILLION));
    assert_eq!(wealth.lasting(), told.total());
    // What lasts is told for every run of its own, and is never calm.
    for nth in 1..=5 {
        assert!(!wealth.stands(MILLION), "before excess {nth}");
        wealth = wealth.after(Exceeded::Large, true, MILLION);
        assert!(!wealth.is_calm(MILLION), "{nth}");
    }
    assert!(wealth.stands(MILLION));
    // The calm returns as if nothing had been told.
    let quiet = [Exceeded::Neither; 40];
    let calm = |wealth: Wealth| {
        let mut held = quiet.iter().scan(wealth, |wealth, exceeded| {
            *wealth = wealth.after(*exceeded, true, MILLION);
            Some(*wealth)
        });
        held.position(|wealth| wealth.is_calm(MILLION))
    };
    assert_eq!(calm(told.anew()), calm(told));
    assert!(calm(told).is_some());
}

#[test]
fn wealth_stored_before_alarms_started_it_anew_is_read() {
    let wealth: Wealth = serde_json::from_str("[7000000,8000000,90000000]").unwrap();
    assert_eq!(wealth.held, wealth.lasting);
    assert_eq!(wealth.held, [7 * UNIT, 8 * UNIT, 90 * UNIT]);
}

#[test]
fn stored_wealth_is_read_back_and_hostile_wealth_is_cut() {
    let wealth = after(&[Exceeded::Small, Exceeded::Large], MILLION);
    let text = serde_json::to_string(&wealth).unwrap();
    assert_eq!(serde_json::from_str::<Wealth>(&text).unwrap(), wealth);
    let huge: Wealth = serde_json::from_str("[18446744073709551615,1,2,3,4]").unwrap();
    assert_eq!((huge.held, huge.lasting), ([STORED_MAX, 1, 2], [STORED_MAX, 4, 2]));
    assert_eq!(serde_json::from_str::<Wealth>("[]").unwrap(), Wealth::default());
    // What is above the cap of this configuration comes down with the next sample.
    let next = huge.after(Exceeded::Neither, true, 1_000);
    assert!(next.total() <= 4 * 1_000);
}

proptest! {
    #[test]
    fn any_samples_on_any_stored_wealth_stay_bounded(
        stored in prop::collection::vec(any::<u64>(), 0..8),
        steps in prop::collection::vec((0_u8..3, any::<bool>()), 0..50),
        run_length in RUN_LENGTHS
    ) {
        let mut wealth = Wealth::from(stored);
        for (step, has_small) in steps {
            let exceeded = [Exceeded::Neither, Exceeded::Small, Exceeded::Large][usize::from(step)];
            let next = wealth.after(exceeded, has_small, run_length);
            prop_assert!(next.lasting[0] <= run_length * CAP * UNIT);
            if exceeded == Exceeded::Neither && wealth.total() > 10 {
                prop_assert!(next.total() <= wealth.total() + 1);
            }
            wealth = if next.stands(run_length) && step == 2 { next.anew() } else { next };
            prop_assert!(wealth.held.iter().zip(&wealth.lasting).all(|(held, all)| held <= all));
        }
        prop_assert!(!(wealth.stands(run_length) && wealth.is_calm(run_length)));
    }
}
