//! Which process holds which BPF program, link or perf event open: `/proc/*/fd` and `fdinfo`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::fdinfo::{self, Held, Link};
use super::mounted::Mounted;
use super::{AskPerf, Source};
use crate::loader::PerfSite;

/// Descriptors looked at in one survey, of all other processes together and of one. This process's own
/// are no more than it has opened.
const ALL_MAX: usize = 500_000;
const ONE_MAX: usize = 65_536;
/// Perf events asked about, of one process: perf opens one per CPU.
const PERF_MAX: usize = 1024;
/// Bytes read of one descriptor's text.
const TEXT_MAX: u64 = 64 << 10;
/// Bytes read of a process's status, up to its user.
const STATUS_MAX: u64 = 4096;

/// One process's hold on something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) pid: u32,
    pub(super) what: Handle,
}

/// What it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Handle {
    Program(u32),
    Link(Link),
    /// Of a link too, where the kernel does not print where it leads.
    Perf(PerfSite),
}

/// Every hold that can be seen.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) holdings: Vec<Holding>,
    pub(super) own: OwnHolds,
}

/// How far this process's own descriptors could be looked at: what it holds tells what is its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OwnHolds {
    /// All, with where they sit.
    #[default]
    Placed,
    /// All; where some of its probes sit cannot be told.
    Unplaced,
    /// Not all.
    Unread,
}

/// A look at every process.
struct Walk<'a> {
    ask: &'a mut AskPerf,
    /// Where proc is.
    proc: &'a Path,
    /// This process.
    own_pid: u32,
    /// Processes that something else is mounted over, which may never answer.
    covered: BTreeSet<u32>,
    left: usize,
    found: Vec<Holding>,
    own: OwnHolds,
    /// Why something of the sensor's own was not looked at.
    own_reason: Option<String>,
    /// Why something else was not.
    reason: Option<String>,
    perf_reason: Option<String>,
}

/// A descriptor of one that instruments.
#[derive(Clone, Copy)]
struct Descriptor {
    pid: u32,
    number: i32,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bpf,
    Perf,
}

/// What is missing of one descriptor, and why.
enum Missing {
    All(String),
    Place(String),
}

/// Every hold that can be seen; `own` is this process.
pub(super) fn walk(
    ask: &mut AskPerf,
    own: u32,
    mounted: &Mounted,
    sources: &mut Vec<Source>,
) -> Walked {
    let proc = Path::new("/proc");
    let covered = mounted.covered(proc);
    Walk { covered, ..Walk::new(ask, proc, own) }.walked(sources)
}

impl<'a> Walk<'a> {
    fn new(ask: &'a mut AskPerf, proc: &'a Path, own_pid: u32) -> Self {
        Self {
            ask,
            proc,
            own_pid,
            covered: BTreeSet::new(),
            left: ALL_MAX,
            found: Vec::new(),
            own: OwnHolds::default(),
            own_reason: None,
            reason: None,
            perf_reason: None,
        }
    }

    fn walked(mut self, sources: &mut Vec<Source>) -> Walked {
        self.own();
        self.others();
        sources.push(Source { name: "own descriptors", reason: self.own_reason });
        sources.push(Source { name: "descriptors", reason: self.reason });
        sources.push(Source { name: "perf events", reason: self.perf_reason });
        Walked { holdings: self.found, own: self.own }
    }

    /// First and all of them, whatever others hold: its own is told from theirs by these.
    fn own(&mut self) {
        let own = self.own_pid;
        if self.covered.contains(&own) {
            return self.miss_own(Missing::All("something else is mounted over them".to_owned()));
        }
        let entries = match fs::read_dir(self.proc.join("self/fd")) {
            Ok(entries) => entries,
            Err(error) => return self.miss_own(Missing::All(error.to_string())),
        };
        for entry in entries {
            let found = match entry {
                Ok(entry) => descriptor(own, &entry).map(|one| self.look(one, "self")),
                Err(error) => Some(Err(Missing::All(error.to_string()))),
            };
            if let Some(Err(missing)) = found {
                self.miss_own(missing);
            }
        }
    }

    fn miss_own(&mut self, missing: Missing) {
        let (how, reason) = match missing {
            Missing::All(reason) => {
                let effect = "kprobes and links to own programs are not compared with the kernel's";
                (OwnHolds::Unread, format!("{reason}: {effect} lists"))
            }
            Missing::Place(reason) => {
                let effect = "kprobes are not compared with the kernel's list";
                (OwnHolds::Unplaced, format!("where they sit: {reason}: {effect}"))
            }
        };
        if how > self.own {
            (self.own, self.own_reason) = (how, Some(reason));
        }
    }

    /// Those of root's first: who may do nothing else can make descriptors without end.
    fn others(&mut self) {
        let entries = match fs::read_dir(self.proc) {
            Ok(entries) => entries,
            Err(error) => return self.reason = Some(error.to_string()),
        };
        let name = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
        let pids = entries.flatten().filter_map(name).filter(|pid| *pid != self.own_pid);
        let (covered, pids): (Vec<_>, Vec<_>) = pids.partition(|pid| self.covered.contains(pid));
        self.reason = covered
            .first()
            .map(|pid| format!("something else is mounted over {}/{pid}", self.proc.display()));
        let (roots, others): (Vec<_>, Vec<_>) =
            pids.into_iter().partition(|pid| self.is_roots(*pid));
        for pid in roots.into_iter().chain(others) {
            self.process(pid);
        }
    }

