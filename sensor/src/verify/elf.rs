//! A bounded reader of the parts of an ELF file that a dynamic loader looks at.
//!
//! It follows `PT_DYNAMIC`, not the section headers, because the loader does; every table must lie
//! in the file bytes of one `PT_LOAD`, and every size is checked before memory is taken for it.

mod abi;
mod audit;
mod dynamic;
mod hash;
mod note;
mod reloc;
mod symbols;
mod symtab;
mod textrel;
mod unwind;
mod version;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub(crate) use self::abi::{
    DF_1_NODEFLIB, DT_AUDIT, DT_DEPAUDIT, DT_FLAGS_1, DT_RPATH, DT_RUNPATH,
};
pub(crate) use self::dynamic::Dynamic;
pub(crate) use self::hash::SymbolName;
pub(crate) use self::reloc::Slot;
pub use self::reloc::SlotKind;
pub(crate) use self::symbols::{Binding, Sym, SymbolTable};
pub(crate) use self::symtab::{FunctionTable, read_function_table};
pub(crate) use self::textrel::{Relocated, read_text_relocations};
use super::bytes::{index, u16_at, u32_at, u64_at};

/// The largest single table that is read, bytes (Chromium's relocations take 27 MB).
const MAX_TABLE: u64 = 64 << 20;
/// Program headers looked at; the loader itself has no limit, real files have under 20.
const MAX_SEGMENTS: usize = 256;

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

/// Instruction sets whose relocations are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    X86_64,
    Aarch64,
}

/// One `PT_LOAD`: `filesz` bytes at `offset` appear at `vaddr`, followed by zeroes up to `memsz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) vaddr: u64,
    pub(crate) offset: u64,
    pub(crate) filesz: u64,
    pub(crate) memsz: u64,
    pub(crate) exec: bool,
    pub(crate) write: bool,
}

/// Program headers and build-id: enough to place a file in an address space.
#[derive(Clone, Debug)]
pub(crate) struct Headers {
    pub(crate) machine: Machine,
    /// `PT_LOAD`s in file order.
    pub(crate) loads: Vec<Segment>,
    /// `PT_DYNAMIC` as (vaddr, file offset, file size).
    pub(crate) dynamic: Option<(u64, u64, u64)>,
    /// `PT_GNU_RELRO` as (vaddr, memory size).
    pub(crate) relro: Option<(u64, u64)>,
    pub(crate) has_interpreter: bool,
    /// Where the program itself begins (`e_entry`).
    pub(crate) entry: u64,
    /// `.note.gnu.build-id` in hex.
    pub(crate) build_id: Option<String>,
    /// `PT_GNU_EH_FRAME` as (vaddr, file size).
    eh_frame_hdr: Option<(u64, u64)>,
    /// Section header table as (offset, entry count).
    sections: (u64, u16),
}

