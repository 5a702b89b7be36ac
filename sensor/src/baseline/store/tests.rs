//! The store against kills, damage, full disks and its own earlier versions.

mod bounds;
mod disk;
mod faults;
mod flips;
mod full;
mod kills;
mod versions;

use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;

use super::*;
use crate::baseline::Baseline;
use crate::host::ModuleId;

/// A baseline that tells its number.
fn numbered(number: u64) -> Baseline {
    let mut baseline = Baseline { starts: number, ..Baseline::default() };
    let seen = Timestamp::from_second(1_700_000_000 + i64::try_from(number).unwrap()).unwrap();
    let module =
        ModuleId { path: format!("/usr/lib/lib{number}.so"), build: format!("{number:040x}") };
    baseline.add_library(&module, seen, false);
    baseline
}

fn entry(number: u64) -> Entry {
    Entry::of(&mut numbered(number), false).unwrap()
}

fn name(number: u64) -> String {
    format!("/usr/bin/program {number}")
}

/// Writes these, each under its own name.
fn write(store: &mut Store, numbers: impl IntoIterator<Item = u64>) -> Result<(), StoreError> {
    let all: Vec<(String, Entry)> = numbers.into_iter().map(|n| (name(n), entry(n))).collect();
    let all: Vec<(&str, &Entry)> = all.iter().map(|(name, entry)| (name.as_str(), entry)).collect();
    store.write(&all).map(drop)
}

/// What is stored under the name of a number, which must be that number's.
fn stored(store: &mut Store, number: u64) -> bool {
    let found = store.read(&name(number)).expect("the store can be read");
    if let Some(entry) = &found {
        assert_eq!(entry.baseline(), Some(numbered(number)), "another's, or not as it was written");
    }
    found.is_some()
}

/// Numbers of all that is stored.
fn numbers(dir: &Path) -> Vec<u64> {
    let all = read_subjects(dir).unwrap().into_iter();
    let mut numbers: Vec<u64> = all
        .map(|(subject, json)| {
            let read: Baseline = serde_json::from_slice(&json).unwrap();
            assert_eq!(subject, name(read.starts));
            read.starts
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, opened) = Store::open(dir.path());
    assert_eq!(opened, Opened::Ready);
    write(&mut store, [1, 2]).unwrap();
    let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "what runs here is nobody's business");
    store.write(&[(&name(1), &entry(11))]).unwrap();
    drop(store);
    let (mut store, opened) = Store::open(dir.path());
    assert_eq!(opened, Opened::Ready);
    assert!(stored(&mut store, 2));
    assert_eq!(store.read(&name(1)).unwrap(), Some(entry(11)));
    assert_eq!(store.read(&name(3)).unwrap(), None);
    assert_eq!(store.tally(), StoreTally::default());
}

#[test]
fn an_entry_of_many_pages_grows_and_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path());
    // What does not deflate.
    let mut word = 88_172_645_463_325_252_u64;
    let mut noise = |bytes: usize| {
        let bytes = std::iter::repeat_with(|| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_le_bytes()[0]
        })
        .take(bytes);
        Entry { guarded: true, seen_s: -1, body: bytes.collect() }
    };
    write(&mut store, [1, 3]).unwrap();
    for bytes in [0, 1, 4_000, 4_096, 100_000, 3_000_000, 9_000, 0] {
        let (entry, long) = (noise(bytes), noise(bytes));
        let subject = "x".repeat(5_000);
        store.write(&[(&name(2), &entry), (&subject, &long)]).unwrap();
        // What has no bytes is gone.
        let kept = |entry: Entry| (bytes > 0).then_some(entry);
        assert_eq!(store.read(&name(2)).unwrap(), kept(entry), "{bytes}");
        assert_eq!(store.read(&subject).unwrap(), kept(long), "{bytes}");
        assert!(stored(&mut store, 1) && stored(&mut store, 3));
    }
    assert_eq!(numbers(dir.path()), [1, 3]);
    assert_eq!(store.tally().unreadable, 0);
}

#[test]
fn others_can_read_while_it_is_open_for_writing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(read_subjects(dir.path()).is_err());
    let (mut store, _) = Store::open(dir.path());
    write(&mut store, [7]).unwrap();
    assert_eq!(numbers(dir.path()), [7]);
    write(&mut store, [8]).unwrap();
    assert_eq!(numbers(dir.path()), [7, 8]);
}

#[test]
fn a_second_sensor_goes_on_in_memory_and_leaves_the_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, _) = Store::open(dir.path());
    write(&mut first, [1]).unwrap();
    let (mut second, opened) = Store::open(dir.path());
    assert!(matches!(opened, Opened::InMemory { .. }), "{opened:?}");
    assert!(write(&mut second, [2]).is_err());
    assert_eq!(second.tally().failures, 1);
    assert!(stored(&mut second, 1), "it can still be read");
    drop(first);
    write(&mut second, [2]).unwrap();
    assert_eq!(numbers(dir.path()), [1, 2], "tried again once the file is free");
}

#[test]
fn a_damaged_file_is_set_aside_and_reported() {
    for (what, bytes) in [
        ("garbage", b"this is not a database".repeat(1000)),
        ("zeros", vec![0; 8192]),
        ("one byte", vec![b'r']),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, &bytes).unwrap();
        assert!(read_subjects(dir.path()).is_err(), "{what}");
        let (mut store, opened) = Store::open(dir.path());
        let Opened::SetAside { moved_to, reason } = opened else { panic!("{what}: {opened:?}") };
        assert_eq!(fs::read(&moved_to).unwrap(), bytes, "{what}: kept as it was");
        assert!(!reason.is_empty());
        write(&mut store, [1]).unwrap();
        assert!(stored(&mut store, 1));
        assert_eq!(store.tally().set_aside, 1);
    }
}

#[test]
fn damaged_files_that_are_kept_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=ASIDE_MAX + 2 {
        fs::write(dir.path().join(FILE), format!("garbage {round}").repeat(900)).unwrap();
        let (_, opened) = Store::open(dir.path());
        assert!(matches!(opened, Opened::SetAside { .. }), "{round}: {opened:?}");
    }
    let files = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(files, usize::try_from(ASIDE_MAX).unwrap() + 1);
}

#[test]
fn a_directory_that_cannot_be_made_leaves_the_sensor_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let (mut store, opened) = Store::open(&file.join("state"));
    let Opened::InMemory { reason } = opened else { panic!("{opened:?}") };
    assert!(reason.contains("state"), "{reason}");
    assert_eq!(store.read(&name(1)), Err(Unread::ForNow));
    assert!(write(&mut store, [1]).is_err());
    assert_eq!(store.tally().failures, 1);
}

#[test]
fn a_store_left_by_a_kill_can_be_read_by_a_command_that_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path());
    write(&mut store, [3]).unwrap();
    // What a kill leaves: the file as it is now, without the tidying at close.
    let left = tempfile::tempdir().unwrap();
    fs::copy(dir.path().join(FILE), left.path().join(FILE)).unwrap();
    let before = fs::read(left.path().join(FILE)).unwrap();
    assert_eq!(numbers(left.path()), [3]);
    assert_eq!(fs::read(left.path().join(FILE)).unwrap(), before);
}
