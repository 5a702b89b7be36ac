//! The sensor learns what is there, and tells what comes later.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sensor::analysis::Analysis;
use sensor::baseline::Store;
use sensor::config::Config;
use sensor::detect::NoCheck;
use sensor::host::{Body, Observation};
use sensor::instrument::{OwnPrograms, Told, Watch};
use serde_json::Value;
use tempfile::TempDir;

use super::lab::{Agent, free_port, wait_until};
use super::stranger::{Defined, Stranger};

const PATIENCE: Duration = Duration::from_mins(1);
/// After the last word of a look.
const CALM: Duration = Duration::from_secs(1);
/// Programs that a sensor has at least.
const PROGRAMS: f64 = 5.0;

/// A sensor with a state directory of its own.
struct Sensor {
    agent: Agent,
    port: u16,
}

/// What a test needs besides; one at a time, as they see each other's sensors.
struct Bench {
    _turn: MutexGuard<'static, ()>,
    folder: TempDir,
    own: PathBuf,
}

impl Sensor {
    fn start(state: &Path) -> Self {
        let port = free_port().unwrap();
        let config =
            format!("state_dir = \"{}\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n", state.display());
        let agent = Agent::spawn(&["run"], &config).unwrap();
        wait_until("a sensor that is ready", PATIENCE, || {
            Ok(agent.get(port, "/readyz").ok().filter(|(status, _)| *status == 200))
        })
        .unwrap();
        let (_, probes) = agent.get(port, "/api/v1/probes").unwrap();
        println!("{probes}");
        Self { agent, port }
    }

    /// The first finding that `wanted` accepts.
    fn finding(&self, patience: Duration, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let first = |line: &Value| findings(line).into_iter().find(|one| wanted(one));
        let line = self.agent.wait_for("a finding", 0, patience, |line| first(line).is_some());
        line.ok().and_then(|line| first(&line))
    }

    /// Everything that it told of a detector.
    fn told(&self, detector: &str) -> Vec<Value> {
        let lines = self.agent.lines(0).unwrap();
        let all = lines.iter().flat_map(findings);
        all.filter(|finding| finding["detector"] == detector).collect()
    }
}

impl Bench {
    fn new() -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        if !rustix::process::geteuid().is_root() {
            println!("skipped: BPF needs root");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("halfsecond-instrument-").tempdir().unwrap();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Self { _turn: turn, folder, own: std::env::current_exe().unwrap() })
    }

    fn state(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// A state directory in which a sensor finds that it has long learned this host as it is, with a
    /// stranger on it.
    fn learned(&self) -> PathBuf {
        let state = self.state("state");
        let stranger = Stranger::start(&self.own, None);
        let (out, told) = channel();
        let ask = |_: BorrowedFd<'_>, _: bool| Err("not asked".to_owned());
        let tell = move |one| drop(out.send(one));
        let watch = Watch::start(&[], Box::new(ask), OwnPrograms::new(), Box::new(tell)).unwrap();
        let mut seen: Vec<Observation> = Vec::new();
        let is_his = |one: &Observation| one.process.shown.pid == stranger.pid();
        // All of one look come together.
        while let Ok(one) = told.recv_timeout(if seen.iter().any(is_his) { CALM } else { PATIENCE })
        {
            if let Told::Seen(one) = one {
                seen.push(*one);
            }
        }
        assert!(seen.iter().any(is_his), "{seen:?}");
        drop(watch);
        let config = Config::default();
        let (store, _) = Store::open(&state);
        let mut analysis = Analysis::new(&config, "here".to_owned(), store, Box::new(NoCheck));
        let subject = seen.first().map(|one| one.process.program.subject.clone());
        let quiet = Observation { body: Body::Surveyed, ..seen[0].clone() };
        let quiet = vec![quiet; usize::try_from(config.learning.observations).unwrap()];
        for one in seen.into_iter().chain(quiet) {
            analysis.on_observation(one);
        }
        let subject = subject.unwrap();
        assert!(analysis.baseline(&subject).settled(config.learning.observations, false));
        analysis.flush();
        state
    }

    /// A stranger that was not there while learning, and what is told of it.
    fn newcomer(&self, sensor: &Sensor, name: &str) -> (Stranger, Value) {
        let program = Stranger::disguise(self.folder.path(), name);
        let stranger = Stranger::start(&program, None);
        let pid = stranger.pid();
        let is_his = |one: &Value| is(one, "kernel_hook") && one["process"]["pid"] == pid;
        let finding = sensor.finding(PATIENCE, is_his);
        (stranger, finding.expect("a finding"))
    }
}

fn findings(line: &Value) -> Vec<Value> {
    line["findings"].as_array().cloned().unwrap_or_default()
}

fn is(finding: &Value, detector: &str) -> bool {
    finding["detector"] == detector
}

fn library(name: &str) -> Option<PathBuf> {
    let folders = ["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/lib"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|it| it.exists());
    if found.is_none() {
        println!("not tried: no {name}");
    }
    found
}

