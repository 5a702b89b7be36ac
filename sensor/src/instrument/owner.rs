//! Whose an instrument is: the process that holds it, its package, and whether that is a tool made
//! for it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::finding::ProcessRef;
use crate::host::{Clock, Container, Outside, ProcessId, Procfs};
use crate::package::{Bounds, Packages, Root};

/// Ancestors told.
const DEPTH: usize = 8;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// It runs this very program: another sensor, or the one before this.
    pub is_twin: bool,
}

/// Describes owners. Databases are read for as long as there is something to describe.
pub(super) struct Owners {
    clock: Clock,
    /// The host's root, also where the sensor has one of its own.
    host: Option<Root>,
    /// Device and inode of this program.
    own: Option<(u64, u64)>,
    packages: Packages,
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
        let packages = Packages::new(Bounds { roots: 1, ..Bounds::default() });
        let own = program(std::process::id());
        Self { clock, host: host(), own, packages }
    }

    /// `None` where it has ended.
    pub(super) fn describe(&mut self, pid: u32) -> Option<Owner> {
        let stat = Procfs.stat(pid)?;
        let exe = Procfs.exe(pid).map(|(path, _)| path).unwrap_or_default();
        let package = self.package(pid, &exe);
        let name = package.as_deref().and_then(|text| text.split_whitespace().next());
        let is_twin = self.own.is_some() && program(pid) == self.own;
        let cgroup = Procfs.cgroup(pid).unwrap_or_default();
        let Container { id: container, pod } = Container::parse(&cgroup).unwrap_or_default();
        Some(Owner {
            id: Some(ProcessId { tgid: pid, start_ticks: stat.start_ticks }),
            is_tool: is_twin || name.is_some_and(is_tool),
            is_twin,
            is_interpreter: exe.file_name().and_then(|name| name.to_str()).is_some_and(interprets),
            shown: ProcessRef {
                pid,
                exe: exe.to_string_lossy().into_owned(),
                cmdline: Procfs.cmdline(pid),
                uid: stat.uid,
                start: Some(self.clock.start(stat.start_ticks)),
                ancestors: ancestors(stat.parent_tgid),
                container,
                pod,
            },
            package,
        })
    }

    fn package(&mut self, pid: u32, exe: &Path) -> Option<String> {
        let host = self.host.as_ref()?;
        let root = Root::of_process(pid, host).ok()?;
        let file = Procfs.exe(pid).map(|(_, key)| key)?;
        if root.key() != host.key() || !Procfs.is_roots_own(pid, pid, exe, &file) {
            return None;
        }
        let owned = self.packages.owner(host, exe).ok()??;
        Some(format!("{} {}", owned.package, owned.version))
    }
}

/// The first process's root: in a container with the host's processes, the host's.
fn host() -> Option<Root> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let first = rustix::fs::open("/proc/1/root", flags, Mode::empty());
    let first = first.ok().and_then(|root| Root::host_from_fd(root).ok());
    first.or_else(|| Root::host().ok())
}

/// Device and inode of what a process executes, by the kernel's own word.
fn program(pid: u32) -> Option<(u64, u64)> {
    let metadata = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((metadata.dev(), metadata.ino()))
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
        let (Some(stat), exe) = (Procfs.stat(next), Procfs.exe(next)) else { break };
        found.extend(exe.map(|(path, _)| path.to_string_lossy().into_owned()));
        next = stat.parent_tgid;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn this_test_is_nobodys_package_and_init_is_described() {
        let mut owners = Owners::new(Clock::now());
        let own = owners.describe(std::process::id()).unwrap();
        assert_eq!(own.package, None, "{own:?}");
        assert!(own.is_twin && own.is_tool && own.is_vouched());
        assert!(!own.shown.exe.is_empty() && !own.shown.ancestors.is_empty());
        assert_eq!(owners.describe(u32::MAX), None);
    }
}
