//! Determinism, windows, loss, and what is on disk.

use super::*;

#[test]
fn the_same_events_give_the_same_bytes() {
    let script = || {
        let mut bench = Bench::new();
        bench.learn(Tree::V9);
        bench.attack(300, false, Tree::V9);
        let incidents: Vec<&Incident> = bench.told.iter().map(|u| &u.incident).collect();
        serde_json::to_string(&incidents).unwrap()
    };
    let (first, second) = (script(), script());
    assert!(!first.is_empty());
    assert_eq!(first, second);
}

#[test]
fn findings_after_the_window_open_another_incident() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    bench.attack(0, false, Tree::V9);
    bench.world.now += 400_000 * MS;
    bench.run();
    assert_eq!(bench.analysis.incidents().open().count(), 0);
    bench.attack(0, false, Tree::V9);
    let opened = bench.told.iter().filter(|update| update.reason == Reason::Opened).count();
    assert_eq!(opened, 2);
}

#[test]
fn loss_makes_what_is_open_partial() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    bench.attack(300, false, Tree::V9);
    assert!(!bench.incident().partial);
    bench.analysis.on_loss();
    assert!(bench.analysis.incidents().open().all(|incident| incident.partial));
}

#[test]
fn what_was_learned_is_on_disk_after_a_tick_and_used_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::default();
    let (store, _) = Store::open(dir.path());
    let mut bench = Bench::with(&config, store);
    bench.learn(Tree::V9);
    bench.world.now += 2_000 * MS;
    bench.run();
    let subject = format!("{SSHD_PATH} {}", build(1));
    // Read while the sensor runs, as a command does.
    let stored = crate::baseline::read_subjects(dir.path()).unwrap();
    let stored = stored.iter().find(|(key, _)| *key == subject).expect("sshd is stored");
    let read: Baseline = serde_json::from_slice(&stored.1).unwrap();
    assert_eq!(read.starts, 50);
    drop(bench);

    let (store, _) = Store::open(dir.path());
    let mut bench = Bench::with(&config, store);
    assert_eq!(*bench.analysis.baseline(&subject), read);
    bench.attack(300, false, Tree::V9);
    assert_eq!(bench.incident().severity, Severity::Critical);
    assert_eq!(families(bench.incident()), [Family::Linker, Family::Hook, Family::Sshd]);
}

#[test]
fn learning_ends_after_the_configured_number_of_logins() {
    let mut config = Config::default();
    config.learning.observations = 5;
    config.detect.incident_window = Duration::from_secs(1);
    let mut bench = Bench::with(&config, Store::off());
    for _ in 0..5 {
        bench.login(&Login::new("publickey"));
    }
    let mut login = Login::new("publickey").with_evil(300 * MS);
    login.caller = PathBuf::from(SSHD_PATH);
    bench.login(&login);
    assert_eq!(bench.fired(), ["library_unexpected", "link_time_shift", "auth_cpu_shift"]);
}

#[test]
fn link_summaries_of_ordinary_programs_are_limited_once_known() {
    let mut bench = Bench::new();
    let role = crate::event::Role::NONE;
    let mut limits = Vec::new();
    for _ in 0..40 {
        let tgid = bench.world.fresh();
        bench.world.fork(1, tgid, role);
        bench.world.exec(tgid, 1, "/usr/bin/python3", role, 0);
        let login = Login { libraries: vec![(PathBuf::from(CRYPTO), 2 * MS)], ..Login::new("") };
        bench.world.link(tgid, "/usr/bin/python3", &login);
        bench.world.exit(tgid, role, MS);
        let events = bench.world.take();
        let mut seen = Vec::new();
        for event in events {
            bench.station.on_event(event, &mut |one| seen.push(one));
        }
        for one in seen {
            bench.analysis.on_observation(one);
        }
        limits.extend(bench.analysis.directives().into_iter().filter_map(|one| match one {
            Directive::LinkLimit { limit_ns, .. } => Some(limit_ns),
            _ => None,
        }));
    }
    assert_eq!(limits.len(), 2, "at 20 and at 40 samples");
    assert!(limits.iter().all(|limit| (101 * MS..103 * MS).contains(limit)), "{limits:?}");
}
