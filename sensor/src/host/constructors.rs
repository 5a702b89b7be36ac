//! Starts of guarded programs up to their entry: library constructors, which run between the last
//! seal and the program's own code (glibc elf/dl-init.c `_dl_init`), and whose code takes the time
//! where a start takes long.
//!
//! The constructors' time costs one breakpoint at the program's entry. Who takes it is asked only
//! where linking or constructors take long: then the process is sampled until it enters its program.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::directive::{Directive, Watch};
use super::module::ModuleId;
use super::observe::{Body, Constructed, Located, Observation, ProcessId};
use super::pipeline::{At, Pipeline};
use super::watched::{Wanted, inode};
use crate::event::{Caller, Exec, InodeKey, Link, Sample, SealAt, Usage};

/// Constructors that are still at work after this time are looked at, ns. Usual ones take less than
/// a millisecond.
const PATIENCE_NS: u64 = 3_000_000;
/// A program that still links after this time is looked at, ns. sshd links in 4 ms; its seals tell
/// which module is being relocated, but not whose resolver is called for it.
const LINK_PATIENCE_NS: u64 = 12_000_000;
/// Longest that one process is sampled, ns.
const SAMPLED_NS: u64 = 2_000_000_000;
/// Programs whose entry is watched.
const PROGRAMS_MAX: usize = 1024;
/// Processes waiting at once; beyond, a start is not looked at.
const WAITING_MAX: usize = 256;
/// Modules counted of one start.
const MODULES_MAX: usize = 32;

/// A guarded process from its exec to its entry.
#[derive(Clone, Debug)]
pub(super) struct Start {
    exec_ktime_ns: u64,
    usage: Usage,
    sealed: Option<SealAt>,
    /// When it is to be sampled if it has not come further by then, ns.
    due_ns: u64,
    sampled: bool,
    modules: Vec<(ModuleId, u32)>,
}

/// Which programs' entries are seen, and which starts are to be looked at when.
#[derive(Debug, Default)]
pub(super) struct Constructors {
    /// With the address of the entry in its file, where that is known.
    asked: HashMap<InodeKey, Option<u64>>,
    entered: HashSet<InodeKey>,
    /// Due at this time: begin, or end where it has begun.
    begin: BTreeSet<(u64, ProcessId)>,
    end: BTreeSet<(u64, ProcessId)>,
}

// === impl Start ===

impl Start {
    fn new(ktime_ns: u64, usage: Usage) -> Self {
        Self {
            exec_ktime_ns: ktime_ns,
            usage,
            sealed: None,
            due_ns: ktime_ns.saturating_add(LINK_PATIENCE_NS),
            sampled: false,
            modules: Vec::new(),
        }
    }

    /// From the last seal to now; `None` where no seal is known.
    fn constructed(self, ktime_ns: u64, usage: &Usage) -> Option<Constructed> {
        let sealed = self.sealed?;
        let sealed_at = self.exec_ktime_ns.saturating_add(sealed.wall_ns);
        let wall_ns = ktime_ns.saturating_sub(sealed_at);
        let delay = usage.run_delay_ns.saturating_sub(self.usage.run_delay_ns);
        let switches = usage.voluntary_switches.saturating_sub(self.usage.voluntary_switches);
        let modules = busiest_first(self.modules);
        Some(Constructed {
            wall_ns,
            cpu_ns: wall_ns.saturating_sub(delay.saturating_sub(sealed.run_delay_ns)),
            blocked: switches != u64::from(sealed.voluntary_switches),
            modules,
        })
    }
}

// === impl Constructors ===

impl Constructors {
    /// The address may be that of the program's entry, or just behind its `endbr64`.
    fn is_entry(&self, inode: InodeKey, ip: u64) -> bool {
        const PAGE: u64 = 4096;
        let entry = self.asked.get(&inode).copied().flatten();
        entry.is_some_and(|entry| {
            [0, 4].iter().any(|ahead| entry.wrapping_add(*ahead) % PAGE == ip % PAGE)
        })
    }

