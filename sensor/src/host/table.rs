//! The process table: who runs, since when, and below whom; bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::constructors::Start;
use super::container::Container;
use super::home::Home;
use super::observe::{ConnectionId, Process, ProcessId, Program};
use super::opened::Placed;
use crate::event::InodeKey;

/// Ended processes remembered for late records and as ancestors.
const ENDED_MAX: usize = 1024;
/// Ancestors told.
const ANCESTORS_MAX: usize = 16;

/// What is known of one process.
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
#[derive(Clone, Debug)]
pub(super) struct Proc {
    pub(super) id: ProcessId,
    pub(super) parent: Option<ProcessId>,
    pub(super) program: Option<Arc<Program>>,
    /// Root directory as of the last exec, where the kernel tells it, and whose it is.
    pub(super) root: Option<InodeKey>,
    pub(super) home: Home,
    pub(super) uid: u32,
    pub(super) euid: u32,
    /// Its program runs with more rights than who started it.
    pub(super) secure: bool,
    /// `None` until read.
    pub(super) cmdline: Option<Arc<[String]>>,
    pub(super) container: Option<Arc<Container>>,
    /// The container was read, not inherited.
    pub(super) container_read: bool,
    pub(super) connection: Option<ConnectionId>,
    /// `CLOCK_MONOTONIC` of the fork, or of the first event, ns.
    pub(super) born_ktime_ns: u64,
    /// Loader variables (`NAME=value`) in the environment since its exec, and before it.
    pub(super) variables: Arc<[String]>,
    pub(super) inherited: Arc<[String]>,
    /// Between exec and the end of linking.
    pub(super) linking: bool,
    /// RELRO of a guarded program as it was sealed: address and length.
    pub(super) sealed: Vec<(u64, u64)>,
    /// A guarded program's start until its entry.
    pub(super) start: Option<Box<Start>>,
    /// Where a guarded program has its code.
    pub(super) placed: Arc<[Placed]>,
    /// The files of libpam that it was linked with.
    pub(super) libpams: Arc<[InodeKey]>,
    pub(super) ended: bool,
    /// What observations share; dropped when something in it changes.
    pub(super) shown: Option<Arc<Process>>,
}

/// Processes by identity, with the current holder of each tgid.
#[derive(Debug)]
pub(super) struct Table {
    by_id: HashMap<ProcessId, Entry>,
    current: HashMap<u32, ProcessId>,
    /// Ended processes, the first one to end first, and running ones, the first one to come first, with
    /// a second chance for who was used since.
    over: Queue,
    running: Queue,
    uses: u64,
    ended: usize,
    capacity: usize,
    evicted_alive: u64,
}

#[derive(Debug)]
struct Entry {
    proc: Proc,
    used: u64,
    /// Number of its place in a queue.
    queued: u64,
}

/// Who leaves next (second chance, also called CLOCK). A use costs nothing here: who was used since
/// goes to the end of the line when its turn comes, and places of who is gone are passed over.
#[derive(Debug, Default)]
struct Queue(VecDeque<(u64, ProcessId)>);

// === impl Proc ===

impl Proc {
    pub(super) fn new(id: ProcessId, born_ktime_ns: u64) -> Self {
        Self {
            id,
            parent: None,
            program: None,
            root: None,
            home: Home::Host,
            uid: 0,
            euid: 0,
            secure: false,
            cmdline: None,
            container: None,
            container_read: false,
            connection: None,
            born_ktime_ns,
            variables: Arc::default(),
            inherited: Arc::default(),
            linking: false,
            sealed: Vec::new(),
            start: None,
            placed: Arc::default(),
            libpams: Arc::default(),
            ended: false,
            shown: None,
        }
    }

    /// A fork of this process: everything but identity is inherited.
    pub(super) fn child(&self, id: ProcessId, born_ktime_ns: u64) -> Self {
        Self {
            id,
            parent: Some(self.id),
            born_ktime_ns,
            container_read: false,
            linking: false,
            start: None,
            ended: false,
            connection: None,
            shown: None,
            ..self.clone()
        }
    }

