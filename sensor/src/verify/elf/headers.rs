//! File header, program headers and build-id: where a file's parts are and where they go.

use std::io;

use super::super::bytes::{u16_at, u32_at, u64_at};
use super::super::width::Width;
use super::{ElfError, ReadAt, abi, note, read_bytes};

/// Program headers looked at; the loader itself has no limit, real files have under 20.
pub(super) const MAX_SEGMENTS: usize = 256;

/// Instruction sets whose relocations are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    X86_64,
    I386,
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
    pub(crate) width: Width,
    /// `ET_EXEC`: it runs where it was linked for.
    pub(crate) fixed: bool,
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
    pub(super) eh_frame_hdr: Option<(u64, u64)>,
    /// Section header table as (offset, entry count).
    pub(super) sections: (u64, u16),
}

/// What of the file header is used.
#[derive(Clone, Copy, Debug)]
struct FileHeader {
    kind: u16,
    entry: u64,
    /// Program header table: offset, bytes per entry, entries.
    segments: u64,
    segment_bytes: u16,
    segment_count: u16,
    sections: (u64, u16),
}

#[derive(Clone, Copy, Debug)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    filesz: u64,
    memsz: u64,
}

// === impl FileHeader ===

impl FileHeader {
    /// `Elf32_Ehdr` and `Elf64_Ehdr` agree up to `e_version`.
    fn parse(head: &[u8], width: Width) -> Option<Self> {
        let word = |narrow, wide| match width {
            Width::Four => width.word_at(head, narrow),
            Width::Eight => width.word_at(head, wide),
        };
        let half = |narrow, wide| match width {
            Width::Four => u16_at(head, narrow),
            Width::Eight => u16_at(head, wide),
        };
        Some(Self {
            kind: u16_at(head, 16)?,
            entry: word(24, 24)?,
            segments: word(28, 32)?,
            segment_bytes: half(42, 54)?,
            segment_count: half(44, 56)?,
            sections: (word(32, 40)?, half(48, 60)?),
        })
    }
}

// === impl ProgramHeader ===

impl ProgramHeader {
    /// `Elf32_Phdr` has its flags behind the sizes, `Elf64_Phdr` in front of the offset.
    fn parse(header: &[u8], width: Width) -> Option<Self> {
        let word = |at| u32_at(header, at).map(u64::from);
        let kind = u32_at(header, 0)?;
        Some(match width {
            Width::Four => Self {
                kind,
                flags: u32_at(header, 24)?,
                offset: word(4)?,
                vaddr: word(8)?,
                filesz: word(16)?,
                memsz: word(20)?,
            },
            Width::Eight => Self {
                kind,
                flags: u32_at(header, 4)?,
                offset: u64_at(header, 8)?,
                vaddr: u64_at(header, 16)?,
                filesz: u64_at(header, 32)?,
                memsz: u64_at(header, 40)?,
            },
        })
    }
}

/// Bytes of one program header.
fn segment_bytes(width: Width) -> usize {
    match width {
        Width::Four => 32,
        Width::Eight => 56,
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
        let (machine, width) = check_ident(&head)?;
        let head = FileHeader::parse(&head, width).ok_or(ElfError::Malformed("file header"))?;
        let entry = segment_bytes(width);
        let count = usize::from(head.segment_count);
        if usize::from(head.segment_bytes) != entry || count > MAX_SEGMENTS {
            return Err(ElfError::Malformed("program header table"));
        }
        let bytes = (entry * count) as u64;
        let headers = read_bytes(source, "program header table", head.segments, bytes)?;
        let mut found = Self {
            machine,
            width,
            fixed: head.kind == abi::ET_EXEC,
            loads: Vec::new(),
            dynamic: None,
            relro: None,
            has_interpreter: false,
            entry: head.entry,
            build_id: None,
            eh_frame_hdr: None,
            sections: head.sections,
        };
        for header in headers.chunks_exact(entry) {
            found.add_segment(source, header).ok_or(ElfError::Malformed("program header"))?;
        }
        Ok(found)
    }

    fn add_segment<R: ReadAt + ?Sized>(&mut self, source: &R, header: &[u8]) -> Option<()> {
        let ProgramHeader { kind, flags, offset, vaddr, filesz, memsz } =
            ProgramHeader::parse(header, self.width)?;
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

    /// A file without segments.
    #[cfg(test)]
    pub(super) fn empty(machine: Machine, width: Width) -> Self {
        Self {
            machine,
            width,
            fixed: false,
            loads: Vec::new(),
            dynamic: None,
            relro: None,
            has_interpreter: false,
            entry: 0,
            build_id: None,
            eh_frame_hdr: None,
            sections: (0, 0),
        }
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

    /// Whether a word at `vaddr` is read-only once the loader is done.
    pub(crate) fn is_relro(&self, vaddr: u64) -> bool {
        self.relro.is_some_and(|(start, size)| {
            vaddr
                .checked_sub(start)
                .and_then(|into| into.checked_add(self.width.bytes()))
                .is_some_and(|end| end <= size)
        })
    }

    /// Lowest and one past the highest virtual address of all segments.
    pub(crate) fn span(&self) -> Option<(u64, u64)> {
        let start = self.loads.iter().map(|load| load.vaddr).min()?;
        let end = self.loads.iter().map(|load| load.vaddr + load.memsz).max()?;
        Some((start, end))
    }

    /// Reads `bytes` bytes that the loader would find at `vaddr`.
    pub(super) fn read_vaddr<R: ReadAt + ?Sized>(
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

/// Accepts little-endian executables and shared objects of a known machine.
fn check_ident(head: &[u8]) -> Result<(Machine, Width), ElfError> {
    if head.get(..4) != Some(&abi::ELFMAG[..]) {
        return Err(ElfError::NotElf);
    }
    let width = match head.get(4) {
        Some(&abi::ELFCLASS32) => Width::Four,
        Some(&abi::ELFCLASS64) => Width::Eight,
        _ => return Err(ElfError::Malformed("file header")),
    };
    if head.get(5) != Some(&abi::ELFDATA2LSB) {
        return Err(ElfError::Unsupported("big-endian"));
    }
    if !matches!(u16_at(head, 16), Some(abi::ET_EXEC | abi::ET_DYN)) {
        return Err(ElfError::Unsupported("relocatable and core"));
    }
    // A 32-bit file for x86-64 is of the x32 ABI.
    match (width, u16_at(head, 18)) {
        (Width::Eight, Some(abi::EM_X86_64)) => Ok((Machine::X86_64, width)),
        (Width::Eight, Some(abi::EM_AARCH64)) => Ok((Machine::Aarch64, width)),
        (Width::Four, Some(abi::EM_386)) => Ok((Machine::I386, width)),
        _ => Err(ElfError::Unsupported("other machines'")),
    }
}
