//! Why a slot may hold something else than planned, and how a real deviation is described.

use std::cell::{Cell, OnceCell};

use super::bytes::{index, printable};
use super::compare::At;
use super::elf::{Binding, SlotKind, SymbolName};
use super::ifunc::{self, Vdso};
use super::live_scope::LiveScopes;
use super::process::Process;
use super::report::{Category, Linkage, SlotMismatch, Target};
use super::resolve::{Resolver, Want, want_of};
use super::target;
use super::width::Width;

/// What is to be made of a slot that does not hold what was planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Still leads to its own PLT stub: bound on first call.
    Lazy,
    /// Some module that the search order does not prove defines the symbol there.
    Lenient,
    /// The loader has not written this module's slots yet.
    Unrelocated,
    /// Leads into a module that could not be read and that may define the symbol.
    Unverifiable,
    /// What it should hold cannot be told, and nothing contradicts what it does hold.
    Uncertain,
    /// None of these.
    Wrong,
}

/// Judges single slots; slow, so only asked about deviations.
#[derive(Debug)]
pub(crate) struct Explainer<'a> {
    process: &'a Process,
    resolver: Resolver<'a>,
    vdso: &'a Vdso,
    /// glibc's own search lists, looked for on first use.
    live: OnceCell<Option<LiveScopes<'a>>>,
    /// Some slot of a module opened at run time was judged without its search lists.
    order_unknown: Cell<bool>,
}

impl<'a> Explainer<'a> {
    pub(crate) fn new(process: &'a Process, resolver: Resolver<'a>, vdso: &'a Vdso) -> Self {
        let (live, order_unknown) = (OnceCell::new(), Cell::new(false));
        Self { process, resolver, vdso, live, order_unknown }
    }

    pub(crate) fn is_order_unknown(&self) -> bool {
        self.order_unknown.get()
    }

    pub(crate) fn is_plausible(&self, definer: usize, actual: u64) -> bool {
        ifunc::is_plausible(self.process, self.resolver.layout, self.vdso, definer, actual)
    }

    /// `elf_machine_lazy_rel`: an unresolved PLT slot is the file's word plus the load address.
    pub(crate) fn is_lazy(&self, at: &At<'_>, actual: u64) -> bool {
        let word = at.slot.file_word;
        let text = |word| {
            let object = self.resolver.layout.object(at.module);
            object.is_some_and(|object| object.elf.headers.is_text(word))
        };
        at.slot.kind == SlotKind::JumpSlot && actual == at.place.addr(word) && text(word)
    }

    pub(crate) fn judge(&self, at: &At<'_>, want: Want, actual: u64) -> Verdict {
        if want == Want::Uncertain {
            Verdict::Uncertain
        } else if self.is_lazy(at, actual) {
            Verdict::Lazy
        } else if self.is_elsewhere_legitimately(at, want, actual)
            || self.is_kernel_entry(at, actual)
        {
            Verdict::Lenient
        } else if self.is_unrelocated(at, actual) {
            Verdict::Unrelocated
        } else if self.is_in_unreadable(at, actual) {
            Verdict::Unverifiable
        } else if self.is_unknown_entry_point(at, actual) {
            Verdict::Uncertain
        } else {
            Verdict::Wrong
        }
    }

    /// Whether the loader's own function is one that such a slot leads to.
    pub(crate) fn is_entry_point(&self, at: &At<'_>, actual: u64) -> bool {
        let Some((points, vaddr)) = self.in_loader(at, actual) else { return false };
        points.is_some_and(|points| points.contains(&vaddr))
    }

    /// A loader whose functions are not known: anything in its code may be right.
    fn is_unknown_entry_point(&self, at: &At<'_>, actual: u64) -> bool {
        matches!(self.in_loader(at, actual), Some((None, _)))
    }

    /// The functions of the loader that a slot may lead to, and where in the loader it leads;
    /// `None` if it leads elsewhere, or is not such a slot.
    fn in_loader(&self, at: &At<'_>, actual: u64) -> Option<(Option<&[u64]>, u64)> {
        let layout = self.resolver.layout;
        let loader = layout.modules.get(layout.loader?)?;
        let elf = &loader.object()?.elf;
        let points = match at.slot.kind {
            SlotKind::Resolver => &elf.entry_points.resolvers,
            SlotKind::TlsDesc => &elf.entry_points.tlsdesc,
            _ => return None,
        };
        let vaddr = layout.width.sub(actual, loader.base);
        elf.headers.is_text(vaddr).then_some((points.as_deref(), vaddr))
    }

    /// glibc's loader for 32-bit x86 keeps how to enter the kernel in read-only data of its own
    /// (`GLRO(dl_sysinfo)`): a function of the vDSO, which the kernel told it.
    fn is_kernel_entry(&self, at: &At<'_>, actual: u64) -> bool {
        let told = self.process.auxv.map_or(0, |auxv| auxv.sysinfo);
        let layout = self.resolver.layout;
        Some(at.module) == layout.loader
            && layout.width == Width::Four
            && actual != 0
            && actual == told
            && self.process.area(actual).is_some_and(|vma| &*vma.path == "[vdso]")
    }

