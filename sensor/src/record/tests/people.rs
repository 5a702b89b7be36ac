//! Decisions and suppressions as recordings have them.

use super::*;
use crate::incident::{MAX_FINDINGS, Suppression};

fn replayed(steps: &[Step]) -> Result<Replayed, ReadError> {
    let file = recording(steps);
    let mut reader = Reader::open(&file[..]).unwrap();
    let settings = reader.header().settings;
    replay(&mut reader, &settings, &mut |_| {})
}

#[test]
fn a_decision_is_followed_about_what_was_there_and_counted_about_what_is_not() {
    let told = replayed(&[
        Step::Restored(Box::new(entry("aa"))),
        Step::Restore { now: at(40), ktime_ns: 9 },
        decided("aa", Verb::Acknowledge, None),
        decided("bb", Verb::Close, Some(entry("bb"))),
        // As it stands here, not as somebody else had it.
        decided("bb", Verb::Acknowledge, Some(entry("bb"))),
        decided("cc", Verb::Close, None),
    ]);
    let told = told.unwrap();
    let of = |id: &str| {
        let found = told.incidents.iter().find(|one| one.id == id).unwrap();
        found.decisions.iter().map(|one| one.verb).collect::<Vec<_>>()
    };
    assert_eq!(of("aa"), [Verb::Acknowledge]);
    assert_eq!(of("bb"), [Verb::Close, Verb::Acknowledge]);
    assert_eq!((told.counts.decisions, told.counts.unfollowed), (3, 1));
    // It should have been told here, and is not: under other settings, say.
    let mut young = entry("dd");
    young.incident.opened = at(5);
    let told = replayed(&[decided("dd", Verb::Close, Some(young))]).unwrap();
    assert_eq!((told.counts.unfollowed, told.incidents.len()), (1, 0));
}

#[test]
fn what_was_to_be_expected_before_is_replaced_as_a_whole() {
    let one = |name: &str| Step::Suppression(Box::new(suppression(name)));
    let names = |steps: &[Step]| {
        let told = replayed(steps).unwrap().suppressions;
        told.into_iter().map(|one| one.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&[one("a"), one("b"), Step::Suppressions]), ["a", "b"]);
    assert_eq!(names(&[one("a"), Step::Suppressions, one("b"), Step::Suppressions]), ["b"]);
    assert_eq!(names(&[one("a"), Step::Suppressions, one("b")]), ["a"], "cut there");
    assert_eq!(names(&[one("a"), Step::Suppressions, Step::Suppressions]), [""; 0]);
}

#[test]
fn more_suppressions_and_larger_ones_than_any_host_has_are_damage() {
    let told = |steps: &[Step]| replayed(steps).map(drop).map_err(|error| error.to_string());
    let many = |count| vec![Step::Suppression(Box::new(suppression("edr"))); count];
    assert_eq!(told(&many(64 + 256)), Ok(()));
    assert!(told(&many(64 + 257)).unwrap_err().contains("more suppressions than any host"));
    let large = |change: fn(&mut Suppression)| {
        let mut one = suppression("edr");
        change(&mut one);
        told(&[Step::Suppression(Box::new(one))]).unwrap_err()
    };
    for changed in [
        large(|one| one.why = "x".repeat(64 << 10)),
        large(|one| one.subject = Some("/".repeat(64 << 10))),
        large(|one| one.keys = vec![String::new(); MAX_FINDINGS + 1]),
    ] {
        assert!(changed.contains("larger than any is"), "{changed}");
    }
}
