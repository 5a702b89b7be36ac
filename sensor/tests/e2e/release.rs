//! What becomes of probes when the containers that needed them are gone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::{
    lab::{Machine, wait_until},
    running::{PATIENCE, Sensor, Settings, State, same},
    victim,
};

/// The sensor keeps probes for half a minute after their last use.
const RELEASE: Duration = Duration::from_mins(2);
const PROGRAM: &str = "usr/bin/halfsecond-guest";

/// A root directory on a file system of its own, with a program and its libraries.
struct Guest(TempDir);

// === impl Guest ===

impl Guest {
    fn build() -> Result<Self> {
        let guest = Self(tempfile::Builder::new().prefix("halfsecond-guest-").tempdir()?);
        let root = guest.root();
        let done = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&root).status()?;
        ensure!(done.success(), "mount: {done}");
        let shell = fs::canonicalize("/bin/sh")?;
        let copy = |from: &Path, to: &Path| -> Result<()> {
            let to = root.join(to.strip_prefix("/").unwrap_or(to));
            fs::create_dir_all(to.parent().context("a parent")?)?;
            fs::copy(from, &to).with_context(|| from.display().to_string())?;
            Ok(())
        };
        copy(&shell, Path::new(PROGRAM))?;
        let listed = Command::new("ldd").arg(&shell).output()?;
        for word in String::from_utf8(listed.stdout)?.split_whitespace() {
            if word.starts_with('/') {
                copy(&fs::canonicalize(word)?, Path::new(word))?;
            }
        }
        Ok(guest)
    }

    fn root(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Runs until its input ends.
    fn start(&self) -> Result<Child> {
        let mut command = Command::new("chroot");
        command.arg(self.root()).arg(Path::new("/").join(PROGRAM)).args(["-c", "read -r line"]);
        Ok(command.stdin(Stdio::piped()).spawn()?)
    }

    fn unmount(&self) -> Result<bool> {
        Ok(Command::new("umount").arg(self.root()).stderr(Stdio::null()).status()?.success())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-q", "-l"]).arg(self.root()).status();
    }
}

fn end(mut child: Child) -> Result<()> {
    drop(child.stdin.take());
    child.wait()?;
    Ok(())
}

#[test]
fn a_containers_file_system_is_let_go_once_its_last_process_has_ended() {
    let machine = Machine::acquire().unwrap();
    let state = State::new().unwrap();
    let guest = Guest::build().unwrap();
    let more = format!(
        "{}[[functions]]\nlibrary = \"libc.so\"\nsymbol = \"getppid\"\n",
        victim::guarded(&Path::new("/").join(PROGRAM))
    );
    let settings = Settings { more: &more, ..Settings::default() };
    let sensor = Sensor::start(&machine, state.path(), settings).unwrap();
    let files = |sensor: &Sensor| sensor.scrape().unwrap().sum("halfsecond_probed_files", &[]);
    let before = files(&sensor);
    let (first, second) = (guest.start().unwrap(), guest.start().unwrap());
    // The program's entry and its libc.
    sensor
        .scrape_until("probes on the guest's files", |scrape| {
            same(scrape.sum("halfsecond_probed_files", &[]), before + 2.0)
        })
        .unwrap();
    end(first).unwrap();
    assert!(!guest.unmount().unwrap(), "a process uses it");
    end(second).unwrap();
    assert!(!guest.unmount().unwrap(), "no probe holds it: the test shows nothing");
    wait_until("a file system that is let go", RELEASE, || Ok(guest.unmount()?.then_some(())))
        .with_context(|| sensor.agent().transcript())
        .unwrap();
    let scrape = sensor
        .scrape_until("as many probes as before", |scrape| {
            same(scrape.sum("halfsecond_probed_files", &[]), before)
        })
        .unwrap();
    assert!(scrape.sum("halfsecond_function_probes_released_total", &[]) >= 2.0);
    let done = wait_until("the sensor still answers", PATIENCE, || Ok(sensor.scrape().ok()));
    assert!(done.is_ok());
    sensor.stop().unwrap();
}
