//! Names for addresses: functions of `.symtab` and `.dynsym`, sorted.

use super::super::bytes::{cstr_at, index, printable, u32_at};
use super::super::width::Width;
use super::abi;
use super::{Dynamic, ElfError, Headers, ReadAt, Sym, SymbolTable, read_bytes};

/// Functions by address; names are resolved when asked for.
#[derive(Debug, Default)]
pub(crate) struct FunctionTable {
    /// (address, name) ascending; a dynamic symbol sorts before a local one.
    functions: Vec<(u64, NameAt)>,
    strings: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NameAt {
    Dynamic(u32),
    Local(u32),
}

impl FunctionTable {
    /// The function at or nearest below `vaddr`, with the distance to its start.
    pub(crate) fn nearest(&self, dynamic: &Dynamic, vaddr: u64) -> Option<(String, u64)> {
        let after = self.functions.partition_point(|(start, _)| *start <= vaddr);
        let (start, _) = *self.functions.get(after.checked_sub(1)?)?;
        let first = self.functions.partition_point(|(other, _)| *other < start);
        let (_, name) = *self.functions.get(first)?;
        let name = match name {
            NameAt::Dynamic(at) => dynamic.string(at)?,
            NameAt::Local(at) => cstr_at(&self.strings, index(at))?,
        };
        Some((printable(name), vaddr - start))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.functions.len() * size_of::<(u64, NameAt)>() + self.strings.len()
    }
}

/// Collects the functions of both tables; an absent or broken `.symtab` leaves the dynamic ones.
pub(crate) fn read_function_table<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    symbols: &SymbolTable,
) -> FunctionTable {
    let mut table = read_symtab(source, headers).unwrap_or_default();
    let dynamic = symbols.iter().filter(|(_, sym)| sym.is_function() || sym.is_ifunc());
    let dynamic = dynamic.map(|(_, sym)| (sym.value, NameAt::Dynamic(sym.name)));
    table.functions.extend(dynamic);
    table.functions.sort_unstable();
    table
}

/// `SHT_SYMTAB` and the string table its `sh_link` names.
fn read_symtab<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
) -> Result<FunctionTable, ElfError> {
    const WHAT: &str = "symbol table";
    let (at, count) = headers.sections;
    let width = headers.width;
    // `Elf32_Shdr` and `Elf64_Shdr`: bytes, and where offset, size and link are.
    let (entry, offset_at, size_at, link_at) = match width {
        Width::Four => (40_u64, 16, 20, 24),
        Width::Eight => (64, 24, 32, 40),
    };
    let sections = read_bytes(source, "section headers", at, entry * u64::from(count))?;
    let sections: Vec<&[u8]> = sections.chunks_exact(index(entry)).collect();
    let is_symtab = |header: &&&[u8]| u32_at(header, 4) == Some(abi::SHT_SYMTAB);
    let malformed = || ElfError::Malformed(WHAT);
    let Some(symtab) = sections.iter().find(is_symtab) else { return Ok(FunctionTable::default()) };
    let link = u32_at(symtab, link_at).ok_or_else(malformed)?;
    let strtab = sections.get(index(link)).ok_or_else(malformed)?;
    let read = |header: &[u8]| {
        let offset = width.word_at(header, offset_at).ok_or_else(malformed)?;
        let size = width.word_at(header, size_at).ok_or_else(malformed)?;
        read_bytes(source, WHAT, offset, size)
    };
    let (symbols, strings) = (read(symtab)?, read(strtab)?);
    let functions = symbols
        .chunks_exact(Sym::bytes(width))
        .filter_map(|entry| local_function(Sym::parse(entry, width)?))
        .collect();
    Ok(FunctionTable { functions, strings })
}

fn local_function(sym: Sym) -> Option<(u64, NameAt)> {
    (sym.is_function() || sym.is_ifunc()).then_some((sym.value, NameAt::Local(sym.name)))
}
