//! A root with the loader's files, processes that do things in it, and the watch that must tell.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sensor::config;
use sensor::kernel::Release;
use sensor::metrics::Metrics;
use sensor::watch::{Change, Told, Watch};
use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::lab::patience::patient;

/// A change takes 150 ms to be told; the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks.
const STEP: Duration = Duration::from_millis(10);

/// The root directory and the state directory.
#[derive(Debug)]
pub struct Tree {
    folder: TempDir,
}

/// A process in the root that has done its work and waits; killed when dropped.
#[derive(Debug)]
pub struct Actor {
    child: Child,
    input: Option<ChildStdin>,
    pub said: String,
}

/// The watch, and what it told so far.
pub struct Bench {
    pub tree: Tree,
    told: Receiver<Told>,
    pub seen: Vec<Change>,
    pub metrics: Metrics,
    root: PathBuf,
    _watch: Watch,
    holder: Actor,
}

/// True where the test cannot run: it says why.
#[must_use]
pub fn unprivileged() -> bool {
    let stranger = !rustix::process::geteuid().is_root();
    if stranger {
        println!("skipped: fanotify and chroot need root");
    }
    stranger
}

/// True where the kernel, before `since`, shows nobody who did it: then it says why, and the change
/// must have been found by comparison, without who.
#[must_use]
#[track_caller]
pub fn by_comparison(change: &Change, since: (u32, u32), why: &str) -> bool {
    let release = Release::current().to_string();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else {
        panic!("{release}: no version");
    };
    if (major, minor) >= since {
        return false;
    }
    println!("not tried on {release}: who it was, as {why} before {}.{}", since.0, since.1);
    assert!(change.touches.is_empty(), "{change:#?}");
    true
}

/// True on an emulated machine, where less happens in the same time: it says why.
#[must_use]
pub fn is_slow(what: &str) -> bool {
    let slow = patient(STEP) != STEP;
    if slow {
        println!("not tried on an emulated machine: {what}");
    }
    slow
}

// === impl Tree ===

impl Tree {
    /// A root with the usual directories, empty `ld.so.conf.d`, and `actor` in `/bin`.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("halfsecond-watch-").tempdir().unwrap();
        let tree = Self { folder };
        for dir in ["etc/ld.so.conf.d", "bin", "lib64", "lib/x", "opt", "tmp", "state"] {
            fs::create_dir_all(tree.at(dir)).unwrap();
        }
        fs::copy(actor(), tree.at("bin/actor")).unwrap();
        for library in ["opt/good.so", "opt/evil.so"] {
            fs::write(tree.at(library), b"").unwrap();
        }
        tree
    }

    /// A path of the root, as the host sees it.
    pub fn at(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside.trim_start_matches('/'))
    }

    /// The root directory.
    pub fn root(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Runs `actor WORDS…` in the root until it has done its work.
    pub fn run(&self, words: &[&str]) -> Actor {
        self.run_program("/bin/actor", words)
    }

    /// The same under another name.
    pub fn run_program(&self, program: &str, words: &[&str]) -> Actor {
        let mut command = Command::new("chroot");
        command.arg(self.folder.path()).arg(program).args(words);
        Actor::spawn(&mut command)
    }

    /// Runs a shell in a mount namespace of its own, which must end in an `actor` in the root.
    pub fn apart(&self, script: &str) -> Actor {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-euc"]);
        let script = format!("{script}\nexec chroot \"$ROOT\" /bin/actor hold");
        Actor::spawn(command.arg(script).env("ROOT", self.folder.path()))
    }
}

// === impl Actor ===

impl Actor {
    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        let mut said = String::new();
        BufReader::new(output).read_line(&mut said).unwrap();
        assert!(
            said.starts_with("ready") || said.starts_with("unsupported"),
            "{command:?}: {said:?}"
        );
        Self { child, input, said }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it end.
    pub fn end(mut self) {
        self.input.take();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.input.take();
        // It has ended or ends now; an error means that it was waited for already.
        let _ = (self.child.kill(), self.child.wait());
    }
}

// === impl Bench ===

impl Bench {
    /// With a process in the root, and the watch started after it.
    pub fn new(tree: Tree) -> Self {
        let holder = tree.run(&["hold"]);
        Self::with(tree, holder)
    }

    /// The same with a process that is there already.
    pub fn with(tree: Tree, holder: Actor) -> Self {
        Self::with_root(tree, holder, "")
    }

    /// The same with a process whose root is a directory of the tree.
    pub fn with_root(tree: Tree, holder: Actor, inside: &str) -> Self {
        let root = tree.folder.path().join(inside);
        let root = root.components().collect();
        let metrics = Metrics::new().unwrap();
        let settings = config::Watch { roots: 1024, compare_every: Duration::from_millis(100) };
        let (watch, told) = Watch::start(settings, &tree.at("state"), &metrics).unwrap();
        Self { tree, told, seen: Vec::new(), metrics, root, _watch: watch, holder }
    }

    /// The root, as the host sees it.
    pub fn root(&self) -> PathBuf {
        self.root.clone()
    }

    /// Waits for changes below another root from now on.
    pub fn turn_to(&mut self, tree: Tree) {
        tree.folder.path().clone_into(&mut self.root);
        self.tree = tree;
    }

    /// Runs a command in the mount namespace of the process that holds the root.
    pub fn inside_holder(&self, words: &[&str]) {
        let pid = self.holder.pid().to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid, "--mount"]).args(words).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
    }

    /// Waits until the watch knows a further root, by having it tell of harmless changes there.
    pub fn until_watched(&mut self, tree: &Tree) {
        let deadline = Instant::now() + patient(DEADLINE);
        for at in 0.. {
            fs::write(tree.at("etc/ld.so.conf"), format!("/opt/{at}\n")).unwrap();
            std::thread::sleep(STEP * 10);
            let root = tree.folder.path().to_string_lossy().into_owned();
            while let Ok(told) = self.told.try_recv() {
                if matches!(&told, Told::Change(change) if change.config.root.path == root) {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "the new root was never watched");
        }
    }

    /// Waits for a change of `path` in this test's root.
    #[track_caller]
    pub fn change(&mut self, path: &str) -> Change {
        self.change_by(path, |_| true)
    }

    /// The same for one that `wanted` accepts. Every change is given once.
    #[track_caller]
    pub fn change_by(&mut self, path: &str, wanted: impl Fn(&Change) -> bool) -> Change {
        let deadline = Instant::now() + patient(DEADLINE);
        loop {
            self.take();
            let found =
                self.seen.iter().position(|change| change.config.path == path && wanted(change));
            if let Some(at) = found {
                return self.seen.remove(at);
            }
            assert!(Instant::now() < deadline, "no such change of {path}: {:#?}", self.seen);
            std::thread::sleep(STEP);
        }
    }

    /// What was told and not asked for.
    pub fn rest(&mut self) -> &[Change] {
        self.take();
        &self.seen
    }

    fn take(&mut self) {
        loop {
            match self.told.try_recv() {
                Ok(Told::Change(change)) if self.own(&change) => self.seen.push(*change),
                Ok(told) => println!("not of this test: {told:?}"),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => panic!("the watch has ended"),
            }
        }
    }

    fn own(&self, change: &Change) -> bool {
        Path::new(&change.config.root.path) == self.root
    }
}

/// The program in C, built once, static: a root needs nothing else.
fn actor() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/watch/c/actor.c");
        let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("watch-actor");
        let mut command = Command::new("cc");
        command.args(["-O1", "-Wall", "-Werror", "-static", "-o"]).arg(&built).arg(source);
        assert!(command.status().unwrap().success(), "{command:?}");
        built
    })
}