    /// The cases in which the first definition in the planned order is not the one used.
    fn is_elsewhere_legitimately(&self, at: &At<'_>, want: Want, actual: u64) -> bool {
        let Some((name, _)) = self.resolver.reference(at.module, at.slot) else { return false };
        let layout = self.resolver.layout;
        let plt = at.slot.kind == SlotKind::JumpSlot;
        let matches = |candidate: usize| {
            let found = self.resolver.find_in(candidate, at.module, &name, at.slot.symbol, true);
            found.is_some_and(|found| self.holds(want_of(&found, at.slot.addend), actual))
        };
        // ld.so relocates itself before anything else exists, so it may be bound to itself.
        if Some(at.module) == layout.loader && matches(at.module) {
            return true;
        }
        let namespace = layout.modules.get(at.module).map_or(0, |module| module.namespace);
        let Some(range) = layout.namespaces.get(namespace) else { return false };
        let undefined = match want {
            Want::Unknown => true,
            // Bound on first call, after a later dlopen made a definition global.
            Want::Fixed(value) => plt && value == at.slot.addend,
            _ => false,
        };
        let opened = !self.resolver.scopes.is_exact(at.module);
        if opened && layout.linkage == Linkage::Glibc {
            if let Some(lists) = self.live_lists(at.module) {
                let first = |list: &Vec<usize>| self.is_first_in(list, at, &name, matches);
                return lists.iter().any(first) || self.is_unique_elsewhere(at, actual);
            }
            self.order_unknown.set(true);
        }
        let any = || range.clone().any(matches);
        ((opened || undefined) && any()) || self.is_unique_elsewhere(at, actual)
    }

    fn live_lists(&self, module: usize) -> Option<Vec<Vec<usize>>> {
        let find = || LiveScopes::find(self.process, self.resolver.layout);
        self.live.get_or_init(find).as_ref()?.lists(self.resolver.scopes, module)
    }

    /// Whether the first definition in one search list is the one that is used. What was appended
    /// to the global list after program start may be newer than the binding, so there any
    /// definition counts.
    fn is_first_in(
        &self,
        list: &[usize],
        at: &At<'_>,
        name: &SymbolName<'_>,
        matches: impl Fn(usize) -> bool,
    ) -> bool {
        let plt = at.slot.kind == SlotKind::JumpSlot;
        let defines = |candidate: &usize| {
            self.resolver.find_in(*candidate, at.module, name, at.slot.symbol, plt).is_some()
        };
        let global = self.resolver.scopes.global_of(self.resolver.layout, at.module);
        let old = if list.starts_with(global) { global.len() } else { list.len() };
        let (old, new) = list.split_at_checked(old).unwrap_or((list, &[]));
        old.iter().copied().find(defines).is_some_and(&matches) || new.iter().copied().any(matches)
    }

    /// Unique symbols bind to the namespace's first definition of that name, whatever its version
    /// (`do_lookup_unique`).
    fn is_unique_elsewhere(&self, at: &At<'_>, actual: u64) -> bool {
        let layout = self.resolver.layout;
        let planned = self.resolver.search(at.module, at.slot).definition;
        let Some((definer, _, sym)) = planned else { return false };
        let Some((name, _)) = self.resolver.reference(at.module, at.slot) else { return false };
        if sym.binding() != Binding::Unique {
            return false;
        }
        let namespace = layout.modules.get(definer).map_or(0, |module| module.namespace);
        let Some(range) = layout.namespaces.get(namespace) else { return false };
        range.clone().any(|module| {
            let Some(object) = layout.object(module) else { return false };
            let all = object.elf.symbols.definitions(&object.elf.dynamic, &name);
            let unique = all.into_iter().filter(|(_, sym)| sym.binding() == Binding::Unique);
            let mut wants =
                unique.map(|(number, sym)| want_of(&(module, number, sym), at.slot.addend));
            wants.any(|want| self.holds(want, actual))
        })
    }

    fn holds(&self, want: Want, actual: u64) -> bool {
        match want {
            Want::Ifunc { module, .. } => self.is_plausible(index(module), actual),
            _ => self.address_of(want) == Some(actual),
        }
    }

    /// The address a plan means in this process; none for IFUNCs.
    fn address_of(&self, want: Want) -> Option<u64> {
        match want {
            Want::Address { module, vaddr } => {
                let module = self.resolver.layout.modules.get(index(module))?;
                Some(module.addr(vaddr))
            }
            Want::Fixed(value) => Some(value),
            _ => None,
        }
    }

