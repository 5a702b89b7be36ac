//! The store against kills, damage and full disks.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

fn subject(n: u64) -> Change {
    (format!("subject {n}"), n.to_string().into_bytes())
}

fn keys(store: &Store) -> Vec<String> {
    let all = store.db.as_ref().map(|db| read_all(db).unwrap()).unwrap_or_default();
    all.into_iter().map(|(key, _)| key).collect()
}

fn subjects(store: &Store) -> usize {
    keys(store).len()
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, opened) = Store::open(dir.path());
    assert_eq!(opened, Opened::Ready);
    store.write(&[subject(1), subject(2)]).unwrap();
    let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "what runs here is nobody's business");
    store.write(&[("subject 1".to_owned(), b"one".to_vec())]).unwrap();
    drop(store);
    let (mut store, opened) = Store::open(dir.path());
    assert_eq!(opened, Opened::Ready);
    assert_eq!(store.read("subject 2").unwrap(), b"2");
    assert_eq!(store.read("subject 1").unwrap(), b"one");
    assert_eq!(store.read("subject 3"), None);
    assert_eq!(store.tally(), StoreTally::default());
}

#[test]
fn others_can_read_while_it_is_open_for_writing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(read_subjects(dir.path()).is_err());
    let (mut store, _) = Store::open(dir.path());
    store.write(&[subject(7)]).unwrap();
    let all = read_subjects(dir.path()).unwrap();
    assert_eq!(all, [("subject 7".to_owned(), b"7".to_vec())]);
}

#[test]
fn a_second_sensor_goes_on_in_memory_and_leaves_the_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, _) = Store::open(dir.path());
    first.write(&[subject(1)]).unwrap();
    let (mut second, opened) = Store::open(dir.path());
    assert!(matches!(opened, Opened::InMemory { .. }), "{opened:?}");
    assert!(second.write(&[subject(2)]).is_err());
    assert_eq!(second.tally().failures, 1);
    drop(first);
    second.write(&[subject(2)]).unwrap();
    assert_eq!(subjects(&second), 2, "tried again once the file is free");
}

#[test]
fn a_damaged_file_is_set_aside_and_reported() {
    for (name, bytes) in [
        ("garbage", b"this is not a database".repeat(1000)),
        ("zeros", vec![0; 8192]),
        ("one byte", vec![b'r']),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, &bytes).unwrap();
        let (mut store, opened) = Store::open(dir.path());
        let Opened::SetAside { moved_to, reason } = opened else { panic!("{name}: {opened:?}") };
        assert_eq!(fs::read(&moved_to).unwrap(), bytes, "{name}: kept as it was");
        assert!(!reason.is_empty());
        store.write(&[subject(1)]).unwrap();
        assert_eq!(subjects(&store), 1);
        assert_eq!(store.tally().set_aside, 1);
    }
}

#[test]
fn a_file_of_another_version_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create(dir.path().join(FILE)).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(META).unwrap().insert(SCHEMA_KEY, SCHEMA + 1).unwrap();
    write.commit().unwrap();
    drop(db);
    let (_, opened) = Store::open(dir.path());
    let Opened::SetAside { reason, .. } = opened else { panic!("{opened:?}") };
    assert!(reason.contains("schema 2"), "{reason}");
}

#[test]
fn flipped_bytes_never_stop_the_sensor_nor_pass_for_content() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path());
    let many: Vec<Change> = (0..500).map(subject).collect();
    store.write(&many).unwrap();
    drop(store);
    let path = dir.path().join(FILE);
    let good = fs::read(&path).unwrap();
    let mut outcomes = [0; 3];
    for round in 0..60_usize {
        let mut bad = good.clone();
        let at = (round * 7919 + 13) * 4099 % bad.len();
        bad[at] ^= 1 << (round % 8);
        fs::write(&path, &bad).unwrap();
        let (mut store, opened) = Store::open(dir.path());
        match opened {
            Opened::Ready => outcomes[0] += 1,
            Opened::SetAside { .. } => outcomes[1] += 1,
            Opened::InMemory { reason } => panic!("byte {at}: {reason}"),
        }
        for key in keys(&store) {
            let value = store.read(&key).unwrap();
            let number = key.strip_prefix("subject ").unwrap();
            assert_eq!(value, number.as_bytes(), "byte {at}: {key}");
        }
        store.write(&[subject(9)]).unwrap();
        outcomes[2] += 1;
    }
    assert_eq!(outcomes[2], 60);
    println!("harmless {}, set aside {}", outcomes[0], outcomes[1]);
}

