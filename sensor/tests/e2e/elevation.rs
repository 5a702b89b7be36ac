//! Logins through libpam, by programs that call it as sudo, su and login do, and by su itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    lab::{Machine, Running, must},
    logins::ended,
    running::{PATIENCE, Sensor, Settings, State},
    victim::guarded,
};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pam_caller.c");
const PROGRAM: &str = "pam-caller";
const SERVICE: &str = "halfsecond-lab";
/// Lets root in, and nobody else; asks nothing.
const STACK: &str = "auth required pam_succeed_if.so quiet user = root\n\
                     auth required pam_permit.so\n\
                     account required pam_permit.so\nsession required pam_permit.so\n\
                     password required pam_deny.so\n";
/// Functions of libpam that are watched by default, and the entry of the program.
const PROBES: f64 = 8.0;
/// CPU that `b` burns, less two ticks of a kernel at 100 Hz, seconds.
const BURNT: f64 = 0.08;

/// The program, and its service's directory.
struct Caller(TempDir);

/// What a run calls, what its status are, and what is to be told of it.
struct Story {
    calls: &'static str,
    statuses: &'static str,
    outcome: &'static str,
    reason: Option<&'static str>,
    attempts: &'static [&'static str],
    session: bool,
}

const STORIES: [Story; 6] = [
    Story {
        calls: "Abcsoswew",
        statuses: "A=0 c=0 s=0 o=0 s=0 ",
        outcome: "accepted",
        reason: None,
        attempts: &["accepted"],
        session: true,
    },
    Story {
        calls: "aAcsowew",
        statuses: "a=7 A=0 c=0 s=0 o=0 ",
        outcome: "accepted",
        reason: None,
        attempts: &["refused", "accepted"],
        session: true,
    },
    Story {
        calls: "aaawew",
        statuses: "a=7 a=7 a=7 ",
        outcome: "refused",
        reason: Some("PAM_AUTH_ERR"),
        attempts: &["refused", "refused", "refused"],
        session: false,
    },
    Story {
        calls: "Acwew",
        statuses: "A=0 c=0 ",
        outcome: "accepted",
        reason: Some("no session was opened"),
        attempts: &["accepted"],
        session: false,
    },
    Story {
        calls: "awk",
        statuses: "a=7 ",
        outcome: "aborted",
        reason: Some("it ended during an attempt"),
        attempts: &["undecided"],
        session: false,
    },
    Story {
        calls: "Acsowk",
        statuses: "A=0 c=0 s=0 o=0 ",
        outcome: "accepted",
        reason: None,
        attempts: &["accepted"],
        session: true,
    },
];

// === impl Caller ===

