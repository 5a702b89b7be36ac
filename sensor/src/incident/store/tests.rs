//! Durability, bounds, damage and a full disk.

mod damage;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use super::{Entry, FILE, IncidentReader, IncidentStore, StoreError, StoreLimits};
use crate::host::Lineage;
use crate::incident::sample::redirected;
use crate::incident::{Incident, State, Suppression};

/// Directory of the crash test's child.
const CHILD_DIR: &str = "HALFSECOND_TEST_STORE";

fn store(dir: &Path) -> IncidentStore {
    let opened = IncidentStore::open(dir, StoreLimits::default()).unwrap();
    assert_eq!(opened.set_aside, None);
    opened.store
}

fn entry(number: i64, state: State) -> Entry {
    let opened = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(number);
    let incident = Incident {
        id: format!("{number:016x}"),
        opened,
        updated: opened,
        state,
        severity: crate::finding::Severity::High,
        score: 70,
        title: format!("incident {number}"),
        story: String::new(),
        findings: vec![redirected()],
        hosts: vec!["web1".to_owned()],
        recommendation: String::new(),
        partial: false,
        decisions: Vec::new(),
    };
    let lineage = Lineage::Program("/usr/sbin/sshd 00".to_owned());
    Entry { lineage, others: Vec::new(), omitted: 0, connections: 0, over: false, incident }
}

fn put(store: &IncidentStore, numbers: impl IntoIterator<Item = i64>) -> u64 {
    let entries: Vec<_> = numbers.into_iter().map(|number| entry(number, State::Closed)).collect();
    store.put(&entries.iter().collect::<Vec<_>>()).unwrap()
}

fn titles(incidents: &[Incident]) -> Vec<i64> {
    let number = |incident: &Incident| i64::from_str_radix(&incident.id, 16).unwrap();
    incidents.iter().map(number).collect()
}

fn listed(store: &IncidentStore) -> Vec<i64> {
    let listed = store.list(usize::MAX).unwrap();
    assert_eq!(listed.unreadable, 0);
    titles(&listed.incidents)
}

#[test]
fn what_was_put_is_listed_newest_first_and_there_after_reopening() {
    let dir = TempDir::new().unwrap();
    let first = store(dir.path());
    put(&first, [2, 9, 5]);
    assert_eq!(titles(&first.list(2).unwrap().incidents), [9, 5]);
    drop(first);
    let again = store(dir.path());
    assert_eq!(listed(&again), [9, 5, 2]);
    let expected = entry(5, State::Closed).incident;
    let found = again.get(&expected.id).unwrap().unwrap();
    assert_eq!(serde_json::to_value(found).unwrap(), serde_json::to_value(expected).unwrap());
    assert!(again.get("none").unwrap().is_none());
}

#[test]
fn a_later_state_replaces_the_former() {
    let dir = TempDir::new().unwrap();
    let store = store(dir.path());
    let mut changing = entry(1, State::Open);
    store.put(&[&changing, &entry(2, State::Closed)]).unwrap();
    assert_eq!(store.open_entries().unwrap().len(), 1);
    changing.incident.state = State::Closed;
    changing.incident.score = 99;
    store.put(&[&changing]).unwrap();
    assert!(store.open_entries().unwrap().is_empty());
    assert_eq!(listed(&store), [2, 1]);
    assert_eq!(store.get(&changing.incident.id).unwrap().unwrap().score, 99);
}

#[test]
fn suppressions_are_replaced_as_a_whole_and_a_store_without_any_has_none() {
    let dir = TempDir::new().unwrap();
    let first = store(dir.path());
    put(&first, [1]);
    assert_eq!(first.suppressions().unwrap(), []);
    let suppression = |name: &str, matches: u64| -> Suppression {
        serde_json::from_value(serde_json::json!({
            "name": name, "origin": "rule", "who": "alice", "why": "so", "matches": matches,
            "until": "2027-01-31T00:00:00Z", "since": "2026-11-22T00:00:00Z",
        }))
        .unwrap()
    };
    let (old, other) = (suppression("a", 1), suppression("b", 2));
    first.put_suppressions(&[&old, &other]).unwrap();
    let again = suppression("a", 7);
    first.put_suppressions(&[&again]).unwrap();
    assert_eq!(first.suppressions().unwrap(), std::slice::from_ref(&again));
    drop(first);
    let reader = IncidentReader::open(dir.path()).unwrap();
    assert_eq!(reader.suppressions().unwrap(), [again]);
    assert_eq!(reader.list(9).unwrap().incidents.len(), 1, "the incidents are as they were");
}

#[test]
fn with_too_many_the_oldest_closed_are_evicted_and_counted() {
    let dir = TempDir::new().unwrap();
    let limits = StoreLimits { count: 4, ..StoreLimits::default() };
    let store = IncidentStore::open(dir.path(), limits).unwrap().store;
    store.put(&[&entry(0, State::Open)]).unwrap();
    assert_eq!(put(&store, 1..=3), 0);
    assert_eq!(put(&store, 4..=5), 2);
    assert_eq!(listed(&store), [5, 4, 3, 0]);
    let open: Vec<_> = (6..=9).map(|number| entry(number, State::Open)).collect();
    assert_eq!(store.put(&open.iter().collect::<Vec<_>>()).unwrap(), 4);
    assert_eq!(listed(&store), [9, 8, 7, 6], "none is closed: the oldest goes");
}

