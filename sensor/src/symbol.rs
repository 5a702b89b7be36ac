//! Names for addresses: which module an address of a process belongs to and which function is
//! nearest, and the reverse for attaching probes.

mod asker;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use serde::Serialize;

use crate::verify::cache::Lru;
use crate::verify::elf::{
    Dynamic, ElfError, FunctionTable, Headers, ReadAt, read_exports, read_function_table,
};
use crate::verify::maps::Vma;
use crate::verify::process::{FileKey, Process};
use crate::verify::{ModuleRef, VerifyError};

pub use asker::Asker;

/// Symbol tables kept: entries.
const MAX_FILES: usize = 512;
/// Symbol tables kept: bytes.
const MAX_BYTES: usize = 8 << 20;

/// An address with everything known about it.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Symbolized {
    /// The address asked about.
    pub addr: u64,
    /// The mapped file; none for memory without a file.
    pub module: Option<ModuleRef>,
    /// Kernel name and permissions of the area, such as `/usr/sbin/sshd r-x`, `[heap] rw-` or
    /// `anonymous rwx`; `unmapped` where there is none.
    pub memory: String,
    /// Offset in the mapped file, bytes.
    pub file_offset: Option<u64>,
    /// Virtual address in the module's file; none if that is no readable ELF file.
    pub vaddr: Option<u64>,
    /// Nearest function at or below, from `.dynsym` and `.symtab`.
    pub symbol: Option<String>,
    /// Distance to that function's start, bytes.
    pub symbol_offset: Option<u64>,
    /// Why the module could not be read, if it could not.
    pub unread: Option<String>,
}

/// Turns addresses into names, remembering symbol tables between calls.
#[derive(Debug)]
pub struct Symbolizer {
    cache: Lru<FileKey, Arc<Functions>>,
    steps: asker::Steps,
}

/// The address space of one process at one moment, for asking about several addresses.
#[derive(Debug)]
pub struct AddressSpace {
    process: Process,
}

/// Offset in a file at which a function's code starts, bytes: what uprobes attach to.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileOffset(pub u64);

#[derive(Debug)]
struct Functions {
    headers: Headers,
    dynamic: Dynamic,
    table: FunctionTable,
}

// === impl AddressSpace ===

impl AddressSpace {
    /// Reads the maps of a process.
    pub fn of(pid: u32) -> Result<Self, VerifyError> {
        Ok(Self { process: Process::open(pid)? })
    }
}

// === impl Symbolizer ===

impl Default for Symbolizer {
    fn default() -> Self {
        Self { cache: Lru::new(MAX_FILES, MAX_BYTES), steps: asker::no_steps() }
    }
}

impl Symbolizer {
    /// Names one address of a process that runs now.
    pub fn resolve(&mut self, pid: u32, addr: u64) -> Result<Symbolized, VerifyError> {
        Ok(self.resolve_in(&AddressSpace::of(pid)?, addr))
    }

    /// Names one address of an address space read before. Total: what is unknown stays empty.
    pub fn resolve_in(&mut self, space: &AddressSpace, addr: u64) -> Symbolized {
        let Some(vma) = space.process.maps.find(addr) else {
            return Symbolized::bare(addr, "unmapped".to_owned());
        };
        let mut found = Symbolized::bare(addr, vma.describe());
        if vma.is_file() {
            found.file_offset = Some(vma.offset.wrapping_add(addr - vma.start));
            self.name_file(&space.process, vma, &mut found);
        }
        found
    }

    fn name_file(&mut self, process: &Process, vma: &Vma, found: &mut Symbolized) {
        let metadata = process.stat_file(vma);
        let dev = metadata.as_ref().map_or(0, MetadataExt::dev);
        let mut module =
            ModuleRef { path: vma.path.to_string(), dev, ino: vma.ino, build_id: None };
        let functions = metadata
            .map_err(|error| error.to_string())
            .and_then(|metadata| self.functions(process, vma, FileKey::of(&metadata)));
        match functions {
            Ok(functions) => {
                module.build_id.clone_from(&functions.headers.build_id);
                functions.name(vma.exec, found);
            }
            Err(reason) => found.unread = Some(reason),
        }
        found.module = Some(module);
    }

    fn functions(
        &mut self,
        process: &Process,
        vma: &Vma,
        key: FileKey,
    ) -> Result<Arc<Functions>, String> {
        if let Some(known) = self.cache.get(&key) {
            return Ok(known);
        }
        let file = process.open_file(vma).map_err(|error| error.to_string())?;
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        let functions = Functions::read(&file).map_err(|error| error.to_string())?;
        let functions = Arc::new(functions);
        let bytes = functions.table.bytes() + functions.dynamic.bytes();
        self.cache.insert(FileKey::of(&metadata), Arc::clone(&functions), bytes);
        Ok(functions)
    }
}

// === impl Functions ===

impl Functions {
    fn read<R: ReadAt + ?Sized>(source: &R) -> Result<Self, ElfError> {
        let (headers, dynamic, symbols) = read_exports(source)?;
        let table = read_function_table(source, &headers, &symbols);
        Ok(Self { headers, dynamic, table })
    }

    fn name(&self, exec: bool, found: &mut Symbolized) {
        let vaddr = found.file_offset.and_then(|offset| self.headers.vaddr_of(offset, exec));
        found.vaddr = vaddr;
        if let Some((name, distance)) =
            vaddr.and_then(|vaddr| self.table.nearest(&self.dynamic, vaddr))
        {
            (found.symbol, found.symbol_offset) = (Some(name), Some(distance));
        }
    }
}

// === impl Symbolized ===

