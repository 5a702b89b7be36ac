//! What stands in the sensor's way is told, and costs no more than it must.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    sync::Arc,
};

use anyhow::{Context as _, Result};

use crate::{
    lab::{
        Agent, Finished, Machine, Method, Running, SshdLab, Variant, Version, finish, free_port,
        must,
    },
    learned,
    running::{PATIENCE, Scrape, Sensor, Settings, State, same},
};

#[test]
fn port_in_use_is_named_and_ends_the_sensor_before_it_attaches_anything() {
    let machine = Machine::acquire().unwrap();
    let state = State::new().unwrap();
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    let agent = Agent::spawn(&["run"], &Settings::default().toml(state.path(), port)).unwrap();
    machine.adopt(agent.pid().unwrap()).unwrap();
    let told = agent.wait_for_log(&port.to_string(), PATIENCE).unwrap();
    assert!(told.contains("error") && told.contains("in use"), "{told}");
    let (status, lines) = agent.wait(PATIENCE).unwrap();
    assert_eq!((status.code(), lines.len()), (Some(2), 0));
}

/// Runs the sensor as a user without any privilege.
fn unprivileged() -> Result<Finished> {
    let dir = tempfile::Builder::new().prefix("halfsecond-nobody-").tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let binary = dir.path().join("halfsecond");
    fs::copy(Agent::binary(), &binary)?;
    let state = dir.path().join("state");
    fs::create_dir(&state)?;
    std::os::unix::fs::chown(&state, Some(65534), Some(65534))?;
    let config = dir.path().join("halfsecond.toml");
    fs::write(&config, Settings::default().toml(&state, free_port()?))?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"]);
    command.arg(&binary).args(["run", "--config"]).arg(&config).env_remove("RUST_LOG");
    finish(&mut command, "", PATIENCE)
}

#[test]
fn sensor_without_privilege_says_what_it_lacks() {
    let _machine = Machine::acquire().unwrap();
    let done = unprivileged().unwrap();
    assert_eq!((done.code, &*done.stdout), (Some(3), ""), "{done:?}");
    let error = done.stderr.lines().find(|line| line.contains("error")).unwrap_or_default();
    let remedy = ["root", "CAP_BPF", "CAP_SYS_ADMIN"].iter().any(|word| error.contains(word));
    assert!(remedy, "no remedy in {done:?}");
    assert!(!done.stderr.contains("panicked"), "{done:?}");
}

/// A sensor whose state directory is a file system of `size`, in a mount namespace of its own.
fn sensor_on_small_disk(machine: &Arc<Machine>, state: &State, size: &str) -> Result<Sensor> {
    const SCRIPT: &str = "mount -t tmpfs -o \"size=$1\" none \"$2\" && shift 2 && exec \"$@\"";
    let port = free_port()?;
    let binary = Agent::binary();
    let binary = binary.to_str().context("a path that is no text")?;
    let dir = state.path().to_str().context("a path that is no text")?;
    let args =
        ["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh", size, dir, binary, "run"];
    let config = Settings::default().toml(state.path(), port);
    let agent = Agent::spawn_program("unshare".as_ref(), &args, &config)?;
    Sensor::armed(machine, agent, port)
}

/// A fixture server and a login: the sensor must tell of it whatever the disk does.
fn attack(machine: &Arc<Machine>, sensor: &Sensor) -> Result<()> {
    let lab = SshdLab::builder(machine).variant(Variant::Constructor).start()?;
    learned::login(&lab, Method::Rsa)?;
    let critical = |line: &serde_json::Value| line["severity"] == "critical";
    sensor.agent().wait_for("a critical incident", 0, PATIENCE, critical)?;
    sensor.caught_up(&lab)?;
    Ok(())
}

fn store_failures(scrape: &Scrape) -> f64 {
    scrape.sum("halfsecond_store_failures_total", &[])
}

#[test]
fn sensor_that_can_write_nothing_still_tells_its_incidents() {
    let machine = Machine::acquire().unwrap();
    let state = State::new().unwrap();
    let sensor = sensor_on_small_disk(&machine, &state, "64k").unwrap();
    attack(&machine, &sensor).unwrap();
    sensor.scrape_until("failures of the store", |scrape| store_failures(scrape) > 0.0).unwrap();
    let (status, said) = sensor.agent().get(sensor.port(), "/healthz").unwrap();
    assert_eq!(status, 200, "{said}");
    sensor.stop().unwrap().only().unwrap();
}

