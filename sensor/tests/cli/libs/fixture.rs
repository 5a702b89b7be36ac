//! A library of our own and processes that have it mapped. It exports one number and does nothing;
//! that it is preloaded, deleted or renamed imitates what an upgrade or an intruder does to one.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Ended, Place};
use crate::patience::patient;

/// A shared library with a name and build-id that nothing else on this machine has.
pub(super) struct Library {
    folder: TempDir,
    pub(super) path: PathBuf,
    /// The name before `.so`.
    pub(super) stem: String,
    pub(super) build_id: String,
}

/// A program that waits, killed at the end of the test.
pub(super) struct Running(Child);

impl Library {
    /// Its version is 1.2.3, its soname ends with 1.
    pub(super) fn build() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::tempdir().unwrap();
        let folder_path = folder.path().canonicalize().unwrap();
        let stem = format!("libhalfsecond{}x{number}", std::process::id());
        let build_id = format!("5e{:016x}{number:08x}", std::process::id());
        let path = folder_path.join(format!("{stem}.so.1.2.3"));
        let source = folder_path.join("source.c");
        fs::write(&source, "int halfsecond_fixture(void) { return 1; }\n").unwrap();
        compile(&[
            OsStr::new("-shared"),
            OsStr::new("-fPIC"),
            OsStr::new("-nostdlib"),
            OsStr::new(&format!("-Wl,-soname,{stem}.so.1,--build-id=0x{build_id}")),
            OsStr::new("-o"),
            path.as_os_str(),
            source.as_os_str(),
        ]);
        Self { folder, path, stem, build_id }
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    pub(super) fn file_name(&self) -> &str {
        self.path.file_name().unwrap().to_str().unwrap()
    }
}

pub(super) fn compile(arguments: &[&OsStr]) {
    let output = Command::new("cc").args(arguments).output().unwrap();
    assert!(output.status.success(), "cc {arguments:?}: {output:#?}");
}

impl Running {
    /// `sleep` with a library preloaded.
    pub(super) fn with(library: impl AsRef<OsStr>) -> Self {
        Self::start(Command::new("sleep").arg("600").env("LD_PRELOAD", library))
    }

    /// The same for a path with blanks or colons, at which `LD_PRELOAD` would end: the kernel tells
    /// the path that a link leads to.
    pub(super) fn with_any(library: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let short = folder.path().join("short.so");
        std::os::unix::fs::symlink(library, &short).unwrap();
        Self::with(short)
    }

    pub(super) fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let running = Self(child);
        // Linked once it waits.
        wait_until("the program waits", || {
            let at = fs::read_to_string(format!("/proc/{}/wchan", running.pid()));
            at.is_ok_and(|at| at.contains("nanosleep"))
        });
        running
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + patient(Duration::from_mins(1));
    while !is() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        thread::yield_now();
    }
}

/// `sleep` as another user.
pub(super) fn sleep_as(uid: u32, library: &Path) -> Running {
    let mut command = Command::new("sleep");
    Running::start(command.arg("600").env("LD_PRELOAD", library).uid(uid).gid(uid))
}

/// Runs `halfsecond libs --json` with arguments of its own.
pub(super) fn libs(arguments: &[&str]) -> Ended {
    let mut all = vec!["libs", "--json"];
    all.extend(arguments);
    Place::new("").run(&all)
}

/// The rows of one process, without the summary.
#[track_caller]
pub(super) fn rows_of(ended: &Ended, pid: u32) -> Vec<Value> {
    let mut lines = ended.lines();
    let summary = lines.pop().unwrap_or_else(|| panic!("no output: {ended:#?}"));
    assert_eq!(summary["kind"], "summary", "{summary}");
    lines.retain(|row| row["pid"] == pid);
    lines
}

/// The only row of a process.
#[track_caller]
pub(super) fn row_of(ended: &Ended, pid: u32) -> Value {
    let mut rows = rows_of(ended, pid);
    assert_eq!(rows.len(), 1, "{ended:#?}");
    rows.remove(0)
}
