//! Which files carry probes, and for which programs: kept while a process runs one of these, and
//! for a while after; then released, as a probe holds the file system of its file.
//!
//! The kernel side tells a pair of program and library once, so what counts is who runs the program,
//! not who mapped the library. A file on the file systems of this host's own programs is kept for as
//! long as its path leads to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use super::directive::{Attached, Directive, Watch};
use super::observe::ProcessId;
use super::pipeline::{At, Pipeline};
use super::programs::is_far;
use crate::event::{FileKey, InodeKey};

/// How often it is looked whether anybody needs them, ns.
const LOOK_EVERY_NS: u64 = 5_000_000_000;
/// How long a file is kept that nobody needs: attaching takes up to 14 ms, and logins follow one
/// another, ns.
const KEEP_NS: u64 = 30_000_000_000;
/// Files with probes.
const FILES_MAX: usize = 1024;
/// Programs remembered of one file.
const PROGRAMS_MAX: usize = 256;
/// Other views of a file that are tried when the one that is probed through goes.
const HEIRS_MAX: usize = 4;
/// Records of what happened before a release may be read this long after it, ns.
const LATE_NS: u64 = 1_000_000_000;
/// Every file with probes.
#[derive(Debug, Default)]
pub(super) struct Watched {
    files: HashMap<InodeKey, Kept>,
    /// Devices of this host's own programs.
    own: BTreeSet<u32>,
    looked_ns: u64,
    released_ns: u64,
    /// Records were lost since the processes were last compared with those there are.
    lost: bool,
    refused: u64,
}

#[derive(Debug)]
struct Kept {
    file: FileKey,
    path: PathBuf,
    programs: BTreeMap<InodeKey, FileKey>,
    idle_since: Option<u64>,
    /// On a file system that stays with the host.
    own: bool,
    /// Functions whose entries are told, and since when, ns.
    told: BTreeMap<String, u64>,
    /// Some of these entries was.
    heard: bool,
}

/// A file to watch on behalf of a program.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) tgid: u32,
    pub(super) exe: FileKey,
    pub(super) path: PathBuf,
    pub(super) file: FileKey,
    /// Kind of file system, where it is known.
    pub(super) fs_magic: Option<u32>,
}

/// Guarded programs that run, each with a process.
type Running = HashMap<InodeKey, u32>;

// === impl Watched ===

impl Watched {
    /// Files on these devices stay with the host.
    pub(super) fn stay(&mut self, devices: impl IntoIterator<Item = u32>) {
        self.own.extend(devices);
    }

    pub(super) fn lost_records(&mut self) {
        self.lost = true;
    }

    /// Files that were not watched for want of room, or because they may hang.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// A function of this file was entered.
    pub(super) fn hear(&mut self, file: &InodeKey) {
        if let Some(kept) = self.files.get_mut(file) {
            kept.heard = true;
        }
    }

    /// Whoever enters this function of the file is told, since before then: its probe is there, and
    /// entries of the file were told.
    pub(super) fn is_told(&self, file: &InodeKey, function: &str, before_ns: u64) -> bool {
        let Some(kept) = self.files.get(file).filter(|kept| kept.heard) else { return false };
        kept.told.get(function).is_some_and(|since_ns| *since_ns <= before_ns)
    }

    /// When to look again, ns.
    pub(super) fn next_due(&self) -> Option<u64> {
        (!self.files.is_empty()).then(|| self.looked_ns.saturating_add(LOOK_EVERY_NS))
    }

    /// Remembers who wants it. Gives the program that is forgotten for it, if there are too many.
    fn enter(&mut self, wanted: &Wanted) -> Option<FileKey> {
        let own = self.own.contains(&wanted.file.dev);
        let kept = self.files.entry(inode(&wanted.file)).or_insert_with(|| Kept {
            file: wanted.file,
            path: wanted.path.clone(),
            programs: BTreeMap::new(),
            idle_since: None,
            own,
            told: BTreeMap::new(),
            heard: false,
        });
        (kept.file, kept.idle_since) = (wanted.file, None);
        kept.programs.insert(inode(&wanted.exe), wanted.exe);
        let other = kept.programs.keys().find(|program| **program != inode(&wanted.exe)).copied();
        let out = other.filter(|_| kept.programs.len() > PROGRAMS_MAX)?;
        kept.programs.remove(&out)
    }

