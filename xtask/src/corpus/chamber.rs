//! Running a script in the corpus' root, with devices, processes, files in /tmp and a network of
//! its own, of which nothing stays behind.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::background::Background;

/// PID 1 in there.
const CHAMBER: &str = include_str!("scripts/chamber.sh");
/// A script's exit code for "cannot run on this host"; its last line says why.
const SKIPPED: i32 = 77;
/// What `timeout` exits with when the time is over.
const OVERTIME: i32 = 124;
/// Minutes for one script: far more than any takes on a busy machine.
const LIMIT_MINUTES: u64 = 20;
const MISSING: &str = "cannot start setpriv and unshare (util-linux)";
/// Lines of a failed script's output that are shown.
const TAIL: usize = 12;

/// The root and where scripts' output goes.
#[derive(Clone, Debug)]
pub(super) struct Chamber {
    root: PathBuf,
    logs: PathBuf,
}

/// A script that runs; when this goes away it is killed, with everything in it.
pub(super) struct Started {
    running: Background,
    log: PathBuf,
    limit: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// Nothing but an address of its own to talk to itself.
    Loopback,
    /// The host's.
    Host,
}

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ended {
    Done,
    /// The host cannot run it: why.
    Skipped(String),
    /// The end of what it said.
    Failed(String),
}

// === impl Chamber ===

impl Chamber {
    pub(super) fn new(root: PathBuf, logs: PathBuf) -> Self {
        Self { root, logs }
    }

    /// Where programs in it lie on the host.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Runs `script` as root with `ROUND` set to a number that no other run has.
    ///
    /// # Errors
    /// When it cannot be started; a script that fails is an outcome.
    pub(super) fn run(&self, name: &str, script: &str, network: Network) -> Result<Ended> {
        let limit = Duration::from_mins(LIMIT_MINUTES);
        let (mut command, log) = self.command(name, script, network, limit)?;
        let status = command.stdin(Stdio::null()).status().context(MISSING)?;
        ended(status, &log, limit)
    }

    /// Starts `script` as [`run`](Self::run) does; it is ended after `limit` at the latest, and is to
    /// end by itself at the end of its input.
    pub(super) fn start(&self, name: &str, script: &str, limit: Duration) -> Result<Started> {
        let (mut command, log) = self.command(name, script, Network::Loopback, limit)?;
        let running = Background::start(command.stdin(Stdio::piped())).context(MISSING)?;
        Ok(Started { running, log, limit })
    }

    /// And the file that takes what it says.
    fn command(
        &self,
        name: &str,
        script: &str,
        network: Network,
        limit: Duration,
    ) -> Result<(Command, PathBuf)> {
        let inside = format!("/corpus/{name}.sh");
        fs::create_dir_all(self.root.join("corpus"))?;
        fs::write(self.root.join(inside.trim_start_matches('/')), script)?;
        let log = self.logs.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("no {}", log.display()))?;
        // Killed with xtask, however that ends; with it goes its child, which is PID 1, and with
        // that everything.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork"]);
        command.args(["--kill-child", "--ipc", "--uts"]);
        if network == Network::Loopback {
            command.arg("--net");
        }
        command.args(["sh", "-c", CHAMBER, "chamber"]).arg(&self.root);
        command.args([&limit.as_secs().to_string(), &inside]);
        command.env("ROUND", Timestamp::now().as_second().to_string());
        command.stdout(output.try_clone()?).stderr(output);
        Ok((command, log))
    }

    /// Like [`run`](Self::run), with the host's network, for a script that has to succeed.
    pub(super) fn set_up(&self, name: &str, script: &str) -> Result<()> {
        match self.run(name, script, Network::Host)? {
            Ended::Done => Ok(()),
            Ended::Skipped(why) | Ended::Failed(why) => bail!("{name} in the root fails:\n{why}"),
        }
    }
}

// === impl Started ===

impl Started {
    /// The process above all others of it.
    pub(super) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Result<Option<Ended>> {
        let status = self.running.ended()?;
        status.map(|status| ended(status, &self.log, self.limit)).transpose()
    }

    /// The lines it has said so far that begin with `start`.
    pub(super) fn said(&self, start: &str) -> Result<Vec<String>> {
        let said = fs::read(&self.log)?;
        let said = String::from_utf8_lossy(&said);
        Ok(said.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect())
    }

    /// Ends it, with everything in it.
    pub(super) fn end(self) -> Result<Ended> {
        ended(self.running.end_input()?, &self.log, self.limit)
    }
}

fn ended(status: ExitStatus, log: &Path, limit: Duration) -> Result<Ended> {
    let said = || Ok::<_, std::io::Error>(String::from_utf8_lossy(&fs::read(log)?).into_owned());
    Ok(match status.code() {
        Some(0) => Ended::Done,
        Some(SKIPPED) => Ended::Skipped(tail(&said()?, 1)),
        Some(OVERTIME) => {
            let minutes = limit.as_secs() / 60;
            Ended::Failed(format!("{}\nnot done after {minutes} min", tail(&said()?, TAIL)))
        }
        _ => Ended::Failed(format!("{}\n{status}", tail(&said()?, TAIL))),
    })
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
            Self::Failed(why) => write!(f, "FAILED:\n{why}\n"),
        }
    }
}

/// The last `count` lines that are not empty.
fn tail(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_of_lines_that_say_something() {
        assert_eq!(tail("one\ntwo\n\nthree\n\n", 2), "two\nthree");
        assert_eq!(tail("", 2), "");
    }
}
