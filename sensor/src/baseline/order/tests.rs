//! Orders from both sides: who carries them out when, and what a kill leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::baseline::keep::obey::Measure;
use crate::baseline::{Baselines, Opened, Store, read_subjects};
use crate::config::Config;
use crate::host::ModuleId;

const CAT: &str = "/usr/bin/cat ab";
const SOON: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_mins(1);

/// A sensor without anything but its baselines.
struct Sensor {
    baselines: Baselines,
    orders: Orders,
    measure: Measure,
}

impl Sensor {
    fn start(dir: &Path) -> Self {
        let lock = WriterLock::take(dir, LONG).unwrap().unwrap();
        let (store, opened) = Store::open(dir);
        assert_eq!(opened, Opened::Ready);
        let measure = Measure::new(&Config::default());
        Self { baselines: Baselines::new(store), orders: Orders::new(dir, lock), measure }
    }

    fn learn(&mut self, subject: &str) {
        let baseline = self.baselines.learn(subject, super::super::Changed::Learned);
        baseline.add_start(Timestamp::UNIX_EPOCH, None);
        self.baselines.flush(true);
        assert_eq!(self.baselines.failure(), None);
    }

    fn work(&mut self) {
        let time = Timestamp::UNIX_EPOCH;
        self.baselines.carry_out(&self.orders, &self.measure, time);
    }
}

fn approve(subject: &str, path: &str) -> Act {
    let module = ModuleId { path: path.to_owned(), build: "aa".to_owned() };
    let object = crate::baseline::Object::Library { module };
    let (who, why) = ("alice".to_owned(), "planned".to_owned());
    let approval = Approval { time: Timestamp::UNIX_EPOCH, who, why, object };
    Act::Approve { subject: subject.to_owned(), approvals: vec![approval] }
}

fn stored(dir: &Path, subject: &str) -> Option<Baseline> {
    let all = read_subjects(dir).unwrap();
    let (_, bytes) = all.into_iter().find(|(found, _)| found == subject)?;
    Some(serde_json::from_slice(&bytes).unwrap())
}

fn files(dir: &Path) -> usize {
    fs::read_dir(dir.join("orders")).map_or(0, Iterator::count)
}

#[test]
fn an_order_is_answered_once_it_is_in_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut sensor = Sensor::start(dir.path());
    sensor.learn(CAT);
    let placed = Placed::leave(dir.path(), approve(CAT, "/lib/a.so")).unwrap();
    let mode = |name: &Path| fs::metadata(name).unwrap().permissions().mode() & 0o777;
    let order = fs::read_dir(dir.path().join("orders")).unwrap().next().unwrap().unwrap();
    assert_eq!((mode(&dir.path().join("orders")), mode(&order.path())), (0o700, 0o600));
    let refused = Placed::leave(dir.path(), approve("/usr/bin/dog ab", "/lib/a.so")).unwrap();
    sensor.work();
    let done = Some(Done::Approved { count: 1 });
    let expected = Answer { time: Timestamp::UNIX_EPOCH, done, refused: None };
    assert_eq!(placed.wait(LONG).unwrap(), Sent::Answered(expected));
    let Sent::Answered(answer) = refused.wait(LONG).unwrap() else { panic!("no answer") };
    assert_eq!(answer.refused.unwrap(), "there is no baseline of /usr/bin/dog ab");
    assert_eq!(stored(dir.path(), CAT).unwrap().approvals.len(), 1);
    assert_eq!(files(dir.path()), 0, "nothing is left lying about");
}

#[test]
fn without_a_sensor_the_order_is_withdrawn_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut sensor = Sensor::start(dir.path());
    sensor.learn(CAT);
    let placed = Placed::leave(dir.path(), Act::Forget { subject: CAT.to_owned() }).unwrap();
    let error = placed.wait(SOON).unwrap_err();
    assert!(matches!(error, OrderError::Withdrawn(_)), "{error}");
    sensor.work();
    assert!(stored(dir.path(), CAT).is_some());
    assert_eq!(files(dir.path()), 0);
}

