//! A child that is there to be changed: started, stopped, written to, killed.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// Programs that write what they read. They are linked dynamically everywhere but where this one is
/// the only program there is.
const PROGRAMS: [&str; 3] = ["/bin/cat", "/usr/bin/cat", "/run/current-system/sw/bin/cat"];

/// A stopped child of ours. It never runs again: whatever is written into it is never called.
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
    /// Starts the first program that answers, and stops it once it did: it is linked then.
    pub(super) fn start() -> io::Result<Self> {
        let own = env::current_exe()?;
        let programs = PROGRAMS.iter().map(|program| (PathBuf::from(program), &[][..]));
        let programs = programs.chain([(own, &["scan", "--echo"][..])]);
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for (program, arguments) in programs.filter(|(program, _)| program.is_file()) {
            match Self::of(program, arguments) {
                Err(error) => failure = error,
                started => return started,
            }
        }
        Err(failure)
    }

    fn of(program: PathBuf, arguments: &[&str]) -> io::Result<Self> {
        let mut child = Command::new(&program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        match stop(&mut child) {
            Ok(memory) => Ok(Self { child, program, memory }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
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

    pub(super) fn byte(&self, addr: u64) -> io::Result<u8> {
        let mut byte = [0];
        self.memory.read_exact_at(&mut byte, addr)?;
        Ok(byte[0])
    }

    pub(super) fn write(&self, addr: u64, bytes: &[u8]) -> io::Result<()> {
        self.memory.write_all_at(bytes, addr)
    }

    pub(super) fn areas(&self) -> io::Result<Vec<Area>> {
        let text = fs::read_to_string(format!("/proc/{}/maps", self.pid()))?;
        Ok(text.lines().filter_map(Area::parse).collect())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Waits for the answer to one byte, stops the child, and opens its memory.
fn stop(child: &mut Child) -> io::Result<File> {
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    child.stdin.as_mut().ok_or_else(gone)?.write_all(b"\n")?;
    child.stdout.as_mut().ok_or_else(gone)?.read_exact(&mut [0])?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
    rustix::process::kill_process(pid, Signal::STOP)?;
    let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::Pid(pid), stopped)?;
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
}
