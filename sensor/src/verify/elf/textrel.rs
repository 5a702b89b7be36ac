//! What of a file's code may change: relocations inside of it (`DT_TEXTREL`) and segments that are
//! written to.
//!
//! Reads 32-bit files as well, because there such modules are common.

use std::ops::Range;

use super::super::bytes::{index, u16_at, u32_at, u64_at};
use super::abi;
use super::{ElfError, MAX_SEGMENTS, ReadAt, read_bytes};

const WHAT: &str = "relocation table";
/// Relocated words kept.
const MAX_WORDS: usize = 1 << 20;
/// Entries of the dynamic section read.
const MAX_ENTRIES: u64 = 4096;

/// Which bytes of a file's code the loader changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Relocated {
    /// File offsets, ascending by start.
    words: Vec<Range<u64>>,
    /// File bytes of segments that may be written to.
    writable: Vec<Range<u64>>,
}

/// How wide things are in a file.
#[derive(Clone, Copy, Debug)]
struct Class {
    wide: bool,
}

/// `PT_DYNAMIC`: file offset, size.
type Dynamic = (u64, u64);

/// A `PT_LOAD`: address, file offset, file size, and whether it is written to.
type Text = (u64, u64, u64, bool);

impl Relocated {
    /// The end of the relocated bytes that hold this file offset.
    pub(crate) fn end_of(&self, offset: u64) -> Option<u64> {
        // Words are at most eight bytes long, and may overlap.
        let after = self.words.partition_point(|word| word.start <= offset);
        let near = self.words.get(after.saturating_sub(8)..after)?;
        near.iter().filter(|word| word.contains(&offset)).map(|word| word.end).max()
    }

    /// Whether a segment that may be written to holds this file offset.
    pub(crate) fn is_writable(&self, offset: u64) -> bool {
        self.writable.iter().any(|segment| segment.contains(&offset))
    }
}

/// Reads the relocations of a file that says it has some in its code; otherwise none.
pub(crate) fn read_text_relocations<R: ReadAt + ?Sized>(source: &R) -> Result<Relocated, ElfError> {
    let ident = read_bytes(source, "file header", 0, 52)?;
    let class = match ident.get(4) {
        Some(&abi::ELFCLASS64) => Class { wide: true },
        Some(&abi::ELFCLASS32) => Class { wide: false },
        _ => return Err(ElfError::NotElf),
    };
    let (texts, dynamic) = class.segments(source)?;
    let writable = texts.iter().filter(|(.., write)| *write);
    let writable = writable.map(|(_, offset, size, _)| *offset..offset.saturating_add(*size));
    let mut found = Relocated { words: Vec::new(), writable: writable.collect() };
    let Some((offset, size)) = dynamic else { return Ok(found) };
    let entry = class.word() * 2;
    let table = read_bytes(source, "dynamic section", offset, size.min(MAX_ENTRIES * entry))?;
    let find = |wanted: u64| {
        let entries = table.chunks_exact(index(entry));
        let pairs = entries
            .filter_map(|one| Some((class.at(one, 0)?, class.at(one, index(class.word()))?)));
        pairs.take_while(|(tag, _)| *tag != abi::DT_NULL).find(|(tag, _)| *tag == wanted)
    };
    let flagged = find(abi::DT_FLAGS).is_some_and(|(_, flags)| flags & abi::DF_TEXTREL != 0);
    if !flagged && find(abi::DT_TEXTREL).is_none() {
        return Ok(found);
    }
    for (at, size, addend) in
        [(abi::DT_RELA, abi::DT_RELASZ, true), (abi::DT_REL, abi::DT_RELSZ, false)]
    {
        if let (Some((_, at)), Some((_, size))) = (find(at), find(size)) {
            let entry = class.word() * if addend { 3 } else { 2 };
            class.read_table(source, &texts, (at, size, entry), &mut found)?;
        }
    }
    found.words.sort_by_key(|word| word.start);
    Ok(found)
}

impl Class {
    fn word(self) -> u64 {
        if self.wide { 8 } else { 4 }
    }

    fn at(self, bytes: &[u8], at: usize) -> Option<u64> {
        if self.wide { u64_at(bytes, at) } else { u32_at(bytes, at).map(u64::from) }
    }

