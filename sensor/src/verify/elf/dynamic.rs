//! The dynamic section: where every other table is.

use std::collections::HashMap;

use super::super::bytes::{cstr_at, index};
use super::abi;
use super::{ElfError, Headers, ReadAt, read_bytes};

/// Entries read; real files have under 60.
const MAX_ENTRIES: u64 = 4096;
/// The dynamic string table holds all symbol names; Chromium's is under 1 MB, libLLVM's 8 MB.
const MAX_STRINGS: u64 = 64 << 20;
/// Longer names of symbols are none: a C++ program's are below 10 KB. Many that share one end must
/// not cost the whole table each.
const MAX_NAME: usize = 64 << 10;
/// Names of files are paths.
const MAX_FILE_NAME: usize = 4096;

/// What `PT_DYNAMIC` says, as the loader reads it (the last entry of a tag wins).
#[derive(Clone, Debug, Default)]
pub(crate) struct Dynamic {
    tags: HashMap<u64, u64>,
    /// Entry number, tag and value in file order, names apart.
    pub(super) places: Vec<(u64, u64, u64)>,
    strings: Box<[u8]>,
    /// `DT_NEEDED` names in order.
    pub(crate) needed: Vec<Box<[u8]>>,
    pub(crate) soname: Option<Box<[u8]>>,
    /// `DT_SYMBOLIC` or `DF_SYMBOLIC`: the file searches itself first.
    pub(crate) symbolic: bool,
}

impl Dynamic {
    pub(super) fn read<R: ReadAt + ?Sized>(
        source: &R,
        headers: &Headers,
    ) -> Result<Self, ElfError> {
        let Some((_, offset, size)) = headers.dynamic else { return Ok(Self::default()) };
        let width = headers.width;
        let entry = width.bytes() * 2;
        let table = read_bytes(source, "dynamic section", offset, size.min(MAX_ENTRIES * entry))?;
        let mut found = Self::default();
        let mut needed = Vec::new();
        for (number, entry) in (0_u64..).zip(table.chunks_exact(index(entry))) {
            let word = |at| width.word_at(entry, at);
            let (Some(tag), Some(value)) = (word(0), word(width.len())) else { break };
            if tag == abi::DT_NULL {
                break;
            }
            if tag == abi::DT_NEEDED {
                needed.push(value);
            } else {
                found.tags.insert(tag, value);
                found.places.push((number, tag, value));
            }
        }
        found.read_strings(source, headers)?;
        let name = |at: u64| name_at(&found.strings, index(at), MAX_FILE_NAME).map(Box::from);
        let broken = ElfError::Malformed("dynamic string table");
        let needed: Option<Vec<_>> = needed.into_iter().map(name).collect();
        let soname = found.tag(abi::DT_SONAME).and_then(name);
        found.needed = needed.ok_or(broken)?;
        found.soname = soname;
        found.symbolic = found.tag(abi::DT_SYMBOLIC).is_some()
            || found.tag(abi::DT_FLAGS).is_some_and(|flags| flags & abi::DF_SYMBOLIC != 0);
        Ok(found)
    }

    fn read_strings<R: ReadAt + ?Sized>(
        &mut self,
        source: &R,
        headers: &Headers,
    ) -> Result<(), ElfError> {
        let Some(at) = self.tag(abi::DT_STRTAB) else { return Ok(()) };
        let bytes = self.tag(abi::DT_STRSZ).ok_or(ElfError::Malformed("dynamic string table"))?;
        if bytes > MAX_STRINGS {
            return Err(ElfError::TooLarge { what: "dynamic string table", bytes });
        }
        self.strings = headers.read_vaddr(source, "dynamic string table", at, bytes)?.into();
        Ok(())
    }

    /// Value of a tag, if present.
    pub(crate) fn tag(&self, tag: u64) -> Option<u64> {
        self.tags.get(&tag).copied()
    }

    /// Name at an offset of the string table.
    pub(crate) fn string(&self, at: u32) -> Option<&[u8]> {
        name_at(&self.strings, index(at), MAX_NAME)
    }

    /// Whether that name is this one.
    pub(super) fn is_named(&self, at: u32, name: &[u8]) -> bool {
        let rest = self.strings.get(index(at)..).unwrap_or_default();
        name.len() <= MAX_NAME && rest.starts_with(name) && rest.get(name.len()) == Some(&0)
    }

    /// The string that a tag such as `DT_RUNPATH` stands for.
    pub(crate) fn text(&self, tag: u64) -> Option<&[u8]> {
        name_at(&self.strings, index(self.tag(tag)?), MAX_NAME)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.strings.len() + self.tags.len() * 40 + self.needed.len() * 32
    }
}

/// A string of the table, if it ends before `most` bytes.
fn name_at(strings: &[u8], at: usize, most: usize) -> Option<&[u8]> {
    let end = at.saturating_add(most).saturating_add(1).min(strings.len());
    cstr_at(strings.get(..end)?, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_end_soon_are_none() {
        let mut strings = vec![b'a'; 3 * MAX_NAME];
        strings.push(0);
        let long = u32::try_from(strings.len() - 1 - MAX_NAME).unwrap();
        let dynamic = Dynamic { strings: strings.into(), ..Dynamic::default() };
        assert_eq!(dynamic.string(long).unwrap().len(), MAX_NAME);
        assert_eq!(dynamic.string(long - 1), None);
        let name = vec![b'a'; MAX_NAME + 1];
        assert!(dynamic.is_named(long, &name[1..]));
        assert!(!dynamic.is_named(long - 1, &name), "as long as it is, it is no name");
        assert!(!dynamic.is_named(long, b"a"), "it goes on");
        assert!(dynamic.is_named(long + 1, &name[2..]));
        assert!(!dynamic.is_named(u32::MAX, b""));
    }
}