    /// Still the file's content (0 in GOT slots) and RELRO not sealed, if there is one: relocation
    /// is under way. Nobody can call through such a slot.
    fn is_unrelocated(&self, at: &At<'_>, actual: u64) -> bool {
        let Some(object) = self.resolver.layout.object(at.module) else { return false };
        let sealed = object.elf.headers.relro.is_some_and(|(relro, _)| {
            let vma = self.process.area(at.place.addr(relro));
            vma.is_none_or(|vma| !vma.write)
        });
        // Whether a linker leaves the addend in the file too is its own choice.
        let own = matches!(at.slot.kind, SlotKind::Relative | SlotKind::Relr) && actual == 0;
        !sealed && (actual == at.slot.file_word || own)
    }

    /// The loader makes a module's RELRO read-only once it has relocated all of it, and writes there
    /// no more (`_dl_protect_relro`).
    fn is_sealed(&self, at: &At<'_>) -> bool {
        let Some(object) = self.resolver.layout.object(at.module) else { return false };
        let end = at.slot.vaddr.saturating_add(at.place.width.bytes());
        let inside =
            |(relro, size): (u64, u64)| relro <= at.slot.vaddr && end <= relro.saturating_add(size);
        let vma = self.process.area(at.place.addr(at.slot.vaddr));
        object.elf.headers.relro.is_some_and(inside) && vma.is_some_and(|vma| !vma.write)
    }

    fn is_in_unreadable(&self, at: &At<'_>, actual: u64) -> bool {
        let found = self.resolver.search(at.module, at.slot);
        let Some(behind) = found.behind else { return false };
        let module = self.resolver.layout.modules.get(behind);
        let own = module.and_then(|module| self.process.area(module.dynamic));
        let target = self.process.area(actual);
        matches!((own, target), (Some(own), Some(target)) if own.same_file(target))
    }

    /// Builds the finding. `agreed` is what the other slots of the same IFUNC hold.
    pub(crate) fn describe(
        &self,
        at: &At<'_>,
        want: Want,
        actual: u64,
        agreed: Option<u64>,
    ) -> Option<SlotMismatch> {
        let layout = self.resolver.layout;
        let module = layout.modules.get(at.module)?;
        let object = module.object()?;
        let reference = self.resolver.reference(at.module, at.slot);
        let version = object.elf.symbols.version(at.slot.symbol);
        let version = version.and_then(|version| object.elf.dynamic.string(version.name));
        let expected = match (agreed, want) {
            (Some(addr), _) => self.target(addr),
            (None, Want::Ifunc { module, resolver }) => {
                self.resolver_target(index(module), resolver)
            }
            (None, Want::LinkMap) => self.target(at.place.link_map),
            (None, Want::Table(value)) => self.target(at.place.addr(value)),
            (None, Want::Resolver | Want::TlsDesc) => self.loader_target(at),
            _ => self.address_of(want).map_or_else(|| Target::bare(0), |addr| self.target(addr)),
        };
        Some(SlotMismatch {
            module: module.module_ref()?,
            slot_vaddr: at.slot.vaddr,
            slot_addr: at.place.addr(at.slot.vaddr),
            kind: at.slot.kind,
            category: self.category(at, want, actual),
            sealed: self.is_sealed(at),
            symbol: reference.map(|(name, _)| printable(name.bytes)),
            version: version.filter(|_| reference.is_some()).map(printable),
            expected,
            actual: self.target(actual),
        })
    }

    fn category(&self, at: &At<'_>, want: Want, actual: u64) -> Category {
        let layout = self.resolver.layout;
        let namespace = |module: usize| layout.modules.get(module).map(|module| module.namespace);
        let target = layout.module_at(actual).and_then(|(module, _)| namespace(module));
        match target {
            Some(other) if other != 0 && namespace(at.module) != Some(other) => {
                Category::AuditRedirect
            }
            _ if matches!(want, Want::Ifunc { .. }) => Category::IfuncRedirected,
            _ => Category::Redirected,
        }
    }

    /// Names an address; an IFUNC's expectation is named by its resolver.
    fn resolver_target(&self, definer: usize, resolver: u64) -> Target {
        let definer = self.resolver.layout.modules.get(definer);
        self.target(definer.map_or(0, |module| module.addr(resolver)))
    }

    /// The loader's function that such a slot usually leads to, or what the file holds.
    fn loader_target(&self, at: &At<'_>) -> Target {
        let layout = self.resolver.layout;
        let loader = layout.loader.and_then(|loader| layout.modules.get(loader));
        let addr = loader.map_or(0, |loader| {
            let points = loader.object().map(|object| &object.elf.entry_points);
            let points = points.and_then(|points| match at.slot.kind {
                SlotKind::Resolver => points.resolvers.as_deref(),
                _ => points.tlsdesc.as_deref(),
            });
            points
                .and_then(|points| points.first())
                .map_or(at.slot.file_word, |point| loader.addr(*point))
        });
        self.target(addr)
    }

    fn target(&self, addr: u64) -> Target {
        target::name(self.process, self.resolver.layout, addr)
    }
}
