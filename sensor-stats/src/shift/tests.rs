//! References, levels, and how long a shift takes.

use proptest::prelude::*;

use super::*;

const RUN_LENGTH: u64 = 1_000_000;
const RULE: Rule = Rule::LINK;

/// Learned from `count` samples between 4.9 and 5.1 ms.
fn learned(count: u64) -> Shift {
    let mut shift = Shift::default();
    for at in 0..count {
        shift.learn(4_900 + at * 37 % 200, Some(100));
    }
    shift
}

/// Samples of this size until the alarm; `None` where 100 do not suffice.
fn delay(shift: &mut Shift, us: u64, drift: Option<u64>) -> Option<u32> {
    (1..=100).find(|_| {
        let yardstick = shift.yardstick().unwrap();
        let weighed = yardstick.weigh(shift.wealth(), us, drift, &RULE, RUN_LENGTH);
        shift.stand(weighed.wealth);
        if weighed.calm {
            shift.learn(us, drift);
        }
        weighed.alarm
    })
}

#[test]
fn a_shift_of_20_ms_takes_five_logins_and_one_of_4_ms_takes_ten() {
    for count in [60, 200] {
        assert_eq!(delay(&mut learned(count), 25_000, Some(100)), Some(5), "{count}");
        assert_eq!(delay(&mut learned(count), 9_000, Some(100)), Some(10), "{count}");
    }
    // Too few samples for a limit: only what is far above counts.
    assert_eq!(delay(&mut learned(25), 25_000, Some(100)), Some(5));
    assert_eq!(delay(&mut learned(25), 8_000, Some(100)), None);
}

#[test]
fn a_shift_that_lasts_is_told_once_for_every_run_and_never_learned() {
    for (us, most) in [(25_000, 5), (9_000, 10)] {
        let mut shift = learned(60);
        delay(&mut shift, us, Some(100)).unwrap();
        let before = shift.reference().clone();
        for _ in 0..20 {
            let again = delay(&mut shift, us, Some(100)).unwrap();
            assert!((5..=most).contains(&again), "{us} us: {again}");
        }
        assert_eq!(*shift.reference(), before);
        // It ends, and what is usual is learned on.
        assert_eq!(delay(&mut shift, 5_000, Some(100)), None);
        assert!(shift.reference().count() > before.count() + 50);
    }
}

#[test]
fn a_slow_machine_is_no_shift_and_hides_none() {
    for slow in [60, 100, 176, 400] {
        let usual = 5_100 * slow / 100;
        assert_eq!(delay(&mut learned(60), usual, Some(slow)), None, "{slow}");
        // Twenty milliseconds are half as much again even to a machine that takes 20.
        let most = if slow > 200 { 10 } else { 5 };
        assert_eq!(delay(&mut learned(60), usual + 20_000, Some(slow)), Some(most), "{slow}");
    }
    // More is not believed.
    assert_eq!(delay(&mut learned(60), 51_000, Some(1_000)), Some(10));
    assert_eq!(delay(&mut learned(60), 51_000, Some(u64::MAX)), Some(10));
    // Nobody knows how slow it is: 1.76 times is what drift alone has made of a series.
    assert_eq!(delay(&mut learned(60), 5_100 * 176 / 100, None), None);
    assert_eq!(delay(&mut learned(60), 25_000, None), Some(5));
}

#[test]
fn a_machine_that_was_slow_while_learning_is_the_same_machine() {
    let mut slow = Shift::default();
    for at in 0..60 {
        slow.learn((4_900 + at * 37 % 200) * 2, Some(200));
    }
    assert_eq!(slow.yardstick(), learned(60).yardstick());
}

#[test]
fn what_is_bet_on_teaches_nothing() {
    let mut shift = learned(60);
    let before = shift.reference().clone();
    delay(&mut shift, 25_000, Some(100));
    assert_eq!(*shift.reference(), before);
    // Of a small shift the first sample may still be learned, and no other.
    let mut shift = learned(60);
    assert_eq!(delay(&mut shift, 9_000, Some(100)), Some(10));
    assert_eq!(shift.reference().count(), before.count() + 1);
}

#[test]
fn a_complete_reference_stays_whatever_comes() {
    let mut shift = learned(REFERENCE_MAX);
    let before = shift.clone();
    // A ramp of one percent a day for thirty days, twenty logins each: told, and not learned.
    for day in 0..30 {
        for _ in 0..20 {
            shift.learn(5_000 + day * 50, Some(100));
        }
    }
    assert_eq!(shift.reference(), before.reference());
    assert_eq!(shift.yardstick(), before.yardstick());
    assert!(shift.crept().is_some());
}

