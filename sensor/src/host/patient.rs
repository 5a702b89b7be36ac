//! [`Outside`] and [`Locate`] for the task that reads the rings: whatever may wait for a file or for
//! a process's memory is asked beside it.
//!
//! Arguments, environment and maps of a process wait for a lock that a page fault on a hung mount
//! holds; a path may lead to such a mount. What is not answered in time is not known then. A build-id
//! that comes late is there when it is next asked for.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::aside::Aside;
use super::commands::Commands;
use super::coverage::Uncovered;
use super::observe::Located;
use super::opened::Asked;
use super::outside::{BuildId, Locate, Outside, RootView, Stat, Unanswered, Unseen};
use super::variable::FoundLibrary;
use crate::event::{FileKey, InodeKey, Stack};
use crate::verify::cache::Lru;

/// Build-ids that came late, or of files nobody waits for.
const LATE_MAX: usize = 4096;
/// Slow devices remembered; beyond, all are tried anew.
const SLOW_MAX: usize = 256;

/// Asks beside the line.
pub struct Patient<O> {
    /// Answers at once: reads nothing but what the kernel keeps of the process itself.
    inner: O,
    /// What lies in files of this machine, and in the memory of processes.
    near: RefCell<Aside<O>>,
    /// What another machine or program has to answer for.
    far: RefCell<Aside<O>>,
    late: Arc<Mutex<Late>>,
    /// Devices whose files were waited for in vain.
    slow: RefCell<HashSet<u32>>,
}

/// What is read beside the line.
struct Late {
    known: Lru<FileKey, BuildId>,
    /// Files that are being read.
    pending: HashSet<FileKey>,
}

/// The same for addresses.
#[derive(Debug)]
pub struct PatientLocate<L>(Aside<L>);

// === impl Patient ===

impl<O: Outside + Clone + Send + 'static> Patient<O> {
    /// Starts no thread before it is needed.
    pub fn new(inner: O) -> Self {
        let tools = |name| {
            let inner = inner.clone();
            RefCell::new(Aside::new(name, move || inner.clone()))
        };
        let late = Late { known: Lru::new(LATE_MAX, LATE_MAX), pending: HashSet::new() };
        let (late, slow) = (Arc::new(Mutex::new(late)), RefCell::default());
        Self { near: tools("files"), far: tools("far-files"), late, slow, inner }
    }

    fn near<R: Send + 'static>(&self, work: impl FnOnce(&O) -> R + Send + 'static) -> Option<R> {
        self.near.borrow_mut().ask(move |outside| work(outside))
    }

    /// The work that finds a build-id, and keeps it where nobody waits for it any more.
    fn read_build_id(
        &self,
        tgid: u32,
        path: &Path,
        file: FileKey,
    ) -> impl FnOnce(&mut O) -> BuildId + Send + 'static {
        let (path, late) = (path.to_owned(), Arc::clone(&self.late));
        move |outside| {
            let found = outside.build_id(tgid, &path, &file);
            let mut late = lock(&late);
            late.pending.remove(&file);
            if found != BuildId::Unread {
                late.known.insert(file, found.clone(), 1);
            }
            found
        }
    }

    fn known(&self, file: FileKey) -> Option<BuildId> {
        lock(&self.late).known.get(&file)
    }
}

