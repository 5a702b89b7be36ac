//! Compiles small C programs and runs them as children.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::patience::patient;

/// How long a child may take to do what is waited for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Set in the environment of every child: whoever scans the machine meanwhile can tell it is ours.
pub(crate) const MARK: &str = "HALFSECOND_FIXTURE";

/// Temporary directories of all fixtures of this project start like this.
pub(crate) const PREFIX: &str = "halfsecond-";

/// A temporary directory with compiled programs and libraries.
pub(crate) struct Workshop {
    dir: TempDir,
}

/// A running child; killed and reaped when dropped.
pub(crate) struct Child {
    process: std::process::Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Workshop {
    pub(crate) fn new() -> Self {
        let prefix = format!("{PREFIX}verify-");
        Self { dir: tempfile::Builder::new().prefix(&prefix).tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Compiles `tests/verify/c/SOURCE` to `output` with `cc`.
    pub(crate) fn cc(&self, source: &str, output: &str, flags: &[&str]) -> PathBuf {
        self.compile("cc", source, output, flags)
    }

    /// A shared library with its file name as soname.
    pub(crate) fn library(&self, source: &str, output: &str, flags: &[&str]) -> PathBuf {
        let soname = format!("-Wl,-soname,{output}");
        let mut all = vec!["-shared", "-fPIC", soname.as_str()];
        all.extend(flags);
        self.cc(source, output, &all)
    }

    /// Compiles with any compiler driver; `-L` and the run path are this directory.
    pub(crate) fn compile(&self, cc: &str, source: &str, output: &str, flags: &[&str]) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify/c").join(source);
        let path = self.path(output);
        let dir = self.dir.path().display();
        let mut command = Command::new(cc);
        command.args(["-O1", "-Wall", "-Wextra", "-Wl,--build-id", "-o"]).arg(&path).arg(&source);
        command.arg(format!("-L{dir}")).args(flags);
        // A run path gives a static program a dynamic section, which musl then trips over.
        if !flags.iter().any(|flag| flag.starts_with("-static")) {
            command.arg(format!("-Wl,-rpath,{dir}"));
        }
        let result = command.output();
        let result = result.unwrap_or_else(|error| {
            panic!("cannot run {cc}: {error}; a C compiler is needed (cargo xtask setup)")
        });
        let messages = String::from_utf8_lossy(&result.stderr);
        assert!(result.status.success(), "{cc} {}: {messages}", source.display());
        path
    }
}

impl Child {
    /// Starts a fixture and waits until it says "ready".
    pub(crate) fn ready(command: &mut Command) -> Self {
        let mut child = Self::start(command);
        assert_eq!(child.line(), "ready", "{command:?}");
        child
    }

    /// Starts a program with piped input and output.
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdin = process.stdin.take();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        Self { process, stdin, lines }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The next line of its output.
    pub(crate) fn line(&mut self) -> String {
        self.lines.recv_timeout(patient(DEADLINE)).unwrap_or_else(|error| {
            panic!("child {} said nothing: {error}, {:?}", self.pid(), self.process.try_wait())
        })
    }

    /// The next line of its output; none if that has ended.
    pub(crate) fn line_or_end(&mut self) -> Option<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("child {} said nothing", self.pid()),
        }
    }

    /// Sends one line and reads the answer.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.line()
    }

    /// The victim still answers getppid truly: whatever was redirected passes through.
    pub(crate) fn assert_answers(&mut self) {
        assert_eq!(self.ask(""), std::process::id().to_string());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Polls until `done` gives a value.
pub(crate) fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < patient(DEADLINE), "{what} did not happen within {DEADLINE:?}");
        thread::yield_now();
    }
}

/// Whether a program can be run; prints why what needs it is left out if not.
pub(crate) fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if !found {
        println!("{program} is not installed: what needs it is not tested");
    }
    found
}

/// Whether 32-bit programs for x86 can be built and run; prints why what needs them is left out if
/// not.
pub(crate) fn have_32_bit() -> bool {
    if !cfg!(target_arch = "x86_64") {
        println!("32-bit programs are only tested on x86_64");
        return false;
    }
    let shop = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify/c/victim.c");
    let mut cc = Command::new("cc");
    let cc = cc.arg("-m32").arg(source).arg("-o").arg(shop.path().join("probe"));
    let built = cc.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !built {
        println!("cc -m32 does not work here (gcc-multilib): 32-bit programs are not tested");
    }
    built
}

pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env(MARK, "verify");
    command.env_remove("LD_PRELOAD").env_remove("LD_AUDIT").env_remove("LD_BIND_NOW");
    command
}
