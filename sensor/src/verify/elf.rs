//! A bounded reader of the parts of an ELF file that a dynamic loader looks at.
//!
//! It follows `PT_DYNAMIC`, not the section headers, because the loader does; every table must lie
//! in the file bytes of one `PT_LOAD`, and every size is checked before memory is taken for it.

mod abi;
mod audit;
mod dynamic;
mod entry;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod hash;
mod headers;
mod kind;
mod note;
mod reloc;
mod relr;
mod special;
mod symbols;
mod symtab;
mod textrel;
mod unwind;
mod version;
mod words;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub(crate) use self::abi::{
    DF_1_NODEFLIB, DT_AUDIT, DT_DEPAUDIT, DT_FLAGS_1, DT_RPATH, DT_RUNPATH,
};
pub(crate) use self::dynamic::Dynamic;
pub(crate) use self::entry::EntryPoints;
pub(crate) use self::frame::{Base, Saved, Step, read_step};
pub(crate) use self::hash::SymbolName;
use self::headers::MAX_SEGMENTS;
pub(crate) use self::headers::{Headers, Machine, Segment};
pub use self::kind::{Depth, SlotCounts, SlotKind};
pub use self::reloc::Skipped;
pub(crate) use self::reloc::{Relative, Relocations, Slot};
pub(crate) use self::symbols::{Binding, Sym, SymbolTable};
pub(crate) use self::symtab::{FunctionTable, read_function_table};
pub(crate) use self::textrel::{Relocated, read_text_relocations};
use super::bytes::index;

/// The largest single table that is read, bytes (Chromium's relocations take 27 MB).
const MAX_TABLE: u64 = 64 << 20;

