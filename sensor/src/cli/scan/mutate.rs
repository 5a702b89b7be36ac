//! A child that is there to be changed: started, stopped, written to, killed.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// Programs of the host that write what they read, linked dynamically everywhere.
const PROGRAMS: [&str; 3] = ["/bin/cat", "/usr/bin/cat", "/run/current-system/sw/bin/cat"];
/// How long the child may take to be where it is wanted.
const PATIENCE: Duration = Duration::from_secs(10);

/// A child of ours that waits for input. What is written into its slots and its code is never
/// called: it is stopped meanwhile, and what it waits for never comes.
#[derive(Debug)]
pub(super) struct Target {
    child: Child,
    pub(super) program: PathBuf,
    memory: File,
}

/// A stretch of memory, from `/proc/PID/maps`.
#[derive(Clone, Debug)]
pub(super) struct Area {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) permissions: String,
    pub(super) path: String,
}

// === impl Target ===

impl Target {
    /// This program once more, and the first program of the host that answers, as one of both may be
    /// linked statically. Each is stopped once it has answered: it is linked then.
    pub(super) fn start() -> io::Result<Vec<Self>> {
        let own = Self::of(&env::current_exe()?, &["scan", "--echo"])?;
        Ok([Some(own), Self::of_host()].into_iter().flatten().collect())
    }

    /// The program of the host alone, where there is one.
    pub(super) fn of_host() -> Option<Self> {
        let programs = PROGRAMS.iter().map(Path::new).filter(|program| program.is_file());
        programs.map(|program| Self::of(program, &[])).find_map(Result::ok)
    }

    fn of(program: &Path, arguments: &[&str]) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        match opened(&mut child) {
            Ok(memory) => {
                let target = Self { child, program: program.to_owned(), memory };
                target.wait_for_state('S')?;
                target.stop()?;
                Ok(target)
            }
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// It does not run until [`Self::resume`].
    pub(super) fn stop(&self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        self.wait_for_state('T')
    }

    /// It waits for input again.
    pub(super) fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)?;
        self.wait_for_state('S')
    }

    /// Gives it what it waits for.
    pub(super) fn wake(&mut self) -> io::Result<()> {
        self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(b"\n")
    }

    /// Number of the system call it waits in; nothing while it runs.
    pub(super) fn call(&self) -> io::Result<Option<u64>> {
        let text = fs::read_to_string(format!("/proc/{}/syscall", self.pid()))?;
        Ok(text.split_ascii_whitespace().next().and_then(|number| number.parse().ok()))
    }

    /// The address behind that call.
    pub(super) fn place(&self) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/syscall", self.pid()))?;
        let last = text.split_ascii_whitespace().next_back();
        let place = last.and_then(|place| u64::from_str_radix(place.strip_prefix("0x")?, 16).ok());
        place.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The address that stands at `addr`.
    pub(super) fn word(&self, addr: u64, width: usize) -> io::Result<u64> {
        let mut word = [0; 8];
        let bytes = word.get_mut(..width).ok_or(io::ErrorKind::InvalidInput)?;
        self.memory.read_exact_at(bytes, addr)?;
        Ok(u64::from_le_bytes(word))
    }

    pub(super) fn set_word(&self, addr: u64, width: usize, value: u64) -> io::Result<()> {
        let word = value.to_le_bytes();
        self.write(addr, word.get(..width).ok_or(io::ErrorKind::InvalidInput)?)
    }

    pub(super) fn read(&self, addr: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.memory.read_exact_at(&mut bytes, addr)?;
        Ok(bytes)
    }

    pub(super) fn write(&self, addr: u64, bytes: &[u8]) -> io::Result<()> {
        self.memory.write_all_at(bytes, addr)
    }

    pub(super) fn areas(&self) -> io::Result<Vec<Area>> {
        let text = fs::read_to_string(format!("/proc/{}/maps", self.pid()))?;
        Ok(text.lines().filter_map(Area::parse).collect())
    }

    /// Asks again and again until there is an answer, or for too long.
    pub(super) fn wait_for<T>(mut ask: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(answer) = ask()? {
                return Ok(answer);
            }
            if begun.elapsed() > PATIENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        Ok(rustix::process::kill_process(pid.ok_or(io::ErrorKind::NotFound)?, signal)?)
    }

    /// `S` for waiting, `T` for stopped.
    fn wait_for_state(&self, wanted: char) -> io::Result<()> {
        Self::wait_for(|| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
            // The name before it may contain anything.
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            Ok((state == Some(wanted)).then_some(()))
        })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Waits for the answer to one byte, and opens the child's memory.
fn opened(child: &mut Child) -> io::Result<File> {
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    child.stdin.as_mut().ok_or_else(gone)?.write_all(b"\n")?;
    child.stdout.as_mut().ok_or_else(gone)?.read_exact(&mut [0])?;
    File::options().read(true).write(true).open(format!("/proc/{}/mem", child.id()))
}

/// Kills and reaps; SIGKILL ends what is stopped as well.
fn end(child: &mut Child) {
    // An error means that it has ended.
    let _ = child.kill();
    let _ = child.wait();
}

// === impl Area ===

impl Area {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?.to_owned();
        Some(Self {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            permissions,
            path: fields.nth(3).unwrap_or_default().to_owned(),
        })
    }

    pub(super) fn is_code(&self) -> bool {
        self.permissions.contains('x') && self.path != "[vsyscall]"
    }

    pub(super) fn holds(&self, addr: u64) -> bool {
        (self.start..self.end).contains(&addr)
    }
}
