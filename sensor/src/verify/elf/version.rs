//! Symbol versions: `DT_VERSYM`, `DT_VERNEED`, `DT_VERDEF`.

use super::super::bytes::{index, u16_at, u32_at};
use super::abi;
use super::{Dynamic, ElfError, Headers, ReadAt};

/// Version records read per table; libc has about 40.
const MAX_RECORDS: usize = 8192;
/// Version tables end with the segment or here, bytes.
const MAX_BYTES: u64 = 1 << 20;
/// The bits of a version index; bit 15 says "hidden".
const INDEX_MASK: u16 = 0x7fff;
/// See [`INDEX_MASK`].
pub(super) const HIDDEN: u16 = 0x8000;

/// One entry of glibc's `l_versions` (`struct r_found_version`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    hash: u32,
    /// Offset of the name in the dynamic string table.
    pub(crate) name: u32,
    /// A reference that must not fall back to the default version.
    pub(crate) hidden: bool,
}

/// The versions of one file by index; `None` where glibc keeps a zero hash.
#[derive(Debug, Default)]
pub(super) struct Versions {
    by_index: Vec<Option<Version>>,
    versym: Vec<u16>,
}

impl Version {
    /// Same name; the hash is compared first as glibc's `check_match` does.
    pub(crate) fn same(&self, own: &Dynamic, other: &Self, theirs: &Dynamic) -> bool {
        self.hash == other.hash
            && own.string(self.name).is_some()
            && own.string(self.name) == theirs.string(other.name)
    }
}

impl Versions {
    pub(super) fn read<R: ReadAt + ?Sized>(
        source: &R,
        headers: &Headers,
        dynamic: &Dynamic,
        symbols: u32,
    ) -> Result<Self, ElfError> {
        let mut found = Self::default();
        let Some(at) = dynamic.tag(abi::DT_VERSYM) else { return Ok(found) };
        let table = headers.read_vaddr(source, "symbol versions", at, u64::from(symbols) * 2)?;
        found.versym = table.chunks_exact(2).filter_map(|chunk| u16_at(chunk, 0)).collect();
        if let Some(at) = dynamic.tag(abi::DT_VERNEED) {
            let table = read_rest(source, headers, "version needs", at)?;
            found.add_needs(&table).ok_or(ElfError::Malformed("version needs"))?;
        }
        if let Some(at) = dynamic.tag(abi::DT_VERDEF) {
            let table = read_rest(source, headers, "version definitions", at)?;
            found.add_definitions(&table).ok_or(ElfError::Malformed("version definitions"))?;
        }
        Ok(found)
    }

    /// `Elf64_Verneed` {version u16, count u16, file u32, aux u32, next u32} with
    /// `Elf64_Vernaux` {hash u32, flags u16, other u16, name u32, next u32}.
    fn add_needs(&mut self, table: &[u8]) -> Option<()> {
        let (mut at, mut budget) = (0_usize, MAX_RECORDS);
        loop {
            let mut aux = at.checked_add(index(u32_at(table, at.checked_add(8)?)?))?;
            for _ in 0..u16_at(table, at.checked_add(2)?)? {
                budget = budget.checked_sub(1)?;
                let other = u16_at(table, aux.checked_add(6)?)?;
                let hash = u32_at(table, aux)?;
                let name = u32_at(table, aux.checked_add(8)?)?;
                self.set(other & INDEX_MASK, Version { hash, name, hidden: other & HIDDEN != 0 });
                aux = match u32_at(table, aux.checked_add(12)?)? {
                    0 => break,
                    next => aux.checked_add(index(next))?,
                };
            }
            budget = budget.checked_sub(1)?;
            match u32_at(table, at.checked_add(12)?)? {
                0 => return Some(()),
                next => at = at.checked_add(index(next))?,
            }
        }
    }

    /// `Elf64_Verdef` {version u16, flags u16, index u16, count u16, hash u32, aux u32, next u32}
    /// whose first `Elf64_Verdaux` {name u32, next u32} is the name.
    fn add_definitions(&mut self, table: &[u8]) -> Option<()> {
        let mut at = 0_usize;
        for _ in 0..MAX_RECORDS {
            let flags = u16_at(table, at.checked_add(2)?)?;
            if flags & abi::VER_FLG_BASE == 0 {
                let aux = at.checked_add(index(u32_at(table, at.checked_add(12)?)?))?;
                let (number, hash) = (u16_at(table, at.checked_add(4)?)?, u32_at(table, at + 8)?);
                let version = Version { hash, name: u32_at(table, aux)?, hidden: false };
                self.set(number & INDEX_MASK, version);
            }
            match u32_at(table, at.checked_add(16)?)? {
                0 => return Some(()),
                next => at = at.checked_add(index(next))?,
            }
        }
        None
    }

    fn set(&mut self, number: u16, version: Version) {
        let at = usize::from(number);
        if self.by_index.len() <= at {
            self.by_index.resize(at + 1, None);
        }
        if let Some(place) = self.by_index.get_mut(at) {
            *place = (version.hash != 0).then_some(version);
        }
    }

    /// Whether the file has a version table at all.
    pub(super) fn present(&self) -> bool {
        !self.versym.is_empty()
    }

    /// The raw version word of a symbol.
    pub(super) fn word(&self, symbol: u32) -> u16 {
        self.versym.get(index(symbol)).copied().unwrap_or(0)
    }

    /// The version a symbol carries, as reference or definition.
    pub(super) fn of(&self, symbol: u32) -> Option<Version> {
        self.by_index.get(usize::from(self.word(symbol) & INDEX_MASK)).copied().flatten()
    }

    pub(super) fn number(&self, symbol: u32) -> u16 {
        self.word(symbol) & INDEX_MASK
    }

    pub(super) fn bytes(&self) -> usize {
        self.by_index.len() * size_of::<Option<Version>>() + self.versym.len() * 2
    }
}

/// The version tables have no size of their own: read to the end of the segment, bounded.
fn read_rest<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    what: &'static str,
    at: u64,
) -> Result<Vec<u8>, ElfError> {
    let (_, rest) = headers.file_offset(at).ok_or(ElfError::Malformed(what))?;
    headers.read_vaddr(source, what, at, rest.min(MAX_BYTES))
}