/// Where ELF bytes come from: a file, or memory already read.
pub(crate) trait ReadAt {
    /// Fills `buf` from `offset`, or fails; short reads are errors.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// Why an ELF file was not read.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The bytes could not be had.
    #[error("cannot read the {what}")]
    Read {
        /// The table.
        what: &'static str,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// No ELF magic.
    #[error("not an ELF file")]
    NotElf,
    /// The structure named contradicts itself or points outside the file.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A valid file of a kind that is not covered.
    #[error("{0} ELF files are not covered")]
    Unsupported(&'static str),
    /// A table larger than the limit.
    #[error("the {what} takes {bytes} bytes, more than is read")]
    TooLarge {
        /// The table.
        what: &'static str,
        /// Its size.
        bytes: u64,
    },
}

/// Everything of one file that resolving symbols needs.
#[derive(Debug)]
pub(crate) struct ElfFile {
    pub(crate) headers: Headers,
    pub(crate) dynamic: Dynamic,
    pub(crate) symbols: SymbolTable,
    /// What the loader writes into it, to the depth that was asked for.
    pub(crate) relocations: Relocations,
    pub(crate) depth: Depth,
    /// Addresses where `.eh_frame_hdr` says a function starts, ascending; empty when unknown or
    /// not needed (no IFUNC in the file).
    pub(crate) fde_starts: Vec<u64>,
    /// Addresses of exported plain functions, ascending; only for files with IFUNCs.
    pub(crate) exported_functions: Vec<u64>,
    /// Address of a glibc loader's `_dl_naudit`.
    pub(crate) audit_count: Option<u64>,
    /// Functions of a loader that slots lead to.
    pub(crate) entry_points: EntryPoints,
}

// === impl ReadAt ===

impl ReadAt for File {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        FileExt::read_exact_at(self, buf, offset)
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let start = index(offset);
        let end = start.saturating_add(buf.len());
        let bytes = self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

/// What a file asks of a loader, without symbols and relocations.
pub(crate) fn read_dynamic<R: ReadAt + ?Sized>(source: &R) -> Result<Dynamic, ElfError> {
    Dynamic::read(source, &Headers::read(source)?)
}

/// What symbols a file offers, without its relocations.
pub(crate) fn read_exports<R: ReadAt + ?Sized>(
    source: &R,
) -> Result<(Headers, Dynamic, SymbolTable), ElfError> {
    let headers = Headers::read(source)?;
    let dynamic = Dynamic::read(source, &headers)?;
    let symbols = SymbolTable::read(source, &headers, &dynamic, 0)?;
    Ok((headers, dynamic, symbols))
}

// === impl ElfFile ===

impl ElfFile {
    /// Reads every table a loader would use to link against, and to relocate, this file.
    pub(crate) fn read<R: ReadAt + ?Sized>(source: &R) -> Result<Self, ElfError> {
        Self::read_to(source, Depth::Full)
    }

    /// The same, without what is not compared at this depth.
    pub(crate) fn read_to<R: ReadAt + ?Sized>(source: &R, depth: Depth) -> Result<Self, ElfError> {
        let headers = Headers::read(source)?;
        let dynamic = Dynamic::read(source, &headers)?;
        let relocations = Relocations::read(source, &headers, &dynamic, depth)?;
        let referenced = relocations.slots.iter().map(|slot| slot.symbol).max().unwrap_or(0);
        let symbols = SymbolTable::read(source, &headers, &dynamic, referenced)?;
        let audit_count = audit::find(source, &headers, &dynamic, &symbols);
        let entry_points = entry::find(source, &headers, &dynamic, &symbols);
        let mut file = Self {
            headers,
            dynamic,
            symbols,
            relocations,
            depth,
            fde_starts: Vec::new(),
            exported_functions: Vec::new(),
            audit_count,
            entry_points,
        };
        if file.has_ifuncs() {
            file.fde_starts = unwind::read_fde_starts(source, &file.headers).unwrap_or_default();
            file.exported_functions = file.symbols.exported_functions();
        }
        Ok(file)
    }

    /// The dynamic symbol with an address that is nearest at or below `vaddr`, and the distance.
    /// Linear: for naming findings only.
    pub(crate) fn nearest_symbol(&self, vaddr: u64) -> Option<(&[u8], u64)> {
        let named = |sym: &Sym| sym.is_defined() && !sym.is_absolute() && sym.value <= vaddr;
        let symbols = self.symbols.iter().filter(|(_, sym)| named(sym) && sym.kind() <= 2);
        let (_, sym) = symbols.max_by_key(|(_, sym)| sym.value)?;
        Some((self.dynamic.string(sym.name)?, vaddr - sym.value))
    }

    fn has_ifuncs(&self) -> bool {
        self.relocations.slots.iter().any(|slot| slot.kind == SlotKind::Irelative)
            || self.symbols.iter().any(|(_, sym)| sym.is_ifunc())
    }

    /// Heap bytes held, for the cache.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.symbols.bytes()
            + self.dynamic.bytes()
            + self.relocations.bytes()
            + self.entry_points.bytes()
            + (self.fde_starts.len() + self.exported_functions.len()) * 8
    }
}

/// Reads a table after checking its size against the limit.
fn read_bytes<R: ReadAt + ?Sized>(
    source: &R,
    what: &'static str,
    offset: u64,
    bytes: u64,
) -> Result<Vec<u8>, ElfError> {
    if bytes > MAX_TABLE {
        return Err(ElfError::TooLarge { what, bytes });
    }
    // The last byte first: a size that the file does not hold must not cost its memory.
    if let Some(last) = bytes.checked_sub(1) {
        let at = offset.checked_add(last).ok_or(ElfError::Malformed(what))?;
        let mut byte = [0];
        source.read_exact_at(at, &mut byte).map_err(|source| ElfError::Read { what, source })?;
    }
    let mut buf = vec![0; index(bytes)];
    source.read_exact_at(offset, &mut buf).map_err(|source| ElfError::Read { what, source })?;
    Ok(buf)
}

#[cfg(test)]
mod tests;
