//! What is timed under every arm.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
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

    /// One operation, untimed: what an arm meets for the first time is not what it costs in use.
    fn rehearse(&mut self) -> Result<()>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// Start a small dynamically linked program and wait for it.
    Exec,
    /// A loop of the cheapest system call.
    Syscall,
    /// An ssh login with a key, over loopback.
    Login,
    /// A build of some C files by two jobs at a time.
    Build,
}

pub(super) struct Exec;
struct Syscall;
struct Login(Server);
struct Build(PathBuf);

/// The workloads asked for, all when none is.
pub(super) fn chosen(kinds: &[Kind]) -> Result<Vec<Box<dyn Workload>>> {
    let all = [Kind::Exec, Kind::Syscall, Kind::Login, Kind::Build];
    let kinds = if kinds.is_empty() { &all[..] } else { kinds };
    kinds
        .iter()
        .map(|kind| -> Result<Box<dyn Workload>> {
            Ok(match kind {
                Kind::Exec => Box::new(Exec),
                Kind::Syscall => Box::new(Syscall),
                Kind::Login => Box::new(Login(Server::start()?)),
                Kind::Build => Box::new(Build::prepare(&super::folder()?.join("build"))?),
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
        1.03
    }

    fn run(&mut self) -> Result<Vec<f64>> {
        timed(300, Self::once)
    }

    fn rehearse(&mut self) -> Result<()> {
        Self::once()
    }
}

impl Exec {
    /// Without the variable that `cargo run` sets: a loader variable is one more record each time.
    pub(super) fn once() -> Result<()> {
        let mut command = Command::new("/bin/true");
        command.env_remove("LD_LIBRARY_PATH");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        ensure!(command.status()?.success(), "/bin/true fails");
        Ok(())
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

    fn rehearse(&mut self) -> Result<()> {
        self.run().map(drop)
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

    fn rehearse(&mut self) -> Result<()> {
        self.0.login()
    }
}

// === impl Build ===

/// Files of the build: each costs about as much as a small file of a real project.
const FILES: usize = 16;

impl Build {
    /// Writes the sources.
    fn prepare(folder: &Path) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let mut objects = String::new();
        for file in 0..FILES {
            let mut source = String::from(
                "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <math.h>\n",
            );
            for function in 0..60 {
                writeln!(
                    source,
                    "double f{file}_{function}(const char *s) {{ double sum = {function}; \
                     for (size_t i = 0; i < strlen(s); i++) sum += sqrt(s[i]) * {file}; \
                     printf(\"%f\", sum); return sum; }}"
                )?;
            }
            fs::write(folder.join(format!("f{file}.c")), source)?;
            write!(objects, " f{file}.o")?;
        }
        let rules = format!("CFLAGS = -O2\nall:{objects}\nclean:\n\trm -f *.o\n");
        fs::write(folder.join("Makefile"), rules)?;
        Ok(Self(folder.to_owned()))
    }

    fn make(&self, arguments: &[&str]) -> Result<()> {
        let mut make = Command::new("make");
        make.env_remove("LD_LIBRARY_PATH").args(["--silent", "-C"]).arg(&self.0).args(arguments);
        sh::output(&mut make).map(drop)
    }
}

impl Workload for Build {
    fn name(&self) -> &'static str {
        "make -j2"
    }

    fn limit(&self) -> f64 {
        1.01
    }

    fn run(&mut self) -> Result<Vec<f64>> {
        (0..2)
            .map(|_| {
                self.make(&["clean"])?;
                let started = Instant::now();
                self.make(&["-j2"])?;
                Ok(started.elapsed().as_secs_f64())
            })
            .collect()
    }

    fn rehearse(&mut self) -> Result<()> {
        self.make(&["clean"])?;
        self.make(&["-j2"])
    }
}
