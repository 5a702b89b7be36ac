//! The analysis over real processes that refuse to be checked, on a clock of its own.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::analysis::Analysis;
use crate::baseline::Store;
use crate::config::Config;
use crate::event::{FileKey, Role};
use crate::finding::{ProcessRef, Severity};
use crate::host::{Body, Lineage, ModuleId, Observation, Process, Program};
use crate::incident::{Incident, IncidentUpdate};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verify/c/hostile.c");
const SECOND: u64 = 1_000_000_000;

/// A fixture that refuses, and an analysis that takes it for a guarded program.
struct Rounds {
    _dir: tempfile::TempDir,
    child: Child,
    process: Arc<Process>,
    analysis: Analysis,
    now_ns: u64,
    clock: Clock,
    told: Vec<IncidentUpdate>,
}

impl Rounds {
    fn over(mode: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hostile");
        let built = Command::new("cc").args(["-O1", "-o"]).arg(&path).arg(SOURCE).status();
        assert!(built.unwrap().success(), "cc {SOURCE} (cargo xtask setup)");
        let mut command = Command::new(&path);
        let mut child =
            command.arg(mode).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said: Vec<String> = lines.map_while(Result::ok).take(2).collect();
        assert_eq!(said, ["ready", "done"]);
        let config = Config::default();
        let slots = Slots::new(Metrics::new().unwrap(), OwnProbes::default(), &config.patrol);
        let analysis = Analysis::new(&config, "host1".to_owned(), Store::off(), Box::new(slots));
        let (clock, process) = (Clock::now(), Arc::new(guarded(child.id(), &path)));
        let now_ns = Clock::ktime_ns();
        Self { _dir: dir, child, process, analysis, now_ns, clock, told: Vec::new() }
    }

    /// One visit, with every look that follows from it.
    fn round(&mut self) {
        self.now_ns += 61 * SECOND;
        let seen = Observation {
            ktime_ns: self.now_ns,
            time: self.clock.wall(self.now_ns),
            process: Arc::clone(&self.process),
            connection: None,
            body: Body::CheckDue(CheckReason::Patrol),
        };
        self.told.extend(self.analysis.on_observation(seen));
        while let Some(due) = self.analysis.next_due() {
            self.now_ns = self.now_ns.max(due);
            self.told.extend(self.analysis.tick(self.now_ns));
        }
    }

