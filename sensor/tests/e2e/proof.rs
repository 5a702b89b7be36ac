//! A session needs a verdict: what runs or appears without one is told before it has ended, and
//! ordinary sessions are not.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    lab::{Machine, Method, Running, SshdLab, Version, must, wait_until},
    learned,
    running::{PATIENCE, Scrape, Sensor, Settings, State, times},
};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sessions.c");
const WAITS: &str = "waits";
const LAYOUTS: [&str; 3] = ["one", "session", "auth"];
/// Stories of the imitation, with what they must give.
const STORIES: [(&str, &str); 6] = [
    ("refused", "auth_without_method"),
    ("silent", "auth_without_method"),
    ("account", "auth_without_method"),
    ("expired", "auth_without_method"),
    ("sandbox", "preauth_exec"),
    ("early", "preauth_exec"),
];
const CASES: usize = LAYOUTS.len() * STORIES.len();
/// Trials of PAM's module with each version.
const MODULE_TRIALS: usize = 2;
const DETECTORS: [&str; 2] = ["preauth_exec", "auth_without_method"];

/// The imitation of a server, and the program that stands for a session.
struct Imitation(TempDir);

/// A program that runs until this says so.
struct Mark(PathBuf);

// === impl Imitation ===

impl Imitation {
    fn build() -> Result<Self> {
        Self::with(&[])
    }

    fn with(flags: &[&str]) -> Result<Self> {
        let mut named = tempfile::Builder::new();
        let own = Self(named.prefix("halfsecond-sessions-").tempdir()?);
        // The program that stands for a session runs as nobody, and leaves a file at its end.
        fs::set_permissions(own.0.path(), fs::Permissions::from_mode(0o777))?;
        compile(&own.path("sshd"), flags)?;
        for name in ["sshd-session", "sshd-auth", WAITS] {
            fs::copy(own.path("sshd"), own.path(name))?;
        }
        Ok(own)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self) -> String {
        let programs = ["sshd", "sshd-session", "sshd-auth"].map(|name| self.path(name));
        let guard =
            |path: &PathBuf| format!("[[guarded]]\npath = \"{}\"\nsshd = true\n", path.display());
        programs.iter().map(guard).collect()
    }

    /// A server of its own: what it does is an incident of its own.
    fn serve(&self, layout: &str, story: &str, mark: &Mark) -> Result<Running> {
        let mut command = Command::new(self.path("sshd"));
        command.args([layout, story]).arg(self.path(WAITS)).arg(&mark.0);
        let mut server = Running::spawn(&mut command)?;
        server.write_line("go")?;
        Ok(server)
    }
}

fn compile(output: &Path, flags: &[&str]) -> Result<()> {
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Wextra", "-Wl,--build-id", SOURCE, "-o"]).arg(output).args(flags);
    must(&mut cc, "", PATIENCE)?;
    Ok(())
}

// === impl Mark ===

impl Mark {
    fn has_ended(&self) -> bool {
        let mut ended = self.0.clone().into_os_string();
        ended.push(".ended");
        Path::new(&ended).exists()
    }

    /// Lets the program end, and waits for it.
    fn set(&self) -> Result<()> {
        fs::write(&self.0, "")?;
        wait_until("the end of the program", PATIENCE, || Ok(self.has_ended().then_some(())))
    }
}

/// The finding by this detector that belongs to the program with this mark.
fn finding<'a>(incident: &'a Value, detector: &str, server: &str) -> Option<&'a Value> {
    incident["findings"].as_array()?.iter().find(|finding| {
        let text = finding.to_string();
        finding["detector"] == detector && text.contains(server)
    })
}

/// It is told, critical, while the program that was started still runs.
fn is_told_in_time(sensor: &Sensor, detector: &str, server: &str, mark: &Mark) -> Result<Value> {
    let found = is_told(sensor, detector, server, mark)?;
    ensure!(found["severity"] == "critical", "{found:#}");
    Ok(found)
}

/// It is told while the program that was started still runs, which may end then.
fn is_told(sensor: &Sensor, detector: &str, server: &str, mark: &Mark) -> Result<Value> {
    let told = |incident: &Value| finding(incident, detector, server).is_some();
    let incident = sensor.incident_that(detector, told)?;
    ensure!(!mark.has_ended(), "{detector} was told after the end of the program");
    let found = finding(&incident, detector, server).context("no finding")?.clone();
    mark.set()?;
    Ok(found)
}