impl Symbolized {
    fn bare(addr: u64, memory: String) -> Self {
        Self {
            addr,
            module: None,
            memory,
            file_offset: None,
            vaddr: None,
            symbol: None,
            symbol_offset: None,
            unread: None,
        }
    }
}

/// `libcrypto.so.3+0x277490 (RSA_public_decrypt+0x0)`, or the memory where there is no module.
impl std::fmt::Display for Symbolized {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.module, self.vaddr.or(self.file_offset)) {
            (Some(module), Some(offset)) => write!(f, "{}+{offset:#x}", module.file_name())?,
            _ => write!(f, "{:#x} in {}", self.addr, self.memory)?,
        }
        match (&self.symbol, self.symbol_offset) {
            (Some(symbol), Some(distance)) => write!(f, " ({symbol}+{distance:#x})"),
            _ => Ok(()),
        }
    }
}

/// Where the code of an exported function starts in `file`; the default version where there are
/// several. `None` if the file does not export it, or only as an IFUNC, whose address is its
/// resolver's.
pub fn find_symbol_offset(file: &File, name: &str) -> Result<Option<FileOffset>, ElfError> {
    let (headers, dynamic, symbols) = read_exports(file)?;
    let found = symbols.default_definition(&dynamic, name).filter(|sym| !sym.is_ifunc());
    let text = found.map(|sym| sym.value).filter(|vaddr| headers.is_text(*vaddr));
    let offset = text.and_then(|vaddr| headers.file_offset(vaddr));
    Ok(offset.map(|(offset, _)| FileOffset(offset)))
}

/// The function nearest to a file offset, at or below it, and the distance, bytes; `None` where no
/// code is loaded from there, or nothing has a name.
pub fn name_at(file: &File, offset: u64) -> Result<Option<(String, u64)>, ElfError> {
    let functions = Functions::read(file)?;
    let vaddr = functions.headers.vaddr_of(offset, true);
    Ok(vaddr.and_then(|vaddr| functions.table.nearest(&functions.dynamic, vaddr)))
}

/// Address in the file at which a program's own code begins.
pub fn find_entry(file: &File) -> Result<u64, ElfError> {
    Ok(Headers::read(file)?.entry)
}

/// Where a program's own code begins; `None` if that is not in its code.
pub fn find_entry_offset(file: &File) -> Result<Option<FileOffset>, ElfError> {
    let headers = Headers::read(file)?;
    let entry = Some(headers.entry).filter(|vaddr| headers.is_text(*vaddr));
    Ok(entry.and_then(|vaddr| headers.file_offset(vaddr)).map(|(offset, _)| FileOffset(offset)))
}

/// GNU build-id of a file in hex, if it has one.
pub fn build_id(file: &File) -> Result<Option<String>, ElfError> {
    Ok(Headers::read(file)?.build_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn libc(space: &AddressSpace) -> (Vma, File) {
        let is_libc = |vma: &&Vma| vma.exec && vma.path.contains("/libc.so.6");
        let vma = space.process.maps.iter().find(is_libc).expect("libc is mapped");
        (vma.clone(), space.process.open_file(vma).unwrap())
    }

    #[test]
    fn an_exported_function_is_found_in_file_and_memory_alike() {
        let space = AddressSpace::of(std::process::id()).unwrap();
        let (vma, file) = libc(&space);
        let FileOffset(offset) = find_symbol_offset(&file, "getppid").unwrap().unwrap();
        let addr = vma.start + (offset - vma.offset);
        let mut symbolizer = Symbolizer::default();
        for into in [0, 3] {
            let named = symbolizer.resolve_in(&space, addr + into);
            assert_eq!(named.symbol.as_deref(), Some("getppid"), "{named:?}");
            assert_eq!(named.symbol_offset, Some(into));
            assert_eq!(named.file_offset, Some(offset + into));
            let module = named.module.unwrap();
            assert_eq!((module.ino, module.build_id), (vma.ino, build_id(&file).unwrap()));
        }
        assert_eq!(symbolizer.cache.len(), 1);
    }

    #[test]
    fn ifuncs_data_and_unknown_names_have_no_offset() {
        let space = AddressSpace::of(std::process::id()).unwrap();
        let (_, file) = libc(&space);
        for name in ["memcpy", "environ", "no_such_function", ""] {
            assert_eq!(find_symbol_offset(&file, name).unwrap(), None, "{name}");
        }
    }

    #[test]
    fn memory_without_a_file_is_told_by_its_kind() {
        let mut symbolizer = Symbolizer::default();
        let local = 7_u8;
        let pid = std::process::id();
        let named = symbolizer.resolve(pid, std::ptr::from_ref(&local).addr() as u64).unwrap();
        assert!(named.module.is_none() && named.memory.ends_with(" rw-"), "{named:?}");
        let named = symbolizer.resolve(pid, 8).unwrap();
        assert_eq!(
            (named.memory.as_str(), named.to_string().as_str()),
            ("unmapped", "0x8 in unmapped")
        );
    }

    #[test]
    fn a_function_of_the_own_program_is_named_from_its_local_symbols() {
        let addr = libc as fn(&AddressSpace) -> (Vma, File) as usize as u64;
        let named = Symbolizer::default().resolve(std::process::id(), addr).unwrap();
        assert!(named.symbol.as_deref().is_some_and(|name| name.contains("libc")), "{named:?}");
        assert_eq!(named.symbol_offset, Some(0));
    }

    #[test]
    fn files_that_are_not_elf_are_refused() {
        let file = File::open("/proc/self/status").unwrap();
        assert!(matches!(build_id(&file), Err(ElfError::NotElf)));
        assert!(matches!(find_symbol_offset(&file, "x"), Err(ElfError::NotElf)));
    }
}
