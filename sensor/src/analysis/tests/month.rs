//! A month of one clean server, simulated: what the kept recordings hold is stretched and mixed into 30
//! days of logins, strangers, upgrades, log rotation, backups, reboots, cron and configuration
//! management. Each boot is a recording of its own, which is replayed at its end and must tell the same.
//!
//! It is a simulation in two ways: the kept recordings are of the imitated machine of these tests, and
//! what they do not hold is made of the nearest that they do, which is said where it is made. Steps of the
//! recorded fixture imitate what the backdoor of XZ Utils would show; they are text, and open nothing.

mod files;
mod host;
mod plan;
mod scenes;

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use self::host::Host;
use self::plan::{DAYS, Liblzma};
use self::scenes::Scenes;
use super::{Severity, detectors};
use crate::incident::Incident;

/// What at least must have happened in a month, so that the silence means something.
const LEAST: [(&str, u64); 12] = [
    ("logins by key", 190),
    ("logins by password", 70),
    ("strangers refused", 90),
    ("starts of su", 40),
    ("starts by configuration management", 2880),
    ("starts by cron", 720),
    ("log rotations", 30),
    ("backups", 30),
    ("packages upgraded", 15),
    ("looks at the listener", 90),
    ("boots", 5),
    ("restarts of the sensor", 2),
];

/// What came of a month.
struct Month {
    host: Host,
    /// When liblzma was upgraded, and the end of the first login after it.
    upgraded: Timestamp,
    login: Timestamp,
}

fn scenes() -> Arc<Scenes> {
    static SCENES: OnceLock<Arc<Scenes>> = OnceLock::new();
    Arc::clone(SCENES.get_or_init(|| Arc::new(Scenes::read())))
}

fn month(seed: u64, liblzma: Liblzma) -> Month {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::new(scenes(), seed, dir.path().to_owned());
    let (upgraded, login) = plan::live(&mut host, liblzma);
    let (upgraded, login) = (Host::wall(upgraded), Host::wall(login));
    println!("seed {seed}, {liblzma:?}: {DAYS} simulated days, {} observations", host.steps);
    println!("  {:?}", host.counts);
    println!("  findings: {:?}", host.found);
    for incident in host.incidents.values() {
        println!("  {:?} {}: {}", incident.severity, incident.opened, incident.title);
    }
    for (what, least) in LEAST {
        let count = host.counts.get(what).copied().unwrap_or(0);
        assert!(count >= least, "{count} {what}");
    }
    Month { host, upgraded, login }
}

fn above_low(month: &Month) -> Vec<&Incident> {
    month.host.incidents.values().filter(|one| one.severity > Severity::Low).collect()
}

fn is_quiet(seed: u64) {
    let month = month(seed, Liblzma::Harmless);
    let loud = above_low(&month);
    assert!(loud.is_empty(), "{loud:#?}");
}

fn tells_one(seed: u64) {
    let month = month(seed, Liblzma::Hooks);
    let loud = above_low(&month);
    let [incident] = loud[..] else { panic!("{} incidents: {loud:#?}", loud.len()) };
    assert_eq!(incident.severity, Severity::Critical);
    assert_eq!(month.host.counts["logins to a hooked sshd"], 8);
    let Month { upgraded, login, host } = &month;
    let alarmed = host.alarmed[&incident.id];
    assert!(*upgraded < alarmed && alarmed <= *login, "{upgraded} {alarmed} {login}");
    for detector in ["got_redirected", "foreign_caller", "link_time_shift"] {
        assert!(detectors(incident).contains(&detector), "{detector}: {}", incident.story);
    }
    assert!(incident.title.ends_with("on 8 connections"), "{}", incident.title);
    for blame in ["liblzma.so.5.6.1", "liblzma5 5.6.1-1", "the upgrade of liblzma5"] {
        assert!(incident.story.contains(blame), "{blame}: {}", incident.story);
    }
}

#[test]
fn a_month_of_a_clean_server_is_quiet() {
    is_quiet(1);
}

#[test]
fn another_month_of_a_clean_server_is_quiet() {
    is_quiet(2);
}

#[test]
fn a_third_month_of_a_clean_server_is_quiet() {
    is_quiet(3);
}

#[test]
fn an_upgrade_that_hooks_sshd_is_one_incident_in_a_month() {
    tells_one(1);
}

#[test]
fn an_upgrade_that_hooks_sshd_is_one_incident_in_another_month() {
    tells_one(2);
}

#[test]
fn an_upgrade_that_hooks_sshd_is_one_incident_in_a_third_month() {
    tells_one(3);
}
