//! What slows logins down every day, and is no attack: nothing is told of it above low.

use std::{
    fs,
    net::UdpSocket,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    lab::{Machine, Method, SshdLab, Variant, must, wait_until},
    learned,
    running::{PATIENCE, Sensor, Settings, State},
};

const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/slow_directory.c");
/// Where names are asked for: loopback, and not where a machine's own resolver listens.
const RESOLVER: &str = "127.53.53.53";
/// Logins while something is slow.
const LOGINS: usize = 9;
/// What a directory takes on a bad day, ms.
const SLOW_MS: u32 = 400;

/// A name server that knows no name, or, once silenced, is not there.
struct Resolver {
    silent: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    serving: Option<thread::JoinHandle<usize>>,
}

// === impl Resolver ===

impl Resolver {
    fn start() -> Result<Self> {
        let socket = UdpSocket::bind((RESOLVER, 53))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (silent, ended) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (quiet, over) = (Arc::clone(&silent), Arc::clone(&ended));
        let serving = thread::spawn(move || {
            let (mut unanswered, mut packet) = (0, [0; 512]);
            while !over.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut packet) else { continue };
                if quiet.load(Ordering::Relaxed) {
                    unanswered += 1;
                } else if len >= 12 {
                    // RFC 1035, 4.1.1: an answer, recursion available, no such name.
                    packet[2..4].copy_from_slice(&[0x81, 0x83]);
                    let _ = socket.send_to(&packet[..len], from);
                }
            }
            unanswered
        });
        Ok(Self { silent, ended, serving: Some(serving) })
    }

    /// Ends it; gives how many questions had no answer.
    fn end(mut self) -> usize {
        self.ended.store(true, Ordering::Relaxed);
        self.serving.take().map_or(0, |serving| serving.join().unwrap_or(0))
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// A file of the server's with this text, in its mount namespace.
fn replace(lab: &SshdLab, name: &str, onto: &str, text: &str) -> Result<()> {
    let file = lab.dir().join(name);
    fs::write(&file, text)?;
    lab.mount(&file, Path::new(onto))
}

fn log_in(lab: &SshdLab) -> Result<()> {
    Method::GOOD.into_iter().cycle().take(LOGINS).try_for_each(|method| learned::login(lab, method))
}

/// To the end of the sensor.
fn nothing_above_low(sensor: Sensor, lab: &SshdLab) -> Result<()> {
    let scrape = sensor.caught_up(lab)?;
    let findings = scrape.show("halfsecond_findings_total");
    sensor.stop()?.must_be_low().with_context(|| format!("{findings:?}"))
}

#[test]
fn a_busy_machine_makes_no_logins_suspicious() {
    let machine = Machine::acquire().unwrap();
    let state = learned::state(&machine).unwrap();
    let lab = SshdLab::builder(&machine).start().unwrap();
    let sensor = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
    let over = AtomicBool::new(false);
    let done = thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(2, usize::from);
        for _ in 0..2 * cores {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let done = log_in(&lab);
        over.store(true, Ordering::Relaxed);
        done
    });
    done.unwrap();
    nothing_above_low(sensor, &lab).unwrap();
}

#[test]
fn a_log_that_is_rotated_makes_no_logins_suspicious() {
    let machine = Machine::acquire().unwrap();
    let state = learned::state(&machine).unwrap();
    let lab = SshdLab::builder(&machine).start().unwrap();
    let sensor = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
    log_in(&lab).unwrap();
    let log = lab.dir().join("sshd.log");
    fs::rename(&log, lab.dir().join("sshd.log.1")).unwrap();
    // sshd executes itself again, which makes it no connection.
    lab.reload().unwrap();
    wait_until("the server's new log", PATIENCE, || {
        let listens = lab.log().contains("Server listening on");
        Ok(listens.then_some(()))
    })
    .unwrap();
    log_in(&lab).unwrap();
    nothing_above_low(sensor, &lab).unwrap();
}

#[test]
fn names_that_nobody_resolves_make_no_logins_suspicious() {
    let machine = Machine::acquire().unwrap();
    let resolver = Resolver::start().unwrap();
    let builder = SshdLab::builder(&machine).late().line("UseDNS yes");
    let (lab, state) = (builder.start().unwrap(), State::new().unwrap());
    let servers = format!("nameserver {RESOLVER}\noptions timeout:1 attempts:1\n");
    replace(&lab, "resolv.conf", "/etc/resolv.conf", &servers).unwrap();
    replace(&lab, "hosts", "/etc/hosts", "").unwrap();
    replace(&lab, "nsswitch.conf", "/etc/nsswitch.conf", "hosts: files dns\n").unwrap();
    let sensor = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
    learned::learn(&sensor, &lab).unwrap();
    resolver.silent.store(true, Ordering::Relaxed);
    log_in(&lab).unwrap();
    let unanswered = resolver.end();
    assert!(unanswered >= LOGINS, "only {unanswered} questions had to wait");
    nothing_above_low(sensor, &lab).unwrap();
}

#[test]
fn a_directory_that_answers_late_makes_no_logins_suspicious() {
    let machine = Machine::acquire().unwrap();
    let (lab, state) = (SshdLab::builder(&machine).late().start().unwrap(), State::new().unwrap());
    // Where only root writes, as modules lie: code from anywhere else never becomes normal.
    let mut named = tempfile::Builder::new();
    let modules =
        named.prefix("halfsecond-modules-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (module, wait) = (modules.path().join("pam_directory.so"), lab.dir().join("wait_ms"));
    let waited = lab.dir().join("waited");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-Wl,--build-id", MODULE, "-o"]);
    must(cc.arg(&module), "", PATIENCE).unwrap();
    fs::write(&wait, "0").unwrap();
    fs::write(&waited, "").unwrap();
    let kinds = ["auth", "account"];
    let (so, files) = (module.display(), format!("{} {}", wait.display(), waited.display()));
    let line = |kind| format!("{kind} optional {so} {files}\n");
    lab.pam(&kinds.map(line).concat()).unwrap();
    let sensor = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
    learned::learn(&sensor, &lab).unwrap();
    assert_eq!(fs::read(&waited).unwrap().len(), 0, "it waited while all was well");
    fs::write(&wait, SLOW_MS.to_string()).unwrap();
    log_in(&lab).unwrap();
    let times = fs::read(&waited).unwrap().len();
    assert!(times >= LOGINS, "the directory was late only {times} times");
    nothing_above_low(sensor, &lab).unwrap();
}

/// The check itself: what is above low is told by it.
#[test]
fn a_slow_start_is_above_low_by_the_same_check() -> Result<()> {
    let machine = Machine::acquire()?;
    let state = learned::state(&machine)?;
    let builder = SshdLab::builder(&machine).variant(Variant::Constructor).burn_ms(300);
    let lab = builder.start()?;
    let sensor = Sensor::start(&machine, state.path(), Settings::default())?;
    learned::login(&lab, Method::Ed25519)?;
    sensor.caught_up(&lab)?;
    // A sensor that fails is no answer: what it told is looked at alone.
    let told = sensor.stop()?;
    ensure!(told.must_be_low().is_err(), "an attack passes for a disturbance");
    Ok(())
}
