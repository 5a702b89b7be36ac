//! Names for addresses: functions of `.symtab` and `.dynsym`, sorted.

use super::super::bytes::{cstr_at, index, printable, u16_at, u32_at, u64_at};
use super::abi;
use super::{Dynamic, ElfError, Headers, ReadAt, SymbolTable, read_bytes};

/// Bytes of one `Elf64_Shdr`.
const SHDR_BYTES: u64 = 64;
/// Bytes of one `Elf64_Sym`.
const SYM_BYTES: usize = 24;

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
    let sections = read_bytes(source, "section headers", at, SHDR_BYTES * u64::from(count))?;
    let sections: Vec<&[u8]> = sections.chunks_exact(index(SHDR_BYTES)).collect();
    let is_symtab = |header: &&&[u8]| u32_at(header, 4) == Some(abi::SHT_SYMTAB);
    let malformed = || ElfError::Malformed(WHAT);
    let Some(symtab) = sections.iter().find(is_symtab) else { return Ok(FunctionTable::default()) };
    let link = u32_at(symtab, 40).ok_or_else(malformed)?;
    let strtab = sections.get(index(link)).ok_or_else(malformed)?;
    let read = |header: &[u8]| {
        let offset = u64_at(header, 24).ok_or_else(malformed)?;
        read_bytes(source, WHAT, offset, u64_at(header, 32).ok_or_else(malformed)?)
    };
    let (symbols, strings) = (read(symtab)?, read(strtab)?);
    let functions = symbols.chunks_exact(SYM_BYTES).filter_map(local_function).collect();
    Ok(FunctionTable { functions, strings })
}

fn local_function(entry: &[u8]) -> Option<(u64, NameAt)> {
    let kind = entry.get(4)? & 0xf;
    let defined = u16_at(entry, 6)? != abi::SHN_UNDEF;
    let function = matches!(kind, abi::STT_FUNC | abi::STT_GNU_IFUNC);
    (defined && function).then_some((u64_at(entry, 8)?, NameAt::Local(u32_at(entry, 0)?)))
}
