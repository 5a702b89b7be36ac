//! What checks cost in CPU time and memory: printed for `cargo xtask bench`, never judged here.

use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sensor::verify::{Depth, Held, Limits, Verifier, list_processes, scan};

use crate::servers::{self, Server};

/// Verifiers that have seen nothing yet.
const COLD: usize = 15;
/// Checks of a process that is known.
const WARM: usize = 300;
/// The same after a pause.
const LATER: usize = 8;
/// Longer than the verifier takes a file for what it was without asking.
const PAUSE: Duration = Duration::from_millis(1100);
/// Looks at the whole machine.
const ROUNDS: usize = 15;
/// Processes there must be; missing ones are started.
const PROCESSES: usize = 100;

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap())
}

/// Median CPU time of `times` runs, milliseconds.
fn median(times: usize, mut work: impl FnMut()) -> f64 {
    let mut all: Vec<f64> = (0..times)
        .map(|_| {
            let before = cpu();
            work();
            cpu().checked_sub(before).unwrap().as_secs_f64() * 1e3
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn told(what: &str, value: f64, unit: &str) {
    println!("cost: {what}: {value:.3} {unit}");
}

fn look_at_sshd(pid: u32, depth: Depth, name: &str) {
    let limits = Limits { depth, ..Limits::default() };
    told(&format!("{name} cold"), median(COLD, || drop(Verifier::new(limits).check(pid))), "ms");
    let mut verifier = Verifier::new(limits);
    verifier.check(pid).unwrap();
    told(&format!("{name} warm"), median(WARM, || drop(verifier.check(pid).unwrap())), "ms");
    let known = verifier.known_again();
    if known == 0 {
        println!("{name}: never known again: another program's probe sits in it?");
    }
    let later = (0..LATER).map(|_| {
        // Not a synchronisation: what is measured is a check that follows long after another.
        thread::sleep(PAUSE);
        median(1, || drop(verifier.check(pid).unwrap()))
    });
    let mut later: Vec<f64> = later.collect();
    later.sort_by(f64::total_cmp);
    told(&format!("{name} warm after a pause"), later[LATER / 2], "ms");
}

/// Starts programs until there are enough processes.
fn company() -> Vec<Server> {
    let starts = [servers::python, servers::perl, servers::bash, servers::sshd];
    let mut started = Vec::new();
    let mut verifier = Verifier::new(Limits::default());
    let mut seen = 0;
    scan(&mut verifier, list_processes().unwrap(), |_, report| seen += usize::from(report.is_ok()));
    for start in starts.iter().cycle().take(4 * PROCESSES) {
        if seen + started.len() >= PROCESSES {
            break;
        }
        started.extend(start());
    }
    started
}

fn look_at_machine() {
    let _company = company();
    let processes = list_processes().unwrap();
    let mut verifier = Verifier::new(Limits::default());
    let mut seen = 0_u32;
    let mut all = || {
        seen = 0;
        scan(&mut verifier, processes.iter().copied(), |_, report| {
            seen += u32::from(report.is_ok());
        });
    };
    let cold = median(1, &mut all);
    let warm = median(ROUNDS, &mut all);
    told("processes", f64::from(seen), "");
    told("machine cold", cold, "ms");
    told("machine warm", warm, "ms");
    told("machine warm, per 100 processes", warm * 100.0 / f64::from(seen), "ms");
    let held = verifier.held();
    let Held { file_bytes, plan_bytes, image_bytes, .. } = held;
    let bytes = u32::try_from(file_bytes + plan_bytes + image_bytes).unwrap();
    told("memory", f64::from(bytes) / f64::from(1 << 20), "MiB");
    println!("{held:?}, resident with the test itself: {} KiB", resident());
}

/// Of this process, by `VmRSS`.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "prints figures: cargo test --release --test verify -- --ignored --nocapture cost"]
fn warm_and_cold_checks() {
    if let Some(server) = servers::sshd() {
        look_at_sshd(server.pid(), Depth::Full, "sshd");
        look_at_sshd(server.pid(), Depth::Got, "sshd, calls only,");
    }
    look_at_machine();
}