#[test]
fn every_session_without_a_verdict_is_told_before_its_program_ends() {
    let machine = Machine::acquire().unwrap();
    let (imitation, state) = (Imitation::build().unwrap(), State::new().unwrap());
    let config = imitation.config();
    let settings = Settings { more: &config, ..Settings::default() };
    let sensor = Sensor::start(&machine, state.path(), settings).unwrap();
    let mut told = 0;
    for layout in LAYOUTS {
        for (story, detector) in STORIES {
            let mark = Mark(imitation.path(&format!("{layout}-{story}")));
            let mut server = imitation.serve(layout, story, &mark).unwrap();
            // The session's process has executed nothing yet when it is told; its server's arguments
            // name the case.
            let found = is_told_in_time(&sensor, detector, &mark.0.display().to_string(), &mark)
                .with_context(|| format!("{layout} {story}"))
                .unwrap();
            println!("{layout} {story}: {}", found["title"]);
            server.close_stdin();
            assert_eq!(server.wait(PATIENCE).unwrap().code(), Some(0), "{layout} {story}");
            told += 1;
        }
    }
    assert_eq!(told, CASES);
    sensor.stop().unwrap();
}

#[test]
fn the_same_processes_with_their_verdict_are_a_session_like_any_other() {
    let machine = Machine::acquire().unwrap();
    let (imitation, state) = (Imitation::build().unwrap(), State::new().unwrap());
    let config = imitation.config();
    let settings = Settings { more: &config, ..Settings::default() };
    let sensor = Sensor::start(&machine, state.path(), settings).unwrap();
    let before = sensor.scrape().unwrap();
    let accepted = [("method", "publickey"), ("verdict", "accepted")];
    let verdicts = |scrape: &Scrape| scrape.sum("halfsecond_auth_cpu_seconds_count", &accepted);
    for layout in LAYOUTS {
        let mark = Mark(imitation.path(&format!("{layout}-proven")));
        let mut server = imitation.serve(layout, "proven", &mark).unwrap();
        mark.set().unwrap();
        server.close_stdin();
        assert_eq!(server.wait(PATIENCE).unwrap().code(), Some(0), "{layout}");
    }
    let seen = f64::from(u32::try_from(LAYOUTS.len()).unwrap());
    sensor
        .scrape_until("a verdict per session", |scrape| {
            verdicts(scrape) - verdicts(&before) > seen - 0.5
        })
        .unwrap();
    nothing_told(sensor).unwrap();
}

/// Neither an accusation, nor a session of which nobody could say, to the end of the sensor.
fn nothing_told(sensor: Sensor) -> Result<()> {
    let scrape = sensor.ring_read()?;
    let unknown = scrape.show("halfsecond_sessions_not_known_total");
    ensure!(unknown.is_empty(), "{unknown:?}");
    let lost = scrape.show("halfsecond_records_lost_total");
    ensure!(lost.is_empty(), "{lost:?}");
    let told = sensor.stop()?;
    for detector in DETECTORS {
        let count = scrape.sum("halfsecond_findings_total", &[("detector", detector)]);
        ensure!(count < 0.5 && !told.has_finding(detector), "{detector}: {}", told.last());
    }
    Ok(())
}

/// PAM's configuration of the server with a module in front that runs the program.
fn module_arrives(lab: &SshdLab, mark: &Path) -> Result<()> {
    let (module, waits) = (lab.dir().join("pam_runs.so"), lab.dir().join(WAITS));
    compile(&module, &["-shared", "-fPIC", "-DMODULE"])?;
    compile(&waits, &[])?;
    // What others can replace is nobody's helper.
    fs::set_permissions(&waits, fs::Permissions::from_mode(0o777))?;
    let inside = lab.inside().display().to_string();
    lab.pam(&format!("auth optional {inside}/pam_runs.so {inside}/{WAITS} {}\n", mark.display()))
}