    /// All segments with file bytes, and `PT_DYNAMIC`.
    fn segments<R: ReadAt + ?Sized>(
        self,
        source: &R,
    ) -> Result<(Vec<Text>, Option<Dynamic>), ElfError> {
        const TABLE: &str = "program header table";
        let head = read_bytes(source, "file header", 0, if self.wide { 64 } else { 52 })?;
        let (at_table, at_count, entry) = if self.wide { (32, 56, 56) } else { (28, 44, 32) };
        let malformed = || ElfError::Malformed(TABLE);
        let table = self.at(&head, at_table).ok_or_else(malformed)?;
        let count = usize::from(u16_at(&head, at_count).ok_or_else(malformed)?);
        if count > MAX_SEGMENTS {
            return Err(malformed());
        }
        let headers = read_bytes(source, TABLE, table, (count * entry) as u64)?;
        let (mut texts, mut dynamic) = (Vec::new(), None);
        for header in headers.chunks_exact(entry) {
            // offset, vaddr, file size.
            let places = if self.wide { [8, 16, 32] } else { [4, 8, 16] };
            let mut fields = [0; 3];
            for (field, place) in fields.iter_mut().zip(places) {
                *field = self.at(header, place).ok_or_else(malformed)?;
            }
            let [offset, vaddr, size] = fields;
            let flags = u32_at(header, if self.wide { 4 } else { 24 }).ok_or_else(malformed)?;
            match u32_at(header, 0) {
                Some(abi::PT_LOAD) => {
                    texts.push((vaddr, offset, size, flags & abi::PF_W != 0));
                }
                Some(abi::PT_DYNAMIC) => dynamic = Some((offset, size)),
                _ => {}
            }
        }
        Ok((texts, dynamic))
    }

    fn read_table<R: ReadAt + ?Sized>(
        self,
        source: &R,
        texts: &[Text],
        (at, size, entry): (u64, u64, u64),
        found: &mut Relocated,
    ) -> Result<(), ElfError> {
        let offset_of = |vaddr: u64| {
            texts.iter().find_map(|(start, offset, size, _)| {
                let into = vaddr.checked_sub(*start).filter(|into| into < size)?;
                offset.checked_add(into)
            })
        };
        let offset = offset_of(at).ok_or(ElfError::Malformed(WHAT))?;
        let table = read_bytes(source, WHAT, offset, size)?;
        for relocation in table.chunks_exact(index(entry)) {
            let Some(vaddr) = self.at(relocation, 0) else { break };
            let Some(start) = offset_of(vaddr) else { continue };
            if found.words.len() >= MAX_WORDS {
                return Err(ElfError::TooLarge { what: WHAT, bytes: size });
            }
            found.words.push(start..start.saturating_add(self.word()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file with one segment, a dynamic section at 0x100 and one `RELA` at 0x200.
    fn file(flags: u64) -> Vec<u8> {
        let mut bytes = vec![0; 0x300];
        let mut put = |at: usize, word: u64| bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        put(32, 64);
        put(56, 2);
        for (at, words) in [
            (64, [1 | 5 << 32, 0, 0x1000, 0, 0x300, 0x300, 0]),
            (120, [2, 0x100, 0x1100, 0, 0x60, 0x60, 0]),
            (0x100, [30, flags, 7, 0x1200, 8, 24, 0]),
            (0x200, [0x1040, 8, 0x1000, 0, 0, 0, 0]),
        ] {
            for (number, word) in words.into_iter().enumerate() {
                put(at + number * 8, word);
            }
        }
        bytes[..5].copy_from_slice(b"\x7fELF\x02");
        bytes
    }

    #[test]
    fn relocated_words_are_known_by_file_offset() {
        let found = read_text_relocations(file(4).as_slice()).unwrap();
        assert_eq!(found.end_of(0x40), Some(0x48));
        assert_eq!(found.end_of(0x47), Some(0x48));
        assert_eq!((found.end_of(0x48), found.end_of(0x3f)), (None, None));
    }

    #[test]
    fn segments_that_are_written_to_are_known() {
        let mut bytes = file(0);
        assert!(!read_text_relocations(bytes.as_slice()).unwrap().is_writable(0x40));
        bytes[68] |= 2;
        assert!(read_text_relocations(bytes.as_slice()).unwrap().is_writable(0x40));
    }

    #[test]
    fn a_file_that_does_not_say_so_has_none() {
        let found = read_text_relocations(file(0).as_slice()).unwrap();
        assert_eq!(found, Relocated::default());
    }

    proptest! {
        #[test]
        fn any_bytes_are_total(at in 0_usize..0x300, byte in any::<u8>(), cut in 0_usize..0x300) {
            let mut bytes = file(4);
            bytes[at] = byte;
            bytes.truncate(cut);
            if let Ok(found) = read_text_relocations(bytes.as_slice()) {
                let _ = found.end_of(u64::MAX);
            }
        }
    }
}
