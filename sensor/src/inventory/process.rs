//! One process: who it is and what its address space is, read while it may end at any moment.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use jiff::Timestamp;

use super::file::without_deleted;
use super::mapped::as_in_maps;
use super::root::ProcRoot;
use crate::host::{Clock, Container, Outside, Procfs};
use crate::verify::maps::Maps;

/// A maps text longer than this is refused: 200,000 areas; the kernel's default limit is 65,530.
const MAX_MAPS: u64 = 32 << 20;
const MAX_COMM: u64 = 64;
const MAX_PASSWD: u64 = 4 << 20;

/// A process that was read.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// The kernel's name for it, which it chooses itself.
    pub comm: String,
    /// Its program as the process sees it, without ` (deleted)`; empty where it has none.
    pub exe: PathBuf,
    /// Real user id.
    pub uid: u32,
    /// This host's name for the user; `None` in a container or chroot, where names mean others.
    pub user: Option<String>,
    /// Container id, or name of the machine.
    pub container: Option<String>,
    /// UID of the Kubernetes pod.
    pub pod: Option<String>,
    /// Its root directory as this program sees it.
    pub root: PathBuf,
    /// When it started, in whole seconds. When a file was mapped, the kernel does not tell.
    pub started: Timestamp,
    /// Its program has no interpreter and nothing else is mapped: its libraries are inside.
    pub is_static: bool,
}

/// Why a process was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    Gone,
    /// A kernel thread or a zombie.
    NoMemory,
    Denied,
    Failed(String),
}

/// A process and its address space.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) process: Process,
    pub(super) root: ProcRoot,
    pub(super) maps: Maps,
    /// Its program as the maps text names it.
    pub(super) exe_in_maps: String,
    exe_link: OsString,
    start_ticks: u64,
}

/// What is the same for all processes.
#[derive(Debug)]
pub(super) struct Around {
    clock: Clock,
    users: HashMap<u32, String>,
}

// === impl Opened ===

impl Opened {
    pub(super) fn open(pid: u32, around: &Around) -> Result<Self, Closed> {
        let stat = Procfs.stat(pid).ok_or(Closed::Gone)?;
        let sorted = |error: io::Error| sort(pid, stat.start_ticks, &error);
        let text = bounded(&format!("/proc/{pid}/maps"), MAX_MAPS).map_err(sorted)?;
        let maps = Maps::parse(&text).map_err(|error| Closed::Failed(error.to_string()))?;
        if maps.is_empty() {
            let same = Procfs.stat(pid).is_some_and(|now| now.start_ticks == stat.start_ticks);
            return Err(if same { Closed::NoMemory } else { Closed::Gone });
        }
        let exe_link = match fs::read_link(format!("/proc/{pid}/exe")) {
            Ok(link) => link,
            Err(error) => return Err(sorted(error)),
        };
        let root = ProcRoot::read(pid).map_err(sorted)?;
        let exe = without_deleted(&exe_link).unwrap_or_else(|| exe_link.clone());
        let exe = root.inside(&exe).unwrap_or(exe);
        let comm = bounded(&format!("/proc/{pid}/comm"), MAX_COMM).unwrap_or_default();
        let comm = String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm)).into_owned();
        let container =
            Procfs.cgroup(pid).and_then(|text| Container::parse(&text)).unwrap_or_default();
        let at_home = container == Container::default() && root.path.as_os_str() == "/";
        let process = Process {
            pid,
            comm,
            exe,
            uid: stat.uid,
            user: around.users.get(&stat.uid).filter(|_| at_home).cloned(),
            container: container.id,
            pod: container.pod,
            root: root.path.clone(),
            started: in_seconds(around.clock.start(stat.start_ticks)),
            is_static: false,
        };
        Ok(Self {
            process,
            root,
            maps,
            exe_in_maps: as_in_maps(exe_link.as_os_str()),
            exe_link: exe_link.into_os_string(),
            start_ticks: stat.start_ticks,
        })
    }

    /// Whether the number still means this process, and this runs the same program.
    pub(super) fn is_same(&self) -> bool {
        let pid = self.process.pid;
        Procfs.stat(pid).is_some_and(|now| now.start_ticks == self.start_ticks)
            && fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|link| link.as_os_str() == self.exe_link)
    }
}

/// Two looks at the same process differ by less than that.
fn in_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// A process that is there but has no memory answers as one that is gone.
fn sort(pid: u32, start_ticks: u64, error: &io::Error) -> Closed {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Closed::Denied;
    }
    let gone = [rustix::io::Errno::SRCH, rustix::io::Errno::NOENT];
    if !gone.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) {
        return Closed::Failed(error.to_string());
    }
    match Procfs.stat(pid) {
        Some(now) if now.start_ticks == start_ticks => Closed::NoMemory,
        _ => Closed::Gone,
    }
}

// === impl Around ===

impl Around {
    pub(super) fn now() -> Self {
        let passwd = bounded("/etc/passwd", MAX_PASSWD).unwrap_or_default();
        Self { clock: Clock::now(), users: users(&passwd) }
    }
}

/// The first name of each user id, as `getpwuid` would find it in the file.
fn users(passwd: &[u8]) -> HashMap<u32, String> {
    let mut users = HashMap::new();
    for line in String::from_utf8_lossy(passwd).lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(uid)) = (fields.next(), fields.nth(1)) else { continue };
        if let Ok(uid) = uid.parse() {
            users.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    users
}

/// All bytes of a file, or an error where there are more than `limit`.
pub(super) fn bounded(path: &str, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_described() {
        let opened = Opened::open(std::process::id(), &Around::now()).unwrap();
        assert!(opened.is_same());
        assert_eq!(opened.process.exe, std::env::current_exe().unwrap());
        assert_eq!(opened.process.uid, rustix::process::getuid().as_raw());
        assert!(opened.maps.iter().any(|vma| *vma.path == *opened.exe_in_maps));
        let age = Timestamp::now().duration_since(opened.process.started).as_secs();
        assert!((0..36_000).contains(&age), "started {age} s ago");
    }

    #[test]
    fn one_that_ended_is_gone_and_a_zombie_has_no_memory() {
        let around = Around::now();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let closed = loop {
            match Opened::open(child.id(), &around) {
                Err(closed @ Closed::NoMemory) => break closed,
                other => assert!(std::time::Instant::now() < deadline, "{other:?}"),
            }
        };
        assert_eq!(closed, Closed::NoMemory);
        child.wait().unwrap();
        assert!(matches!(Opened::open(child.id(), &around), Err(Closed::Gone)));
    }

    #[test]
    fn the_first_name_of_a_user_counts() {
        let users = users(b"root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken\nx:y\na:x:z\n");
        assert_eq!(users.get(&0).map(String::as_str), Some("root"));
        assert_eq!(users.len(), 1);
    }
}
