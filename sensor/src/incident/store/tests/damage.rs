//! A file that somebody else wrote, and a disk that takes no more.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use redb::{Database, ReadableDatabase};
use tempfile::TempDir;

use super::super::database::{META, SCHEMA};
use super::{
    FILE, IncidentReader, IncidentStore, State, StoreError, StoreLimits, entry, listed, put, store,
    titles,
};

/// A store of `count` incidents, closed in order.
fn intact(dir: &Path, count: i64) -> Vec<u8> {
    let store = store(dir);
    put(&store, 0..count);
    drop(store);
    fs::read(dir.join(FILE)).unwrap()
}

/// Opens the file as a starting sensor does; where it was set aside.
fn start(dir: &Path) -> (IncidentStore, Option<PathBuf>) {
    let opened = IncidentStore::open(dir, StoreLimits::default()).unwrap();
    (opened.store, opened.set_aside.map(|(path, _)| path))
}

#[test]
fn a_damaged_file_is_set_aside_as_it_was_and_a_fresh_one_begun() {
    let dir = TempDir::new().unwrap();
    for number in 1..=11 {
        let garbage = format!("garbage {number}").repeat(4000);
        fs::write(dir.path().join(FILE), &garbage).unwrap();
        let reader = IncidentReader::open(dir.path()).unwrap_err();
        assert!(matches!(reader, StoreError::Corrupt { .. }), "{reader}");
        let (store, aside) = start(dir.path());
        let expected = dir.path().join(format!("{FILE}.corrupt-{}", number.min(9)));
        assert_eq!(aside.as_ref(), Some(&expected));
        assert_eq!(fs::read(&expected).unwrap(), garbage.as_bytes());
        put(&store, [number]);
        assert_eq!(listed(&store), [number]);
    }
    let files = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(files, 10, "their number is bounded");
}

#[test]
fn a_truncated_file_is_set_aside() {
    let whole = intact(TempDir::new().unwrap().path(), 5);
    for kept in [1, 63, 64, 320, 4095, 4096, 8192, whole.len() / 2, whole.len() - 1] {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(FILE), &whole[..kept]).unwrap();
        let (store, aside) = start(dir.path());
        assert!(aside.is_some() || listed(&store).len() == 5, "{kept} bytes of {}", whole.len());
        put(&store, [7]);
    }
}

#[test]
fn changed_bytes_are_noticed_or_harmless_and_never_bring_the_sensor_down() {
    let whole = intact(TempDir::new().unwrap().path(), 12);
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let mut noticed = 0;
    for step in 0..60 {
        let dir = TempDir::new().unwrap();
        let mut bytes = whole.clone();
        let at = if step < 30 { step * 10 } else { (step - 30) * used / 30 };
        bytes[at] ^= 0x41;
        fs::write(dir.path().join(FILE), &bytes).unwrap();
        if let Ok(reader) = IncidentReader::open(dir.path()) {
            let found = reader.list(100).unwrap();
            assert!(titles(&found.incidents).iter().rev().copied().eq(0..12), "byte {at}");
        }
        match IncidentStore::open(dir.path(), StoreLimits::default()) {
            Ok(opened) if opened.set_aside.is_some() => {
                noticed += 1;
                put(&opened.store, [1]);
            }
            Ok(opened) => {
                let found = opened.store.list(100).unwrap();
                let numbers = titles(&found.incidents);
                assert!(numbers.iter().rev().copied().eq(0..12), "byte {at}: {numbers:?}");
            }
            Err(StoreError::Schema { .. }) => noticed += 1,
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    assert!(noticed > 5, "{noticed} of 60 changes noticed");
}

#[test]
fn another_schema_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    intact(dir.path(), 3);
    let newer = Database::open(dir.path().join(FILE)).unwrap();
    let write = newer.begin_write().unwrap();
    write.open_table(META).unwrap().insert("schema", SCHEMA + 1).unwrap();
    write.commit().unwrap();
    drop(newer);
    let error = IncidentStore::open(dir.path(), StoreLimits::default()).unwrap_err();
    assert!(matches!(error, StoreError::Schema { found: 2, .. }), "{error}");
    let error = IncidentReader::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Schema { found: 2, .. }), "{error}");
    let file = Database::open(dir.path().join(FILE)).unwrap();
    assert_eq!(file.begin_read().unwrap().list_tables().unwrap().count(), 3);
}

/// A file system of 4 MiB that is gone at the end of the test.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            other => {
                println!("skipped: mounting a small tmpfs needs root: {other:?}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_an_error_and_the_store_works_again_afterwards() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.0.path();
    let ballast = dir.join("ballast");
    let small = store(dir);
    put(&small, 0..3);
    let size = fs::metadata(dir.join(FILE)).unwrap().len();
    let room = usize::try_from((4 << 20) - size).unwrap();
    fs::write(&ballast, vec![0; room - room % 4096]).unwrap();

    let mut number = 3;
    let error = loop {
        let mut large = entry(number, State::Closed);
        large.incident.story = "x".repeat(200_000);
        match small.put(&[&large]) {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
        assert!(number < 100, "the disk never got full");
    };
    let StoreError::Io { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull, "{error:?}");
    let expected: Vec<i64> = (0..number).rev().collect();
    assert_eq!(listed(&small), expected, "what was there can still be read");
    let mut large = entry(number, State::Closed);
    large.incident.story = "x".repeat(200_000);
    assert!(small.put(&[&large]).is_err(), "still full");

    fs::remove_file(&ballast).unwrap();
    small.put(&[&large]).expect("usable again without a restart");
    let expected: Vec<i64> = (0..=number).rev().collect();
    assert_eq!(listed(&small), expected);
    drop(small);
    assert_eq!(listed(&store(dir)), expected);
}
