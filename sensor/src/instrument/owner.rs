//! Whose an instrument is: the process that holds it, its package, and whether that is a tool made
//! for it.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::mounted::Mounted;
use crate::event::FileKey;
use crate::finding::ProcessRef;
use crate::host::{Aside, Clock, Container, Outside, ProcessId, Procfs, Stat};
use crate::inventory::mounts::{Mounts, Reach};
use crate::package::{Bounds, Packages, Root};

/// Ancestors told.
const DEPTH: usize = 8;
/// Waited for one owner's arguments, executable and package: databases are read once.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a list of mounts.
const MOUNTS_MAX: u64 = 1 << 20;

/// Packages of tools and agents that instrument by design; beginnings of names, each of a whole
/// word. What they do on somebody's behalf is told with them as the explanation.
const TOOLS: [&str; 28] = [
    "bpfcc",
    "bcc",
    "bpftool",
    "bpftrace",
    "cilium",
    "containerd",
    "crun",
    "datadog",
    "docker",
    "falco",
    "gdb",
    "halfsecond",
    "inspektor",
    "kunai",
    "libvirt",
    "lttng",
    "ltrace",
    "moby",
    "opensnitch",
    "parca",
    "perf",
    "podman",
    "pulsar",
    "runc",
    "sysdig",
    "systemd",
    "systemtap",
    "tetragon",
];
/// The same, of more than one word.
const TOOLS_LONG: [&str; 4] = ["linux-perf", "linux-tools", "trace-cmd", "docker.io"];
/// Programs that run other people's programs: their package vouches for nothing.
const INTERPRETERS: [&str; 10] =
    ["bash", "busybox", "dash", "lua", "node", "perl", "php", "python", "ruby", "sh"];

/// A process that instruments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one process")]
pub struct Owner {
    /// Which.
    pub id: Option<ProcessId>,
    /// As output shows it.
    pub shown: ProcessRef,
    /// Its executable's package with version, by the records of this host; none where no package
    /// owns it, its file is not root's alone, or it is a container's.
    pub package: Option<String>,
    /// The package is that of a tool or agent made to instrument.
    pub is_tool: bool,
    /// It runs other people's programs.
    pub is_interpreter: bool,
    /// It runs this very program, and what it has loaded is the code that this sensor has loaded
    /// too. That says what it does, not for whom: anybody with the program can start it, with
    /// settings of his own or under a debugger. It is told like everybody else's.
    pub is_twin: bool,
    /// Its arguments, executable and package could not be read in time: somebody answers for its
    /// files and does not, or it holds its own memory locked.
    pub is_unread: bool,
}

/// Describes owners, which may lie on file systems that never answer: what is not read in time is
/// left, with the thread that reads it.
pub(super) struct Owners {
    clock: Clock,
    reader: Aside<Reader>,
}

/// What reads of others may hang.
struct Reader {
    /// The host's root, also where the sensor has one of its own.
    host: Option<Root>,
    /// This program.
    own: Option<FileKey>,
    /// Kept until [`Owners::forget`].
    packages: Packages,
}

/// What was read of an owner.
#[derive(Debug, Default)]
struct Told {
    cmdline: Vec<String>,
    package: Option<String>,
    is_twin: bool,
    ancestors: Vec<String>,
}

// === impl Owner ===

impl Owner {
    /// A package stands for what it does.
    #[must_use]
    pub fn is_vouched(&self) -> bool {
        self.is_twin || (self.package.is_some() && !self.is_interpreter)
    }

    /// The part of a baseline's key that says who.
    #[must_use]
    pub fn form(&self) -> String {
        let package = self.package.as_deref().unwrap_or("-");
        let package = package.split_whitespace().next().unwrap_or("-");
        format!("{} ({package})", self.shown.exe)
    }
}

// === impl Owners ===

impl Owners {
    pub(super) fn new(clock: Clock) -> Self {
        let reader = Aside::new("instrument-owners", Reader::new).with_patience(PATIENCE);
        Self { clock, reader }
    }

