//! What a sensor recorded while the fixture attacked replays to what it told; and `halfsecond record`
//! records by itself.

use std::{path::Path, process::Command, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    lab::{Agent, Machine, Method, SshdLab, Variant, free_port, wait_until},
    learned,
    running::{PATIENCE, Sensor, Settings},
};

/// What `halfsecond ARGS` writes, with its exit code.
fn answer(args: &[&str], config: &str) -> Result<(Option<i32>, Vec<Value>)> {
    let (status, lines) = Agent::spawn(args, config)?.wait(PATIENCE)?;
    Ok((status.code(), lines))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

/// A login to a server that the fixture has just come to, and what the sensor makes of it: the incident's
/// id.
fn attack(machine: &Arc<Machine>, sensor: &Sensor) -> Result<String> {
    let lab =
        SshdLab::builder(machine).variant(Variant::Constructor).burn_ms(300).late().start()?;
    lab.arrive()?;
    learned::login(&lab, Method::Rsa)?;
    let found = sensor.incident_that("a critical incident", |one| one["severity"] == "critical")?;
    sensor.caught_up(&lab)?;
    Ok(found["id"].as_str().context("an incident without an id")?.to_owned())
}

/// Somebody says that he sees to the incident while the sensor runs.
fn acknowledge(id: &str, config: &str) -> Result<()> {
    let args = ["incidents", "ack", id, "--who", "alice", "--why", "ticket 4711", "--json"];
    let (code, lines) = answer(&args, config)?;
    ensure!(code == Some(0), "exit code {code:?}: {lines:?}");
    ensure!(lines.iter().any(|one| one["state"] == "acknowledged"), "{lines:?}");
    Ok(())
}

#[test]
fn a_recorded_attack_replays_to_the_incidents_that_the_sensor_kept() {
    let run = || -> Result<()> {
        let machine = Machine::acquire()?;
        let state = learned::state(&machine)?;
        let file = state.path().join("attack.rec");
        let port = free_port()?;
        let config = Settings::default().toml(state.path(), port);
        let (_, before) = answer(&["incidents", "--json"], &config)?;
        let args = ["run", "--record", text(&file)?, "--with-arguments"];
        let sensor = Sensor::armed(&machine, Agent::spawn(&args, &config)?, port)?;
        let id = attack(&machine, &sensor)?;
        acknowledge(&id, &config)?;
        sensor.stop()?;

        let (_, kept) = answer(&["incidents", "--json"], &config)?;
        let own: Vec<_> = kept.into_iter().filter(|one| !before.contains(one)).collect();
        let replay = ["replay", text(&file)?, "--json"];
        let (code, replayed) = answer(&replay, &config)?;
        ensure!(code == Some(1), "exit code {code:?}");
        ensure!(replayed.iter().any(|one| one["severity"] == "critical"), "{replayed:#?}");
        ensure!(replayed == own, "replayed {replayed:#?}\nkept {own:#?}");
        let decided = replayed.iter().find(|one| one["id"] == *id).context("no such incident")?;
        ensure!(decided["decisions"][0]["who"] == "alice", "{decided:#?}");
        ensure!(answer(&replay, &config)?.1 == replayed, "the second replay differs");
        // Another build would have written such a file.
        let lines: Vec<String> = own.iter().map(Value::to_string).collect();
        let saved = state.path().join("saved.jsonl");
        std::fs::write(&saved, lines.join("\n"))?;
        let diff = answer(&["replay", text(&file)?, "--json", "--diff", text(&saved)?], &config)?;
        ensure!(diff == (Some(0), Vec::new()), "{diff:?}");
        Ok(())
    };
    run().unwrap();
}

#[test]
fn record_writes_a_recording_of_its_own_without_arguments() {
    let run = || -> Result<()> {
        let machine = Machine::acquire()?;
        let state = learned::state(&machine)?;
        let file = state.path().join("host.rec");
        let config = Settings::default().toml(state.path(), free_port()?);
        let args =
            ["record", "--out", text(&file)?, "--for", "1h", "--json", "--log-level", "info"];
        let agent = Agent::spawn(&args, &config)?;
        machine.adopt(agent.pid()?)?;
        agent.wait_for_log("armed", PATIENCE)?;
        let size = || Ok::<_, anyhow::Error>(std::fs::metadata(&file)?.len());
        let before = size()?;
        for _ in 0..20 {
            let echo = Command::new("/bin/echo").arg("hunter2-in-an-argument").output()?;
            ensure!(echo.status.success(), "{echo:?}");
        }
        wait_until("a recording that grows", PATIENCE, || Ok((size()? > before).then_some(())))
            .with_context(|| agent.transcript())?;
        let (status, lines) = agent.terminate(PATIENCE)?;
        ensure!(status.success(), "{status}: {lines:?}");
        let told = lines.last().context("it tells nothing")?;
        ensure!(told["observations"].as_u64() > Some(0), "{told}");
        ensure!(told["redacted"] == true, "{told}");
        let bytes = std::fs::metadata(&file)?.len();
        ensure!(told["bytes"].as_u64() == Some(bytes), "{told}, and the file has {bytes}");
        let (code, incidents) = answer(&["replay", text(&file)?, "--json"], &config)?;
        ensure!(matches!(code, Some(0 | 1)), "exit code {code:?}");
        let shown = incidents.iter().map(Value::to_string).collect::<String>();
        ensure!(!shown.contains("hunter2-in-an-argument"), "{shown}");
        Ok(())
    };
    run().unwrap();
}