#[test]
fn a_program_that_a_module_of_pam_runs_before_the_verdict_is_told_before_it_ends() {
    let machine = Machine::acquire().unwrap();
    for version in [Version::V9_2, Version::V10] {
        let state = learned::state(&machine).unwrap();
        let sensor = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
        for trial in 0..MODULE_TRIALS {
            // Each server's connections are an incident of their own.
            let lab = SshdLab::builder(&machine).version(version).late().start().unwrap();
            let name = format!("mark-{trial}");
            let (mark, inside) = (Mark(lab.dir().join(&name)), lab.inside().join(&name));
            module_arrives(&lab, &inside).unwrap();
            thread::scope(|scope| {
                let login = scope.spawn(|| lab.login(Method::Password));
                let server = inside.display().to_string();
                let found = is_told_in_time(&sensor, "preauth_exec", &server, &mark);
                // The login goes on whatever was told; what was not is said below.
                let _ = mark.set();
                let done = login.join().unwrap().unwrap();
                let found = found.with_context(|| format!("{version:?} {trial}")).unwrap();
                println!("{version:?} {trial}: {}", found["title"]);
                assert_eq!(done.code, Some(0), "{done:?}\n{}", lab.log());
            });
        }
        sensor.stop().unwrap();
    }
}

/// One of every kind of session; as many as it gives.
fn ordinary(lab: &SshdLab, round: usize) -> Result<usize> {
    for method in [Method::Rsa, Method::Ed25519, Method::Password, Method::Dialogue] {
        learned::login(lab, method)?;
    }
    let key = Method::Ed25519;
    // As rsync and git do, scp's old protocol, sftp, a forwarded connection.
    for remote in ["cat > /dev/null", "sh -c 'ls / | wc -l'", "scp -f /etc/hostname"] {
        lab.run(key, remote)?;
    }
    ensure!(lab.with_options(key, &["-s"], "sftp")?.code.is_some());
    let forward = format!("127.0.0.1:{}", lab.port());
    lab.with_options(key, &["-W", &forward], "")?;
    shared(lab, round)?;
    // Refused, and given up at once.
    lab.login(Method::WrongPassword)?;
    drop(std::net::TcpStream::connect(("127.0.0.1", lab.port()))?);
    Ok(14)
}

/// Several sessions on one connection, and one that only forwards.
fn shared(lab: &SshdLab, round: usize) -> Result<()> {
    let socket = lab.dir().join(format!("shared-{round}")).display().to_string();
    let master = lab.start_with(Method::Ed25519, &["-M", "-S", &socket, "-N"])?;
    wait_until("a shared connection", PATIENCE, || Ok(Path::new(&socket).exists().then_some(())))?;
    for _ in 0..3 {
        let done = lab.with_options(Method::Ed25519, &["-S", &socket], "echo ok")?;
        ensure!(done.code == Some(0), "{done:?}");
    }
    lab.with_options(Method::Ed25519, &["-S", &socket, "-O", "exit"], "")?;
    drop(master);
    Ok(())
}

#[test]
fn ordinary_sessions_of_every_kind_give_nothing() {
    let machine = Machine::acquire().unwrap();
    let sessions = times("HALFSECOND_E2E_SESSIONS", 84).unwrap();
    for version in [Version::V9_2, Version::V10] {
        for (use_pam, command) in [(true, false), (true, true), (false, true)] {
            let state = learned::state(&machine).unwrap();
            let builder = SshdLab::builder(&machine).version(version).use_pam(use_pam);
            let lab = builder.every_kind(command).start().unwrap();
            let sensor = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
            let mut done = 0;
            for round in 0.. {
                done += if use_pam {
                    ordinary(&lab, round).unwrap()
                } else {
                    learned::login(&lab, Method::Ed25519).unwrap();
                    learned::login(&lab, Method::Password).unwrap();
                    2
                };
                if done >= sessions / 6 {
                    break;
                }
            }
            sensor.caught_up(&lab).unwrap();
            nothing_told(sensor)
                .with_context(|| format!("{version:?} PAM {use_pam} command {command}"))
                .unwrap();
            println!("{version:?} PAM {use_pam} command {command}: {done} sessions");
        }
    }
}

/// Logins until calls of the server's libpam are told.
const WARM_UPS: usize = 5;

/// Positive answers that were compared, with this result or, without one, with any other than agreement.
fn compared(scrape: &Scrape, result: Option<&str>) -> f64 {
    let of = |labels: &[(&str, &str)]| scrape.sum("halfsecond_verdicts_compared_total", labels);
    match result {
        Some(result) => of(&[("result", result)]),
        None => of(&[]) - of(&[("result", "agreed")]),
    }
}