#[test]
fn bytes_are_bounded_and_do_not_drift() {
    let dir = TempDir::new().unwrap();
    let size = u64::try_from(serde_json::to_vec(&entry(1, State::Closed)).unwrap().len()).unwrap();
    let limits = StoreLimits { bytes: size * 5 / 2, ..StoreLimits::default() };
    let open = || IncidentStore::open(dir.path(), limits).unwrap().store;
    for round in 0..20 {
        // The same two again and again: their former states must not count.
        assert_eq!(put(&open(), [1, 2]), 0, "round {round}");
    }
    assert_eq!(put(&open(), [3]), 1);
    assert_eq!(listed(&open()), [3, 2]);
    let mut huge = entry(4, State::Closed);
    huge.incident.story = "x".repeat(100_000);
    assert_eq!(open().put(&[&huge]).unwrap(), 2);
    assert_eq!(listed(&open()), [4], "the newest stays, whatever its size");
}

#[test]
fn a_reader_is_told_that_a_sensor_runs_and_reads_when_it_has_ended() {
    let dir = TempDir::new().unwrap();
    let missing = IncidentReader::open(dir.path()).unwrap_err();
    assert!(matches!(missing, StoreError::Missing { .. }), "{missing}");
    let running = store(dir.path());
    put(&running, 0..3);
    let in_use = IncidentReader::open(dir.path()).unwrap_err();
    assert!(matches!(in_use, StoreError::InUse { .. }), "{in_use}");
    let second = IncidentStore::open(dir.path(), StoreLimits::default()).unwrap_err();
    assert!(matches!(second, StoreError::InUse { .. }), "{second}");
    drop(running);
    let before = fs::read(dir.path().join(FILE)).unwrap();
    let reader = IncidentReader::open(dir.path()).unwrap();
    let another = IncidentReader::open(dir.path()).expect("readers do not exclude each other");
    assert_eq!(another.list(1).unwrap().incidents.len(), 1);
    drop(another);
    assert_eq!(titles(&reader.list(10).unwrap().incidents), [2, 1, 0]);
    assert!(reader.get(&format!("{:016x}", 1)).unwrap().is_some());
    drop(reader);
    assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), before, "reading changes nothing");
}

#[test]
fn an_empty_file_has_no_incidents_and_becomes_a_store() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(FILE), "").unwrap();
    let missing = IncidentReader::open(dir.path()).unwrap_err();
    assert!(matches!(missing, StoreError::Missing { .. }), "{missing}");
    assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().len(), 0);
    put(&store(dir.path()), [1]);
}

#[test]
fn a_start_waits_for_somebody_who_reads() {
    let dir = TempDir::new().unwrap();
    put(&store(dir.path()), [1]);
    let reader = IncidentReader::open(dir.path()).unwrap();
    let path = dir.path().to_owned();
    let starting = std::thread::spawn(move || store(&path));
    assert_eq!(titles(&reader.list(9).unwrap().incidents), [1]);
    drop(reader);
    assert_eq!(listed(&starting.join().unwrap()), [1]);
}

#[test]
fn the_file_is_for_the_owner_only_and_no_link_is_followed() {
    let dir = TempDir::new().unwrap();
    drop(store(dir.path()));
    let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let other = TempDir::new().unwrap();
    symlink(dir.path().join(FILE), other.path().join(FILE)).unwrap();
    let error = IncidentStore::open(other.path(), StoreLimits::default()).unwrap_err();
    assert!(matches!(error, StoreError::Io { action: "open", .. }), "{error}");
}

/// Run by the next test in a process of its own; prints each number that is on the disk.
#[test]
#[ignore = "the child of what_a_killed_sensor_had_put_is_there"]
fn child_puts_until_killed() {
    let Some(dir) = env::var_os(CHILD_DIR) else {
        println!("skipped: only the crash test starts this");
        return;
    };
    let store = store(Path::new(&dir));
    let begun = i64::try_from(listed(&store).len()).unwrap();
    let mut out = std::io::stdout();
    for number in begun.. {
        put(&store, [number]);
        writeln!(out, "put {number}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_a_killed_sensor_had_put_is_there() {
    let dir = TempDir::new().unwrap();
    let mut there = 0;
    // The later it is killed, the further its next write has come; ever on the same file.
    for lines in [1, 2, 3, 5, 8, 13] {
        let last = kill_child_after(dir.path(), lines);
        let reader = IncidentReader::open(dir.path()).expect("readable as the kill has left it");
        let mut found = titles(&reader.list(usize::MAX).unwrap().incidents);
        found.reverse();
        let expected: Vec<i64> = (0..i64::try_from(found.len()).unwrap()).collect();
        assert_eq!(found, expected);
        assert!(found.len() > last, "{last} was reported, {} are there", found.len());
        assert!(found.len() > there);
        there = found.len();
        drop(reader);
        assert_eq!(listed(&store(dir.path())).len(), there);
    }
}

/// The last number it has reported.
fn kill_child_after(dir: &Path, lines: usize) -> usize {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "incident::store::tests::child_puts_until_killed"])
        .args(["--ignored", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reported = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        // The test harness may have begun the line.
        .filter_map(|line| line.rsplit_once("put ")?.1.parse().ok());
    let mut last = 0;
    for _ in 0..lines {
        last = reported.next().expect("the child ended before it was killed");
    }
    child.kill().unwrap();
    last = reported.last().unwrap_or(last);
    child.wait().unwrap();
    last
}