/// Everything of one file that resolving symbols needs.
#[derive(Debug)]
pub(crate) struct ElfFile {
    pub(crate) headers: Headers,
    pub(crate) dynamic: Dynamic,
    pub(crate) symbols: SymbolTable,
    /// `JUMP_SLOT`, `GLOB_DAT` and `IRELATIVE` slots, ascending by address.
    pub(crate) slots: Vec<Slot>,
    /// Addresses where `.eh_frame_hdr` says a function starts, ascending; empty when unknown or
    /// not needed (no IFUNC in the file).
    pub(crate) fde_starts: Vec<u64>,
    /// Addresses of exported plain functions, ascending; only for files with IFUNCs.
    pub(crate) exported_functions: Vec<u64>,
    /// Address of a glibc loader's `_dl_naudit`.
    pub(crate) audit_count: Option<u64>,
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

// === impl Headers ===

impl Headers {
    /// Reads the file header, program headers and notes.
    pub(crate) fn read<R: ReadAt + ?Sized>(source: &R) -> Result<Self, ElfError> {
        let head = read_bytes(source, "file header", 0, 64).map_err(|error| match error {
            ElfError::Read { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof => {
                ElfError::NotElf
            }
            other => other,
        })?;
        let machine = check_ident(&head)?;
        let malformed = || ElfError::Malformed("file header");
        let table = u64_at(&head, 32).ok_or_else(malformed)?;
        let entry = u16_at(&head, 54).ok_or_else(malformed)?;
        let count = usize::from(u16_at(&head, 56).ok_or_else(malformed)?);
        if entry != 56 || count > MAX_SEGMENTS {
            return Err(ElfError::Malformed("program header table"));
        }
        let section_table = u64_at(&head, 40).ok_or_else(malformed)?;
        let section_count = u16_at(&head, 60).ok_or_else(malformed)?;
        let headers = read_bytes(source, "program header table", table, 56 * count as u64)?;
        let mut found = Self {
            machine,
            loads: Vec::new(),
            dynamic: None,
            relro: None,
            has_interpreter: false,
            entry: u64_at(&head, 24).ok_or_else(malformed)?,
            build_id: None,
            eh_frame_hdr: None,
            sections: (section_table, section_count),
        };
        for header in headers.chunks_exact(56) {
            found.add_segment(source, header).ok_or(ElfError::Malformed("program header"))?;
        }
        Ok(found)
    }

    fn add_segment<R: ReadAt + ?Sized>(&mut self, source: &R, header: &[u8]) -> Option<()> {
        let (kind, flags) = (u32_at(header, 0)?, u32_at(header, 4)?);
        let (offset, vaddr) = (u64_at(header, 8)?, u64_at(header, 16)?);
        let (filesz, memsz) = (u64_at(header, 32)?, u64_at(header, 40)?);
        match kind {
            abi::PT_LOAD => {
                vaddr.checked_add(memsz)?;
                offset.checked_add(filesz)?;
                let exec = flags & abi::PF_X != 0;
                let write = flags & abi::PF_W != 0;
                self.loads.push(Segment { vaddr, offset, filesz, memsz, exec, write });
            }
            abi::PT_DYNAMIC => self.dynamic = Some((vaddr, offset, filesz)),
            abi::PT_GNU_RELRO => self.relro = Some((vaddr, memsz)),
            abi::PT_INTERP => self.has_interpreter = true,
            abi::PT_GNU_EH_FRAME => self.eh_frame_hdr = Some((vaddr, filesz)),
            abi::PT_NOTE if self.build_id.is_none() => {
                self.build_id = note::read_build_id(source, offset, filesz);
            }
            _ => {}
        }
        Some(())
    }

    /// File offset of `vaddr` and how many file bytes follow it in its segment.
    pub(crate) fn file_offset(&self, vaddr: u64) -> Option<(u64, u64)> {
        self.loads.iter().find_map(|load| {
            let into = vaddr.checked_sub(load.vaddr)?;
            let rest = load.filesz.checked_sub(into).filter(|rest| *rest > 0)?;
            Some((load.offset + into, rest))
        })
    }

    /// Virtual address of a file offset. The page where two segments meet is mapped for both, so
    /// the segment with the right permission is preferred.
    pub(crate) fn vaddr_of(&self, offset: u64, exec: bool) -> Option<u64> {
        let place = |load: &Segment| {
            let into = offset.checked_sub(load.offset).filter(|into| *into < load.filesz)?;
            Some((load.exec == exec, load.vaddr + into))
        };
        self.loads.iter().filter_map(place).max_by_key(|(right, _)| *right).map(|(_, vaddr)| vaddr)
    }

    /// Whether `vaddr` lies in an executable segment.
    pub(crate) fn is_text(&self, vaddr: u64) -> bool {
        self.loads.iter().any(|load| {
            load.exec && vaddr.checked_sub(load.vaddr).is_some_and(|into| into < load.memsz)
        })
    }

    /// Lowest and one past the highest virtual address of all segments.
    pub(crate) fn span(&self) -> Option<(u64, u64)> {
        let start = self.loads.iter().map(|load| load.vaddr).min()?;
        let end = self.loads.iter().map(|load| load.vaddr + load.memsz).max()?;
        Some((start, end))
    }

    /// Reads `bytes` bytes that the loader would find at `vaddr`.
    fn read_vaddr<R: ReadAt + ?Sized>(
        &self,
        source: &R,
        what: &'static str,
        vaddr: u64,
        bytes: u64,
    ) -> Result<Vec<u8>, ElfError> {
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let (offset, rest) = self.file_offset(vaddr).ok_or(ElfError::Malformed(what))?;
        if bytes > rest {
            return Err(ElfError::Malformed(what));
        }
        read_bytes(source, what, offset, bytes)
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
        let headers = Headers::read(source)?;
        let dynamic = Dynamic::read(source, &headers)?;
        let mut slots = reloc::read_slots(source, &headers, &dynamic)?;
        let referenced = slots.iter().map(|slot| slot.symbol).max().unwrap_or(0);
        let symbols = SymbolTable::read(source, &headers, &dynamic, referenced)?;
        reloc::read_lazy_words(source, &headers, &mut slots);
        let audit_count = audit::find(source, &headers, &dynamic, &symbols);
        let mut file = Self {
            headers,
            dynamic,
            symbols,
            slots,
            fde_starts: Vec::new(),
            exported_functions: Vec::new(),
            audit_count,
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
        self.slots.iter().any(|slot| slot.kind == SlotKind::Irelative)
            || self.symbols.iter().any(|(_, sym)| sym.is_ifunc())
    }

    /// Heap bytes held, for the cache.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.symbols.bytes()
            + self.dynamic.bytes()
            + self.slots.len() * size_of::<Slot>()
            + (self.fde_starts.len() + self.exported_functions.len()) * 8
    }
}

/// Accepts 64-bit little-endian executables and shared objects of a known machine.
fn check_ident(head: &[u8]) -> Result<Machine, ElfError> {
    if head.get(..4) != Some(&abi::ELFMAG[..]) {
        return Err(ElfError::NotElf);
    }
    if head.get(4) == Some(&abi::ELFCLASS32) {
        return Err(ElfError::Unsupported("32-bit"));
    }
    if head.get(4..6) != Some(&[abi::ELFCLASS64, abi::ELFDATA2LSB]) {
        return Err(ElfError::Unsupported("big-endian"));
    }
    if !matches!(u16_at(head, 16), Some(abi::ET_EXEC | abi::ET_DYN)) {
        return Err(ElfError::Unsupported("relocatable and core"));
    }
    match u16_at(head, 18) {
        Some(abi::EM_X86_64) => Ok(Machine::X86_64),
        Some(abi::EM_AARCH64) => Ok(Machine::Aarch64),
        _ => Err(ElfError::Unsupported("other machines'")),
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
