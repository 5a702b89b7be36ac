//! The dynamic symbol table, and lookups in one file by glibc's and musl's rules.

use super::super::bytes::{u16_at, u32_at, u64_at};
use super::super::width::Width;
use super::abi;
use super::hash::HashTable;
use super::version::{HIDDEN, Version, Versions};
use super::{Dynamic, ElfError, Headers, ReadAt, SymbolName};

/// Symbol types that define code or data (glibc `ALLOWED_STT`): `NOTYPE`, `OBJECT`, `FUNC`,
/// `COMMON`, `TLS`, `GNU_IFUNC`.
const GLIBC_TYPES: u32 = MUSL_TYPES | 1 << abi::STT_GNU_IFUNC;
/// The same for musl (`OK_TYPES` in `ldso/dynlink.c`): it has no IFUNC.
const MUSL_TYPES: u32 = 1 << abi::STT_NOTYPE
    | 1 << abi::STT_OBJECT
    | 1 << abi::STT_FUNC
    | 1 << abi::STT_COMMON
    | 1 << abi::STT_TLS;

/// One dynamic symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sym {
    /// Offset of the name in the dynamic string table.
    pub(crate) name: u32,
    info: u8,
    other: u8,
    pub(crate) section: u16,
    pub(crate) value: u64,
    pub(crate) size: u64,
}

/// How a symbol takes part in lookups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    Local,
    Global,
    Weak,
    Unique,
    Other,
}

/// `DT_SYMTAB` with its hash and version tables.
#[derive(Debug, Default)]
pub(crate) struct SymbolTable {
    raw: Box<[u8]>,
    width: Width,
    hash: HashTable,
    versions: Versions,
}

// === impl Sym ===

impl Sym {
    /// `Elf32_Sym` has its address and size in front, `Elf64_Sym` behind.
    pub(super) fn parse(bytes: &[u8], width: Width) -> Option<Self> {
        let name = u32_at(bytes, 0)?;
        let (marks, value, size) = match width {
            Width::Four => (bytes.get(12..)?, u32_at(bytes, 4)?.into(), u32_at(bytes, 8)?.into()),
            Width::Eight => (bytes.get(4..)?, u64_at(bytes, 8)?, u64_at(bytes, 16)?),
        };
        let (info, other, section) = (*marks.first()?, *marks.get(1)?, u16_at(marks, 2)?);
        Some(Self { name, info, other, section, value, size })
    }

    /// Bytes of one symbol.
    pub(super) fn bytes(width: Width) -> usize {
        match width {
            Width::Four => 16,
            Width::Eight => 24,
        }
    }

    pub(crate) fn kind(&self) -> u8 {
        self.info & 0xf
    }

    pub(crate) fn binding(&self) -> Binding {
        match self.info >> 4 {
            abi::STB_LOCAL => Binding::Local,
            abi::STB_GLOBAL => Binding::Global,
            abi::STB_WEAK => Binding::Weak,
            abi::STB_GNU_UNIQUE => Binding::Unique,
            _ => Binding::Other,
        }
    }

    /// Hidden and internal symbols bind inside their file (`dl_symbol_visibility_binds_local_p`).
    pub(crate) fn binds_locally(&self) -> bool {
        matches!(self.other & 3, abi::STV_HIDDEN | abi::STV_INTERNAL)
    }

    pub(crate) fn is_protected(&self) -> bool {
        self.other & 3 == abi::STV_PROTECTED
    }

    pub(crate) fn is_defined(&self) -> bool {
        self.section != abi::SHN_UNDEF
    }

    pub(crate) fn is_absolute(&self) -> bool {
        self.section == abi::SHN_ABS
    }

    pub(crate) fn is_ifunc(&self) -> bool {
        self.kind() == abi::STT_GNU_IFUNC && self.is_defined()
    }

    pub(crate) fn is_function(&self) -> bool {
        self.kind() == abi::STT_FUNC && self.is_defined()
    }
}

// === impl SymbolTable ===

impl SymbolTable {
    pub(super) fn read<R: ReadAt + ?Sized>(
        source: &R,
        headers: &Headers,
        dynamic: &Dynamic,
        referenced: u32,
    ) -> Result<Self, ElfError> {
        let Some(at) = dynamic.tag(abi::DT_SYMTAB) else { return Ok(Self::default()) };
        let (hash, hashed) = HashTable::read(source, headers, dynamic)?;
        let count = hashed.max(referenced.saturating_add(1));
        let width = headers.width;
        let bytes = u64::from(count) * Sym::bytes(width) as u64;
        let raw = headers.read_vaddr(source, "dynamic symbol table", at, bytes)?.into();
        let versions = Versions::read(source, headers, dynamic, count)?;
        Ok(Self { raw, width, hash, versions })
    }

    pub(crate) fn get(&self, number: u32) -> Option<Sym> {
        let at = usize::try_from(number).ok()?.checked_mul(Sym::bytes(self.width))?;
        Sym::parse(self.raw.get(at..)?, self.width)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Sym)> {
        let entries = self.raw.chunks_exact(Sym::bytes(self.width));
        (0_u32..).zip(entries.filter_map(|entry| Sym::parse(entry, self.width)))
    }