    /// When something is to begin or to end next, ns.
    pub(super) fn next_due(&self) -> Option<u64> {
        let due = |queue: &BTreeSet<(u64, ProcessId)>| queue.first().map(|(due, _)| *due);
        due(&self.begin).into_iter().chain(due(&self.end)).min()
    }

    /// Where the entry is not seen, nothing would end it.
    fn await_start(&mut self, inode: InodeKey, due_ns: u64, id: ProcessId) {
        if self.entered.contains(&inode) && self.begin.len() < WAITING_MAX {
            self.begin.insert((due_ns, id));
        }
    }
}

fn pop(queue: &mut BTreeSet<(u64, ProcessId)>, now_ns: u64) -> Option<(u64, ProcessId)> {
    let first = queue.first().copied().filter(|(due, _)| *due <= now_ns)?;
    queue.remove(&first);
    Some(first)
}

fn busiest_first(mut modules: Vec<(ModuleId, u32)>) -> Vec<(ModuleId, u32)> {
    modules.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    modules
}

// === impl Pipeline ===

impl Pipeline {
    /// A guarded program starts.
    pub(super) fn constructors_start(&mut self, id: ProcessId, at: At, exec: &Exec) {
        let inode = InodeKey { ino: exec.exe.ino, dev: exec.exe.dev, reserved: 0 };
        let Some(proc) = self.table.get_mut(id) else { return };
        let Some(program) = proc.program.as_ref().filter(|program| program.guarded()) else {
            return;
        };
        let start = Start::new(at.ktime_ns, exec.usage);
        self.constructors.await_start(inode, start.due_ns, id);
        proc.start = Some(Box::new(start));
        let path = program.module.path.clone().into();
        self.constructors_watch(Wanted {
            tgid: at.tgid,
            exe: exec.exe,
            path,
            file: exec.exe,
            fs_magic: exec.fs_magic,
        });
    }

    /// Asks for the entry of a guarded program, once per file.
    pub(super) fn constructors_watch(&mut self, wanted: Wanted) {
        let inode = inode(&wanted.file);
        let asked = &mut self.constructors.asked;
        if asked.len() >= PROGRAMS_MAX || asked.contains_key(&inode) {
            return;
        }
        asked.insert(inode, self.outside.entry(wanted.tgid, &wanted.path, inode));
        self.watch(wanted, Watch::Entry);
    }

    /// Its probes are gone: the next start asks for them again.
    pub(super) fn constructors_forget(&mut self, inode: InodeKey) {
        self.constructors.asked.remove(&inode);
        self.constructors.entered.remove(&inode);
    }

    /// Its libraries are linked: constructors come next. Gives the modules that were found at work
    /// until now, the busiest first.
    pub(super) fn constructors_linked(
        &mut self,
        id: ProcessId,
        at: At,
        link: &Link,
    ) -> Vec<(ModuleId, u32)> {
        let inode = InodeKey { ino: link.exe.ino, dev: link.exe.dev, reserved: 0 };
        let Some(start) = self.table.get_mut(id).and_then(|proc| proc.start.as_mut()) else {
            return Vec::new();
        };
        start.exec_ktime_ns = link.exec_ktime_ns;
        start.sealed = link.seals.last().copied();
        start.due_ns = at.ktime_ns.saturating_add(PATIENCE_NS);
        let busy = busiest_first(std::mem::take(&mut start.modules));
        if !start.sampled {
            let due_ns = start.due_ns;
            self.constructors.await_start(inode, due_ns, id);
        }
        busy
    }

    /// The clock found it at an address.
    pub(super) fn on_sample(&mut self, at: At, sample: Sample) {
        let Some(id) = self.find(at) else { return };
        if self.table.get(id).is_none_or(|proc| proc.start.is_none()) {
            return;
        }
        let found = self.locate.locate(at.tgid, &[sample.ip]).into_iter().next().flatten();
        let Some(Located { module, .. }) = found else { return };
        let Some(start) = self.table.get_mut(id).and_then(|proc| proc.start.as_mut()) else {
            return;
        };
        if let Some((_, count)) = start.modules.iter_mut().find(|(known, _)| *known == module) {
            *count += 1;
        } else if start.modules.len() < MODULES_MAX {
            start.modules.push((module, 1));
        }
    }

