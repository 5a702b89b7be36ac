//! Ordinary logins are learned and then give no alarm.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    lab::{Machine, Method, SshdLab, Version},
    learned,
    running::{PATIENCE, Scrape, Sensor, Settings, State, same, times},
};

/// Nothing was lost or misread.
fn nothing_amiss(scrape: &Scrape) -> Result<()> {
    for metric in [
        "halfsecond_records_lost_total",
        "halfsecond_decode_failures_total",
        "halfsecond_queue_dropped_total",
        "halfsecond_sink_dropped_total",
        "halfsecond_store_failures_total",
    ] {
        let shown = scrape.show(metric);
        ensure!(shown.is_empty(), "{shown:?}");
    }
    Ok(())
}

/// Logs in `logins` times by the three methods in turn; each is seen as what it is.
fn logins_are_seen(sensor: &Sensor, lab: &SshdLab, logins: usize) -> Result<Scrape> {
    let before = sensor.caught_up(lab)?;
    for method in Method::GOOD.into_iter().cycle().take(logins) {
        learned::login(lab, method)?;
    }
    sensor.caught_up(lab)?;
    let passwords = Method::GOOD.iter().cycle().take(logins);
    let passwords = passwords.filter(|method| **method == Method::Password).count();
    let accepted = |scrape: &Scrape, method: &str| {
        let labels = [("method", method), ("verdict", "accepted")];
        let name = "halfsecond_auth_cpu_seconds_count";
        scrape.sum(name, &labels) - before.sum(name, &labels)
    };
    let (keys, passwords) = (logins - passwords, passwords);
    let (keys, passwords) = (u32::try_from(keys)?, u32::try_from(passwords)?);
    sensor.scrape_until("a verdict per login", |scrape| {
        same(accepted(scrape, "publickey"), keys.into())
            && same(accepted(scrape, "password"), passwords.into())
    })
}

#[test]
fn clean_logins_after_learning_give_no_finding_above_info() {
    let machine = Machine::acquire().unwrap();
    let logins = times("HALFSECOND_E2E_LOGINS", 200).unwrap();
    let state = learned::state(&machine).unwrap();
    let lab = learned::server(&machine, Version::V9_2).unwrap();
    let sensor = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
    let scrape = logins_are_seen(&sensor, &lab, logins).unwrap();
    nothing_amiss(&scrape).unwrap();
    println!("{logins} clean logins; findings: {:?}", scrape.show("halfsecond_findings_total"));
    sensor.stop().unwrap().must_be_quiet_in(&scrape).unwrap();
}

#[test]
fn openssh_10_is_learned_and_its_logins_give_no_finding_above_info() {
    let machine = Machine::acquire().unwrap();
    let state = State::new().unwrap();
    let lab = learned::server(&machine, Version::V10).unwrap();
    let sensor = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
    learned::learn(&sensor, &lab).unwrap();
    let scrape = logins_are_seen(&sensor, &lab, 40).unwrap();
    nothing_amiss(&scrape).unwrap();
    sensor.stop().unwrap().must_be_quiet_in(&scrape).unwrap();
}

/// Another build of a library that sshd loads: a copy whose build-id differs in its last byte.
fn rebuilt(lab: &SshdLab, library: &Path) -> Result<()> {
    use object::Object as _;
    let real = lab.file(library);
    let mut bytes = std::fs::read(&real).with_context(|| real.display().to_string())?;
    let id = object::File::parse(&*bytes)?.build_id()?.context("no build-id")?.to_vec();
    let at = bytes.windows(id.len()).position(|window| window == id).context("no note")?;
    bytes[at + id.len() - 1] ^= 1;
    let copy = lab.dir().join("rebuilt");
    std::fs::write(&copy, bytes)?;
    lab.mount(&copy, library)
}

#[test]
fn another_build_of_a_library_is_told_with_the_connection_that_loaded_it() {
    let machine = Machine::acquire().unwrap();
    let state = State::new().unwrap();
    let lab = SshdLab::builder(&machine).version(Version::V10).late().start().unwrap();
    let sensor = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
    learned::learn(&sensor, &lab).unwrap();
    let library = Path::new("/usr/lib/x86_64-linux-gnu/libz.so.1");
    let library = std::fs::canonicalize(lab.file(library)).unwrap();
    let inside = Path::new("/usr/lib/x86_64-linux-gnu").join(library.file_name().unwrap());
    rebuilt(&lab, &inside).unwrap();
    learned::login(&lab, Method::Ed25519).unwrap();
    let incident = sensor
        .agent()
        .wait_for("an incident", 0, PATIENCE, |line| line["severity"] == "high")
        .unwrap();
    let finding = &incident["findings"][0];
    assert_eq!(finding["detector"], "library_unexpected", "{incident:#}");
    let exe = finding["process"]["exe"].as_str().unwrap();
    assert!(exe.ends_with("/usr/lib/openssh/sshd-session"), "{incident:#}");
    let evidence = finding["evidence"].as_array().unwrap();
    let connection = evidence.iter().find(|one| one["kind"] == "connection").unwrap();
    let peer = connection["peer"].as_str().unwrap_or_default();
    assert!(peer.starts_with("127.0.0.1:"), "{incident:#}");
    assert_eq!(connection["authenticated"], false, "{incident:#}");
    let loaded = |one: &Value| one["kind"] == "library" && ends_with(&one["path"], &inside);
    assert!(evidence.iter().any(loaded), "{incident:#}");
    sensor.caught_up(&lab).unwrap();
    sensor.stop().unwrap().only().unwrap();
}

fn ends_with(text: &Value, path: &Path) -> bool {
    let below = path.strip_prefix("/").unwrap_or(path);
    text.as_str().is_some_and(|text| Path::new(text).ends_with(below))
}