#[test]
fn whoever_keeps_the_processors_busy_does_not_keep_the_sensor_from_them() {
    let machine = Machine::acquire().unwrap();
    let state = State::new().unwrap();
    let sensor = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
    let threads = format!("/proc/{}/task", sensor.agent().pid().unwrap());
    let mut urgent = 0;
    for thread in std::fs::read_dir(threads).unwrap() {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
        // proc(5): the name is field 2, in brackets; the nice value is field 19.
        let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(") ").unwrap();
        let nice: i32 = rest.split(' ').nth(16).unwrap().parse().unwrap();
        // Hashing serves nobody who waits.
        assert_eq!(nice < 0, name != "digest", "{name}: {nice}");
        urgent += usize::from(nice < 0);
    }
    assert!(urgent > 3, "{urgent} threads");
    sensor.stop().unwrap();
}

#[test]
fn disk_that_fills_up_and_empties_again_loses_no_learning() {
    let machine = Machine::acquire().unwrap();
    let state = State::new().unwrap();
    let sensor = sensor_on_small_disk(&machine, &state, "16m").unwrap();
    let lab = learned::server(&machine, Version::V9_2).unwrap();
    learned::login(&lab, Method::Rsa).unwrap();
    sensor.caught_up(&lab).unwrap();
    // The sensor's own view of its state directory.
    let below = state.path().strip_prefix("/").unwrap();
    let inside = PathBuf::from(format!("/proc/{}/root", sensor.agent().pid().unwrap())).join(below);
    let filler = inside.join("filler");
    let full = fs::write(&filler, vec![0; 32 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    for method in Method::GOOD {
        learned::login(&lab, method).unwrap();
    }
    let failed = sensor
        .scrape_until("failures of the store", |scrape| store_failures(scrape) > 0.0)
        .unwrap();
    println!("while full: {:?}", failed.show("halfsecond_store_failures_total"));
    let told = sensor.agent().wait_for_log("cannot be written for now", PATIENCE).unwrap();
    assert!(told.contains("No space left on device"), "{told}");
    fs::remove_file(&filler).unwrap();
    crate::lab::wait_until("every login in the store", PATIENCE, || {
        Ok((crate::crash::logins_stored(&inside)? >= 4).then_some(()))
    })
    .unwrap();
    sensor.agent().wait_for_log("written again", PATIENCE).unwrap();
    sensor.stop().unwrap().must_be_quiet().unwrap();
}

/// Starts processes as fast as the machine can, until dropped.
fn flood() -> Result<Vec<Running>> {
    let shell = || {
        let mut command = Command::new("sh");
        Running::spawn(command.args(["-c", "while :; do /bin/true; done"]))
    };
    (0..4).map(|_| shell()).collect()
}

/// Starts a thousand processes, one after the other.
fn thousand() -> Result<()> {
    let script = "i=0; while [ $i -lt 1000 ]; do /bin/true; i=$((i + 1)); done";
    must(Command::new("sh").args(["-c", script]), "", PATIENCE).map(drop)
}

const LOST: &str = "halfsecond_records_lost_total";

fn ring(scrape: &Scrape, name: &str, ring: &str) -> f64 {
    scrape.sum(&format!("halfsecond_records_{name}_total"), &[("ring", ring)])
}

#[test]
fn flood_of_processes_costs_no_record_of_the_attack() {
    let machine = Machine::acquire().unwrap();
    let state = learned::state(&machine).unwrap();
    // Small enough for the flood to fill it.
    let more = "[limits]\nbulk_ring = \"64KiB\"\n";
    let settings = Settings { more, ..Settings::default() };
    let sensor = Sensor::start(&machine, state.path(), settings).unwrap();
    // Held up for so long, it must lose ordinary records.
    sensor.agent().held_up(thousand).unwrap();
    let flood = flood().unwrap();
    let before = sensor.scrape().unwrap();
    assert!(ring(&before, "lost", "bulk") > 0.0, "{:?}", before.show(LOST));
    sensor
        .scrape_until("a flood", |scrape| {
            ring(scrape, "emitted", "bulk") > ring(&before, "emitted", "bulk") + 5000.0
        })
        .unwrap();
    attack(&machine, &sensor).unwrap();
    drop(flood);
    let scrape = sensor
        .scrape_until("rings that add up", |scrape| {
            ["bulk", "priority"].iter().all(|name| {
                let taken = ring(scrape, "consumed", name) + ring(scrape, "lost", name);
                same(ring(scrape, "emitted", name), taken)
            })
        })
        .unwrap();
    for metric in ["halfsecond_records_emitted_total", "halfsecond_records_consumed_total", LOST] {
        println!("{:?}", scrape.show(metric));
    }
    assert!(same(ring(&scrape, "lost", "priority"), 0.0));
    let told = sensor.stop().unwrap();
    let incident = told.only().unwrap();
    assert_eq!(incident["severity"], "critical", "{incident:#}");
    let story = incident["story"].as_str().unwrap();
    assert!(story.contains("RSA_public_decrypt"), "{story}");
}
