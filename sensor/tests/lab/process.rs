//! Child processes with their output collected, and waiting for things with a deadline.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::patience::patient;

/// When a condition that offers no event of its own is looked at again: soon, then less often, so
/// that looking takes little from what is waited for.
const RECHECK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(80));

/// Waits until `ready` answers something; `what` names it in the error.
pub(crate) fn wait_until<T>(
    what: &str,
    timeout: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let timeout = patient(timeout);
    let deadline = Instant::now() + timeout;
    let mut pause = RECHECK.0;
    loop {
        if let Some(answer) = ready()? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("{what}: nothing within {timeout:?}");
        }
        thread::sleep(pause);
        pause = RECHECK.1.min(pause * 3 / 2);
    }
}

/// The lines a stream has carried so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<(Mutex<Seen>, Condvar)>);

#[derive(Debug, Default)]
struct Seen {
    lines: Vec<String>,
    closed: bool,
}

/// A child process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    /// The exit code; none if a signal ended the command.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A process, safe against its pid being used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// Start time in clock ticks since boot (proc(5), stat field 22).
    pub(crate) start: u64,
}

impl Lines {
    fn follow(&self, stream: impl Read + Send + 'static) {
        let lines = self.clone();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(stream.read_until(b'\n', &mut line), Ok(n) if n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                line.clear();
                lines.lock().lines.push(text);
                lines.0.1.notify_all();
            }
            lines.lock().closed = true;
            lines.0.1.notify_all();
        });
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many lines have come so far.
    pub(crate) fn count(&self) -> usize {
        self.lock().lines.len()
    }

    /// The lines from number `from` on.
    pub(crate) fn since(&self, from: usize) -> Vec<String> {
        self.lock().lines.get(from..).unwrap_or_default().to_vec()
    }

    /// Waits until the stream has ended: every line the process wrote is then here.
    pub(crate) fn wait_closed(&self, timeout: Duration) -> bool {
        let (seen, wait) = self
            .0
            .1
            .wait_timeout_while(self.lock(), patient(timeout), |seen| !seen.closed)
            .unwrap_or_else(PoisonError::into_inner);
        drop(seen);
        !wait.timed_out()
    }

    /// The first answer of `pick` among the lines from number `from` on, those still to come
    /// included; none if the deadline passes or the stream ends first.
    pub(crate) fn wait_for<T>(
        &self,
        from: usize,
        timeout: Duration,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + patient(timeout);
        let mut next = from;
        let mut seen = self.lock();
        loop {
            while let Some(line) = seen.lines.get(next) {
                next += 1;
                if let Some(answer) = pick(line) {
                    return Some(answer);
                }
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            if seen.closed {
                return None;
            }
            seen = self.0.1.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Running {
    /// Starts `command` with its three standard streams connected to the caller.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name} (if it is missing: `cargo xtask setup`)"))?;
        let (stdout, stderr) = (Lines::default(), Lines::default());
        if let Some(stream) = child.stdout.take() {
            stdout.follow(stream);
        }
        if let Some(stream) = child.stderr.take() {
            stderr.follow(stream);
        }
        let stdin = child.stdin.take();
        Ok(Self { name, child, stdin, stdout, stderr })
    }

    pub(crate) fn pid(&self) -> Result<i32> {
        i32::try_from(self.child.id()).context("a pid beyond i32")
    }

    pub(crate) fn stdout(&self) -> &Lines {
        &self.stdout
    }

    pub(crate) fn stderr(&self) -> &Lines {
        &self.stderr
    }

    /// Writes a line to the child's standard input.
    pub(crate) fn write_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its input was closed")?;
        writeln!(stdin, "{line}")?;
        Ok(stdin.flush()?)
    }

    /// Ends the child's standard input.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn has_exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for {}", self.name))
    }

    /// Waits for the end of the child.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("end of {}", self.name);
        let child = &mut self.child;
        wait_until(&what, timeout, || Ok(child.try_wait()?)).with_context(|| self.transcript())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid()?).context("pid 0")?;
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// The end of everything the child has written, for error messages.
    pub(crate) fn transcript(&self) -> String {
        const SHOWN: usize = 60;
        let mut text = String::new();
        for (stream, lines) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let count = lines.count();
            for line in lines.since(count.saturating_sub(SHOWN)) {
                let _ = writeln!(text, "{} {stream}: {line}", self.name);
            }
        }
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Unreaped, so the pid is still this child's.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command` to its end; `input` goes to its standard input.
pub(crate) fn finish(command: &mut Command, input: &str, timeout: Duration) -> Result<Finished> {
    let mut running = Running::spawn(command)?;
    if let Some(mut stdin) = running.stdin.take() {
        // A command may end without having read its input.
        let _ = stdin.write_all(input.as_bytes());
    }
    let status = running.wait(timeout)?;
    // A daemonised grandchild could hold the streams open: its lines are not waited for.
    let read = Duration::from_secs(2);
    running.stdout.wait_closed(read);
    running.stderr.wait_closed(read);
    Ok(Finished {
        code: status.code(),
        stdout: running.stdout.since(0).join("\n"),
        stderr: running.stderr.since(0).join("\n"),
    })
}

/// Runs `command` to its end and requires exit code 0.
pub(crate) fn must(command: &mut Command, input: &str, timeout: Duration) -> Result<String> {
    let done = finish(command, input, timeout)?;
    if done.code != Some(0) {
        bail!("{command:?} failed ({:?}): {}{}", done.code, done.stdout, done.stderr);
    }
    Ok(done.stdout)
}

impl ProcessId {
    /// The process that has this pid now; none if there is none.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        stat(pid).map(|(_, start)| Self { pid, start })
    }

    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Kills it if it is still the same process.
    pub(crate) fn kill(self) {
        if let Some(pid) = Pid::from_raw(self.pid)
            && self.is_alive()
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The processes whose parent is `parent`.
pub(crate) fn children(parent: i32) -> Vec<ProcessId> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| match stat(pid) {
        Some((ppid, start)) if ppid == parent => Some(ProcessId { pid, start }),
        _ => None,
    })
    .collect()
}

/// The children of `parent`, their children, and so on.
pub(crate) fn descendants(parent: i32) -> Vec<ProcessId> {
    let mut found = children(parent);
    let mut next = 0;
    while let Some(process) = found.get(next) {
        found.extend(children(process.pid));
        next += 1;
    }
    found
}

/// (parent pid, start time) from /proc/PID/stat; a zombie counts as gone.
fn stat(pid: i32) -> Option<(i32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last ')' may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    if *fields.first()? == "Z" {
        return None;
    }
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}