#[test]
fn what_a_killed_sensor_had_taken_is_carried_out_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut sensor = Sensor::start(dir.path());
    sensor.learn(CAT);
    let placed = Placed::leave(dir.path(), approve(CAT, "/lib/a.so")).unwrap();
    assert_eq!(sensor.orders.take().len(), 1);
    drop(sensor);
    let waiting = std::thread::spawn(move || placed.wait(SOON));
    assert_eq!(waiting.join().unwrap().unwrap(), Sent::Pending, "taken, so not withdrawn");
    assert!(stored(dir.path(), CAT).unwrap().approvals.is_empty());
    let mut sensor = Sensor::start(dir.path());
    sensor.work();
    assert_eq!(stored(dir.path(), CAT).unwrap().approvals.len(), 1);
    // Killed after the flush and before the answer: the same once more.
    let again = Placed::leave(dir.path(), approve(CAT, "/lib/a.so")).unwrap();
    sensor.work();
    assert!(matches!(again.wait(LONG).unwrap(), Sent::Answered(_)));
    assert_eq!(stored(dir.path(), CAT).unwrap().approvals.len(), 1, "no second approval");
}

#[test]
fn what_is_forgotten_leaves_the_store_and_is_learned_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut sensor = Sensor::start(dir.path());
    sensor.learn(CAT);
    sensor.learn("/usr/bin/dog ab");
    let placed = Placed::leave(dir.path(), Act::Forget { subject: CAT.to_owned() }).unwrap();
    sensor.work();
    let Sent::Answered(answer) = placed.wait(LONG).unwrap() else { panic!("no answer") };
    assert_eq!(answer.done, Some(Done::Forgotten { was: true }));
    assert_eq!(stored(dir.path(), CAT), None);
    assert!(stored(dir.path(), "/usr/bin/dog ab").is_some());
    assert!(sensor.baselines.get(CAT).is_blank());
    sensor.learn(CAT);
    assert_eq!(stored(dir.path(), CAT).unwrap().starts, 1);
}

#[test]
fn an_order_of_somebody_else_or_of_another_kind_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut sensor = Sensor::start(dir.path());
    sensor.learn(CAT);
    let orders = dir.path().join("orders");
    fs::create_dir(&orders).unwrap();
    let good = serde_json::to_vec(&Order::new(Act::Forget { subject: CAT.to_owned() })).unwrap();
    let with = |name: &str, bytes: &[u8], mode: u32| {
        let path = orders.join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    with("1.order", &good, 0o644);
    with("2.order", b"{}", 0o600);
    let text = String::from_utf8(good.clone()).unwrap();
    with("3.order", text.replace("\"version\":1", "\"version\":2").as_bytes(), 0o600);
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, &good).unwrap();
    std::os::unix::fs::symlink(&elsewhere, orders.join("4.order")).unwrap();
    fs::File::create(orders.join("5.order")).unwrap().set_len(1 << 30).unwrap();
    fs::set_permissions(orders.join("5.order"), fs::Permissions::from_mode(0o600)).unwrap();
    sensor.work();
    sensor.work();
    for (id, expected) in
        [(1, "user alone"), (2, "is none"), (3, "version 2"), (4, "cannot be read"), (5, "larger")]
    {
        let answer = fs::read(orders.join(format!("{id}.answer"))).unwrap();
        let answer: Answer = serde_json::from_slice(&answer).unwrap();
        assert!(answer.refused.as_ref().unwrap().contains(expected), "{id}: {answer:?}");
    }
    assert!(stored(dir.path(), CAT).is_some());
    assert!(elsewhere.exists());
}

#[test]
fn one_writes_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let sensor = Sensor::start(dir.path());
    assert!(WriterLock::take(dir.path(), Duration::ZERO).unwrap().is_none());
    drop(sensor);
    assert!(WriterLock::take(dir.path(), Duration::ZERO).unwrap().is_some());
    assert!(WriterLock::take(&dir.path().join("absent"), Duration::ZERO).is_err());
}

#[test]
fn orders_wait_while_the_store_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let lock = WriterLock::take(dir.path(), LONG).unwrap().unwrap();
    // Another holds the file: an older sensor.
    let (mut other, _) = Store::open(dir.path());
    other.write(&[]).unwrap();
    let mut sensor = Sensor {
        baselines: Baselines::new(Store::open(dir.path()).0),
        orders: Orders::new(dir.path(), lock),
        measure: Measure::new(&Config::default()),
    };
    sensor.baselines.learn(CAT, super::super::Changed::Learned).starts = 3;
    let placed = Placed::leave(dir.path(), approve(CAT, "/lib/a.so")).unwrap();
    sensor.work();
    let path = dir.path().join("orders");
    assert!(
        fs::read_dir(&path).unwrap().all(|one| one.unwrap().path().extension().unwrap() == "taken")
    );
    drop(other);
    sensor.work();
    assert!(matches!(placed.wait(LONG).unwrap(), Sent::Answered(_)));
    assert_eq!(stored(dir.path(), CAT).unwrap().starts, 3);
}