    fn fired(&self) -> Vec<&'static str> {
        let all = self.analysis.tally().findings;
        all.into_iter().filter(|(_, times)| *times > 0).map(|(id, _)| id).collect()
    }

    fn incident(&self) -> &Incident {
        &self.told.last().unwrap().incident
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Changes a byte of the program's own code, as who hooks it would; it never runs there again.
    fn patch(&self) {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).unwrap();
        let code = maps.lines().find(|line| line.contains("r-xp") && line.ends_with("/hostile"));
        let start = code.unwrap().split('-').next().unwrap().to_owned();
        let addr = u64::from_str_radix(&start, 16).unwrap();
        let memory = format!("/proc/{}/mem", self.child.id());
        let memory = File::options().read(true).write(true).open(memory).unwrap();
        let mut byte = [0];
        memory.read_exact_at(&mut byte, addr).unwrap();
        memory.write_all_at(&[byte[0] ^ 0xff], addr).unwrap();
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn guarded(pid: u32, path: &Path) -> Process {
    let path = path.display().to_string();
    let program = Program {
        file: FileKey::default(),
        module: ModuleId { path: path.clone(), build: "ab".to_owned() },
        role: Role::GUARDED,
        subject: format!("{path} ab"),
        uncovered: None,
        root_unseen: false,
    };
    let start_ticks = Procfs.stat(pid).unwrap().start_ticks;
    Process {
        id: ProcessId { tgid: pid, start_ticks },
        lineage: Lineage::Program(program.subject.clone()),
        program: Arc::new(program),
        shown: ProcessRef { pid, exe: path, ..ProcessRef::default() },
        euid: 0,
        secure: false,
        injected: false,
        variables: Arc::default(),
    }
}

#[test]
fn a_process_that_refuses_in_three_rounds_is_an_incident_that_says_why() {
    for (mode, why, flaw) in [
        ("state", "its loader says that it is at work", "is being changed, it says"),
        ("back", "its link map contradicts itself", "says otherwise backwards than forwards"),
    ] {
        let mut rounds = Rounds::over(mode);
        rounds.round();
        rounds.round();
        assert_eq!(rounds.fired(), Vec::<&str>::new(), "{mode}: it may be chance");
        rounds.round();
        assert_eq!(rounds.fired(), ["blinded"], "{mode}");
        let incident = rounds.incident();
        println!("{}\n{}\n{}", incident.title, incident.story, incident.recommendation);
        assert_eq!(incident.severity, Severity::High);
        let evidence = serde_json::to_string(&incident.findings[0].evidence).unwrap();
        for part in [why, flaw, "3 checks in a row", "slots were compared all the same"] {
            assert!(evidence.contains(part), "{mode}: {part}: {evidence}");
        }
        assert!(incident.title.contains(why), "{}", incident.title);
    }
}

#[test]
fn the_code_of_a_process_that_refuses_is_compared_at_once() {
    for mode in ["state", "back", "none"] {
        let mut rounds = Rounds::over(mode);
        rounds.patch();
        rounds.round();
        assert_eq!(rounds.fired(), ["text_patched"], "{mode}");
        assert_eq!(rounds.incident().severity, Severity::Critical);
    }
}

#[test]
fn a_process_that_is_stopped_in_its_loader_is_told_once_it_runs_on_and_refuses() {
    let mut rounds = Rounds::over("state");
    rounds.signal(Signal::STOP);
    while !Standing::of(rounds.child.id()).unwrap().is_still() {
        std::thread::yield_now();
    }
    (0..5).for_each(|_| rounds.round());
    assert_eq!(rounds.fired(), Vec::<&str>::new());
    rounds.signal(Signal::CONT);
    while Standing::of(rounds.child.id()).unwrap().is_still() {
        std::thread::yield_now();
    }
    (0..3).for_each(|_| rounds.round());
    assert_eq!(rounds.fired(), ["blinded"]);
}

#[test]
fn a_process_that_has_ended_or_never_refuses_is_not_told() {
    let mut sound = Rounds::over("");
    (0..4).for_each(|_| sound.round());
    assert_eq!(sound.fired(), Vec::<&str>::new());
    assert_eq!((sound.analysis.tally().checks, sound.analysis.tally().checks_failed), (4, 0));
    // Ended and not reaped: it keeps its number, and has no memory.
    let mut ended = Rounds::over("state");
    ended.round();
    ended.child.kill().unwrap();
    while Standing::of(ended.child.id()).is_some_and(|standing| !standing.is_still()) {
        std::thread::yield_now();
    }
    (0..5).for_each(|_| ended.round());
    assert_eq!(ended.fired(), Vec::<&str>::new());
}

#[test]
fn who_is_not_guarded_is_compared_all_the_same_only_within_the_allowance() {
    let rounds = Rounds::over("state");
    let none = Patrol { cpu_per_second: Duration::ZERO, ..Config::default().patrol };
    let mut slots = Slots::new(Metrics::new().unwrap(), OwnProbes::default(), &none);
    for reason in [CheckReason::Written, CheckReason::Reopened, CheckReason::Daemon] {
        for costly in [false, true] {
            let mut asked = Anyway { reason, guarded: false, costly };
            let put_off = slots.check_anyway(rounds.process.id, asked);
            assert_eq!(put_off, Err(CheckFailed::PutOff), "{asked:?}");
            asked.guarded = true;
            let report = slots.check_anyway(rounds.process.id, asked).unwrap();
            assert_eq!(report.slots_checked == 0, costly, "{asked:?}: {report:?}");
        }
    }
}
