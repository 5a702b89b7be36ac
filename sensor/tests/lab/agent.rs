//! The agent under test: started, listened to, asked over HTTP, and ended in good and bad ways.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{http, process::Running};

/// The one cargo built for these tests.
const BINARY: &str = env!("CARGO_BIN_EXE_halfsecond");
/// Names another one: an optimised build, or the one that is to be shipped.
const OTHER_BINARY: &str = "HALFSECOND_E2E_BINARY";
const SCRAPE: Duration = Duration::from_secs(5);

/// A running `halfsecond`. Dropping it kills it; a failing test prints what it wrote.
#[derive(Debug)]
pub(crate) struct Agent {
    running: Running,
    _dir: TempDir,
}

impl Agent {
    /// Starts `halfsecond ARGS… --config FILE`, FILE holding `config` (TOML).
    pub(crate) fn spawn(args: &[&str], config: &str) -> Result<Self> {
        Self::spawn_program(&Self::binary(), args, config)
    }

    /// The same for another program than ours.
    pub(crate) fn spawn_program(program: &Path, args: &[&str], config: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("halfsecond-agent-").tempdir()?;
        let file = dir.path().join("halfsecond.toml");
        fs::write(&file, config)?;
        let mut command = Command::new(program);
        command.args(args).arg("--config").arg(&file).env_remove("RUST_LOG");
        Ok(Self { running: Running::spawn(&mut command)?, _dir: dir })
    }

    /// Its pid; give it to [`super::Machine::adopt`] where the test holds the machine.
    pub(crate) fn pid(&self) -> Result<i32> {
        self.running.pid()
    }

    /// How it ended, if it has.
    pub(crate) fn has_exited(&mut self) -> Result<Option<ExitStatus>> {
        self.running.has_exited()
    }

    /// How many lines it has written to stdout: where a later wait may start.
    pub(crate) fn position(&self) -> usize {
        self.running.stdout().count()
    }

    /// The first JSON line of stdout from number `from` on that `wanted` accepts, those still to
    /// come included.
    ///
    /// # Errors
    /// At the deadline or at the end of the agent, with what it wrote.
    pub(crate) fn wait_for(
        &self,
        what: &str,
        from: usize,
        timeout: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let pick = |line: &str| serde_json::from_str(line).ok().filter(|value| wanted(value));
        let found = self.running.stdout().wait_for(from, timeout, pick);
        found.with_context(|| format!("{what}: not within {timeout:?}\n{}", self.transcript()))
    }

    /// Waits for a line of the log (stderr) that holds `text`.
    pub(crate) fn wait_for_log(&self, text: &str, timeout: Duration) -> Result<String> {
        let pick = |line: &str| line.contains(text).then(|| line.to_owned());
        let found = self.running.stderr().wait_for(0, timeout, pick);
        found.with_context(|| format!("no log line {text:?}\n{}", self.transcript()))
    }

    /// Every JSON line of stdout from number `from` on.
    ///
    /// # Errors
    /// If one of them is no JSON: stdout is for data alone.
    pub(crate) fn lines(&self, from: usize) -> Result<Vec<Value>> {
        let lines = self.running.stdout().since(from);
        lines
            .iter()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
            .collect()
    }

    /// GET `path` from its HTTP server: status and body.
    pub(crate) fn get(&self, port: u16, path: &str) -> Result<(u16, String)> {
        http::get(port, path, SCRAPE).with_context(|| self.transcript())
    }

    /// The value of the sample `name` (with its labels, as exposed) in a scrape of /metrics.
    pub(crate) fn metric(&self, port: u16, name: &str) -> Result<Option<f64>> {
        let (_, body) = self.get(port, "/metrics")?;
        let value = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map(|value| Ok(value.trim().parse()?)).transpose()
    }

    /// Holds it up while `work` is done: it reads and writes nothing.
    pub(crate) fn held_up<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.running.signal(Signal::STOP)?;
        let done = work();
        self.running.signal(Signal::CONT)?;
        done
    }

    /// Ends it as `kill -9` does: it gets no chance to save anything.
    pub(crate) fn kill(mut self) -> Result<ExitStatus> {
        self.running.signal(Signal::KILL)?;
        self.running.wait(Duration::from_secs(10))
    }

    /// Ends it as systemd does and waits; gives the exit status and everything on stdout.
    pub(crate) fn terminate(mut self, timeout: Duration) -> Result<(ExitStatus, Vec<Value>)> {
        self.running.signal(Signal::TERM)?;
        self.finished(timeout)
    }

    /// Waits for it to end by itself; gives the exit status and everything on stdout.
    pub(crate) fn wait(mut self, timeout: Duration) -> Result<(ExitStatus, Vec<Value>)> {
        self.finished(timeout)
    }

    /// The end of what it wrote, for messages.
    pub(crate) fn transcript(&self) -> String {
        self.running.transcript()
    }

    /// Where the binary is, for runs without a helper.
    pub(crate) fn binary() -> PathBuf {
        env::var_os(OTHER_BINARY).map_or_else(|| BINARY.into(), PathBuf::from)
    }

    fn finished(&mut self, timeout: Duration) -> Result<(ExitStatus, Vec<Value>)> {
        let status = self.running.wait(timeout)?;
        self.running.stdout().wait_closed(timeout);
        self.running.stderr().wait_closed(timeout);
        Ok((status, self.lines(0)?))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- halfsecond\n{}---", self.transcript());
        }
    }
}
