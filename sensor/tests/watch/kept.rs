//! What the host's files were when a sensor last looked. The files themselves are not touched: what
//! is kept of them is.

use std::fs;
use std::time::{Duration, Instant};

use sensor::config;
use sensor::metrics::Metrics;
use sensor::watch::{Change, Told, Watch};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::harness::unprivileged;
use super::lab::patience::patient;

const KEPT: &str = "loader-files.json";

/// Starts a watch and gives what it tells of the host's own root until `enough`.
fn told(state: &TempDir, enough: impl Fn(&[Change]) -> bool) -> Vec<Change> {
    let settings = config::Watch { roots: 4, compare_every: Duration::from_millis(100) };
    let (_watch, mut told) =
        Watch::start(settings, state.path(), &Metrics::new().unwrap()).unwrap();
    let deadline = Instant::now() + patient(Duration::from_secs(30));
    let mut changes = Vec::new();
    while !enough(&changes) {
        while let Ok(Told::Change(change)) = told.try_recv() {
            changes.extend(change.config.root.host.then_some(*change));
        }
        assert!(Instant::now() < deadline, "{changes:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    changes
}

#[test]
fn what_changed_while_no_sensor_ran_is_told_at_the_next_start() {
    if unprivileged() {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    drop(told(&state, |_| true));
    let path = state.path().join(KEPT);
    let mut kept: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let files = kept["files"].as_array_mut().unwrap();
    let preload = files.iter_mut().find(|file| file[1] == "/etc/ld.so.preload").unwrap();
    preload[2]["content"] = json!({"Entries": ["/opt/was-there.so"]});
    fs::write(&path, serde_json::to_vec(&kept).unwrap()).unwrap();

    let changes = told(&state, |changes| !changes.is_empty());
    let [change] = changes.as_slice() else { panic!("one change: {changes:#?}") };
    assert_eq!(change.config.path, "/etc/ld.so.preload");
    assert!(change.config.while_away && change.touches.is_empty());
    assert_eq!(change.config.removed, ["/opt/was-there.so"]);
    let kept: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(!kept.to_string().contains("was-there"), "told once");
}