    /// The caller of a function may be nobody: the kernel starts a program at its entry. True if it
    /// was that.
    pub(super) fn constructors_entered(
        &mut self,
        id: ProcessId,
        at: At,
        (caller, function): (&Caller, Option<&Located>),
        out: &mut impl FnMut(Observation),
    ) -> bool {
        let Some(proc) = self.table.get_mut(id) else { return false };
        let Some(program) = proc.program.clone() else { return false };
        let inode = InodeKey { ino: program.file.ino, dev: program.file.dev, reserved: 0 };
        let starts = proc.start.is_some();
        let entered = match function {
            Some(function) => {
                let named = function.symbol.as_ref();
                let named = named.filter(|(_, distance)| *distance == 0);
                program.module.may_be(&function.module)
                    && named.is_none_or(|(name, _)| !self.guards.is_function(name))
            }
            // Gone already: loading moves code by whole pages.
            None => starts && self.constructors.is_entry(inode, caller.ip),
        };
        if !entered {
            return false;
        }
        if self.constructors.entered.len() < PROGRAMS_MAX {
            self.constructors.entered.insert(inode);
        }
        if let Some(start) = self.constructors_over(id)
            && let Some(constructed) = start.constructed(at.ktime_ns, &caller.usage)
        {
            self.learn_details(id);
            self.emit(id, at.ktime_ns, Body::Constructed(constructed), out);
        }
        true
    }

    /// The start is over, one way or another.
    pub(super) fn constructors_over(&mut self, id: ProcessId) -> Option<Start> {
        let start = *self.table.get_mut(id)?.start.take()?;
        if start.sampled {
            self.directives.push(Directive::StopSampling { tgid: id.tgid });
        }
        Some(start)
    }

    /// Begins and ends what is due.
    pub(super) fn constructors_tick(&mut self, now_ns: u64) {
        while let Some((due_ns, id)) = pop(&mut self.constructors.begin, now_ns) {
            let proc = self.table.get_mut(id).filter(|proc| !proc.ended);
            let start = proc.and_then(|proc| proc.start.as_mut());
            // It may have come further since.
            let Some(start) = start.filter(|start| start.due_ns == due_ns) else { continue };
            start.sampled = true;
            self.directives.push(Directive::SampleProcess { tgid: id.tgid });
            self.constructors.end.insert((now_ns.saturating_add(SAMPLED_NS), id));
        }
        while let Some((_, id)) = pop(&mut self.constructors.end, now_ns) {
            let start = self.table.get_mut(id).and_then(|proc| proc.start.as_mut());
            if let Some(start) = start.filter(|start| start.sampled) {
                start.sampled = false;
                self.directives.push(Directive::StopSampling { tgid: id.tgid });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(run_delay_ns: u64, voluntary_switches: u64) -> Usage {
        Usage { run_delay_ns, voluntary_switches, ..Usage::default() }
    }

    fn sealed(run_delay_ns: u64) -> Start {
        let mut start = Start::new(1_000, usage(50, 7));
        start.sealed = Some(SealAt { wall_ns: 4_000, run_delay_ns, ..SealAt::default() });
        start
    }

    #[test]
    fn constructors_take_what_lies_between_the_last_seal_and_the_entry() {
        let took = sealed(100).constructed(9_000, &usage(50 + 100 + 500, 7)).unwrap();
        assert_eq!((took.wall_ns, took.cpu_ns, took.blocked), (4_000, 3_500, false));
        let slept = sealed(100).constructed(9_000, &usage(150, 8)).unwrap();
        assert!(slept.blocked);
    }

    #[test]
    fn without_a_seal_nothing_is_known() {
        assert_eq!(Start::new(0, Usage::default()).constructed(9, &Usage::default()), None);
    }

    #[test]
    fn clocks_that_run_backwards_give_zero() {
        let took = sealed(u64::MAX).constructed(0, &Usage::default()).unwrap();
        assert_eq!((took.wall_ns, took.cpu_ns), (0, 0));
    }
}
