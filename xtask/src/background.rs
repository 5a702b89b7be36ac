//! Programs that run while something else is done.

use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::sh;

/// How long a program gets to start serving, and to end when asked to.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two looks at something that cannot be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A child that is ended when this goes away.
pub(crate) struct Background(Child);

impl Background {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().display().to_string();
        Ok(Self(command.spawn().with_context(|| format!("cannot start {name}"))?))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// Ends its input, where that is a pipe of ours, and waits until it has ended for that.
    pub(crate) fn end_input(mut self) -> Result<ExitStatus> {
        drop(self.0.stdin.take());
        let asked = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if asked.elapsed() > PATIENCE {
                bail!("it did not end {} s after its input", PATIENCE.as_secs());
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits until `ready`; returns how long that took.
    ///
    /// # Errors
    /// When the program ends, or is not ready in time.
    pub(crate) fn wait_until(&mut self, mut ready: impl FnMut() -> bool) -> Result<Duration> {
        let started = Instant::now();
        while !ready() {
            if let Some(status) = self.0.try_wait()? {
                bail!("it ended with {status} before it was ready");
            }
            if started.elapsed() > PATIENCE {
                bail!("it was not ready after {} s", PATIENCE.as_secs());
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(started.elapsed())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(mut self) -> Result<()> {
        sh::output(Command::new("kill").args(["-TERM", &self.pid().to_string()]))?;
        let asked = Instant::now();
        while self.0.try_wait()?.is_none() {
            if asked.elapsed() > PATIENCE {
                bail!("it did not end {} s after SIGTERM", PATIENCE.as_secs());
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Both fail when it has ended and been waited for, which is the usual case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