#[test]
fn excesses_of_less_than_two_milliseconds_never_count() {
    let mut quick = Shift::default();
    for _ in 0..60 {
        quick.learn(100, Some(100));
    }
    assert_eq!(delay(&mut quick.clone(), 2_000, Some(100)), None);
    assert_eq!(delay(&mut quick, 2_200, Some(100)), Some(10));
}

#[test]
fn gross_is_the_configured_excess_or_eight_spreads() {
    assert_eq!(gross_limit_us(5_000, 200, 100_000), 105_000);
    assert_eq!(gross_limit_us(5_000, 20_000, 100_000), 165_000);
    assert_eq!(gross_limit_us(u64::MAX, u64::MAX, 1), u64::MAX);
}

#[test]
fn stored_parts_that_make_no_sense_are_absent_and_the_others_stay() {
    let good = learned(60);
    let text = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<Shift>(&text).unwrap(), good);
    for (reference, wealth) in [
        ("null", "[-1,2]"),
        ("[[1,-5]]", "[1e300]"),
        ("\"NaN\"", "{\"0\":1}"),
        ("[[70000,1]]", "[[1]]"),
        ("{}", "null"),
    ] {
        let text = format!("{{\"reference\":{reference},\"wealth\":{wealth}}}");
        assert_eq!(serde_json::from_str::<Shift>(&text).unwrap(), Shift::default(), "{text}");
    }
    let half = "{\"reference\":[[5,3]],\"wealth\":null}";
    assert_eq!(serde_json::from_str::<Shift>(half).unwrap().reference().count(), 3);
    assert_eq!(serde_json::from_str::<Shift>("{}").unwrap(), Shift::default());
}

proptest! {
    #[test]
    fn levels_rise_and_the_size_is_bounded(
        samples in prop::collection::vec((any::<u64>(), any::<Option<u64>>()), 1..400),
        us in any::<u64>(),
        drift in any::<Option<u64>>()
    ) {
        let mut shift = Shift::default();
        for (us, drift) in samples {
            shift.learn(us, drift);
            let weighed = shift.yardstick().unwrap().weigh(shift.wealth(), us, drift, &RULE, 1_000);
            shift.stand(weighed.wealth);
        }
        let levels = shift.yardstick().unwrap().levels(&RULE, drift);
        prop_assert!(levels.usual_us < levels.small_us && levels.small_us <= levels.large_us);
        let weighed = shift.yardstick().unwrap().weigh(shift.wealth(), us, drift, &RULE, 1_000);
        prop_assert_eq!(weighed.exceeded == Exceeded::Neither, us <= levels.small_us);
        let text = serde_json::to_string(&shift).unwrap();
        prop_assert!(text.len() < 4_000, "{}", text.len());
        prop_assert_eq!(serde_json::from_str::<Shift>(&text).unwrap(), shift);
    }
}

/// Learns so many more calm samples of this size.
fn more(shift: &mut Shift, count: u64, us: u64, drift: Option<u64>) {
    for at in 0..count {
        shift.learn(us - us / 50 + us / 25 * (at * 37 % 100) / 100, drift);
    }
}

#[test]
fn what_creeps_is_told_once_it_is_a_quarter_above_and_again_as_far_beyond() {
    let mut shift = learned(REFERENCE_MAX);
    let reference = shift.reference().clone();
    for (us, tells) in
        [(5_000, false), (6_000, false), (6_600, true), (7_500, false), (8_600, true)]
    {
        more(&mut shift, WINDOW - 1, us, Some(100));
        assert_eq!(shift.crept(), None, "{us}: the window is not full");
        more(&mut shift, 1, us, Some(100));
        let crept = shift.crept();
        assert_eq!(crept.is_some(), tells, "{us}: {crept:?}");
        if let Some(crept) = crept {
            assert_eq!(crept.usual_us, reference.median().unwrap());
            assert!(crept.median_us.abs_diff(us) < us / 30, "{crept:?}");
            shift.told();
            assert_eq!(shift.crept(), None, "told");
        } else {
            // What is not told stays until the next sample begins another window.
            assert_eq!(shift.crept(), None);
        }
    }
    assert_eq!(*shift.reference(), reference, "nothing of it is what is usual");
    let text = serde_json::to_string(&shift).unwrap();
    assert_eq!(serde_json::from_str::<Shift>(&text).unwrap(), shift);
}

#[test]
fn neither_a_slow_machine_nor_an_unmeasured_one_creeps() {
    let mut shift = learned(REFERENCE_MAX);
    more(&mut shift, WINDOW, 5_000 * 170 / 100, Some(170));
    assert_eq!(shift.crept(), None);
    more(&mut shift, 3 * WINDOW, 9_000, None);
    assert_eq!(shift.crept(), None);
    assert_eq!(serde_json::to_string(&learned(20)).unwrap().matches("latest").count(), 0);
}
