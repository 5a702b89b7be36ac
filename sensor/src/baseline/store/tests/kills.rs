//! SIGKILL at random moments of a process that writes baselines and incidents.
//!
//! The child is this very program, told by its environment to be nothing else. It says what is on disk once
//! it is, one line each; whatever it said must be there, however it ends.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::baseline::keep::{Baselines, Changed};
use crate::finding::Severity;
use crate::host::Lineage;
use crate::incident::{Entry as Case, Incident, IncidentStore, State, StoreLimits};

/// Kills; `HALFSECOND_TEST_KILLS` for another number.
const KILLS: u64 = 150;
/// Directory of the child, which makes it the child.
const CHILD: &str = "HALFSECOND_TEST_KILLED";
/// Baselines and incidents that are written over and over.
const SUBJECTS: u64 = 24;
const CASES: u64 = 16;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is a number")),
        Err(_) => default,
    }
}

fn case(at: u64, round: u64) -> Case {
    let opened = Timestamp::from_second(i64::try_from(at).unwrap()).unwrap();
    let incident = Incident {
        id: format!("{at:016x}"),
        opened,
        updated: opened,
        state: State::Open,
        severity: Severity::High,
        score: 70,
        title: round.to_string(),
        story: "x".repeat(usize::try_from(round % 7 * 900).unwrap()),
        findings: Vec::new(),
        hosts: vec!["web1".to_owned()],
        recommendation: String::new(),
        partial: false,
        decisions: Vec::new(),
    };
    let lineage = Lineage::Program("/usr/sbin/sshd 00".to_owned());
    Case { lineage, others: Vec::new(), omitted: 0, connections: 0, over: false, incident }
}

/// Rounds told of every subject and incident: the number of the last write that is on disk.
#[derive(Debug, Default, PartialEq)]
struct Rounds {
    baselines: BTreeMap<u64, u64>,
    cases: BTreeMap<u64, u64>,
}

/// What is stored. The files may be set aside only where nothing was ever told of them: a kill while they
/// were made leaves what is no store yet.
fn on_disk(dir: &Path, told: &Rounds) -> Rounds {
    let (store, opened) = Store::open(dir);
    assert!(opened == Opened::Ready || told.baselines.is_empty(), "{opened:?}");
    assert!(!matches!(opened, Opened::InMemory { .. }), "{opened:?}");
    let mut baselines = Baselines::new(store);
    let mut rounds = Rounds::default();
    for at in 0..SUBJECTS {
        let baseline = baselines.get(&name(at));
        // Each round adds a library: one without the other would be half an entry.
        assert_eq!(baseline.libraries.len() as u64, baseline.starts.min(30), "subject {at}");
        rounds.baselines.insert(at, baseline.starts);
    }
    assert_eq!(baselines.tally().unreadable, 0);
    let opened = IncidentStore::open(dir, StoreLimits::default()).unwrap();
    assert!(opened.set_aside.is_none() || told.cases.is_empty(), "{:?}", opened.set_aside);
    let listed = opened.store.list(usize::MAX).unwrap();
    assert_eq!(listed.unreadable, 0);
    for incident in listed.incidents {
        let at = u64::from_str_radix(&incident.id, 16).unwrap();
        rounds.cases.insert(at, incident.title.parse().unwrap());
    }
    rounds
}