    /// A process has just started this program: one that is over before the next look counts too.
    fn touch(&mut self, program: &InodeKey) {
        for kept in self.files.values_mut().filter(|kept| kept.programs.contains_key(program)) {
            kept.idle_since = None;
        }
    }

    fn note(&mut self, running: &Running, now_ns: u64) {
        for kept in self.files.values_mut() {
            if kept.user(running).is_some() {
                kept.idle_since = None;
            } else {
                kept.idle_since.get_or_insert(now_ns);
            }
        }
    }

    /// Files that nobody has needed for long, the longest first.
    fn expired(&self, now_ns: u64) -> Vec<InodeKey> {
        let mut found: Vec<(u64, InodeKey)> = self
            .files
            .iter()
            .filter_map(|(inode, kept)| Some((kept.idle_since?, *inode)))
            .filter(|(since, _)| now_ns.saturating_sub(*since) >= KEEP_NS)
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, inode)| inode).collect()
    }

    /// The file that nobody has needed for longest, but for the host's own.
    fn most_idle(&self) -> Option<InodeKey> {
        let idle = self.files.iter().filter(|(_, kept)| !kept.own);
        idle.filter_map(|(inode, kept)| Some((kept.idle_since?, *inode))).min().map(|(_, it)| it)
    }
}

impl Kept {
    /// A process that runs one of its programs.
    fn user(&self, running: &Running) -> Option<u32> {
        self.programs.keys().find_map(|program| running.get(program)).copied()
    }

