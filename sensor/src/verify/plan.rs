//! What every slot of a set of modules should hold, computed once per combination of files.

use std::ops::Range;
use std::sync::Arc;

use super::budget::Budget;
use super::bytes::index;
use super::cache::Lru;
use super::copied;
use super::elf::{Depth, ElfFile, Relative, Slot, SlotKind};
use super::error::VerifyError;
use super::layout::{Kind, Layout};
use super::process::FileKey;
use super::report::Linkage;
use super::resolve::{Resolver, Want};
use super::scope::Scopes;
use super::width::Width;

/// Slots at most this far apart are read together, bytes.
const READ_GAP: u64 = 2048;
/// Slots between two looks at the clock.
const BUDGET_STEP: u32 = 64;
/// Words of one process that are copies; real ones have hundreds. Every one of a hostile program's
/// copies may be of all that a library has.
const COPIED_MAX: usize = 1 << 16;
/// One read of slots is at most this long, bytes.
const READ_MAX: u64 = 256 << 10;

/// The expectations for a process, independent of load addresses.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) scopes: Scopes,
    pub(crate) modules: Vec<ModulePlan>,
}

/// The expectations for one module.
#[derive(Debug)]
pub(crate) struct ModulePlan {
    pub(crate) module: usize,
    /// Ascending by address.
    pub(crate) checks: Vec<Check>,
    /// Slots that no relocation of this file names: words copied from a library.
    copied: Vec<Slot>,
    pub(crate) reads: Vec<Read>,
    /// For the addresses of the file itself: `RELATIVE` and `DT_RELR`. What they hold follows from
    /// the file alone.
    pub(crate) relative: Vec<Read>,
    pub(crate) relr: Vec<Read>,
}

/// What one slot should hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    /// Position among the file's slots, and behind them among the copied ones.
    pub(crate) slot: u32,
    pub(crate) want: Want,
}

/// One stretch of memory with slots in it.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) vaddr: u64,
    pub(crate) bytes: usize,
    pub(crate) slots: Range<usize>,
}

/// Plans by what they depend on.
#[derive(Debug)]
pub(crate) struct Plans {
    cache: Lru<PlanKey, Arc<Plan>>,
}

/// Everything a plan depends on: the files, their order, names and namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PlanKey {
    depth: Depth,
    musl: bool,
    loader: Option<usize>,
    modules: Vec<(ModuleKey, usize, Box<[u8]>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ModuleKey {
    Object(FileKey),
    Vdso,
    Proxy(usize),
    Unreadable,
}

// === impl Plans ===

impl Plans {
    pub(crate) fn new(entries: usize, bytes: usize) -> Self {
        Self { cache: Lru::new(entries, bytes) }
    }

    pub(crate) fn get(
        &mut self,
        layout: &Layout,
        depth: Depth,
        budget: Budget,
    ) -> Result<Arc<Plan>, VerifyError> {
        let key = PlanKey::of(layout, depth);
        if let Some(plan) = self.cache.get(&key) {
            return Ok(plan);
        }
        let plan = Arc::new(Plan::build(layout, depth, budget)?);
        self.cache.insert(key, Arc::clone(&plan), plan.bytes());
        Ok(plan)
    }

    /// Entries and bytes held.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.cache.len(), self.cache.bytes())
    }
}

impl PlanKey {
    fn of(layout: &Layout, depth: Depth) -> Self {
        let modules = layout.modules.iter().map(|module| {
            let kind = match &module.kind {
                Kind::Object(loaded) => ModuleKey::Object(loaded.key),
                Kind::Vdso => ModuleKey::Vdso,
                Kind::Proxy(real) => ModuleKey::Proxy(*real),
                Kind::Unreadable => ModuleKey::Unreadable,
            };
            (kind, module.namespace, module.name.as_slice().into())
        });
        let musl = layout.linkage == Linkage::Musl;
        Self { depth, musl, loader: layout.loader, modules: modules.collect() }
    }
}

// === impl Plan ===

