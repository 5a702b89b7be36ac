//! What every slot of a set of modules should hold, computed once per combination of files.

use std::ops::Range;
use std::sync::Arc;

use super::budget::Budget;
use super::cache::Lru;
use super::error::VerifyError;
use super::layout::{Kind, Layout};
use super::process::FileKey;
use super::report::Linkage;
use super::resolve::{Resolver, Want};
use super::scope::Scopes;

/// Slots at most this far apart are read together, bytes.
const READ_GAP: u64 = 2048;
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
    /// In the order of the file's slots, which ascend by address.
    pub(crate) wants: Vec<Want>,
    pub(crate) reads: Vec<Read>,
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
        budget: Budget,
    ) -> Result<Arc<Plan>, VerifyError> {
        let key = PlanKey::of(layout);
        if let Some(plan) = self.cache.get(&key) {
            return Ok(plan);
        }
        let plan = Arc::new(Plan::build(layout, budget)?);
        self.cache.insert(key, Arc::clone(&plan), plan.bytes());
        Ok(plan)
    }

    /// Entries and bytes held.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.cache.len(), self.cache.bytes())
    }
}

impl PlanKey {
    fn of(layout: &Layout) -> Self {
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
        Self { musl, loader: layout.loader, modules: modules.collect() }
    }
}

// === impl Plan ===

impl Plan {
    fn build(layout: &Layout, budget: Budget) -> Result<Self, VerifyError> {
        let scopes = Scopes::build(layout);
        let resolver = Resolver { layout, scopes: &scopes };
        let objects = (0..layout.modules.len()).filter(|at| layout.object(*at).is_some());
        let plans = objects.map(|at| ModulePlan::build(&resolver, at, budget));
        let modules = plans.collect::<Result<_, _>>()?;
        Ok(Self { scopes, modules })
    }

    fn bytes(&self) -> usize {
        let module = |plan: &ModulePlan| {
            plan.wants.len() * size_of::<Want>() + plan.reads.len() * size_of::<Read>()
        };
        size_of::<Self>() + self.modules.iter().map(module).sum::<usize>()
    }
}

impl ModulePlan {
    fn build(resolver: &Resolver<'_>, module: usize, budget: Budget) -> Result<Self, VerifyError> {
        let object = resolver.layout.object(module);
        let slots = object.map_or(&[][..], |object| &object.elf.slots);
        let want = |slot| budget.check().map(|()| resolver.want(module, slot));
        let wants = slots.iter().map(want).collect::<Result<_, _>>()?;
        let mut reads: Vec<Read> = Vec::new();
        for (at, slot) in slots.iter().enumerate() {
            let fits = |read: &&mut Read| {
                let end = read.vaddr.saturating_add(read.bytes as u64);
                slot.vaddr.saturating_sub(end) <= READ_GAP && slot.vaddr - read.vaddr < READ_MAX
            };
            match reads.last_mut().filter(fits) {
                Some(read) => {
                    let end = (slot.vaddr - read.vaddr).saturating_add(8);
                    read.bytes = usize::try_from(end).unwrap_or(read.bytes).max(read.bytes);
                    read.slots.end = at + 1;
                }
                None => reads.push(Read { vaddr: slot.vaddr, bytes: 8, slots: at..at + 1 }),
            }
        }
        Ok(Self { module, wants, reads })
    }
}
