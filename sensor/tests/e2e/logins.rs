//! The record of logins against real servers: who, how, with what outcome, and what it cost.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    lab::{Machine, Method, SshdLab, Version, wait_until},
    learned,
    running::{PATIENCE, Sensor, Settings, State},
};

/// What the API tells, oldest first, once there are so many that have ended.
pub(crate) fn ended(sensor: &Sensor, wanted: usize) -> Result<Vec<Value>> {
    let mut told = Vec::new();
    let all_there = wait_until("logins that have ended", PATIENCE, || {
        let (status, body) = sensor.agent().get(sensor.port(), "/api/v1/logins?limit=100")?;
        ensure!(status == 200, "/api/v1/logins answered {status}: {body}");
        let mut answer: Value = serde_json::from_str(&body)?;
        told = serde_json::from_value(answer["logins"].take())?;
        told.reverse();
        let all = told.len() == wanted && told.iter().all(|login: &Value| login["end"].is_string());
        Ok(all.then_some(()))
    });
    all_there.with_context(|| format!("{wanted} wanted, told: {told:#?}"))?;
    Ok(told)
}

/// How long a phase took, wall and, where that can be told, CPU, seconds.
fn phase(login: &Value, name: &str) -> Result<(f64, Option<f64>)> {
    let phase = &login["phases"][name];
    let wall = phase["wall_seconds"].as_f64();
    let wall = wall.with_context(|| format!("{name} was not measured: {login:#}"))?;
    Ok((wall, phase["cpu_seconds"].as_f64()))
}

fn was_let_in(login: &Value, method: &str, key: Option<&str>) -> Result<()> {
    let told =
        [&login["outcome"], &login["method"], &login["user"], &login["attempts"][0]["verdict"]];
    ensure!(told == ["accepted", method, "hs-lab", "accepted"], "{login:#}");
    ensure!(login["attempts"][0]["key_type"].as_str() == key, "{login:#}");
    ensure!(login["peer"] == "127.0.0.1" && login["peer_port"].is_u64(), "{login:#}");
    ensure!(login["session"] == true && login["partial"] == false, "{login:#}");
    let (link, link_cpu) = phase(login, "link")?;
    // A process that slept while it was linked, for a page on the disk, says nothing of its CPU time.
    ensure!(link > 0.0 && link_cpu.is_none_or(|cpu| cpu <= link), "{login:#}");
    ensure!(login["phases"]["link"]["page_faults"].as_u64() > Some(0), "{login:#}");
    // Nobody exchanges keys, or verifies, for nothing.
    for name in ["key_exchange", "auth"] {
        ensure!(phase(login, name)?.0 > 0.0, "{name}: {login:#}");
        ensure!(login["phases"][name]["page_faults"].as_u64() > Some(0), "{name}: {login:#}");
    }
    let total = login["attempts"][0]["cpu_seconds"].as_f64().unwrap_or_default();
    ensure!(total > link_cpu.unwrap_or_default(), "less in all than for linking: {login:#}");
    Ok(())
}

fn was_refused(login: &Value, method: &str) -> Result<()> {
    let told = [&login["outcome"], &login["method"], &login["attempts"][0]["verdict"]];
    ensure!(told == ["refused", method, "refused"], "{login:#}");
    ensure!(login["user"].is_null() && login["session"] == false, "{login:#}");
    ensure!(!login.to_string().contains("hs-lab"), "the name is kept somewhere: {login:#}");
    Ok(())
}

#[test]
fn logins_of_every_method_and_a_failure_are_recorded_and_survive_a_restart() {
    let machine = Machine::acquire().unwrap();
    for version in [Version::V9_2, Version::V10] {
        let state = State::new().unwrap();
        // With dialogues, too.
        let lab = SshdLab::builder(&machine).version(version).every_kind(false).start().unwrap();
        let sensor = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
        for method in Method::GOOD {
            learned::login(&lab, method).unwrap();
        }
        for method in [Method::WrongPassword, Method::WrongDialogue] {
            let failed = lab.login(method).unwrap();
            assert_ne!(failed.code, Some(0), "{failed:?}");
        }
        let scrape = sensor.caught_up(&lab).unwrap();
        let told = ended(&sensor, 5).unwrap();
        let by_key = |key| ("publickey", Some(key));
        let wanted = [by_key("ssh-rsa"), by_key("ssh-ed25519"), ("password", None)];
        for (login, (method, key)) in told.iter().zip(wanted) {
            was_let_in(login, method, key).with_context(|| format!("{version:?}")).unwrap();
        }
        let is_measured = |login: &Value| login["phases"]["link"]["cpu_seconds"].is_f64();
        assert!(told.iter().any(is_measured), "{version:?}: {told:#?}");
        for (login, method) in told[3..].iter().zip(["password", "keyboard-interactive"]) {
            was_refused(login, method).with_context(|| format!("{version:?}")).unwrap();
        }
        let lost = scrape.show("halfsecond_records_lost_total");
        assert!(lost.is_empty(), "{lost:?}");
        let accepted = [("method", "password"), ("outcome", "accepted")];
        sensor
            .scrape_until("a counted login", |scrape| {
                scrape.sum("halfsecond_logins_total", &accepted) >= 1.0
            })
            .unwrap();
        sensor.stop().unwrap();
        let again = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
        assert_eq!(ended(&again, 5).unwrap(), told, "{version:?}");
        again.stop().unwrap();
    }
}