    pub(super) fn sshd(&self) -> bool {
        self.program.as_ref().is_some_and(|program| program.sshd())
    }

    pub(super) fn guarded(&self) -> bool {
        self.program.as_ref().is_some_and(|program| program.guarded())
    }
}

// === impl Table ===

impl Table {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            by_id: HashMap::new(),
            current: HashMap::new(),
            over: Queue::default(),
            running: Queue::default(),
            uses: 0,
            ended: 0,
            capacity: capacity.max(16),
            evicted_alive: 0,
        }
    }

    pub(super) fn get(&self, id: ProcessId) -> Option<&Proc> {
        self.by_id.get(&id).map(|entry| &entry.proc)
    }

    /// For changes; counts as a use.
    pub(super) fn get_mut(&mut self, id: ProcessId) -> Option<&mut Proc> {
        self.touch(id);
        self.by_id.get_mut(&id).map(|entry| &mut entry.proc)
    }

    /// The process that last had this tgid.
    pub(super) fn current(&self, tgid: u32) -> Option<ProcessId> {
        self.current.get(&tgid).copied()
    }

    pub(super) fn insert(&mut self, proc: Proc) {
        let id = proc.id;
        self.remove(id);
        // Before it comes in, so that it is never the one who leaves.
        while self.by_id.len() >= self.capacity && self.evict() {}
        self.uses += 1;
        self.ended += usize::from(proc.ended);
        self.current.insert(id.tgid, id);
        let queue = if proc.ended { &mut self.over } else { &mut self.running };
        queue.0.push_back((self.uses, id));
        self.by_id.insert(id, Entry { proc, used: self.uses, queued: self.uses });
        while self.ended > ENDED_MAX.min(self.capacity / 2) && self.evict() {}
        self.tidy();
    }

    /// Marks an end; the entry stays for a while.
    pub(super) fn end(&mut self, id: ProcessId) {
        let Some(entry) = self.by_id.get_mut(&id).filter(|entry| !entry.proc.ended) else {
            return;
        };
        self.uses += 1;
        (entry.used, entry.queued) = (self.uses, self.uses);
        entry.proc.ended = true;
        entry.proc.shown = None;
        self.ended += 1;
        self.over.0.push_back((self.uses, id));
    }

    /// Processes that run.
    pub(super) fn alive(&self) -> impl Iterator<Item = &Proc> {
        self.by_id.values().map(|entry| &entry.proc).filter(|proc| !proc.ended)
    }

    /// Executables of the ancestors, parent first.
    pub(super) fn ancestors(&self, proc: &Proc) -> Vec<String> {
        let mut found = Vec::new();
        let mut next = proc.parent;
        while let Some(parent) = next.and_then(|id| self.get(id)) {
            if found.len() == ANCESTORS_MAX {
                break;
            }
            found.extend(parent.program.as_ref().map(|program| program.module.path.clone()));
            next = parent.parent;
        }
        found
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Running processes that were forgotten for want of room.
    pub(super) fn evicted_alive(&self) -> u64 {
        self.evicted_alive
    }

    fn touch(&mut self, id: ProcessId) {
        if let Some(entry) = self.by_id.get_mut(&id) {
            self.uses += 1;
            entry.used = self.uses;
        }
    }

    /// False where there is nobody.
    fn evict(&mut self) -> bool {
        if let Some(id) = self.over.pop(&mut self.by_id) {
            self.remove(id);
        } else if let Some(id) = self.running.pop(&mut self.by_id) {
            self.evicted_alive += 1;
            self.remove(id);
        } else {
            return false;
        }
        true
    }

    /// Lets go of places that nobody has, before they are more than the others.
    fn tidy(&mut self) {
        self.over.tidy(&self.by_id, self.ended);
        self.running.tidy(&self.by_id, self.by_id.len() - self.ended);
    }

    fn remove(&mut self, id: ProcessId) {
        let Some(entry) = self.by_id.remove(&id) else { return };
        self.ended -= usize::from(entry.proc.ended);
        if self.current.get(&id.tgid) == Some(&id) {
            self.current.remove(&id.tgid);
        }
    }
}

// === impl Queue ===