impl<O: Outside + Clone + Send + 'static> Outside for Patient<O> {
    fn processes(&self) -> Vec<u32> {
        self.inner.processes()
    }

    fn stat(&self, tgid: u32) -> Option<Stat> {
        self.inner.stat(tgid)
    }

    fn exe(&self, tgid: u32) -> Option<(PathBuf, FileKey)> {
        self.near(move |outside| outside.exe(tgid))?
    }

    fn cmdline(&self, tgid: u32) -> Vec<String> {
        self.near(move |outside| outside.cmdline(tgid)).unwrap_or_default()
    }

    fn cgroup(&self, tgid: u32) -> Option<String> {
        self.inner.cgroup(tgid)
    }

    fn libraries(&self, tgid: u32) -> Vec<(PathBuf, FileKey)> {
        self.near(move |outside| outside.libraries(tgid)).unwrap_or_default()
    }

    fn file(&self, path: &Path) -> Option<FileKey> {
        let path = path.to_owned();
        self.near(move |outside| outside.file(&path))?
    }

    fn is_roots_own(&self, holder: u32, tgid: u32, path: &Path, file: &FileKey) -> bool {
        let (path, file) = (path.to_owned(), *file);
        self.near(move |outside| outside.is_roots_own(holder, tgid, &path, &file)).unwrap_or(false)
    }

    fn entry(&self, tgid: u32, path: &Path, inode: InodeKey) -> Option<u64> {
        let path = path.to_owned();
        self.near(move |outside| outside.entry(tgid, &path, inode))?
    }

    fn build_id(&self, tgid: u32, path: &Path, file: &FileKey) -> BuildId {
        if let Some(known) = self.known(*file) {
            return known;
        }
        if self.slow.borrow().contains(&file.dev) {
            return self.build_id_later(tgid, path, file);
        }
        let read = self.read_build_id(tgid, path, *file);
        let answer = self.near.borrow_mut().ask(read);
        if answer.is_none() {
            let mut slow = self.slow.borrow_mut();
            if slow.len() >= SLOW_MAX {
                slow.clear();
            }
            slow.insert(file.dev);
        }
        answer.unwrap_or(BuildId::Unread)
    }

    fn build_id_later(&self, tgid: u32, path: &Path, file: &FileKey) -> BuildId {
        if let Some(known) = self.known(*file) {
            return known;
        }
        {
            let mut late = lock(&self.late);
            if late.pending.len() >= LATE_MAX || !late.pending.insert(*file) {
                return BuildId::Unread;
            }
        }
        let read = self.read_build_id(tgid, path, *file);
        if !self.far.borrow_mut().later(move |outside| drop(read(outside))) {
            lock(&self.late).pending.remove(file);
        }
        BuildId::Unread
    }

    fn uncovered(&self, tgid: u32, path: &Path, file: &FileKey) -> Option<Uncovered> {
        if self.slow.borrow().contains(&file.dev) {
            return None;
        }
        let (path, file) = (path.to_owned(), *file);
        self.near(move |outside| outside.uncovered(tgid, &path, &file))?
    }

    fn environ(&self, tgid: u32) -> Option<Vec<u8>> {
        self.near(move |outside| outside.environ(tgid))?
    }

    fn look_inside(
        &self,
        tgid: u32,
        on_host: bool,
        path: &str,
    ) -> Result<Option<FoundLibrary>, Unanswered> {
        let path = path.to_owned();
        self.near(move |outside| outside.look_inside(tgid, on_host, &path)).ok_or(Unanswered)?
    }

    fn sshd_commands(&self, tgid: u32, arguments: &[String]) -> Result<Commands, Unanswered> {
        let arguments = arguments.to_vec();
        self.near(move |outside| outside.sshd_commands(tgid, &arguments)).ok_or(Unanswered)?
    }

    fn write_target(&self, writer: u32, by_mem: bool, asked: u32) -> Option<u32> {
        self.inner.write_target(writer, by_mem, asked)
    }

    fn root(&self, tgid: u32) -> Option<RootView> {
        self.near(move |outside| outside.root(tgid))?
    }

    fn host_devices(&self) -> Vec<u32> {
        self.near(Outside::host_devices).unwrap_or_default()
    }

    fn given_up(&self) -> u64 {
        self.near.borrow().given_up() + self.far.borrow().given_up()
    }
}

/// Whole whatever panicked: each change is one insertion.
fn lock(late: &Mutex<Late>) -> MutexGuard<'_, Late> {
    late.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<O> std::fmt::Debug for Patient<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patient").field("near", &self.near).finish_non_exhaustive()
    }
}

// === impl PatientLocate ===

impl<L: Locate + Send + 'static> PatientLocate<L> {
    /// `make` is called for every thread that is needed.
    pub fn new(make: impl Fn() -> L + Send + 'static) -> Self {
        Self(Aside::new("addresses", make))
    }
}

impl<L: Locate + Send + 'static> Locate for PatientLocate<L> {
    fn locate(&mut self, tgid: u32, addresses: &[u64]) -> Vec<Option<Located>> {
        let wanted = addresses.to_vec();
        let found = self.0.ask(move |locate| locate.locate(tgid, &wanted));
        found.unwrap_or_else(|| vec![None; addresses.len()])
    }

    fn asker(&mut self, tgid: u32, stack: &Stack, code: &[u64]) -> Result<Asked, Unseen> {
        let (stack, code) = (stack.clone(), code.to_vec());
        self.0.ask(move |locate| locate.asker(tgid, &stack, &code)).ok_or(Unseen::Unread)?
    }

    fn callers(&mut self, tgid: u32, stack: &Stack) -> Vec<Located> {
        let stack = stack.clone();
        self.0.ask(move |locate| locate.callers(tgid, &stack)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
