//! What the loader would write into a slot.

use super::elf::{Binding, Slot, SlotKind, Sym, SymbolName};
use super::layout::{Kind, Layout};
use super::report::Linkage;
use super::scope::Scopes;

/// The content a slot should have. Module numbers are positions in the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// An address of a module's file.
    Address { module: u32, vaddr: u64 },
    /// A number that no load address moves: absolute symbols, undefined weak ones (0).
    Fixed(u64),
    /// Whatever the resolver at this address of the module answered.
    Ifunc { module: u32, resolver: u64 },
    /// The module's own entry in the loader's list, where binding is lazy.
    LinkMap,
    /// One of the loader's entries for lazy binding, where binding is lazy.
    Resolver,
    /// One of the loader's functions for TLS descriptors.
    TlsDesc,
    /// What the dynamic section of the file says; some loaders add the load address in place.
    Table(u64),
    /// No definition was found although one is needed.
    Unknown,
    /// The rules of loaders differ, or leave it open.
    Uncertain,
}

/// A definition: module, symbol number, symbol.
pub(crate) type Definition = (usize, u32, Sym);

/// The outcome of one search.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) definition: Option<Definition>,
    /// An unreadable module that comes earlier in the order and may define the symbol.
    pub(crate) behind: Option<usize>,
}

/// Resolves the slots of one process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolver<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) scopes: &'a Scopes,
}

impl<'a> Resolver<'a> {
    /// What `module`'s slot should hold.
    pub(crate) fn want(&self, module: usize, slot: &Slot) -> Want {
        let Ok(number) = u32::try_from(module) else { return Want::Unknown };
        match slot.kind {
            SlotKind::Irelative => return Want::Ifunc { module: number, resolver: slot.addend },
            SlotKind::LinkMap => return Want::LinkMap,
            SlotKind::Resolver => return Want::Resolver,
            SlotKind::TlsDesc => return Want::TlsDesc,
            SlotKind::Dynamic if slot.addend == 0 => return Want::Fixed(slot.file_word),
            SlotKind::Dynamic => return Want::Table(slot.addend),
            SlotKind::Relative | SlotKind::Relr | SlotKind::InitArray | SlotKind::FiniArray
                if slot.symbol == 0 =>
            {
                return Want::Address { module: number, vaddr: slot.addend };
            }
            // glibc takes the load address, musl 0.
            SlotKind::Absolute if slot.symbol == 0 => return Want::Uncertain,
            _ => {}
        }
        let Some((_, reference)) = self.reference(module, slot) else { return Want::Unknown };
        match self.search(module, slot).definition {
            Some(definition) => want_of(&definition, slot.addend),
            None if reference.binding() == Binding::Weak => Want::Fixed(slot.addend),
            None => Want::Unknown,
        }
    }

    /// Name and symbol that a slot refers to.
    pub(crate) fn reference(&self, module: usize, slot: &Slot) -> Option<(SymbolName<'a>, Sym)> {
        let elf = &self.layout.object(module)?.elf;
        let sym = elf.symbols.get(slot.symbol).filter(|_| slot.symbol != 0)?;
        Some((SymbolName::new(elf.dynamic.string(sym.name)?), sym))
    }

    /// `RESOLVE_MAP` of glibc `elf/dl-reloc.c` around `_dl_lookup_symbol_x`, and musl's
    /// `do_relocs`.
    pub(crate) fn search(&self, module: usize, slot: &Slot) -> Found {
        let Some((name, reference)) = self.reference(module, slot) else { return Found::default() };
        let own = Some((module, slot.symbol, reference));
        let musl = self.layout.linkage == Linkage::Musl;
        if reference.binding() == Binding::Local || (!musl && reference.binds_locally()) {
            return Found { definition: own, behind: None };
        }
        let plt = slot.kind == SlotKind::JumpSlot;
        let found = self.search_name(module, &name, slot.symbol, plt);
        if musl || !reference.is_protected() {
            return found;
        }
        let Some((definer, ..)) = found.definition else { return found };
        // A protected symbol binds to its own module, unless the program took its address through
        // a canonical PLT entry or a copy.
        let elsewhere = if plt {
            definer != module
        } else {
            let strict = self.search_name(module, &name, slot.symbol, true).definition;
            strict.is_some_and(|(definer, ..)| definer != module)
        };
        if elsewhere { Found { definition: own, behind: None } } else { found }
    }

    /// The data that a `COPY` slot of `module` stands for: its module, address and size. The
    /// program itself is left out of the search (`ELF_RTYPE_CLASS_COPY`).
    pub(crate) fn copied_from(&self, module: usize, slot: &Slot) -> Option<(usize, u64, u64)> {
        let (name, reference) = self.reference(module, slot)?;
        let order = self.scopes.search_order(self.layout, module);
        for candidate in order.filter(|candidate| *candidate != module) {
            let place = self.layout.modules.get(candidate).map(|module| &module.kind);
            if matches!(place, Some(Kind::Unreadable)) {
                return None;
            }
            if let Some((definer, _, sym)) =
                self.find_in(candidate, module, &name, slot.symbol, false)
            {
                return Some((definer, sym.value, sym.size.min(reference.size)));
            }
        }
        None
    }

    fn search_name(&self, module: usize, name: &SymbolName<'_>, symbol: u32, plt: bool) -> Found {
        let mut behind = None;
        for candidate in self.scopes.search_order(self.layout, module) {
            let place = self.layout.modules.get(candidate).map(|module| &module.kind);
            if matches!(place, Some(Kind::Unreadable)) {
                behind = behind.or(Some(candidate));
                continue;
            }
            if let Some(definition) = self.find_in(candidate, module, name, symbol, plt) {
                return Found { definition: Some(definition), behind };
            }
        }
        Found { definition: None, behind }
    }

    /// Looks in one module, with the version that `symbol` of `module` asks for.
    pub(crate) fn find_in(
        &self,
        candidate: usize,
        module: usize,
        name: &SymbolName<'_>,
        symbol: u32,
        plt: bool,
    ) -> Option<Definition> {
        let candidate = self.layout.real(candidate);
        let elf = &self.layout.object(candidate)?.elf;
        if self.layout.linkage == Linkage::Musl {
            let (number, sym) = elf.symbols.find_musl(&elf.dynamic, name, plt)?;
            return Some((candidate, number, sym));
        }
        let asking = &self.layout.object(module)?.elf;
        let version = asking.symbols.version(symbol);
        let version = version.as_ref().map(|version| (version, &asking.dynamic));
        let (number, sym) = elf.symbols.find_glibc(&elf.dynamic, name, version, plt)?;
        let visible = !sym.binds_locally()
            && matches!(sym.binding(), Binding::Global | Binding::Weak | Binding::Unique);
        visible.then_some((candidate, number, sym))
    }
}

/// `SYMBOL_ADDRESS` and the IFUNC case of `elf_machine_rela`.
pub(crate) fn want_of((module, _, sym): &Definition, addend: u64) -> Want {
    let Ok(module) = u32::try_from(*module) else { return Want::Unknown };
    if sym.is_absolute() {
        Want::Fixed(sym.value.wrapping_add(addend))
    } else if sym.is_ifunc() && addend != 0 {
        Want::Uncertain
    } else if sym.is_ifunc() {
        Want::Ifunc { module, resolver: sym.value }
    } else {
        Want::Address { module, vaddr: sym.value.wrapping_add(addend) }
    }
}