/// The first login maps libpam, where the listener has none; then the probes come.
fn warmed_up(sensor: &Sensor, lab: &SshdLab) -> Result<Scrape> {
    for _ in 0..WARM_UPS {
        learned::login(lab, Method::Ed25519)?;
        let scrape = sensor.caught_up(lab)?;
        if compared(&scrape, Some("agreed")) > 0.5 {
            return Ok(scrape);
        }
    }
    bail!("calls of libpam are not told after {WARM_UPS} logins")
}

#[test]
fn what_sshd_says_agrees_with_what_its_own_libpam_was_asked() {
    let machine = Machine::acquire().unwrap();
    for version in [Version::V9_2, Version::V10] {
        let state = learned::state(&machine).unwrap();
        let lab = SshdLab::builder(&machine).version(version).every_kind(false).start().unwrap();
        let sensor = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
        let before = warmed_up(&sensor, &lab).unwrap();
        // A method and the account of each of the first two, the account of the third.
        for method in [Method::Password, Method::Dialogue, Method::Ed25519] {
            learned::login(&lab, method).unwrap();
        }
        for method in [Method::WrongPassword, Method::WrongDialogue] {
            assert_ne!(lab.login(method).unwrap().code, Some(0), "{version:?} {method:?}");
        }
        sensor.caught_up(&lab).unwrap();
        let agreed =
            |scrape: &Scrape| compared(scrape, Some("agreed")) - compared(&before, Some("agreed"));
        let after = sensor.scrape_until("five agreements", |scrape| agreed(scrape) > 4.5).unwrap();
        let shown = after.show("halfsecond_verdicts_compared_total");
        assert!(agreed(&after) < 5.5, "{version:?}: {shown:?}");
        let others = compared(&after, None) - compared(&before, None);
        assert!(others < 0.5, "{version:?}: {shown:?}");
        assert!(compared(&after, Some("disagreed")) < 0.5, "{version:?}: {shown:?}");
        nothing_told(sensor).with_context(|| format!("{version:?}")).unwrap();
    }
}

/// The imitation has a dialogue that its libpam is asked about, until that is told.
fn heard(sensor: &Sensor, imitation: &Imitation, layout: &str) -> Result<()> {
    let before = compared(&sensor.ring_read()?, Some("agreed"));
    for round in 0..WARM_UPS {
        let mark = Mark(imitation.path(&format!("{layout}-agreed-{round}")));
        let mut server = imitation.serve(layout, "agreed", &mark)?;
        mark.set()?;
        server.close_stdin();
        ensure!(server.wait(PATIENCE)?.code() == Some(0), "{}", server.transcript());
        if compared(&sensor.ring_read()?, Some("agreed")) - before > 0.5 {
            return Ok(());
        }
    }
    bail!("calls of libpam are not told after {WARM_UPS} connections")
}

#[test]
fn a_yes_that_libpam_does_not_bear_out_is_told_in_every_layout() {
    let machine = Machine::acquire().unwrap();
    let imitation = Imitation::with(&["-DLIBPAM", "-l:libpam.so.0"]).unwrap();
    let state = State::new().unwrap();
    let config = imitation.config();
    let settings = Settings { more: &config, ..Settings::default() };
    let sensor = Sensor::start(&machine, state.path(), settings).unwrap();
    let detector = "auth_without_method";
    for layout in LAYOUTS {
        heard(&sensor, &imitation, layout).with_context(|| layout.to_owned()).unwrap();
        for (story, severity) in [("unasked", "high"), ("overruled", "critical")] {
            let mark = Mark(imitation.path(&format!("{layout}-{story}")));
            let mut server = imitation.serve(layout, story, &mark).unwrap();
            let found = is_told(&sensor, detector, &mark.0.display().to_string(), &mark)
                .with_context(|| format!("{layout} {story}"))
                .unwrap();
            println!("{layout} {story}: {}", found["title"]);
            assert_eq!(found["severity"], severity, "{found:#}");
            assert_eq!(found["evidence"][0]["kind"], "libpam", "{found:#}");
            server.close_stdin();
            assert_eq!(server.wait(PATIENCE).unwrap().code(), Some(0), "{layout} {story}");
        }
    }
    sensor.stop().unwrap();
}
