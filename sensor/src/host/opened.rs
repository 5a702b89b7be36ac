//! Libraries that guarded programs open after their start: who asked for each, and how long it took
//! until it was linked; and where a start had its code, for who is gone by then.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::module::ModuleId;
use super::observe::{Body, Located, Observation, ProcessId};
use super::outside::Unseen;
use super::pam::is_libpam;
use super::pipeline::{At, Pipeline};
use crate::event::{FileKey, InodeKey, Modules, Opened, Placement, Seal, Stack};

/// Longest wait for what completes an opening: its file's name, and the seal of its data, ns.
const WAIT_NS: u64 = 500_000_000;
/// Openings waiting in one process, and processes with any.
const ONE_MAX: usize = 64;
const PROCESSES_MAX: usize = 1024;
/// How far data may lie behind a file's code beyond the file's size: segments are aligned.
const ALIGNED: u64 = 16 << 20;

/// See [`Body::Opened`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Opening {
    /// The library, or one that it needs.
    pub module: ModuleId,
    /// The file.
    #[serde(with = "crate::serial::one")]
    pub file: FileKey,
    /// Who asked for it; `None` where the stack could not be read, or led to nobody.
    pub asked: Option<Asked>,
    /// From the mapping to the seal of its data, ns: what it needs and its IFUNC resolvers included,
    /// constructors not. `None` where no seal was seen.
    pub took_ns: Option<u64>,
}

/// Who asked the loader for a library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Where it goes on; memory without a file has the kernel's name for it as its module.
    pub place: Located,
    /// Every frame up to there was unwound. Otherwise it is the nearest word on the stack that looks
    /// like it, which may be left from before.
    pub unwound: bool,
    /// libc was asked for something else and opened the library of its own accord (NSS, iconv).
    pub through_libc: bool,
}

/// Openings that are not told yet.
#[derive(Debug, Default)]
pub(super) struct Openings {
    waiting: BTreeMap<ProcessId, Vec<Waiting>>,
    due: BTreeSet<(u64, ProcessId)>,
    unnamed: u64,
}

#[derive(Debug)]
struct Waiting {
    ktime_ns: u64,
    tid: u32,
    file: FileKey,
    addr: u64,
    asked: Option<Asked>,
    /// `None` until the file's own record comes.
    module: Option<ModuleId>,
}

/// Code of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    start: u64,
    len: u64,
    offset: u64,
    /// Of the file.
    size: u64,
    module: ModuleId,
}

/// Which file's code lies at this address, and where in the file.
pub(super) fn code_at(placed: &[Placed], addr: u64) -> Option<(&ModuleId, u64)> {
    let one = placed.iter().find(|one| one.start <= addr && addr - one.start < one.len)?;
    Some((&one.module, (addr - one.start).saturating_add(one.offset)))
}

/// Where code of files lies in a range, as far as it is known: the first address of each part.
pub(super) fn starts(placed: &[Placed], range: Range<u64>) -> impl Iterator<Item = u64> {
    let inside = move |one: &&Placed| {
        one.start < range.end && range.start < one.start.saturating_add(one.len)
    };
    let first = range.start;
    placed.iter().filter(inside).map(move |one| one.start.max(first))
}

// === impl Openings ===

impl Openings {
    /// When the next one is told as it is, ns.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Openings of files whose names never came.
    pub(super) fn unnamed(&self) -> u64 {
        self.unnamed
    }

    fn add(&mut self, id: ProcessId, one: Waiting) {
        if !self.waiting.contains_key(&id) && self.waiting.len() >= PROCESSES_MAX {
            self.unnamed += 1;
            return;
        }
        let all = self.waiting.entry(id).or_default();
        if all.len() >= ONE_MAX {
            self.unnamed += 1;
            return;
        }
        self.due.insert((one.ktime_ns.saturating_add(WAIT_NS), id));
        all.push(one);
    }

    /// Who asked for the library that this thread is opening: what it needs is mapped before any of
    /// it is sealed, from deeper in the loader than the stack that is told may reach.
    fn under_way(&self, id: ProcessId, tid: u32) -> Option<Asked> {
        let all = self.waiting.get(&id)?;
        all.iter().rev().find(|one| one.tid == tid).and_then(|one| one.asked.clone())
    }

