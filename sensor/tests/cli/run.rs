use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sensor::http::client;

use super::harness::{Place, as_stranger, exists, run};
use crate::patience::patient;

/// A sensor that takes longer to start or end does not.
const PATIENCE: Duration = Duration::from_mins(1);

/// A sensor that is armed; killed at the end of the test.
struct Sensor {
    child: Child,
    address: SocketAddr,
}

impl Sensor {
    /// Starts one in `place`; `None` without root.
    fn start(place: &Place, stdout: Stdio) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: a sensor needs root");
            return None;
        }
        let mut command = place.command(&["run"]);
        let mut child = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let address = loop {
            let Some(line) = lines.next() else { panic!("it ended: {said:#?}") };
            let line = line.unwrap();
            if let Some((_, address)) = line.split_once("listening address=") {
                break address.trim().parse().unwrap();
            }
            said.push(line);
        };
        // Its log must go somewhere, and is what a failed test wants to show.
        std::thread::spawn(move || lines.for_each(|line| println!("{}", line.unwrap_or_default())));
        let sensor = Self { child, address };
        sensor.wait_until("it is armed", |sensor| sensor.get("/readyz").0 == 200);
        Some(sensor)
    }

    fn get(&self, path: &str) -> (u16, String) {
        let answer = client::get(self.address, path).unwrap();
        (answer.status, answer.text())
    }

    /// The value of a series on the page of metrics.
    fn metric(&self, series: &str) -> Option<f64> {
        let (_, page) = self.get("/metrics");
        page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    #[track_caller]
    fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + patient(PATIENCE);
        while !holds(self) {
            assert!(
                Instant::now() < deadline,
                "waited in vain until {what}: {:?}",
                self.get("/readyz")
            );
            std::thread::yield_now();
        }
    }

    fn end(mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        let deadline = Instant::now() + patient(PATIENCE);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ANY_PORT: &str = "[http]\nlisten = \"127.0.0.1:0\"\n";

#[test]
fn a_sensor_arms_shows_itself_and_ends_with_0_when_told_to() {
    let place = Place::new(ANY_PORT);
    let Some(sensor) = Sensor::start(&place, Stdio::null()) else { return };
    assert_eq!(sensor.get("/healthz"), (200, "ok\n".to_owned()));
    assert!(sensor.metric("halfsecond_start_to_armed_seconds").unwrap() > 0.0);
    assert!(sensor.metric("halfsecond_bpf_memory_bytes").unwrap() > 0.0);
    sensor.wait_until("it has seen an event", |sensor| {
        let child = Command::new("true").status();
        assert!(child.unwrap().success());
        sensor.metric("halfsecond_events_total{kind=\"exec\"}").unwrap_or_default() > 0.0
    });
    place.write(
        "other.toml",
        &format!("state_dir = \"/nowhere\"\n[http]\nlisten = \"{}\"\n", sensor.address),
    );
    let other = place.path("other.toml");
    let told = run(super::harness::halfsecond(&["doctor", "--json", "--config"]).arg(other));
    let told = told.expect(0).lines();
    let state = told.iter().find(|line| line["kind"] == "sensor").unwrap();
    assert_eq!(state["state"], "ready");
    assert_eq!(sensor.end().code(), Some(0));
}

#[test]
fn a_full_standard_output_and_a_missing_directory_do_not_stop_the_sensor() {
    let place = Place::new(&format!("{ANY_PORT}[output]\nfile = \"/nowhere/incidents.jsonl\"\n"));
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let Some(sensor) = Sensor::start(&place, full.into()) else { return };
    assert_eq!(sensor.metric("halfsecond_sink_failing{sink=\"file\"}"), Some(0.0));
    assert_eq!(sensor.end().code(), Some(0));
}

#[test]
fn a_sensor_without_privilege_exits_3_and_says_what_it_needs() {
    let place = Place::new("");
    place.open_to_all();
    fs::create_dir(place.path("state")).unwrap();
    fs::set_permissions(place.path("state"), fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = place.command(&["run"]);
    let Some(command) = as_stranger(&mut command) else { return };
    let ended = run(command).expect(3);
    assert!(ended.stderr.contains("run it as root"), "{ended:#?}");
}

#[test]
fn a_port_in_use_exits_2_before_anything_is_touched() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let place = Place::new(&format!("[http]\nlisten = \"{address}\"\n"));
    let ended = place.run(&["run"]).expect(2);
    assert_eq!(
        ended.stderr,
        format!(
            "error: `http.listen` = \"{address}\" is in use, perhaps by another halfsecond; stop \
             that program, or set `http.listen` to another port or to \"off\"\n"
        )
    );
    assert!(!exists(&place.path("state")), "the state directory was made");
}

#[test]
fn an_address_of_nobody_exits_2() {
    let place = Place::new("[http]\nlisten = \"192.0.2.1:9477\"\n");
    let ended = place.run(&["run"]).expect(2);
    assert!(ended.stderr.contains("is no address of this host"), "{ended:#?}");
}

#[test]
fn a_state_directory_that_is_a_file_exits_2() {
    let place = Place::new("");
    place.write("state", "");
    let ended = place.run(&["run"]).expect(2);
    assert!(ended.stderr.contains("`state_dir` = "), "{ended:#?}");
    assert!(ended.stderr.contains("make it a writable directory, or set another"), "{ended:#?}");
}

#[test]
fn a_state_directory_of_others_exits_3() {
    let place = Place::new("");
    place.open_to_all();
    fs::create_dir(place.path("state")).unwrap();
    fs::set_permissions(place.path("state"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = place.command(&["run"]);
    let Some(command) = as_stranger(&mut command) else { return };
    let ended = run(command).expect(3);
    assert!(ended.stderr.contains("`state_dir` = "), "{ended:#?}");
    assert!(ended.stderr.contains("Permission denied"), "{ended:#?}");
}

#[test]
fn a_port_for_root_exits_3() {
    let place = Place::new("[http]\nlisten = \"127.0.0.1:7\"\n");
    place.open_to_all();
    let unprivileged = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if unprivileged.is_ok_and(|start| start.trim().parse().is_ok_and(|start: u16| start <= 7)) {
        println!("skipped: this machine lets everybody open every port");
        return;
    }
    let mut command = place.command(&["run"]);
    let Some(command) = as_stranger(&mut command) else { return };
    let ended = run(command).expect(3);
    assert!(ended.stderr.contains("CAP_NET_BIND_SERVICE"), "{ended:#?}");
}

/// A full file system as state directory, gone at the end of the test.
struct FullDisk(PathBuf);

impl FullDisk {
    fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&path).output();
        if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
            println!("skipped: mounting a small tmpfs needs root: {mounted:?}");
            return None;
        }
        let disk = Self(path);
        let filled = fs::write(disk.0.join("ballast"), vec![0; 128 * 1024]);
        assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        Some(disk)
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_counted_and_does_not_stop_the_sensor() {
    let place = Place::new(ANY_PORT);
    let Some(_disk) = FullDisk::mount(place.path("state")) else { return };
    let Some(sensor) = Sensor::start(&place, Stdio::null()) else { return };
    sensor.wait_until("the failed attempts to write are counted", |sensor| {
        let (_, page) = sensor.get("/metrics");
        let counts =
            page.lines().filter(|line| line.starts_with("halfsecond_store_failures_total"));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() > 0.0
    });
    assert_eq!(sensor.get("/api/v1/incidents").0, 200);
    assert_eq!(sensor.end().code(), Some(0));
}
