//! What is timed under every arm.

use std::env;
use std::hint::black_box;
use std::os::unix::process::parent_id;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};

use super::sshd::Server;
use crate::sh;

/// Something short, run many times.
pub(super) trait Workload {
    fn name(&self) -> &'static str;

    /// The ratio to the bare machine that the sensor must not exceed.
    fn limit(&self) -> f64;

    /// Seconds per operation, several samples.
    fn run(&mut self) -> Result<Vec<f64>>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// Start a small dynamically linked program and wait for it.
    Exec,
    /// A loop of the cheapest system call.
    Syscall,
    /// An ssh login with a key, over loopback.
    Login,
}

struct Exec;
struct Syscall;
struct Login(Server);

/// The workloads asked for, all when none is.
pub(super) fn chosen(kinds: &[Kind]) -> Result<Vec<Box<dyn Workload>>> {
    let all = [Kind::Exec, Kind::Syscall, Kind::Login];
    let kinds = if kinds.is_empty() { &all[..] } else { kinds };
    kinds
        .iter()
        .map(|kind| -> Result<Box<dyn Workload>> {
            Ok(match kind {
                Kind::Exec => Box::new(Exec),
                Kind::Syscall => Box::new(Syscall),
                Kind::Login => Box::new(Login(Server::start()?)),
            })
        })
        .collect()
}

/// Runs `operation` a few times untimed, then `count` times.
fn timed(count: u32, mut operation: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    for _ in 0..=count / 20 {
        operation()?;
    }
    (0..count)
        .map(|_| {
            let started = Instant::now();
            operation()?;
            Ok(started.elapsed().as_secs_f64())
        })
        .collect()
}

// === impl Exec ===

impl Workload for Exec {
    fn name(&self) -> &'static str {
        "fork+exec+wait"
    }

    fn limit(&self) -> f64 {
        1.08
    }

    fn run(&mut self) -> Result<Vec<f64>> {
        let mut command = Command::new("/bin/true");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        timed(300, || {
            ensure!(command.status()?.success(), "/bin/true fails");
            Ok(())
        })
    }
}

// === impl Syscall ===

/// xtask's hidden verb for the loop.
pub(crate) const CALLER: &str = "bench-getppid";

/// Calls in one sample, so that reading the clock does not count.
const CALLS: u32 = 20_000;

impl Workload for Syscall {
    fn name(&self) -> &'static str {
        "getppid"
    }

    fn limit(&self) -> f64 {
        1.10
    }

    fn run(&mut self) -> Result<Vec<f64>> {
        // In a process made under the arm: audit taxes only tasks that it saw being created.
        let mut child = Command::new(env::current_exe()?);
        let printed = sh::output(child.arg(CALLER))?;
        printed.lines().map(|line| Ok(line.parse()?)).collect()
    }
}

/// The body of the child: prints the seconds per call of each sample.
pub(crate) fn call() -> Result<()> {
    let samples = timed(50, || {
        for _ in 0..CALLS {
            black_box(parent_id());
        }
        Ok(())
    })?;
    for sample in samples {
        println!("{:e}", sample / f64::from(CALLS));
    }
    Ok(())
}

// === impl Login ===

impl Workload for Login {
    fn name(&self) -> &'static str {
        "ssh login"
    }

    fn limit(&self) -> f64 {
        1.02
    }

    fn run(&mut self) -> Result<Vec<f64>> {
        timed(4, || self.0.login())
    }
}
