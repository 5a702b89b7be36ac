//! Running the binary and looking at what it said.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A user that owns nothing and runs nothing.
pub(crate) const STRANGER: u32 = 61_234;

/// How a run of the binary ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The lines of standard output as JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        self.stdout.lines().map(parse).collect()
    }

    /// Panics with everything the run said, unless it ended with `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        self
    }
}

/// A folder with a configuration that keeps the binary away from this machine's own.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
}

impl Place {
    /// `config` follows a state directory in the folder; without HTTP unless it says so.
    pub(crate) fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { folder };
        let state = place.path("state");
        let http = if config.contains("[http]") { "" } else { "[http]\nlisten = \"off\"\n" };
        place.write(
            "halfsecond.toml",
            &format!("state_dir = \"{}\"\n{http}{config}", state.display()),
        );
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Lets strangers read what is in the folder.
    pub(crate) fn open_to_all(&self) {
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = halfsecond(arguments);
        command.arg("--config").arg(self.path("halfsecond.toml"));
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        run(&mut self.command(arguments))
    }
}

pub(crate) fn halfsecond(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halfsecond"));
    command.args(arguments).stdin(Stdio::null());
    for variable in ["HALFSECOND_LOG", "RUST_LOG", "RUST_BACKTRACE", "NOTIFY_SOCKET"] {
        command.env_remove(variable);
    }
    command
}

pub(crate) fn run(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Makes the command run as a user without any right; `None` where this test has none to give up,
/// or where that user cannot reach the binary.
pub(crate) fn as_stranger(command: &mut Command) -> Option<&mut Command> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return None;
    }
    let mut trial = Command::new(env!("CARGO_BIN_EXE_halfsecond"));
    let reached = trial.arg("--version").uid(STRANGER).gid(STRANGER).output();
    if !reached.is_ok_and(|output| output.status.success()) {
        println!("skipped: {} is out of reach of other users", env!("CARGO_BIN_EXE_halfsecond"));
        return None;
    }
    Some(command.uid(STRANGER).gid(STRANGER))
}

/// The names of an object's keys, sorted.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Whether text goes to a terminal as it stands: no control characters but line feeds.
#[track_caller]
pub(crate) fn assert_plain(text: &str) {
    let found = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(found, None, "{text:?}");
}

pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
