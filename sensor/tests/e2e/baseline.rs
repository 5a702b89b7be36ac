//! What a person changes of the baselines while the sensor runs: it makes the change itself.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    lab::{Agent, Machine, Method, Version, wait_until},
    learned,
    running::{PATIENCE, Sensor, Settings},
};

/// The server's program, whose build differs from machine to machine.
const SSHD: &str = "/usr/sbin/sshd";

/// What `halfsecond baseline ARGS… --json` says of a state directory; nothing where it knows no such
/// program.
fn baseline(state: &Path, arguments: &[&str]) -> Result<Vec<Value>> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("halfsecond.toml");
    fs::write(&config, Settings::default().toml(state, 1))?;
    let mut command = Command::new(Agent::binary());
    command.arg("baseline").args(arguments).args(["--json", "--config"]).arg(&config);
    let output = command.env_remove("RUST_LOG").output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) && stderr.contains("no program that is known") {
        return Ok(Vec::new());
    }
    ensure!(output.status.success(), "{arguments:?}: {}: {stderr}", output.status);
    let lines = std::str::from_utf8(&output.stdout)?.lines();
    lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

#[test]
fn what_is_forgotten_is_learned_anew_by_the_sensor_that_runs() {
    let machine = Machine::acquire().unwrap();
    let state = learned::state(&machine).unwrap();
    let lab = learned::server(&machine, Version::V9_2).unwrap();
    let sensor = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
    let shown = || baseline(state.path(), &["show", SSHD]);
    let before = shown().unwrap();
    assert_eq!(before[0]["state"], "settled", "{:?}", before[0]["reasons"]);
    let libraries = before[0]["libraries"].as_u64().unwrap();
    assert!(libraries > 5, "{libraries} libraries");

    let forgotten = baseline(state.path(), &["forget", SSHD]).unwrap();
    assert_eq!((&forgotten[0]["forgotten"], &forgotten[0]["by"]), (&true.into(), &"sensor".into()));
    assert!(shown().unwrap().is_empty(), "answered only once it is in the store");

    // The kernel side tells the libraries again, though this sensor knew them.
    learned::login(&lab, Method::Rsa).unwrap();
    sensor.caught_up(&lab).unwrap();
    let again = wait_until("a login in the store", PATIENCE, || {
        Ok(shown()?.into_iter().find(|one| one["starts"].as_u64() == Some(1)))
    })
    .unwrap();
    assert_eq!(again["state"], "learning");
    let found = again["libraries"].as_u64().unwrap();
    assert!(found * 2 > libraries, "{found} libraries, {libraries} before");
    sensor.stop().unwrap().must_be_quiet().unwrap();
}
