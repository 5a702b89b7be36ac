//! The program that is hooked: see `hooked.c`.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant as Deadline};

use anyhow::{Context as _, Result, bail, ensure};

use super::lines::{Lines, realtime_ns};
use crate::sh;

pub(super) const NAME: &str = "hooked";
const SOURCE: &str = include_str!("hooked.c");
/// It answers at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a slot comes to lead elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Resolver,
    Constructor,
    Running,
    Outside,
}

/// When a slot was redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instant {
    pub(super) monotonic_ns: u64,
    pub(super) realtime_ns: u64,
}

/// A running one; ended when dropped.
pub(super) struct Victim {
    child: Child,
    input: Option<ChildStdin>,
    said: Lines,
    /// Of the slot and of the wrapper.
    slot: u64,
    wrapper: u64,
    /// `CLOCK_REALTIME` less `CLOCK_MONOTONIC`, ns.
    between_clocks: u64,
}

/// Compiles it into `folder`, which is made.
pub(super) fn build(folder: &Path, route: Route) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let source = folder.join("hooked.c");
    fs::write(&source, SOURCE)?;
    let program = folder.join(NAME);
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Wextra", "-Wl,--build-id,-z,relro,-z,now"]);
    cc.args(route.flag()).arg(source).arg("-o").arg(&program);
    sh::output(&mut cc)?;
    Ok(program)
}

// === impl Route ===

impl Route {
    pub(super) const ALL: [Self; 4] =
        [Self::Resolver, Self::Constructor, Self::Running, Self::Outside];

    /// In file names and in the table of samples.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Resolver => "resolver",
            Self::Constructor => "constructor",
            Self::Running => "running",
            Self::Outside => "outside",
        }
    }

    fn flag(self) -> Option<&'static str> {
        match self {
            Self::Resolver => Some("-DRESOLVER"),
            Self::Constructor => Some("-DCONSTRUCTOR"),
            Self::Running | Self::Outside => None,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Resolver => "at start, by a resolver before RELRO is sealed",
            Self::Constructor => "at start, by a constructor that reopens RELRO",
            Self::Running => "while it runs, RELRO reopened and sealed again",
            Self::Outside => "while it runs, written through /proc/PID/mem",
        })
    }
}

// === impl Victim ===

impl Victim {
    pub(super) fn start(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        // What cargo sets for xtask is none of the program's.
        command.env_remove("LD_LIBRARY_PATH").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("no output")?;
        let (slot, wrapper, between_clocks) = (0, 0, 0);
        let said = Lines::follow(output);
        let mut victim = Self { child, input, said, slot, wrapper, between_clocks };
        let ready = victim.heard()?;
        let [_, slot, wrapper, monotonic, realtime] = words(&ready, "ready")?;
        (victim.slot, victim.wrapper) = (hex(slot)?, hex(wrapper)?);
        let (monotonic, realtime): (u64, u64) = (monotonic.parse()?, realtime.parse()?);
        victim.between_clocks = realtime.checked_sub(monotonic).context("a clock before 1970")?;
        Ok(victim)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has the slot redirected, if it is not yet; answers when that was.
    ///
    /// # Errors
    /// Also when calls no longer pass through.
    pub(super) fn redirect(&mut self, route: Route) -> Result<Instant> {
        match route {
            Route::Resolver | Route::Constructor => self.call("call"),
            Route::Running => self.call("now"),
            Route::Outside => {
                let path = format!("/proc/{}/mem", self.pid());
                let memory = OpenOptions::new().write(true).open(&path);
                let memory = memory.with_context(|| format!("cannot open {path}"))?;
                memory
                    .write_all_at(&self.wrapper.to_ne_bytes(), self.slot)
                    .with_context(|| format!("cannot write {path}"))?;
                let realtime_ns = realtime_ns();
                let monotonic_ns = realtime_ns.saturating_sub(self.between_clocks);
                drop(memory);
                self.call("call")?;
                Ok(Instant { monotonic_ns, realtime_ns })
            }
        }
    }

    /// Ends its input, and with that itself.
    pub(super) fn end(mut self) -> Result<()> {
        drop(self.input.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "{NAME} ended with {status}");
        Ok(())
    }

    fn call(&mut self, line: &str) -> Result<Instant> {
        let input = self.input.as_mut().context("no input")?;
        input.write_all(format!("{line}\n").as_bytes())?;
        let answer = self.heard()?;
        let [_, parent, monotonic, realtime] = words(&answer, "called")?;
        ensure!(parent.parse() == Ok(process::id()), "the hook changes an answer: {answer}");
        Ok(Instant { monotonic_ns: monotonic.parse()?, realtime_ns: realtime.parse()? })
    }

    fn heard(&self) -> Result<String> {
        match self.said.next(Deadline::now() + PATIENCE)? {
            Some(line) => Ok(line.text),
            None => bail!("{NAME} says nothing"),
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both fail when it has ended and been waited for, which is the usual case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// So many words, of which the first is `what`.
fn words<'a, const N: usize>(line: &'a str, what: &str) -> Result<[&'a str; N]> {
    let words: Vec<&str> = line.split(' ').collect();
    match <[&str; N]>::try_from(words) {
        Ok(words) if words.first() == Some(&what) => Ok(words),
        _ => bail!("not what {NAME} says when it is {what}: {line}"),
    }
}

fn hex(text: &str) -> Result<u64> {
    let digits = text.strip_prefix("0x").context("no address")?;
    Ok(u64::from_str_radix(digits, 16)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_told_from_anything_else() {
        let [_, slot, ..] = words::<5>("ready 0x1f 0x2 3 4", "ready").unwrap();
        assert_eq!(hex(slot).unwrap(), 0x1f);
        assert!(words::<5>("called 1 2 3", "ready").is_err());
        assert!(words::<4>("ready 1 2 3", "called").is_err());
        assert!(hex("1f").is_err());
    }
}