#[test]
fn new_programs_are_told_with_their_process_and_own_and_known_ones_are_not() {
    let Some(bench) = Bench::new() else { return };
    let state = bench.learned();
    let sensor = Sensor::start(&state);
    let _known = Stranger::start(&bench.own, None);
    let (stranger, finding) = bench.newcomer(&sensor, "stranger");
    println!("{finding:#}");
    assert_eq!(finding["severity"], "medium");
    assert_eq!(finding["explained_by"], Value::Null);
    let told = &finding["evidence"][0];
    assert_eq!((&told["kind"], &told["what"]), (&"instrument".into(), &"BPF program".into()));
    let owner = told["owner"].as_str().unwrap();
    assert!(Path::new(owner).starts_with(bench.folder.path()), "{owner}");
    drop(stranger);

    let other = Sensor::start(&bench.state("other"));
    // It is not this one, whatever it runs: told, with a severity that its code has.
    let series = "halfsecond_findings_total{detector=\"kernel_hook\",severity=\"low\"}";
    wait_until("the other sensor, told as such", PATIENCE, || {
        Ok(sensor.agent.metric(sensor.port, series)?.filter(|count| *count >= PROGRAMS))
    })
    .unwrap();
    let others = other.agent.pid().unwrap();
    let (status, _) = other.agent.terminate(PATIENCE).unwrap();
    assert!(status.success());

    let pid = sensor.agent.pid().unwrap();
    let (status, lines) = sensor.agent.terminate(PATIENCE).unwrap();
    assert!(status.success());
    let binary = Agent::binary();
    let own = lines.iter().flat_map(findings).find(|finding| {
        let owner = &finding["evidence"][0]["owner"];
        finding["process"]["pid"] == pid
            || (*owner == *binary.to_string_lossy() && finding["process"]["pid"] != others)
            || *owner == *bench.own.to_string_lossy()
    });
    assert_eq!(own, None, "its own or what it has learned");
    let of_other = lines.iter().flat_map(findings).filter(|one| one["process"]["pid"] == others);
    let mut of_other = of_other.peekable();
    assert!(of_other.peek().is_some(), "another process with the same executable");
    for finding in of_other {
        assert_eq!(finding["explained_by"], Value::Null, "{finding:#}");
    }

    let again = Sensor::start(&state);
    let (_stranger, _) = bench.newcomer(&again, "later");
    let nobodys: Vec<Value> = again.told("kernel_hook");
    let nobodys: Vec<&Value> =
        nobodys.iter().filter(|one| one["evidence"][0]["owner"] == Value::Null).collect();
    assert!(nobodys.is_empty(), "left by the sensor before: {nobodys:#?}");
}

#[test]
fn a_bpftrace_uprobe_in_pam_is_a_finding_with_the_function_and_the_tool() {
    let Some(bench) = Bench::new() else { return };
    let Some(pam) = library("libpam.so.0") else { return };
    if !Path::new("/usr/bin/bpftrace").exists() {
        return println!("not tried: no bpftrace");
    }
    let sensor = Sensor::start(&bench.state("state"));
    let probe = format!("uprobe:{}:pam_authenticate {{ @calls = count(); }}", pam.display());
    let mut bpftrace = Command::new("/usr/bin/bpftrace");
    bpftrace.args(["-e", &probe]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut bpftrace = bpftrace.stderr(Stdio::null()).spawn().unwrap();
    let pid = bpftrace.id();
    let is_its = |one: &Value| is(one, "foreign_probe") && one["process"]["pid"] == pid;
    let finding = sensor.finding(PATIENCE, is_its);
    let _ = (bpftrace.kill(), bpftrace.wait());
    let finding = finding.expect("a finding");
    println!("{finding:#}");
    assert_eq!(finding["severity"], "medium");
    assert!(finding["explained_by"].as_str().unwrap().starts_with("bpftrace "));
    let told = &finding["evidence"][0];
    assert_eq!(told["symbol"], "pam_authenticate+0x0");
    assert_eq!(told["owner"], "/usr/bin/bpftrace");
    assert!(told["file"].as_str().unwrap().contains("libpam.so.0"), "{told}");
}

#[test]
fn uprobes_of_perf_and_tracefs_in_libcrypto_are_findings() {
    let Some(bench) = Bench::new() else { return };
    let Some(crypto) = library("libcrypto.so.3") else { return };
    let sensor = Sensor::start(&bench.state("state"));
    let program = Stranger::disguise(bench.folder.path(), "spy");
    let spy = Stranger::start(&program, Some((&crypto, "RSA_public_decrypt")));
    let pid = spy.pid();
    // Somebody uses the library, if nobody did before: the probe was reached through a descriptor,
    // whose name says nothing.
    let mut user = Command::new("sleep");
    let mut user = user.arg("600").env("LD_PRELOAD", &crypto).spawn().unwrap();
    let at = |one: &Value, symbol: &str| one["evidence"][0]["symbol"] == symbol;
    let finding = sensor.finding(PATIENCE, |one| {
        is(one, "foreign_probe")
            && one["process"]["pid"] == pid
            && at(one, "RSA_public_decrypt+0x0")
    });
    let _ = (user.kill(), user.wait());
    let finding = finding.expect("a finding");
    println!("{finding:#}");
    assert_eq!(finding["severity"], "high");
    assert_eq!(finding["evidence"][0]["owner"], *program.to_string_lossy());
    drop(spy);

    let Some(_defined) = Defined::new(&crypto, "EVP_DigestVerify") else {
        return println!("not tried: no uprobe_events");
    };
    let finding = sensor.finding(PATIENCE, |one| {
        is(one, "foreign_probe")
            && at(one, "EVP_DigestVerify+0x0")
            && one["evidence"][0]["owner"] == Value::Null
    });
    let finding = finding.expect("a finding");
    println!("{finding:#}");
    assert_eq!(finding["severity"], "high");
    assert_eq!(finding["evidence"][0]["owner"], Value::Null);
    assert_eq!(finding["evidence"][0]["details"][0], "by tracefs");
}
