//! What stays: one script for each group of programs, each in a chamber of its own.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::corpus::chamber::{Chamber, Ended, Started};
use crate::corpus::workload::Workload;

/// What a script says when everything of it runs: `stay` in `common.sh`.
const READY: &str = "resident: ready";
/// What its lines begin with that tell of traffic that fails: `every` in `common.sh`.
const FAILED: &str = "failed:";
const START_PATIENCE: Duration = Duration::from_mins(5);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long it may run beyond the rounds: starts, scans, the control.
const BEYOND: Duration = Duration::from_hours(1);

/// The program in which something must be found, as its processes are called.
pub(super) const CONTROL: &str = "halfsecond-control";
/// Changes a slot of its own on a line of input.
const CONTROL_SOURCE: &str = include_str!("../../../../sensor/tests/fixtures/quiet_hook.c");

/// An entry whose script is `scripts/resident/NAME.sh`.
macro_rules! resident {
    ($name:literal, $about:literal, $packages:expr) => {
        Workload {
            name: $name,
            about: $about,
            packages: &$packages,
            runs: 1,
            script: concat!(
                include_str!("../scripts/resident/common.sh"),
                include_str!(concat!("../scripts/resident/", $name, ".sh"))
            ),
        }
    };
}

const ALL: &[Workload] = &[
    resident!("postgres", "a cluster with sessions", ["postgresql", "openssl"]),
    resident!("nginx", "four workers", ["nginx-light", "curl", "openssl"]),
    resident!("redis", "a server, its copy, listeners", ["redis-server", "redis-tools"]),
    resident!("node", "a cluster with workers and TLS", ["nodejs", "openssl"]),
    resident!("java", "four collectors", ["openjdk-17-jdk-headless", "gcc", "libc6-dev"]),
    resident!("chromium", "headless, five sites", ["chromium", "curl", "python3"]),
    resident!(
        "python",
        "a pool with numpy, TLS",
        ["python3-numpy", "python3-venv", "gcc", "openssl"]
    ),
    resident!("perl", "a parent and children, a chroot", ["perl"]),
    resident!("git", "a daemon", ["git"]),
    resident!(
        "native",
        "programs linked in every way, Rust",
        ["gcc", "libc6-dev", "musl-tools", "rustc", "procps"]
    ),
    resident!(
        "preload",
        "allocator, date, fakeroot, sanitizers, valgrind",
        ["libjemalloc2", "faketime", "fakeroot", "valgrind", "gcc", "libc6-dev", "nodejs", "perl"]
    ),
    resident!("gdb", "a program in the debugger", ["gdb", "gcc", "libc6-dev"]),
    resident!("containers", "glibc and musl", ["runc", "musl-tools", "busybox-static", "python3"]),
];

/// Those that run.
pub(super) struct Programs {
    started: Vec<(&'static str, Started)>,
    limit: Duration,
}

/// Those named, in the order of the list; all where none is.
///
/// # Errors
/// When a name is none of them.
pub(super) fn chosen(names: &[String]) -> Result<Vec<Workload>> {
    for name in names {
        let known = || ALL.iter().map(|one| one.name).collect::<Vec<_>>().join(", ");
        ALL.iter().find(|one| one.name == name).with_context(|| {
            format!("nothing that stays is called {name}; there are {}", known())
        })?;
    }
    let wanted = |one: &&Workload| names.is_empty() || names.iter().any(|name| name == one.name);
    Ok(ALL.iter().filter(wanted).copied().collect())
}

/// The script of the control, with its source.
pub(super) fn control() -> (&'static str, String) {
    let common = include_str!("../scripts/resident/common.sh");
    let script = include_str!("../scripts/resident/control.sh");
    let source = format!("cat >/tmp/control.c <<'SOURCE'\n{CONTROL_SOURCE}SOURCE\n");
    ("control", format!("{common}{source}{script}"))
}

// === impl Programs ===

impl Programs {
    /// Starts all, one after the other, and waits until each runs. Those that this host cannot run
    /// are named and left out.
    pub(super) fn start(chamber: &Chamber, chosen: &[Workload], rounds: Duration) -> Result<Self> {
        let mut programs = Self { started: Vec::new(), limit: rounds + BEYOND };
        for one in chosen {
            programs.add(chamber, &(one.name, one.script.to_owned()))?;
        }
        Ok(programs)
    }

    pub(super) fn add(&mut self, chamber: &Chamber, one: &(&'static str, String)) -> Result<()> {
        let (name, script) = one;
        let began = Instant::now();
        let mut started = chamber.start(&format!("resident-{name}"), script, self.limit)?;
        while started.said(READY)?.is_empty() {
            match started.ended()? {
                Some(Ended::Skipped(why)) => {
                    println!("{name}: left out: {why}");
                    return Ok(());
                }
                Some(ended) => bail!("{name} does not stay: {ended}"),
                None if began.elapsed() > START_PATIENCE => {
                    bail!("{name} does not run after {} s", START_PATIENCE.as_secs())
                }
                None => thread::sleep(LOOK_EVERY),
            }
        }
        println!("{name}: runs after {:.0} s", began.elapsed().as_secs_f64());
        self.started.push((name, started));
        Ok(())
    }

    /// The processes above all others.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.started.iter().map(|(_, started)| started.pid()).collect()
    }

    /// # Errors
    /// When one has ended.
    pub(super) fn must_run(&mut self) -> Result<()> {
        for (name, started) in &mut self.started {
            if let Some(ended) = started.ended()? {
                bail!("{name} does not stay: {ended}");
            }
        }
        Ok(())
    }

    /// Ends all; traffic that failed, and a script that fails while it ends, is told.
    pub(super) fn end(self) -> Result<()> {
        for (name, started) in self.started {
            let failed = started.said(FAILED)?;
            if let Some(last) = failed.last() {
                println!("{name}: traffic failed {} times, at last: {last}", failed.len());
            }
            match started.end().with_context(|| name)? {
                Ended::Done => {}
                ended => println!("{name}: {ended}"),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_script_says_when_it_runs_and_no_two_share_a_name() {
        let names: BTreeSet<_> = ALL.iter().map(|one| one.name).collect();
        assert_eq!(names.len(), ALL.len());
        for one in ALL {
            assert!(one.script.contains("\nstay\n"), "{}", one.name);
        }
        assert!(chosen(&["gti".to_owned()]).unwrap_err().to_string().contains("postgres"));
        assert_eq!(chosen(&["java".to_owned()]).unwrap().len(), 1);
    }

    #[test]
    fn the_control_carries_its_source() {
        let (_, script) = control();
        assert!(script.contains("opens nothing"));
        assert!(script.find("SOURCE\n").unwrap() < script.find(CONTROL).unwrap());
    }
}