    /// Takes those out that `ready` says are complete.
    fn take(&mut self, id: ProcessId, ready: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let Some(all) = self.waiting.get_mut(&id) else { return Vec::new() };
        let (taken, left): (Vec<_>, Vec<_>) = std::mem::take(all).into_iter().partition(ready);
        for one in &taken {
            self.due.remove(&(one.ktime_ns.saturating_add(WAIT_NS), id));
        }
        if left.is_empty() {
            self.waiting.remove(&id);
        } else {
            *all = left;
        }
        taken
    }
}

// === impl Waiting ===

impl Waiting {
    /// Whoever asked from no file cannot be told too early.
    fn is_urgent(&self) -> bool {
        let asked = self.asked.as_ref();
        self.module.is_some() && asked.is_some_and(|asked| !asked.place.module.is_mapped_file())
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// A guarded program opens a library. Its stack is looked at now, and dropped.
    pub(super) fn on_opened(&mut self, at: At, opened: &Opened, out: &mut impl FnMut(Observation)) {
        let Some(id) = self.find(at) else { return };
        let Some(proc) = self.table.get_mut(id) else { return };
        proc.linking = false;
        let code: Vec<u64> = proc.placed.iter().map(|one| one.start).collect();
        let asked = match self.locate.asker(at.tgid, &opened.stack, &code) {
            Ok(asked) => Some(asked),
            Err(Unseen::Gone) => guess(&proc.placed, &opened.stack),
            Err(Unseen::Unread) => None,
        };
        let asked = asked.or_else(|| self.openings.under_way(id, at.tid));
        let module = self.programs.by_file(&opened.file);
        let Opened { file, addr, .. } = *opened;
        let (ktime_ns, tid) = (at.ktime_ns, at.tid);
        self.openings.add(id, Waiting { ktime_ns, tid, file, addr, asked, module });
        self.tell_openings(id, Waiting::is_urgent, None, out);
    }

    /// The file of an opening was new to the program, so its name comes now.
    pub(super) fn opening_named(
        &mut self,
        id: ProcessId,
        file: &FileKey,
        module: &ModuleId,
        out: &mut impl FnMut(Observation),
    ) {
        let Some(all) = self.openings.waiting.get_mut(&id) else { return };
        for one in all.iter_mut().filter(|one| one.file == *file) {
            one.module = Some(module.clone());
        }
        self.tell_openings(id, Waiting::is_urgent, None, out);
    }

    /// Data was sealed after the start: the library it belongs to is linked.
    pub(super) fn opening_sealed(
        &mut self,
        id: ProcessId,
        at: At,
        seal: &Seal,
        out: &mut impl FnMut(Observation),
    ) {
        let Some(all) = self.openings.waiting.get(&id) else { return };
        let below = |one: &&Waiting| one.addr != 0 && one.addr <= seal.at.addr;
        let nearest = all.iter().filter(below).max_by_key(|one| one.addr);
        let reach =
            |one: &&Waiting| seal.at.addr - one.addr < one.file.size.saturating_add(ALIGNED);
        let Some((addr, file)) = nearest.filter(reach).map(|one| (one.addr, one.file)) else {
            return;
        };
        let sealed = |one: &Waiting| one.addr == addr && one.file == file && one.module.is_some();
        self.tell_openings(id, sealed, Some(at.ktime_ns), out);
    }

    /// Tells those that have waited long enough.
    pub(super) fn openings_tick(&mut self, now_ns: u64, out: &mut impl FnMut(Observation)) {
        while let Some((_, id)) = self.openings.due.first().copied().filter(|due| due.0 <= now_ns) {
            let due = |one: &Waiting| one.ktime_ns.saturating_add(WAIT_NS) <= now_ns;
            self.tell_openings(id, due, None, out);
        }
    }

    /// Nothing more will come of this process.
    pub(super) fn openings_over(&mut self, id: ProcessId, out: &mut impl FnMut(Observation)) {
        self.tell_openings(id, |_| true, None, out);
    }

    fn tell_openings(
        &mut self,
        id: ProcessId,
        ready: impl Fn(&Waiting) -> bool,
        sealed_ns: Option<u64>,
        out: &mut impl FnMut(Observation),
    ) {
        for one in self.openings.take(id, ready) {
            let Some(module) = one.module else {
                self.openings.unnamed += 1;
                continue;
            };
            self.learn_details(id);
            let took_ns = sealed_ns.map(|sealed| sealed.saturating_sub(one.ktime_ns));
            let opening = Opening { module, file: one.file, asked: one.asked, took_ns };
            self.emit(id, one.ktime_ns, Body::Opened(opening), out);
        }
    }

    /// Where a guarded start has its code. Files are known by their own records, which came before.
    pub(super) fn on_modules(&mut self, at: At, modules: &Modules) {
        let Some(id) = self.find(at) else { return };
        let placed = modules.placed.iter().filter_map(|one| self.placed(one)).collect();
        let libpams = modules.placed.iter().filter_map(|one| self.libpam(one)).collect();
        if let Some(proc) = self.table.get_mut(id) {
            (proc.placed, proc.libpams) = (placed, libpams);
        }
    }

    /// Its file, if it is libpam's, wherever that lies.
    fn libpam(&self, one: &Placement) -> Option<InodeKey> {
        let (module, _) = self.programs.by_inode((one.ino, one.dev, one.generation))?;
        is_libpam(&module).then_some(InodeKey { ino: one.ino, dev: one.dev, reserved: 0 })
    }

    fn placed(&self, one: &Placement) -> Option<Placed> {
        let (module, size) = self.programs.by_inode((one.ino, one.dev, one.generation))?;
        // Where the kernel chose the place itself, it is not known.
        let Placement { start, len, offset, .. } = *one;
        (start != 0).then_some(Placed { start, len, offset, size, module })
    }
}

/// Whose data lies at `addr`: a library's segments lie one behind the other, its code before its
/// data, and nothing else between them.
pub(super) fn owner(placed: &[Placed], addr: u64) -> Option<&ModuleId> {
    let nearest = placed.iter().filter(|one| one.start <= addr).max_by_key(|one| one.start)?;
    let into = (addr - nearest.start).saturating_add(nearest.offset);
    (into < nearest.size.saturating_add(ALIGNED)).then_some(&nearest.module)
}

/// Of a process that is gone, or executes another program: the nearest word that lies in code from its start, libc's left out. It
/// may as well be the address of some function.
fn guess(placed: &[Placed], stack: &Stack) -> Option<Asked> {
    let mut words = stack.words.iter().copied().filter(|word| *word != 0);
    let inside =
        |word: u64| code_at(placed, word).filter(|(module, _)| !module.name().starts_with("libc"));
    let (module, offset) = words.find_map(inside)?;
    let place = Located { module: module.clone(), offset, symbol: None };
    Some(Asked { place, unwound: false, through_libc: false })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn placed(start: u64, name: &str) -> Placed {
        let module = ModuleId { path: name.to_owned(), build: "00".to_owned() };
        Placed { start, len: 0x2000, offset: 0x1000, size: 0x8000, module }
    }

    #[test]
    fn data_belongs_to_the_code_before_it_as_far_as_its_file_reaches() {
        let all = [placed(0x7f00_0010_0000, "/b"), placed(0x5500_0000_0000, "/a")];
        let named = |addr| owner(&all, addr).map(ModuleId::name);
        assert_eq!(named(0x5500_0000_4000), Some("a"));
        assert_eq!(named(0x7f00_0010_5000), Some("b"));
        assert_eq!(named(0x7f00_000f_ffff), None, "far above the one before");
        assert_eq!(named(0x7f00_0810_0000), None);
        assert_eq!(named(0), None);
    }

    #[test]
    fn of_who_is_gone_the_nearest_code_is_taken() {
        let all = [placed(0x5500_0000_0000, "/a"), placed(0x7f00_0010_0000, "/libc.so.6")];
        let words = Box::from([0, 0x7f00_0010_0123, 0x5500_0000_2000, 0x5500_0000_1fff]);
        let asked = guess(&all, &Stack { words, ..Stack::default() }).unwrap();
        assert_eq!((asked.place.module.name(), asked.place.offset), ("a", 0x2fff));
        assert!(!asked.unwound);
        assert_eq!(guess(&all, &Stack::default()), None);
    }

    proptest! {
        #[test]
        fn any_places_are_total(
            all in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..8),
            addr in any::<u64>(),
            words in proptest::collection::vec(any::<u64>(), 0..8),
        ) {
            let all: Vec<Placed> = all
                .into_iter()
                .map(|(start, offset, len)| Placed { start, len, offset, ..placed(0, "/a") })
                .collect();
            let _ = owner(&all, addr);
            let _ = code_at(&all, addr);
            let _ = guess(&all, &Stack { words: words.into(), ..Stack::default() });
        }
    }
}