    /// `None` where it has ended. Asks no file system but those of the kernel's own on this thread.
    pub(super) fn describe(&mut self, pid: u32) -> Option<Owner> {
        let stat = Procfs.stat(pid)?;
        let exe = executable(pid);
        let path = exe.clone();
        // Something may be mounted over one of them.
        let parent = stat.parent_tgid;
        let ancestors = self.reader.ask(move |_| ancestors(parent)).unwrap_or_default();
        let answer = self.reader.ask(move |reader| reader.read(pid, &path));
        let is_unread = answer.is_none();
        let told = Told { ancestors, ..answer.unwrap_or_default() };
        Some(self.owner(pid, stat, &exe, is_unread, told))
    }

    fn owner(&self, pid: u32, stat: Stat, exe: &Path, is_unread: bool, told: Told) -> Owner {
        let Told { cmdline, package, is_twin, ancestors } = told;
        let name = package.as_deref().and_then(|text| text.split_whitespace().next());
        let cgroup = Procfs.cgroup(pid).unwrap_or_default();
        let Container { id: container, pod } = Container::parse(&cgroup).unwrap_or_default();
        Owner {
            id: Some(ProcessId { tgid: pid, start_ticks: stat.start_ticks }),
            is_tool: name.is_some_and(is_tool),
            is_twin,
            is_interpreter: exe.file_name().and_then(|name| name.to_str()).is_some_and(interprets),
            is_unread,
            shown: ProcessRef {
                pid,
                exe: exe.to_string_lossy().into_owned(),
                cmdline,
                uid: stat.uid,
                start: Some(self.clock.start(stat.start_ticks)),
                ancestors,
                container,
                pod,
            },
            package,
        }
    }

    /// Lets databases go.
    pub(super) fn forget(&mut self) {
        self.reader.later(|reader| reader.packages = databases());
    }

    /// Questions that were given up.
    pub(super) fn given_up(&self) -> u64 {
        self.reader.given_up()
    }
}

// === impl Reader ===

impl Reader {
    fn new() -> Self {
        let own = Procfs.exe(std::process::id()).map(|(_, key)| key);
        Self { host: host(), own, packages: databases() }
    }

    fn read(&mut self, pid: u32, exe: &Path) -> Told {
        let file = Procfs.exe(pid).map(|(_, key)| key);
        let same = |(own, other): (FileKey, FileKey)| (own.dev, own.ino) == (other.dev, other.ino);
        Told {
            package: file.and_then(|file| self.package(pid, exe, file)),
            is_twin: self.own.zip(file).is_some_and(same),
            cmdline: Procfs.cmdline(pid),
            ancestors: Vec::new(),
        }
    }

    fn package(&mut self, pid: u32, exe: &Path, file: FileKey) -> Option<String> {
        // No package puts programs there, and nobody need wait for who answers.
        if lies_far(pid, exe, file) {
            return None;
        }
        let host = self.host.as_ref()?;
        let root = Root::of_process(pid, host).ok()?;
        if root.key() != host.key() || !Procfs.is_roots_own(pid, pid, exe, &file) {
            return None;
        }
        let owned = self.packages.owner(host, exe).ok()??;
        Some(format!("{} {}", owned.package, owned.version))
    }
}

fn databases() -> Packages {
    Packages::new(Bounds { roots: 1, ..Bounds::default() })
}

/// The path by the kernel's own word; empty where there is none. Nothing is followed.
fn executable(pid: u32) -> PathBuf {
    let path = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(kept) => PathBuf::from(kept),
        None => path,
    }
}