    /// Its effective user, as user namespaces outside its own see it
    /// (Documentation/filesystems/proc.rst, `Uid`). The owner of its directory is no sign: root owns that
    /// of whoever has made itself undumpable.
    fn is_roots(&self, pid: u32) -> bool {
        let status = File::open(self.proc.join(format!("{pid}/status")));
        let mut text = Vec::new();
        let read = status.and_then(|file| file.take(STATUS_MAX).read_to_end(&mut text));
        let text = String::from_utf8_lossy(&text);
        let users = text.lines().find_map(|line| line.strip_prefix("Uid:"));
        read.is_ok() && users.and_then(|users| users.split_whitespace().nth(1)) == Some("0")
    }

    fn process(&mut self, pid: u32) {
        let entries = match fs::read_dir(self.proc.join(format!("{pid}/fd"))) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                self.reason.get_or_insert_with(|| format!("descriptors of others: {error}"));
                return;
            }
            // It has ended.
            Err(_) => return,
        };
        let (mut perf, folder) = (0, pid.to_string());
        for (count, entry) in entries.flatten().enumerate() {
            if self.left == 0 || count >= ONE_MAX {
                let reason = "more descriptors than are looked at";
                self.reason.get_or_insert_with(|| reason.to_owned());
                return;
            }
            self.left -= 1;
            let Some(one) = descriptor(pid, &entry) else { continue };
            perf += usize::from(one.kind == Kind::Perf);
            if perf > PERF_MAX && one.kind == Kind::Perf {
                let reason = format!("more than {PERF_MAX} perf events in one process");
                self.perf_reason.get_or_insert(reason);
                continue;
            }
            // A descriptor of others that cannot be read is one that was closed.
            if let Err(Missing::Place(reason)) = self.look(one, &folder) {
                self.perf_reason.get_or_insert(reason);
            }
        }
    }

    fn look(&mut self, one: Descriptor, folder: &str) -> Result<(), Missing> {
        match one.kind {
            Kind::Bpf => self.bpf(one, folder),
            Kind::Perf => self.perf(one, false).map_err(Missing::Place),
        }
    }

    fn bpf(&mut self, one: Descriptor, folder: &str) -> Result<(), Missing> {
        let mut text = Vec::new();
        let path = self.proc.join(format!("{folder}/fdinfo/{}", one.number));
        match File::open(path).and_then(|file| file.take(TEXT_MAX).read_to_end(&mut text)) {
            Ok(_) => {}
            // Closed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Missing::All(error.to_string())),
        }
        match fdinfo::parse(&String::from_utf8_lossy(&text)) {
            Some(Held::Program(id)) => self.push(one.pid, Handle::Program(id)),
            Some(Held::Link(link)) => return self.link(one, link),
            None => {}
        }
        Ok(())
    }

    fn link(&mut self, one: Descriptor, link: Link) -> Result<(), Missing> {
        // The path is the one that was given, /proc/self/fd/9 perhaps: ask for the file.
        let asked = if link.untold || (link.kind == "perf" && !link.uprobes.is_empty()) {
            self.perf(one, true)
        } else {
            Ok(())
        };
        // What the kernel prints of it is enough to tell whose it is.
        let is_needed = link.untold || one.pid != self.own_pid;
        self.push(one.pid, Handle::Link(link));
        asked.or_else(|reason| if is_needed { Err(Missing::Place(reason)) } else { Ok(()) })
    }

    fn perf(&mut self, one: Descriptor, is_link: bool) -> Result<(), String> {
        let Some(id) = i32::try_from(one.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
        let copy = pidfd_open(id, PidfdFlags::empty())
            .and_then(|process| pidfd_getfd(process, one.number, PidfdGetfdFlags::empty()));
        let copy = match copy {
            Ok(copy) => copy,
            // It has ended, or closed it.
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::BADF) => return Ok(()),
            Err(error) => return Err(format!("pidfd_getfd: {error}")),
        };
        if let Some(site) = (self.ask)(copy.as_fd(), is_link)? {
            self.push(one.pid, Handle::Perf(site));
        }
        Ok(())
    }

    /// perf opens the same event once per CPU.
    fn push(&mut self, pid: u32, what: Handle) {
        let holding = Holding { pid, what };
        if self.found.last() != Some(&holding) {
            self.found.push(holding);
        }
    }
}

/// One of those that matter.
fn descriptor(pid: u32, entry: &fs::DirEntry) -> Option<Descriptor> {
    let link = fs::read_link(entry.path()).ok()?;
    let kind = kind(link.to_str()?)?;
    Some(Descriptor { pid, number: entry.file_name().to_str()?.parse().ok()?, kind })
}

/// The names that `kernel/bpf/syscall.c` and `kernel/events/core.c` give.
fn kind(link: &str) -> Option<Kind> {
    match link {
        "anon_inode:bpf-prog" | "anon_inode:bpf_link" | "anon_inode:bpf-link" => Some(Kind::Bpf),
        "anon_inode:[perf_event]" => Some(Kind::Perf),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
