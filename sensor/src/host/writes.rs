//! Who writes where nobody should: into another process's memory, and a guarded program into its own
//! sealed one.

use sensor_common::record::{WRITE_MEM, WRITE_PTRACE, WRITE_VM};

use super::observe::{Body, Observation, ProcessId, Reopened, Written};
use super::opened;
use super::pipeline::{At, Pipeline};
use super::variable::Owners;
use crate::event::{Seal, Write};

/// The bits of a record in words.
const WAYS: [(u32, &str); 3] =
    [(WRITE_PTRACE, "ptrace"), (WRITE_VM, "process_vm_writev"), (WRITE_MEM, "/proc/PID/mem")];

impl Pipeline {
    pub(super) fn on_write(&mut self, at: At, write: &Write, out: &mut impl FnMut(Observation)) {
        let Some(writer) = self.find(at) else { return };
        self.learn_details(writer);
        let tgid = write.target_tgid.or_else(|| {
            let by_mem = write.ways & WRITE_MEM != 0;
            self.outside.write_target(at.tgid, by_mem, write.asked?)
        });
        let target = tgid.and_then(|tgid| self.find(At { tgid, ..at }));
        let Some(shown) = self.shown(writer) else { return };
        let place = target.zip(write.addr).and_then(|(target, addr)| {
            self.locate.locate(target.tgid, &[addr]).into_iter().next().flatten()
        });
        let whose = target.unwrap_or(writer);
        self.learn_details(whose);
        let is_root_daemon = target.is_some_and(|target| self.is_root_daemon(target));
        let written = Written {
            writer: shown,
            is_target: target.is_some(),
            ways: WAYS
                .iter()
                .filter(|(bit, _)| write.ways & bit != 0)
                .map(|(_, way)| *way)
                .collect(),
            count: write.count,
            place,
            is_own: target.is_some_and(|target| self.is_own(writer, target)),
            is_root_daemon,
            owners: Owners::NotAsked,
            origin: None,
        };
        self.emit(whose, at.ktime_ns, Body::Written(Box::new(written)), out);
        let guarded =
            target.and_then(|id| self.table.get(id)).is_some_and(super::table::Proc::guarded);
        if guarded || is_root_daemon {
            self.schedule.written(whose, at.ktime_ns);
        }
    }

    /// `writer` or its parent has started `target`, as a debugger does.
    fn is_own(&self, writer: ProcessId, target: ProcessId) -> bool {
        let parent = |id: ProcessId| self.table.get(id).and_then(|proc| proc.parent);
        let above = parent(target);
        above == Some(writer) || above.and_then(parent) == Some(writer)
    }

    pub(super) fn is_root_daemon(&self, id: ProcessId) -> bool {
        let Some(proc) = self.table.get(id) else { return false };
        // Who started it and ended has left it to process 1.
        let is_left = |parent: ProcessId| self.table.get(parent).is_none_or(|proc| proc.ended);
        proc.euid == 0 && proc.parent.is_none_or(|parent| parent.tgid == 1 || is_left(parent))
    }

    /// Only memory of files counts: allocators make other memory writable all the time.
    pub(super) fn on_reopened(
        &mut self,
        id: ProcessId,
        at: At,
        seal: &Seal,
        out: &mut impl FnMut(Observation),
    ) {
        let Some(proc) = self.table.get(id).filter(|proc| proc.guarded()) else { return };
        let (start, end) = (seal.at.addr, seal.at.addr.saturating_add(seal.len));
        let sealed = proc
            .sealed
            .iter()
            .find(|(addr, len)| *addr < end && start < addr.saturating_add(*len))
            .map(|(addr, _)| start.max(*addr));
        // A range may begin or end in memory of no file.
        let address = sealed.unwrap_or(start);
        let mut asked = vec![address, end.saturating_sub(1).max(start)];
        asked.extend(opened::starts(&proc.placed, start..end));
        let found = self.locate.locate(at.tgid, &asked).into_iter().flatten();
        let mut of_files = found.filter(|place| place.module.path.starts_with('/'));
        let Some(place) = of_files.next() else { return };
        self.learn_details(id);
        let reopened = Reopened { place, len: seal.len, prot: seal.prot, relro: sealed.is_some() };
        self.emit(id, at.ktime_ns, Body::Reopened(Box::new(reopened)), out);
        self.schedule.reopened(id, at.ktime_ns);
    }
}