impl Queue {
    /// Places that nobody has, besides as many as there are others.
    const SLACK: usize = 64;

    /// Takes out the first that was not used since it has its place.
    fn pop(&mut self, by_id: &mut HashMap<ProcessId, Entry>) -> Option<ProcessId> {
        while let Some((place, id)) = self.0.pop_front() {
            let Some(entry) = by_id.get_mut(&id).filter(|entry| entry.queued == place) else {
                continue;
            };
            if entry.used == place {
                return Some(id);
            }
            entry.queued = entry.used;
            self.0.push_back((entry.used, id));
        }
        None
    }

    fn tidy(&mut self, by_id: &HashMap<ProcessId, Entry>, living: usize) {
        if self.0.len() > 2 * living + Self::SLACK {
            let is_held = |(place, id): &(u64, ProcessId)| {
                by_id.get(id).is_some_and(|entry| entry.queued == *place)
            };
            self.0.retain(is_held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(tgid: u32, start_ticks: u64) -> ProcessId {
        ProcessId { tgid, start_ticks }
    }

    fn table(capacity: usize, processes: u32) -> Table {
        let mut table = Table::new(capacity);
        for tgid in 1..=processes {
            table.insert(Proc::new(id(tgid, 1), u64::from(tgid)));
        }
        table
    }

    #[test]
    fn ended_processes_leave_before_running_ones() {
        let mut table = table(16, 16);
        table.end(id(9, 1));
        table.insert(Proc::new(id(17, 1), 17));
        assert!(table.get(id(9, 1)).is_none());
        assert!(table.get(id(1, 1)).is_some());
        assert_eq!((table.len(), table.evicted_alive()), (16, 0));
    }

    #[test]
    fn among_running_ones_who_was_not_used_leaves() {
        let mut table = table(16, 16);
        table.get_mut(id(1, 1));
        table.insert(Proc::new(id(17, 1), 17));
        assert!(table.get(id(1, 1)).is_some());
        assert!(table.get(id(2, 1)).is_none());
        assert_eq!(table.evicted_alive(), 1);
    }

    #[test]
    fn who_is_used_all_the_time_stays() {
        let mut table = table(16, 16);
        for tgid in 17..500 {
            table.get_mut(id(3, 1));
            table.insert(Proc::new(id(tgid, 1), 0));
        }
        assert!(table.get(id(3, 1)).is_some());
        assert_eq!((table.len(), table.evicted_alive()), (16, 483));
        table.end(id(3, 1));
        table.insert(Proc::new(id(500, 1), 0));
        assert!(table.get(id(3, 1)).is_none(), "ended, it leaves first");
        assert_eq!(table.evicted_alive(), 483);
    }

    #[test]
    fn who_comes_last_stays_where_all_others_are_in_use() {
        let mut table = table(16, 16);
        for tgid in 17..40 {
            for other in 1..tgid {
                table.get_mut(id(other, 1));
            }
            table.insert(Proc::new(id(tgid, 1), 0));
            assert!(table.get(id(tgid, 1)).is_some(), "{tgid}");
            assert_eq!(table.len(), 16);
        }
    }

    #[test]
    fn a_reused_tgid_is_another_process() {
        let mut table = table(16, 3);
        table.end(id(2, 1));
        table.insert(Proc::new(id(2, 500), 9));
        assert_eq!(table.current(2), Some(id(2, 500)));
        assert!(table.get(id(2, 1)).is_some_and(|old| old.ended));
        table.end(id(2, 500));
        assert_eq!(table.current(2), Some(id(2, 500)), "late records still find it");
    }

    #[test]
    fn a_flood_of_ended_processes_is_bounded() {
        let mut table = Table::new(64);
        for tgid in 0..10_000 {
            table.insert(Proc::new(id(tgid, 1), 0));
            table.end(id(tgid, 1));
        }
        assert!(table.len() <= 64, "{}", table.len());
        let places = table.over.0.len() + table.running.0.len();
        assert!(places <= 2 * table.len() + 2 * Queue::SLACK, "{places}");
        assert_eq!(table.current.len(), table.len());
    }
}