#[test]
fn a_directory_that_cannot_be_made_leaves_the_sensor_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let (mut store, opened) = Store::open(&file.join("state"));
    let Opened::InMemory { reason } = opened else { panic!("{opened:?}") };
    assert!(reason.contains("state"), "{reason}");
    assert!(store.write(&[subject(1)]).is_err());
    assert_eq!(store.tally().failures, 1);
}

/// Mounted until dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// `None`, with the reason printed, where this user may not mount.
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "halfsecond-test"])
            .arg(dir.path())
            .output();
        match done {
            Ok(output) if output.status.success() => Some(Self(dir)),
            Ok(output) => {
                println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: mount: {error}");
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_counted_and_tried_again() {
    let Some(disk) = Tmpfs::new("4m") else { return };
    let dir = disk.0.path();
    let (mut store, opened) = Store::open(dir);
    assert_eq!(opened, Opened::Ready);
    store.write(&[subject(1)]).unwrap();
    let ballast = dir.join("ballast");
    let mut filled = 0;
    while fs::write(dir.join(format!("ballast{filled}")), vec![1; 65_536]).is_ok() {
        filled += 1;
    }
    fs::write(&ballast, b"").ok();
    let big: Vec<Change> = (0..64).map(|n| (format!("big {n}"), vec![n; 65_536])).collect();
    assert!(store.write(&big).is_err(), "4 MiB do not fit");
    assert!(store.write(&big).is_err());
    assert_eq!(store.tally().failures, 2);
    for n in 0..=filled {
        fs::remove_file(dir.join(format!("ballast{n}"))).ok();
    }
    store.write(&[subject(2)]).unwrap();
    assert_eq!(subjects(&store), 2, "the first one survived");
}

#[test]
fn a_file_that_may_not_be_written_leaves_the_sensor_in_memory() {
    let Some(disk) = Tmpfs::new("4m") else { return };
    let (mut store, _) = Store::open(disk.0.path());
    store.write(&[subject(1)]).unwrap();
    drop(store);
    let remount = |how: &str| {
        let options = format!("remount,{how}");
        let done = Command::new("mount").args(["-o", &options]).arg(disk.0.path()).status();
        assert!(done.unwrap().success(), "{how}");
    };
    remount("ro");
    let (mut store, opened) = Store::open(disk.0.path());
    assert!(matches!(opened, Opened::InMemory { .. }), "{opened:?}");
    assert!(store.write(&[subject(2)]).is_err());
    remount("rw");
    store.write(&[subject(2)]).unwrap();
    assert_eq!(subjects(&store), 2);
}

const CHILD: &str = "HALFSECOND_TEST_STORE";

/// Not a test of its own: the process that the next test kills. It writes batches of ten and says
/// so once each is on disk.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let (mut store, opened) = Store::open(Path::new(&dir));
    assert!(!matches!(opened, Opened::InMemory { .. }), "{opened:?}");
    let from = subjects(&store) as u64 / 10;
    for batch in from..100_000 {
        let changes: Vec<Change> = (batch * 10..batch * 10 + 10).map(subject).collect();
        store.write(&changes).unwrap();
        println!("\nwritten {batch}");
    }
}

#[test]
fn a_kill_at_any_moment_loses_only_what_was_not_yet_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = 0;
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "baseline::store::tests::child_that_writes_until_it_is_killed"])
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut batches = (&mut lines)
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("written ")?.parse::<u64>().ok());
        for _ in 0..=round % 4 {
            told = batches.next().expect("the child writes") + 1;
        }
        // Somewhere within the next transaction.
        std::thread::sleep(Duration::from_micros(round * 911 % 4000));
        child.kill().unwrap();
        told = batches.last().map_or(told, |batch| batch + 1);
        child.wait().unwrap();

        let (store, opened) = Store::open(dir.path());
        assert_eq!(opened, Opened::Ready, "round {round}");
        let kept = subjects(&store) as u64;
        assert_eq!(kept % 10, 0, "round {round}: a batch is whole or absent");
        assert!(kept >= told * 10, "round {round}: {told} batches were told, {kept} entries kept");
        assert!(kept <= told * 10 + 10, "round {round}: at most one more than was told");
    }
    assert!(told >= 12);
}

#[test]
fn a_store_left_by_a_kill_can_be_read_by_a_command() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path());
    store.write(&[subject(3)]).unwrap();
    // What a kill leaves: the file as it is now, without the tidying at close.
    let left = tempfile::tempdir().unwrap();
    fs::copy(dir.path().join(FILE), left.path().join(FILE)).unwrap();
    assert_eq!(read_subjects(left.path()).unwrap().len(), 1);
}
