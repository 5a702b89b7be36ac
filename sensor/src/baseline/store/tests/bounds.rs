//! Too many entries: who goes, and what a thousand full ones take.

use super::*;

fn seen(number: u64, guarded: bool, seen_s: i64) -> (String, Entry) {
    (name(number), Entry { guarded, seen_s, ..entry(number) })
}

fn write_all(store: &mut Store, all: &[(String, Entry)]) {
    let all: Vec<(&str, &Entry)> = all.iter().map(|(name, entry)| (name.as_str(), entry)).collect();
    store.write(&all).unwrap();
}

fn bounded(dir: &Path, bounds: Bounds) -> Store {
    Store::open(dir).0.bounded(bounds)
}

#[test]
fn the_least_recently_seen_go_first_and_guarded_ones_last() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { count: 32, ..Bounds::default() };
    let mut store = bounded(dir.path(), bounds);
    // The guarded ones were seen longest ago.
    let all: Vec<_> = (0..32).map(|n| seen(n, n < 4, i64::try_from(n).unwrap())).collect();
    write_all(&mut store, &all);
    assert_eq!(store.tally().evicted, 0);
    write_all(&mut store, &[seen(40, false, 1_000)]);
    assert_eq!(store.tally().evicted, 3, "down to 15 of 16");
    assert_eq!(
        numbers(dir.path()),
        [0, 1, 2, 3].into_iter().chain(7..32).chain([40]).collect::<Vec<_>>()
    );
    // Seen again, it stays.
    write_all(&mut store, &[seen(7, false, 2_000)]);
    write_all(
        &mut store,
        &[seen(41, false, 2_001), seen(42, false, 2_002), seen(43, false, 2_003)],
    );
    let left = numbers(dir.path());
    assert!(left.contains(&7) && !left.contains(&8), "{left:?}");
    // A flood of programs that nobody has seen before.
    for flood in 0..40 {
        let new: Vec<_> = (0..8).map(|n| seen(1_000 + flood * 8 + n, false, 9_000)).collect();
        write_all(&mut store, &new);
        let left = numbers(dir.path());
        assert!(left.len() <= 32 && left.starts_with(&[0, 1, 2, 3]), "{left:?}");
    }
    // Guarded ones alone: the bound holds for them as well.
    let all: Vec<_> = (100..140).map(|n| seen(n, true, i64::try_from(n).unwrap())).collect();
    write_all(&mut store, &all);
    assert_eq!(numbers(dir.path()), (110..140).collect::<Vec<_>>());
    drop(store);
    let mut again = bounded(dir.path(), bounds);
    assert!(stored(&mut again, 139) && !stored(&mut again, 109));
}

#[test]
fn bytes_are_bounded_and_do_not_drift() {
    let dir = tempfile::tempdir().unwrap();
    let one = entry(100).body.len() as u64;
    let bounds = Bounds { bytes: one * 33 / 2, ..Bounds::default() };
    for round in 0..20 {
        // The same again and again: their former states must not count.
        let mut store = bounded(dir.path(), bounds);
        write(&mut store, 100..112).unwrap();
        assert_eq!(store.tally().evicted, 0, "round {round}");
    }
    let mut store = bounded(dir.path(), bounds);
    write(&mut store, 112..118).unwrap();
    assert!((3..=6).contains(&store.tally().evicted), "{:?}", store.tally());
    let left = numbers(dir.path());
    assert!(
        left.len() as u64 * one <= bounds.bytes + 64 && left.ends_with(&[116, 117]),
        "{left:?}"
    );
    // One that is larger than everything stays alone.
    let huge = Entry { guarded: false, seen_s: i64::MAX, body: vec![1; 40_000] };
    store.write(&[("huge", &huge)]).unwrap();
    assert_eq!(store.read("huge").unwrap(), Some(huge));
    assert_eq!(store.read(&name(117)).unwrap(), None);
}

#[test]
fn room_of_what_was_evicted_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = bounded(dir.path(), Bounds { count: 64, ..Bounds::default() });
    let size = || fs::metadata(dir.path().join(FILE)).unwrap().len();
    let mut sizes = Vec::new();
    for round in 0..40_u64 {
        let all: Vec<(String, Entry)> = (0..32)
            .map(|n| {
                let body = vec![u8::try_from(n).unwrap(); 9_000];
                (name(round * 32 + n), Entry { guarded: false, seen_s: round.cast_signed(), body })
            })
            .collect();
        write_all(&mut store, &all);
        sizes.push(size());
    }
    assert_eq!(sizes[10..].iter().max(), sizes[10..].iter().min(), "{sizes:?}");
    assert!(store.tally().evicted > 1_000);
}