impl Plan {
    fn build(layout: &Layout, depth: Depth, budget: Budget) -> Result<Self, VerifyError> {
        let scopes = Scopes::build(layout);
        let resolver = Resolver { layout, scopes: &scopes };
        let objects = (0..layout.modules.len()).filter(|at| layout.object(*at).is_some());
        let mut room = COPIED_MAX;
        let plans = objects.map(|at| ModulePlan::build(&resolver, at, depth, budget, &mut room));
        let modules = plans.collect::<Result<_, _>>()?;
        Ok(Self { scopes, modules })
    }

    fn bytes(&self) -> usize {
        let module = |plan: &ModulePlan| {
            let reads = plan.reads.len() + plan.relative.len() + plan.relr.len();
            plan.checks.len() * size_of::<Check>()
                + plan.copied.len() * size_of::<Slot>()
                + reads * size_of::<Read>()
        };
        size_of::<Self>() + self.modules.iter().map(module).sum::<usize>()
    }
}

impl ModulePlan {
    fn build(
        resolver: &Resolver<'_>,
        module: usize,
        depth: Depth,
        budget: Budget,
        room: &mut usize,
    ) -> Result<Self, VerifyError> {
        let mut plan = Self {
            module,
            checks: Vec::new(),
            copied: Vec::new(),
            reads: Vec::new(),
            relative: Vec::new(),
            relr: Vec::new(),
        };
        let Some(object) = resolver.layout.object(module) else { return Ok(plan) };
        let (elf, width) = (&object.elf, object.elf.headers.width);
        plan.add_checks(resolver, &elf.relocations.slots, depth, budget, room)?;
        let place = |check: &Check| plan.slot(elf, index(check.slot)).map_or(0, |slot| slot.vaddr);
        let mut checks = plan.checks.clone();
        checks.sort_by_key(place);
        plan.reads = group(checks.iter().map(place), width);
        plan.checks = checks;
        if depth == Depth::Full {
            let places =
                |list: &[Relative]| group(list.iter().map(|word| word.vaddr.into()), width);
            plan.relative = places(&elf.relocations.relative);
            plan.relr = places(&elf.relocations.relr);
        }
        Ok(plan)
    }

    /// The file's own slots in its order, then the copied ones.
    fn add_checks(
        &mut self,
        resolver: &Resolver<'_>,
        slots: &[Slot],
        depth: Depth,
        budget: Budget,
        room: &mut usize,
    ) -> Result<(), VerifyError> {
        let mut wants = Vec::new();
        for (number, slot) in (0_u32..).zip(slots) {
            // Asking for the time costs as much as a search.
            if number.is_multiple_of(BUDGET_STEP) {
                budget.check()?;
            }
            if slot.kind == SlotKind::Copy {
                let copies = copied::wants(resolver, self.module, slot, *room);
                *room -= copies.len();
                if *room == 0 {
                    return Err(budget.refuse("table of copied data"));
                }
                for (copied, want) in copies {
                    self.copied.push(copied);
                    wants.push(want);
                }
            } else if slot.kind.depth() <= depth {
                self.checks.push(Check { slot: number, want: resolver.want(self.module, slot) });
            }
        }
        let first = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        self.checks.extend((first..).zip(wants).map(|(slot, want)| Check { slot, want }));
        Ok(())
    }

    /// The slot of a check.
    pub(crate) fn slot<'a>(&'a self, elf: &'a ElfFile, number: usize) -> Option<&'a Slot> {
        let slots = &elf.relocations.slots;
        slots.get(number).or_else(|| self.copied.get(number.checked_sub(slots.len())?))
    }
}

/// Puts words at ascending addresses together into reads.
fn group(places: impl Iterator<Item = u64>, width: Width) -> Vec<Read> {
    let mut reads: Vec<Read> = Vec::new();
    for (at, vaddr) in places.enumerate() {
        let fits = |read: &&mut Read| {
            let end = read.vaddr.saturating_add(read.bytes as u64);
            vaddr.saturating_sub(end) <= READ_GAP && vaddr - read.vaddr < READ_MAX
        };
        match reads.last_mut().filter(fits) {
            Some(read) => {
                let end = index((vaddr - read.vaddr).saturating_add(width.bytes()));
                read.bytes = end.max(read.bytes);
                read.slots.end = at + 1;
            }
            None => reads.push(Read { vaddr, bytes: width.len(), slots: at..at + 1 }),
        }
    }
    reads
}