    /// The version a reference of this file asks for; `None` means any default.
    pub(crate) fn version(&self, number: u32) -> Option<Version> {
        self.versions.of(number)
    }

    /// Exported plain functions' addresses, ascending.
    pub(super) fn exported_functions(&self) -> Vec<u64> {
        let exported = |sym: &Sym| sym.is_function() && sym.binding() != Binding::Local;
        let mut found: Vec<u64> =
            self.iter().filter(|(_, sym)| exported(sym)).map(|(_, sym)| sym.value).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Looks `name` up in this file alone as glibc's `do_lookup_x` and `check_match` do
    /// (`elf/dl-lookup.c` at 2.36). `plt` is `ELF_RTYPE_CLASS_PLT`: undefined symbols with a value
    /// (canonical PLT entries of a non-PIE program) do not count.
    pub(crate) fn find_glibc(
        &self,
        own: &Dynamic,
        name: &SymbolName<'_>,
        version: Option<(&Version, &Dynamic)>,
        plt: bool,
    ) -> Option<(u32, Sym)> {
        let (mut versioned, mut seen) = (None, 0_u32);
        for number in self.hash.candidates(name) {
            let Some(sym) = self.get(number) else { continue };
            if !is_candidate(own, &sym, name, plt) {
                continue;
            }
            match version {
                Some((wanted, theirs)) if self.versions.present() => {
                    if self.matches_version(own, number, wanted, theirs) {
                        return Some((number, sym));
                    }
                }
                None if self.versions.present() && self.versions.number(number) >= 3 => {
                    if self.versions.word(number) & HIDDEN == 0 {
                        seen += 1;
                        versioned = versioned.or(Some((number, sym)));
                    }
                }
                _ => return Some((number, sym)),
            }
        }
        // A reference without version accepts the only version there is.
        versioned.filter(|_| seen == 1)
    }

    fn matches_version(
        &self,
        own: &Dynamic,
        number: u32,
        wanted: &Version,
        theirs: &Dynamic,
    ) -> bool {
        let defined = self.versions.of(number);
        if defined.is_some_and(|defined| defined.same(own, wanted, theirs)) {
            return true;
        }
        !wanted.hidden && defined.is_none() && self.versions.word(number) & HIDDEN == 0
    }

    /// The same by musl's `find_sym2` (`ldso/dynlink.c` at 1.2.3): versions only hide.
    pub(crate) fn find_musl(
        &self,
        own: &Dynamic,
        name: &SymbolName<'_>,
        plt: bool,
    ) -> Option<(u32, Sym)> {
        let numbers = self.hash.candidates(name);
        let named = numbers.filter_map(|number| Some((number, self.get(number)?)));
        let mut named = named.filter(|(number, sym)| {
            own.is_named(sym.name, name.bytes) && self.versions.word(*number) & HIDDEN == 0
        });
        // musl looks at the first symbol of that name only.
        let (number, sym) = named.next()?;
        let tls = sym.kind() == abi::STT_TLS;
        let undefined = !sym.is_defined() && (plt || tls);
        let valueless = sym.value == 0 && !tls;
        let kind_ok = 1_u32.checked_shl(sym.kind().into()).is_some_and(|bit| bit & MUSL_TYPES != 0);
        let bound = matches!(sym.binding(), Binding::Global | Binding::Weak | Binding::Unique);
        (!undefined && !valueless && kind_ok && bound).then_some((number, sym))
    }

    /// Every definition of `name`, whatever its version, in table order.
    pub(crate) fn definitions(&self, own: &Dynamic, name: &SymbolName<'_>) -> Vec<(u32, Sym)> {
        let numbers = self.hash.candidates(name);
        numbers
            .filter_map(|number| Some((number, self.get(number)?)))
            .filter(|(_, sym)| is_candidate(own, sym, name, true) && !sym.binds_locally())
            .collect()
    }

    /// The definition a reference without version gets: the default version, not a hidden one.
    pub(crate) fn default_definition(&self, own: &Dynamic, name: &str) -> Option<Sym> {
        let name = SymbolName::new(name.as_bytes());
        let all = self.definitions(own, &name);
        let visible = |(number, _): &&(u32, Sym)| self.versions.word(*number) & HIDDEN == 0;
        all.iter().find(visible).map(|(_, sym)| *sym)
    }

    pub(super) fn bytes(&self) -> usize {
        self.raw.len() + self.hash.bytes() + self.versions.bytes()
    }
}

/// The tests of `check_match` before versions: has a value, is code or data, has the name.
fn is_candidate(own: &Dynamic, sym: &Sym, name: &SymbolName<'_>, plt: bool) -> bool {
    let valueless = sym.value == 0 && sym.section != abi::SHN_ABS && sym.kind() != abi::STT_TLS;
    let allowed = 1_u32.checked_shl(sym.kind().into()).is_some_and(|bit| bit & GLIBC_TYPES != 0);
    !valueless && allowed && (sym.is_defined() || !plt) && own.is_named(sym.name, name.bytes)
}