/// Not a test of its own: the process that the next test kills.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let dir = Path::new(&dir);
    let (store, opened) = Store::open(dir);
    assert!(!matches!(opened, Opened::InMemory { .. }), "{opened:?}");
    let mut baselines = Baselines::new(store);
    let cases = IncidentStore::open(dir, StoreLimits::default()).unwrap().store;
    let mut round = number("HALFSECOND_TEST_FROM", 0);
    let mut out = std::io::stdout();
    loop {
        round += 1;
        for at in (0..SUBJECTS).filter(|at| (at + round).is_multiple_of(3)) {
            let baseline = baselines.learn(&name(at), Changed::Learned);
            baseline.add_start(Timestamp::UNIX_EPOCH, None);
            let library = baseline.starts.min(30);
            let build = format!("{library:040x}");
            let module = ModuleId { path: format!("/lib/{library}.so"), build };
            baseline.add_library(&module, Timestamp::UNIX_EPOCH, false);
        }
        baselines.flush(true);
        assert_eq!(baselines.failure(), None);
        let mut told = Vec::new();
        for at in (0..SUBJECTS).filter(|at| (at + round).is_multiple_of(3)) {
            told.push(format!("b {at} {}\n", baselines.get(&name(at)).starts));
        }
        let case = case(round % CASES, round);
        cases.put(&[&case]).unwrap();
        told.push(format!("i {} {round}\n", round % CASES));
        out.write_all(told.concat().as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

/// Starts the child and kills it after so long; what it has told, with the last round.
fn kill_after(dir: &Path, from: u64, pause: Duration) -> (Rounds, u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "baseline::store::tests::kills::child_that_writes_until_it_is_killed"])
        .args(["--nocapture", "--test-threads=1"])
        .env(CHILD, dir)
        .env("HALFSECOND_TEST_FROM", from.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(pause);
    child.kill().unwrap();
    let (mut said, mut errors) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), None, "it ended by itself: {errors}{said}");
    let (mut told, mut last) = (Rounds::default(), from);
    // The last line may have been cut.
    let whole = said.rfind('\n').map_or("", |end| &said[..end]);
    for line in whole.lines() {
        let mut words = line.split(' ');
        let (kind, at, round) = (words.next(), words.next(), words.next());
        let (Some(Ok(at)), Some(Ok(round))) = (at.map(str::parse), round.map(str::parse)) else {
            continue;
        };
        match kind {
            Some("b") => drop(told.baselines.insert(at, round)),
            Some("i") => {
                told.cases.insert(at, round);
                last = round;
            }
            _ => {}
        }
    }
    (told, last)
}

/// Numbers from a seed.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut word = seed | 1;
    move || {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word >> 1
    }
}

/// How long the child takes on this machine until it has written some rounds.
fn span() -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let mut pause = Duration::from_millis(20);
    while kill_after(dir.path(), 0, pause).1 < 3 {
        pause *= 2;
    }
    pause
}

/// A moment within the span.
fn moment(span: Duration, random: u64) -> Duration {
    span / 10_000 * u32::try_from(random % 10_000).unwrap()
}

#[test]
fn what_a_process_has_told_is_on_disk_whenever_it_is_killed() {
    let kills = number("HALFSECOND_TEST_KILLS", KILLS);
    let seed = number("HALFSECOND_TEST_SEED", 0x5eed_2026);
    let (mut random, span) = (random(seed), span());
    let dir = tempfile::tempdir().unwrap();
    let mut told = on_disk(dir.path(), &Rounds::default());
    let (mut last, mut early, mut lines) = (0, 0, 0);
    for kill in 0..kills {
        let (more, round) = kill_after(dir.path(), last, moment(span, random()));
        last = round.max(last) + 1;
        early += u64::from(more == Rounds::default());
        lines += more.baselines.len() + more.cases.len();
        told.baselines.extend(more.baselines);
        told.cases.extend(more.cases);
        let found = on_disk(dir.path(), &told);
        for (at, round) in &told.baselines {
            let there = found.baselines[at];
            assert!(there >= *round, "seed {seed}, kill {kill}: subject {at}: {there} of {round}");
        }
        for (at, round) in &told.cases {
            let there = found.cases.get(at).copied().unwrap_or(0);
            assert!(there >= *round, "seed {seed}, kill {kill}: incident {at}: {there} of {round}");
        }
        // From now on what was found is what must stay.
        told = found;
    }
    println!(
        "{kills} kills within {span:?} each, seed {seed}: {early} before anything was told, {lines} \
         entries told"
    );
    assert!(early < kills, "it never wrote anything");
    let files = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(files, 2, "nothing was set aside");
}

#[test]
fn a_process_that_is_killed_while_it_makes_the_store_starts_again() {
    let seed = number("HALFSECOND_TEST_SEED", 0x5eed_2026);
    let (mut random, span) = (random(seed), span());
    let mut aside = 0;
    for kill in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let (told, _) = kill_after(dir.path(), 0, moment(span, random()));
        let found = on_disk(dir.path(), &told);
        let kept = |(at, round): (&u64, &u64)| found.baselines.get(at) >= Some(round);
        assert!(told.baselines.iter().all(kept), "seed {seed}, kill {kill}: {told:?} {found:?}");
        aside += usize::from(fs::read_dir(dir.path()).unwrap().count() > 2);
    }
    println!(
        "40 kills of a new store, seed {seed}: {aside} left one half made, which was set aside"
    );
}