    /// The same file below another overlay, perhaps; the kernel side decides.
    fn may_be(&self, other: &Self) -> bool {
        let content = |kept: &Self| (kept.file.ino, kept.file.ctime_s, kept.file.size);
        content(self) == content(other)
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// Watches the functions of a library that are configured, or the entry of a program.
    pub(super) fn watch(&mut self, wanted: Wanted, what: Watch) {
        let key = inode(&wanted.file);
        let far = is_far(wanted.fs_magic);
        let full = !self.watched.files.contains_key(&key) && self.watched.files.len() >= FILES_MAX;
        if !far
            && full
            && let Some(idle) = self.watched.most_idle()
        {
            self.release(idle, &Running::new());
        }
        let full = full && self.watched.files.len() >= FILES_MAX;
        let Wanted { tgid, exe, file, .. } = wanted;
        if far || full {
            tracing::debug!(path = %wanted.path.display(), far, "not watched");
            self.watched.refused += 1;
            // Told again with the next process: there may be room by then.
            self.directives.extend(full.then_some(Directive::ForgetMapping { exe, file }));
            return;
        }
        if let Some(exe) = self.watched.enter(&wanted) {
            self.directives.push(Directive::ForgetMapping { exe, file });
        }
        self.directives.push(Directive::Attach { tgid, path: wanted.path, exe, file, what });
    }

    /// What the kernel side was asked for is there. Word of a probe that may have been released since
    /// is none.
    pub fn attached(&mut self, attached: &Attached) {
        let Attached { file, functions, ktime_ns } = attached;
        let released = self.watched.released_ns;
        let Some(kept) = self.watched.files.get_mut(file).filter(|_| *ktime_ns > released) else {
            return;
        };
        for function in functions {
            kept.told.entry(function.clone()).or_insert(*ktime_ns);
        }
    }

    /// A program was started. Where its libraries were released after it had mapped them, no record
    /// has told of them.
    pub(super) fn watch_start(&mut self, id: ProcessId, at: At) {
        let program = self.table.get(id).and_then(|proc| proc.program.clone());
        let Some(program) = program.filter(|program| program.guarded()) else { return };
        self.watched.touch(&inode(&program.file));
        let released = self.watched.released_ns;
        if released > 0 && at.ktime_ns <= released.saturating_add(LATE_NS) {
            for (path, file) in self.outside.libraries(id.tgid) {
                self.watch_library(id.tgid, program.file, path, file, None);
            }
        }
    }

    /// Watches a library, if it has functions to watch.
    pub(super) fn watch_library(
        &mut self,
        tgid: u32,
        exe: FileKey,
        path: PathBuf,
        file: FileKey,
        fs_magic: Option<u32>,
    ) {
        let symbols = self.guards.symbols(&path);
        if !symbols.is_empty() {
            let wanted = Wanted { tgid, exe, path, file, fs_magic };
            self.watch(wanted, Watch::Functions(symbols));
        }
    }

    /// Releases what nobody has needed for long.
    pub(super) fn watched_tick(&mut self, now_ns: u64) {
        if self.watched.next_due().is_none_or(|due| now_ns < due) {
            return;
        }
        self.watched.looked_ns = now_ns;
        let mut running = self.running();
        self.watched.note(&running, now_ns);
        let due: Vec<InodeKey> = self.watched.expired(now_ns);
        if due.is_empty() {
            return;
        }
        if std::mem::take(&mut self.watched.lost) {
            self.find_unknown(now_ns);
            running = self.running();
            self.watched.note(&running, now_ns);
        }
        for key in due {
            let Some(kept) = self.watched.files.get_mut(&key) else { continue };
            if kept.idle_since.is_none() {
                continue;
            }
            if kept.own && self.outside.file(&kept.path).is_some_and(|now| now.ino == key.ino) {
                kept.idle_since = Some(now_ns);
                continue;
            }
            self.watched.released_ns = now_ns;
            self.release(key, &running);
        }
    }

    fn release(&mut self, key: InodeKey, running: &Running) {
        let Some(kept) = self.watched.files.remove(&key) else { return };
        tracing::debug!(path = %kept.path.display(), "nobody needs it any more");
        self.constructors_forget(key);
        // First, so that whoever maps it from now on is told.
        let forget = |exe: &FileKey| Directive::ForgetMapping { exe: *exe, file: kept.file };
        self.directives.extend(kept.programs.values().map(forget));
        // Its probes may have been theirs: who maps one of those next is told, so that they are asked
        // for again.
        for other in self.watched.files.values_mut().filter(|other| kept.may_be(other)) {
            other.heard = false;
            if !std::mem::take(&mut other.told).is_empty() {
                let (exes, file) = (other.programs.values(), other.file);
                self.directives
                    .extend(exes.map(|exe| Directive::ForgetMapping { exe: *exe, file }));
            }
        }
        let others = self.watched.files.values().filter(|other| kept.may_be(other));
        let heirs = others
            .filter_map(|other| {
                Some((other.user(running)?, other.path.clone(), inode(&other.file)))
            })
            .take(HEIRS_MAX)
            .collect();
        self.directives.push(Directive::Release { inode: key, heirs });
    }

    /// Guarded programs that run.
    fn running(&self) -> Running {
        let mut running = Running::new();
        let guarded: Vec<(ProcessId, InodeKey)> = self
            .table
            .alive()
            .filter(|proc| proc.guarded())
            .filter_map(|proc| Some((proc.id, inode(&proc.program.as_ref()?.file))))
            .collect();
        for (id, program) in guarded {
            if running.contains_key(&program) {
                continue;
            }
            let gone = self.outside.stat(id.tgid).is_none();
            // Its end was missed, or is still to be read. Nothing can be told of processes that are
            // only recorded.
            if !gone || self.outside.processes().is_empty() {
                running.insert(program, id.tgid);
            }
        }
        running
    }

    /// Processes whose beginning was missed.
    fn find_unknown(&mut self, now_ns: u64) {
        for tgid in self.outside.processes() {
            let known = self.table.current(tgid).and_then(|id| self.table.get(id));
            if known.is_none_or(|proc| proc.ended) {
                self.look_up(tgid, now_ns);
            }
        }
    }
}

/// What a file is kept by.
pub(super) fn inode(file: &FileKey) -> InodeKey {
    InodeKey { ino: file.ino, dev: file.dev, reserved: 0 }
}

#[cfg(test)]
mod tests;