impl Caller {
    fn build() -> Result<Self> {
        let mut named = tempfile::Builder::new();
        let own = named.prefix("halfsecond-pam-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let own = Self(own);
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-Wl,--build-id", "-o"]);
        must(cc.arg(own.program()).args([SOURCE, "-l:libpam.so.0"]), "", PATIENCE)?;
        fs::write(own.0.path().join(SERVICE), STACK)?;
        Ok(own)
    }

    fn program(&self) -> PathBuf {
        self.0.path().join(PROGRAM)
    }

    fn command(&self, calls: &str) -> Command {
        let mut command = Command::new(self.program());
        command.arg(self.0.path()).arg(calls);
        command
    }

    /// Runs it; fails if libpam did not answer as it has to. Wherever it waits, it goes on once the
    /// sensor has read what it did.
    fn run(&self, sensor: &Sensor, calls: &str, statuses: &str) -> Result<()> {
        let mut running = Running::spawn(&mut self.command(calls))?;
        let mut told = String::new();
        for from in 0..calls.matches('w').count() {
            told += &next_line(&running, from)?;
            sensor.ring_read()?;
            running.write_line("go")?;
        }
        running.wait(PATIENCE)?;
        ensure!(told == statuses, "{calls}: {told:?}, not {statuses:?}");
        Ok(())
    }

    /// Its probes take a moment when its library is first mapped. After this the sensor knows where
    /// libpam's functions lie, also of who is gone when it looks.
    fn watched(&self, sensor: &Sensor) -> Result<()> {
        let mut waiting = Running::spawn(&mut self.command("w"))?;
        let probes = "halfsecond_function_probes";
        sensor.scrape_until("libpam's functions watched", |scrape| {
            scrape.sum(probes, &[]) >= PROBES
        })?;
        waiting.write_line("go")?;
        waiting.wait(PATIENCE)?;
        // As cron does: nobody is asked, so it is counted and not listed.
        self.run(sensor, "csowew", "c=0 s=0 o=0 ")
    }
}

fn next_line(running: &Running, from: usize) -> Result<String> {
    let line = running.stdout().wait_for(from, PATIENCE, |line| Some(line.to_owned()));
    line.with_context(|| running.transcript())
}

fn is_told(login: &Value, story: &Story, program: &str) -> Result<()> {
    let told = [&login["outcome"], &login["reason"], &login["session"], &login["partial"]];
    let wanted = [json!(story.outcome), json!(story.reason), json!(story.session), json!(false)];
    ensure!(told.into_iter().eq(&wanted), "{}: {login:#}", story.calls);
    let who = [&login["program"], &login["method"], &login["uid"]];
    ensure!(who.into_iter().eq(&[json!(program), json!("pam"), json!(0)]), "{login:#}");
    ensure!(login["user"].is_null() && login["peer"].is_null(), "{login:#}");
    let attempts = login["attempts"].as_array().context("attempts")?;
    let verdicts: Vec<&Value> = attempts.iter().map(|attempt| &attempt["verdict"]).collect();
    ensure!(verdicts == story.attempts, "{}: {login:#}", story.calls);
    for attempt in attempts.iter().filter(|attempt| attempt["verdict"] != "undecided") {
        let (wall, cpu) = (attempt["seconds"].as_f64(), attempt["cpu_seconds"].as_f64());
        ensure!(wall > Some(0.0) && cpu.is_some() && cpu <= wall, "{login:#}");
    }
    Ok(())
}

#[test]
fn logins_through_libpam_are_told_by_what_the_program_called() {
    let machine = Machine::acquire().unwrap();
    let state = State::new().unwrap();
    let caller = Caller::build().unwrap();
    let more = guarded(&caller.program());
    let settings = Settings { more: &more, ..Settings::default() };
    let sensor = Sensor::start(&machine, state.path(), settings).unwrap();
    caller.watched(&sensor).unwrap();
    for story in &STORIES {
        caller.run(&sensor, story.calls, story.statuses).unwrap();
    }
    let told = ended(&sensor, STORIES.len()).unwrap();
    for (login, story) in told.iter().zip(&STORIES) {
        is_told(login, story, PROGRAM).unwrap();
    }
    let burnt = told[0]["attempts"][0]["cpu_seconds"].as_f64();
    assert!(burnt >= Some(BURNT), "{:#}", told[0]);
    let page = sensor
        .scrape_until("every login counted", |scrape| {
            scrape.sum("halfsecond_pam_logins_total", &[("program", "other")]) >= 7.0
        })
        .unwrap();
    let as_sshds = page.sum("halfsecond_logins_total", &[("method", "pam")]);
    assert!(as_sshds < 1.0, "none of it is sshd's");
    let lost = page.show("halfsecond_records_lost_total");
    assert!(lost.is_empty(), "{lost:?}");
    sensor.stop().unwrap();
}

#[test]
fn su_by_root_is_told_with_its_session() {
    let machine = Machine::acquire().unwrap();
    let state = State::new().unwrap();
    let su = ["/usr/bin/su", "/bin/su"].map(Path::new).into_iter().find(|path| path.exists());
    let su = fs::canonicalize(su.expect("su, of util-linux")).unwrap();
    let caller = Caller::build().unwrap();
    let more = guarded(&su) + &guarded(&caller.program());
    let settings = Settings { more: &more, ..Settings::default() };
    let sensor = Sensor::start(&machine, state.path(), settings).unwrap();
    caller.watched(&sensor).unwrap();
    let mut command = Command::new(&su);
    command.args(["-s", "/bin/sh", "-c", "echo ready; read -r line", "root"]);
    let mut session = Running::spawn(&mut command).unwrap();
    assert_eq!(next_line(&session, 0).unwrap(), "ready");
    sensor.ring_read().unwrap();
    session.write_line("go").unwrap();
    let status = session.wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{}", session.transcript());
    let told = ended(&sensor, 1).unwrap();
    let story = Story {
        calls: "su",
        statuses: "",
        outcome: "accepted",
        reason: None,
        attempts: &["accepted"],
        session: true,
    };
    is_told(&told[0], &story, "su").unwrap();
    sensor.stop().unwrap();
}