/// Whether another machine or program answers for the file, by the process's own list of mounts.
fn lies_far(pid: u32, exe: &Path, file: FileKey) -> bool {
    let text = |pid: u32| {
        let mut text = Vec::new();
        let list = File::open(format!("/proc/{pid}/mountinfo")).ok()?;
        list.take(MOUNTS_MAX).read_to_end(&mut text).ok()?;
        Some(text)
    };
    let Some(own) = text(pid) else { return true };
    // The host itself may run from another machine's disk.
    let host = text(1).and_then(|host| Mounts::parse(&host, None).root());
    let mounts = Mounts::parse(&own, host);
    let device = (file.dev >> 20, file.dev & 0xf_ffff);
    mounts.may_hang(exe) || matches!(mounts.reach(device), Reach::Remote(_))
}

/// The first process's root: in a container with the host's processes, the host's.
fn host() -> Option<Root> {
    // This is no question that is put aside.
    if Mounted::now().covered(Path::new("/proc")).contains(&1) {
        return Root::host().ok();
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let first = rustix::fs::open("/proc/1/root", flags, Mode::empty());
    let first = first.ok().and_then(|root| Root::host_from_fd(root).ok());
    first.or_else(|| Root::host().ok())
}

fn is_tool(package: &str) -> bool {
    let word = package.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    TOOLS.contains(&word) || TOOLS_LONG.iter().any(|name| package.starts_with(name))
}

/// `python3.11` is `python`.
fn interprets(name: &str) -> bool {
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    INTERPRETERS.contains(&name)
}

fn ancestors(parent: u32) -> Vec<String> {
    let mut found = Vec::new();
    let mut next = parent;
    while next != 0 && found.len() < DEPTH {
        let Some(stat) = Procfs.stat(next) else { break };
        let exe = executable(next);
        // Threads of the kernel have none.
        if !exe.as_os_str().is_empty() {
            found.push(exe.to_string_lossy().into_owned());
        }
        next = stat.parent_tgid;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::host::testing::Hanging;

    const DEADLINE: Duration = Duration::from_mins(1);

    #[test]
    fn tools_are_known_by_whole_words_of_their_package() {
        for tool in
            ["bpftrace", "linux-perf", "linux-tools-6.8.0-45", "gdb", "docker-ce", "systemd"]
        {
            assert!(is_tool(tool), "{tool}");
        }
        for other in ["gdbm", "perfect", "openssh-server", "python3.11-minimal", "xz-utils"] {
            assert!(!is_tool(other), "{other}");
        }
    }

    #[test]
    fn interpreters_vouch_for_nothing() {
        assert!(interprets("python3.11") && interprets("bash") && !interprets("bpftrace"));
        let package = Some("python3.11-minimal 3.11.2".to_owned());
        let python = Owner { package, is_interpreter: true, ..Owner::default() };
        assert!(!python.is_vouched());
    }

    #[test]
    fn an_owner_on_a_file_system_that_never_answers_is_told_without_waiting_for_it() {
        let Some(hanging) = Hanging::start() else { return };
        let pid = hanging.program.id();
        let (out, told) = channel();
        std::thread::spawn(move || {
            let mut owners = Owners::new(Clock::now());
            let _ = out.send(owners.describe(pid));
            // Somebody else is described all the same.
            let _ = out.send(owners.describe(std::process::id()));
        });
        let found = told.recv_timeout(DEADLINE).expect("it hangs").expect("it runs");
        assert_eq!(Path::new(&found.shown.exe), hanging.path());
        assert_eq!(found.package, None);
        let own = told.recv_timeout(DEADLINE).expect("it hangs").expect("this runs");
        assert!(!own.shown.cmdline.is_empty() && !own.is_unread, "{own:?}");
    }

    #[test]
    fn this_test_is_nobodys_package_and_init_is_described() {
        let mut owners = Owners::new(Clock::now());
        let own = owners.describe(std::process::id()).unwrap();
        assert_eq!(own.package, None, "{own:?}");
        assert!(own.is_twin && !own.is_tool && !own.is_unread, "{own:?}");
        assert!(!own.shown.exe.is_empty() && !own.shown.ancestors.is_empty());
        assert_eq!(owners.describe(u32::MAX), None);
    }
}
