use std::thread;

use jiff::SignedDuration;

use super::*;
use crate::baseline::Store;
use crate::detect::{Anyway, CheckFailed, CheckReport, SlotCheck};
use crate::finding::{Evidence, Family, Finding, ProcessRef, Severity};
use crate::host::{CheckReason, Lineage, ProcessId};
use crate::incident::{Decision, IncidentReader, State, StoreLimits, take};
use crate::record::testing::Tape;
use crate::record::{Reader, replay};

fn decision(verb: Verb) -> Decision {
    let time = "2026-11-22T15:00:00Z".parse().unwrap();
    Decision {
        verb,
        time,
        who: "alice".to_owned(),
        why: "ticket 4711".to_owned(),
        uid: 0,
        until: (verb == Verb::Suppress).then(|| time + SignedDuration::from_hours(24)),
    }
}

fn finding() -> Finding {
    Finding {
        time: "2026-11-22T14:00:00Z".parse().unwrap(),
        ktime_ns: 5,
        id: "f".to_owned(),
        detector: "preload_env".to_owned(),
        family: Family::Linker,
        severity: Severity::Medium,
        confidence: 0.9,
        title: "LD_PRELOAD was set".to_owned(),
        host: "web1".to_owned(),
        process: ProcessRef { pid: 7, exe: "/usr/bin/sudo".to_owned(), ..ProcessRef::default() },
        subject: "/usr/bin/sudo 00".to_owned(),
        evidence: vec![Evidence::Environment {
            name: "LD_PRELOAD".to_owned(),
            value: "/x.so".to_owned(),
        }],
        attack: Vec::new(),
        explained_by: None,
        suppressed_by: None,
    }
}

/// A store with one incident, as a sensor leaves it; the incident's id.
fn left(config: &Config) -> String {
    let store = IncidentStore::open(&config.state_dir, StoreLimits::default()).unwrap().store;
    let mut incidents = Incidents::new(Duration::from_mins(5), "web1".to_owned());
    let lineage = Lineage::Program("/usr/bin/sudo 00".to_owned());
    let id = incidents.join(finding(), &lineage, 5).unwrap().incident.id;
    incidents.save(|entries| store.put(entries).map(|_| ())).unwrap();
    id
}

fn config(dir: &Path) -> Config {
    Config { state_dir: dir.to_owned(), ..Config::default() }
}

fn request(id: &str, verb: Verb) -> Request {
    Request { id: id.to_owned(), decision: decision(verb) }
}

#[test]
fn without_a_sensor_a_decision_is_written_to_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let id = left(&config);
    let followed = follow(&config, &request(&id, Verb::Suppress)).unwrap();
    assert_eq!(followed, Followed::InStore(State::Suppressed));
    let reader = IncidentReader::open(dir.path()).unwrap();
    let incident = reader.get(&id).unwrap().unwrap();
    assert_eq!((incident.state, incident.decisions.len()), (State::Suppressed, 1));
    assert_eq!(reader.suppressions().unwrap().len(), 1);
    drop(reader);
    let unknown = follow(&config, &request("none", Verb::Close)).unwrap_err();
    assert_eq!(unknown.to_string(), "no incident has the id \"none\"");

    // What was open when the sensor ended is open when it starts again, and as it was decided.
    let store = IncidentStore::open(dir.path(), StoreLimits::default()).unwrap().store;
    let entries = store.open_entries().unwrap();
    assert_eq!(entries.len(), 1);
    let mut incidents = Incidents::new(Duration::from_mins(5), "web1".to_owned());
    incidents.restore(entries, finding().time, 5);
    incidents.set_suppressions(suppressions(&config, &store));
    let lineage = Lineage::Program("/usr/bin/sudo 00".to_owned());
    assert!(incidents.join(finding(), &lineage, 6).is_none());
    let matches: Vec<_> = incidents.suppressions().iter().map(|one| one.matches).collect();
    assert_eq!(matches, [1]);
}

#[test]
fn a_store_that_is_not_there_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let error = follow(&config(dir.path()), &request("a", Verb::Close)).unwrap_err();
    assert!(matches!(error, DecideError::Absent(_)), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Nobody asks it.
struct Unasked;

impl SlotCheck for Unasked {
    fn check(&mut self, _: ProcessId, _: CheckReason) -> Result<CheckReport, CheckFailed> {
        Err(CheckFailed::Gone)
    }

    fn check_anyway(&mut self, _: ProcessId, _: Anyway) -> Result<CheckReport, CheckFailed> {
        Err(CheckFailed::Gone)
    }
}

#[test]
fn a_sensor_that_runs_is_asked_its_answer_told_and_what_it_followed_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let id = left(&config);
    // The sensor: it has the store, and takes up what it finds.
    let store = IncidentStore::open(dir.path(), StoreLimits::default()).unwrap().store;
    let path = dir.path().to_owned();
    let sensor = thread::spawn(move || {
        let (config, host) = (Config::default(), "web1".to_owned());
        let (recorder, tape) = Tape::start(&config, None);
        let mut analysis =
            Recorded::new(&config, host, Store::off(), Box::new(Unasked), Some(recorder));
        analysis.restore(store.open_entries().unwrap(), finding().time, 5);
        let mut answered = 0;
        while answered < 2 {
            for pending in take(&path).unwrap() {
                let request = pending.request.as_ref().unwrap();
                let answer = match settle_live(request, &mut analysis, &store) {
                    Ok(update) => Answer::Done(update.incident.state),
                    Err(error) => Answer::Refused(error.to_string()),
                };
                pending.answer(&answer).unwrap();
                answered += 1;
            }
            thread::yield_now();
        }
        drop(analysis);
        (store, tape.end())
    });
    let followed = follow(&config, &request(&id, Verb::Acknowledge)).unwrap();
    assert_eq!(followed, Followed::BySensor(State::Acknowledged));
    let refused = follow(&config, &request("none", Verb::Close)).unwrap_err();
    assert_eq!(refused.to_string(), "no incident has the id \"none\"");
    let (store, recording) = sensor.join().unwrap();
    let kept = store.get(&id).unwrap().unwrap();
    assert_eq!(kept.state, State::Acknowledged);
    let mut reader = Reader::open(&recording[..]).unwrap();
    let settings = reader.header().settings;
    let replayed = replay(&mut reader, &settings, &mut |_| {}).unwrap();
    assert_eq!((replayed.counts.decisions, replayed.counts.unfollowed), (1, 0));
    let json = |incident: &Incident| serde_json::to_value(incident).unwrap();
    assert_eq!(json(&replayed.incidents[0]), json(&kept));
}

#[test]
fn a_request_that_was_followed_and_not_removed_is_followed_again_without_effect() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let id = left(&config);
    let store = IncidentStore::open(dir.path(), StoreLimits::default()).unwrap().store;
    let request = request(&id, Verb::Suppress);
    let settled = || {
        // Each time a sensor that has just started, after one that was killed.
        let mut incidents = Incidents::new(Duration::from_mins(5), "web1".to_owned());
        incidents.set_suppressions(suppressions(&config, &store));
        settle(&request, &mut incidents, &store).unwrap();
        let entry = serde_json::to_value(store.entry(&id).unwrap()).unwrap();
        (entry, store.suppressions().unwrap())
    };
    let (once, twice) = (settled(), settled());
    assert_eq!(once, twice);
    assert_eq!(twice.1.len(), 1);
}
