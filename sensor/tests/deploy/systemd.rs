use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use super::{deployed, has, said, text};

const UNIT: &str = "systemd/halfsecond.service";
/// Tenths of systemd's exposure level; 2.1 of it are bpf, `perf_event_open`, tracing other
/// processes and reading their files, which are what a sensor is.
const EXPOSURE_MAX: &str = "24";
/// Keys that would hide the processes the sensor is for.
const BLINDING: [&str; 5] =
    ["ProtectProc=", "ProcSubset=", "PrivatePIDs=", "PrivateUsers=", "PrivateNetwork="];

/// The values of a key, in all its lines.
fn values(key: &str) -> BTreeSet<String> {
    let text = text(UNIT);
    let lines = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[test]
fn systemd_reads_the_unit_without_complaint() {
    if !has("systemd-analyze", "systemd") {
        return;
    }
    let (_, said) =
        said(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(deployed(UNIT)));
    // The binary is not installed where the tests run.
    let complaints: Vec<_> = said
        .lines()
        .filter(|line| line.contains("halfsecond.service"))
        .filter(|line| !line.contains("/usr/bin/halfsecond is not executable"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn the_exposure_of_the_unit_stays_low() {
    if !has("systemd-analyze", "systemd") {
        return;
    }
    let (within, said) = said(
        Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(format!("--threshold={EXPOSURE_MAX}"))
            .arg(deployed(UNIT)),
    );
    println!("{}", said.lines().last().unwrap_or_default());
    assert!(within, "{said}");
}

#[test]
fn the_unit_gives_what_the_sensor_needs_and_nothing_else() {
    let needed =
        ["BPF", "CHECKPOINT_RESTORE", "DAC_READ_SEARCH", "PERFMON", "SYS_ADMIN", "SYS_PTRACE"];
    let needed: BTreeSet<_> = needed.iter().map(|name| format!("CAP_{name}")).collect();
    assert_eq!(values("CapabilityBoundingSet"), needed);
    assert_eq!(values("AmbientCapabilities"), needed);
    for call in ["bpf", "perf_event_open", "fanotify_init", "fanotify_mark"] {
        assert!(values("SystemCallFilter").contains(call), "{call}");
    }
    for key in BLINDING {
        assert!(!text(UNIT).lines().any(|line| line.starts_with(key)), "{key} blinds the sensor");
    }
    assert!(text(UNIT).lines().any(|line| line == "Type=notify"));
}

/// What the sensor says with the capabilities of the unit and a user of its own; `None` where they
/// cannot be given.
fn with_rights_of_the_unit(arguments: &[&str]) -> Option<(bool, String)> {
    if !rustix::process::geteuid().is_root() || !has("setpriv", "util-linux") {
        println!("skipped: giving a process these capabilities and no other needs root");
        return None;
    }
    let given = values("AmbientCapabilities")
        .iter()
        .map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase()))
        .collect::<Vec<_>>()
        .join(",");
    let output = Command::new("setpriv")
        .args(["--reuid=61234", "--regid=61234", "--clear-groups", "--no-new-privs"])
        .arg(format!("--bounding-set=-all,{given}"))
        .arg(format!("--inh-caps=-all,{given}"))
        .arg(format!("--ambient-caps=-all,{given}"))
        .arg(env!("CARGO_BIN_EXE_halfsecond"))
        .args(arguments)
        .args(["--json", "--config", "/dev/null"])
        .process_group(0)
        .output()
        .unwrap();
    let both = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Some((output.status.success(), both.into_owned()))
}

#[test]
fn the_capabilities_of_the_unit_are_enough_to_check_every_process() {
    // A process of root.
    let mut sleeper = Command::new("sleep").arg("600").spawn().unwrap();
    wait_until_it_sleeps(sleeper.id());
    let scanned = with_rights_of_the_unit(&["scan", "--pid", &sleeper.id().to_string()]);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let Some((success, said)) = scanned else { return };
    assert!(success, "{said}");
    assert!(said.contains("\"checked\":1") && said.contains("\"with_gaps\":0"), "{said}");
}

#[test]
fn the_capabilities_of_the_unit_are_enough_for_every_probe_that_root_attaches() {
    let root = said(Command::new(env!("CARGO_BIN_EXE_halfsecond")).args([
        "doctor",
        "--json",
        "--config",
        "/dev/null",
    ]));
    let Some((_, unit)) = with_rights_of_the_unit(&["doctor"]) else { return };
    let probes = |said: &str| -> Vec<(String, String)> {
        said.lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|line| line["kind"] == "probe")
            .map(|line| (line["probe"].to_string(), line["mechanism"].to_string()))
            .collect()
    };
    assert_eq!(probes(&unit), probes(&root.1), "{unit}");
    assert!(probes(&unit).len() >= 6, "{unit}");
}

fn wait_until_it_sleeps(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let waits_in = || fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    while !waits_in().contains("nanosleep") {
        assert!(Instant::now() < deadline, "process {pid} waits in {:?}", waits_in());
        thread::yield_now();
    }
}
