//! Which process holds which BPF program, link or perf event open: `/proc/*/fd` and `fdinfo`.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::fdinfo::{self, Held, Link};
use super::{AskPerf, Source};
use crate::loader::PerfSite;

/// Descriptors looked at in one survey, of all processes together and of one.
const ALL_MAX: usize = 500_000;
const ONE_MAX: usize = 65_536;
/// Perf events asked about, of one process: perf opens one per CPU.
const PERF_MAX: usize = 1024;
/// Bytes read of one descriptor's text.
const TEXT_MAX: u64 = 64 << 10;

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

/// A look at every process.
struct Walk<'a> {
    ask: &'a mut AskPerf,
    left: usize,
    found: Vec<Holding>,
    /// Why something was not looked at.
    reason: Option<String>,
    perf_reason: Option<String>,
}

enum Kind {
    Bpf,
    Perf,
}

/// Every hold that can be seen.
pub(super) fn walk(ask: &mut AskPerf, sources: &mut Vec<Source>) -> Vec<Holding> {
    let mut walk = Walk { ask, left: ALL_MAX, found: Vec::new(), reason: None, perf_reason: None };
    match fs::read_dir("/proc") {
        Ok(entries) => {
            let name = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
            for pid in entries.flatten().filter_map(name) {
                walk.process(pid);
            }
        }
        Err(error) => walk.reason = Some(error.to_string()),
    }
    sources.push(Source { name: "descriptors", reason: walk.reason });
    sources.push(Source { name: "perf events", reason: walk.perf_reason });
    walk.found
}

impl Walk<'_> {
    fn process(&mut self, pid: u32) {
        let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                self.reason.get_or_insert_with(|| format!("descriptors of others: {error}"));
                return;
            }
            // It has ended.
            Err(_) => return,
        };
        let mut perf = 0;
        for (count, entry) in entries.flatten().enumerate() {
            if self.left == 0 || count >= ONE_MAX {
                let reason = "more descriptors than are looked at";
                self.reason.get_or_insert_with(|| reason.to_owned());
                return;
            }
            self.left -= 1;
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let Some(kind) = link.to_str().and_then(kind) else { continue };
            let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match kind {
                Kind::Bpf => self.bpf(pid, fd),
                Kind::Perf if perf < PERF_MAX => {
                    perf += 1;
                    self.perf(pid, fd, false);
                }
                Kind::Perf => {
                    let reason = format!("more than {PERF_MAX} perf events in one process");
                    self.perf_reason.get_or_insert(reason);
                }
            }
        }
    }

    fn bpf(&mut self, pid: u32, fd: i32) {
        let mut text = Vec::new();
        let path = format!("/proc/{pid}/fdinfo/{fd}");
        let read = File::open(path).and_then(|file| file.take(TEXT_MAX).read_to_end(&mut text));
        // Closed meanwhile.
        if read.is_err() {
            return;
        }
        match fdinfo::parse(&String::from_utf8_lossy(&text)) {
            Some(Held::Program(id)) => self.push(pid, Handle::Program(id)),
            Some(Held::Link(link)) => {
                // The path is the one that was given, /proc/self/fd/9 perhaps: ask for the file.
                if link.untold || (link.kind == "perf" && !link.uprobes.is_empty()) {
                    self.perf(pid, fd, true);
                }
                self.push(pid, Handle::Link(link));
            }
            None => {}
        }
    }

    fn perf(&mut self, pid: u32, fd: i32, is_link: bool) {
        let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
        let copy = pidfd_open(id, PidfdFlags::empty())
            .and_then(|process| pidfd_getfd(process, fd, PidfdGetfdFlags::empty()));
        let copy = match copy {
            Ok(copy) => copy,
            // It has ended, or closed it.
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::BADF) => return,
            Err(error) => {
                self.perf_reason.get_or_insert_with(|| format!("pidfd_getfd: {error}"));
                return;
            }
        };
        match (self.ask)(copy.as_fd(), is_link) {
            Ok(Some(site)) => self.push(pid, Handle::Perf(site)),
            Ok(None) => {}
            Err(reason) => {
                self.perf_reason.get_or_insert(reason);
            }
        }
    }

    /// perf opens the same event once per CPU.
    fn push(&mut self, pid: u32, what: Handle) {
        let holding = Holding { pid, what };
        if self.found.last() != Some(&holding) {
            self.found.push(holding);
        }
    }
}

/// The names that `kernel/bpf/syscall.c` and `kernel/events/core.c` give.
fn kind(link: &str) -> Option<Kind> {
    match link {
        "anon_inode:bpf-prog" | "anon_inode:bpf_link" | "anon_inode:bpf-link" => Some(Kind::Bpf),
        "anon_inode:[perf_event]" => Some(Kind::Perf),
        _ => None,
    }
}
