//! Which process a record speaks of, across reused ids, two rings and lost records.

use super::clock::NS_PER_TICK;
use super::observe::{Observation, ProcessId};
use super::pipeline::{At, Pipeline};
use crate::event::Fork;

impl Pipeline {
    /// Which process has this tgid and start. Without a start, the one that has it now.
    pub(super) fn identity(&self, tgid: u32, start_ns: Option<u64>, now_ns: u64) -> ProcessId {
        let now_ticks = self.ticks(now_ns);
        match (start_ns, self.table.current(tgid)) {
            (Some(start), _) => ProcessId { tgid, start_ticks: start / NS_PER_TICK },
            (None, Some(id)) if self.table.get(id).is_some_and(|proc| !proc.ended) => id,
            (None, _) => ProcessId { tgid, start_ticks: now_ticks },
        }
    }

    /// A fork makes a new process, unless its exec was read before it.
    pub(super) fn child_identity(&self, fork: &Fork, now_ns: u64) -> ProcessId {
        let tgid = fork.child_tgid;
        match fork.child_start_ns {
            Some(start) => ProcessId { tgid, start_ticks: start / NS_PER_TICK },
            None => self
                .table
                .current(tgid)
                .filter(|id| self.table.get(*id).is_some_and(|proc| proc.born_ktime_ns >= now_ns))
                .unwrap_or(ProcessId { tgid, start_ticks: self.ticks(now_ns) }),
        }
    }

    pub(super) fn ticks(&self, now_ns: u64) -> u64 {
        self.clock.boot_ns(now_ns) / NS_PER_TICK
    }

    /// The tgid has a new holder: whoever had it is over, though its exit was not seen.
    pub(super) fn replace(
        &mut self,
        new: ProcessId,
        now_ns: u64,
        out: &mut impl FnMut(Observation),
    ) {
        if let Some(old) = self.table.current(new.tgid).filter(|old| *old != new) {
            self.finish(old, now_ns, out);
        }
    }

    /// The process of a record; one that is not in the table (its fork and exec were lost, or are
    /// still in the other ring) is looked up in `/proc`.
    pub(super) fn find(&mut self, at: At) -> Option<ProcessId> {
        let known = self.table.current(at.tgid);
        if known.and_then(|id| self.table.get(id)).is_some_and(|proc| !proc.ended) {
            return known;
        }
        // A late record of the ended one, unless the tgid has a new holder.
        let found = self.look_up(at.tgid, at.ktime_ns).or(known);
        self.strangers += u64::from(found.is_none());
        found
    }

    pub(super) fn adopt_parent(&mut self, child: ProcessId, parent: ProcessId) {
        if let Some(proc) = self.table.get_mut(child).filter(|proc| proc.parent.is_none()) {
            proc.parent = Some(parent);
            proc.shown = None;
        }
    }
}
