//! Modules against mappings, both ways: code that no link map has, modules without their code, and
//! executable memory that is nobody's.

use std::collections::BTreeMap;
use std::io;

use super::super::bytes::index;
use super::super::elf::{ElfError, Headers, Segment};
use super::super::error::VerifyError;
use super::super::layout::{FileError, Kind, Loaded, Module};
use super::super::maps::Vma;
use super::super::report::{Gap, ModuleRef};
use super::report::{Loose, Stray, StrayKind};
use super::{Look, Reading};

/// Contradictions told.
const STRAYS_MAX: usize = 64;
/// Kinds of loose memory told; the rest is one.
const LOOSE_MAX: usize = 16;
/// Of replaced text, bytes compared with the file.
const REPLACED_MAX: u64 = 64 << 20;
/// Areas that the kernel itself puts there (`arch_vma_name`, special mappings).
const KERNEL: [&str; 7] = [
    "[vdso]",
    "[vsyscall]",
    "[uprobes]",
    "[uprobes-trampoline]",
    "[sigpage]",
    "[vectors]",
    "[compat_vdso]",
];

impl Look<'_> {
    /// Executable memory of no file, and of files that are no ELF.
    pub(super) fn find_loose(&mut self) {
        let mut kinds: BTreeMap<String, Loose> = BTreeMap::new();
        let process = self.process;
        let anonymous = |vma: &&Vma| !vma.is_file() && !KERNEL.contains(&&*vma.path);
        let loose = process.maps.iter().filter(|vma| vma.exec).filter(anonymous);
        for vma in loose.chain(std::mem::take(&mut self.data)) {
            let mut memory = vma.describe();
            if kinds.len() >= LOOSE_MAX && !kinds.contains_key(&memory) {
                "others".clone_into(&mut memory);
            }
            let new = || Loose { memory: memory.clone(), areas: 0, bytes: 0 };
            let kind = kinds.entry(memory.clone()).or_insert_with(new);
            kind.areas += 1;
            kind.bytes += vma.end - vma.start;
        }
        self.text.loose = kinds.into_values().collect();
    }

    /// What contradicts between the loader's list and the mappings.
    pub(super) fn find_strays(&mut self) -> Result<(), VerifyError> {
        self.find_unlisted()?;
        let layout = self.layout;
        for module in &layout.modules {
            self.budget.check()?;
            match &module.kind {
                Kind::Object(loaded) => self.check_segments(module, loaded)?,
                Kind::Unreadable => self.check_entry(module),
                Kind::Vdso | Kind::Proxy(_) => {}
            }
        }
        Ok(())
    }

    pub(super) fn stray(&mut self, stray: Stray) {
        if self.text.strays.len() < STRAYS_MAX {
            self.text.strays.push(stray);
        }
    }

    /// Code of ELF files that no module is. Data files mapped executable are loose memory.
    fn find_unlisted(&mut self) -> Result<(), VerifyError> {
        let (process, layout) = (self.process, self.layout);
        // A loader that shows one namespace only (glibc before 2.35) may have others, each with a
        // C library of its own: then what is unlisted may be theirs.
        let hidden = layout.namespaces.len() == 1 && self.has_second_libc();
        for vma in layout.unlisted(process) {
            self.budget.check()?;
            let path = || vma.path.to_string();
            match self.files.load(process, vma) {
                Err(FileError::Elf(ElfError::NotElf)) => {}
                Err(error) if !is_broken(&error) => {
                    self.gaps.push(Gap::Module { path: path(), reason: error.to_string() });
                }
                _ if hidden => self.gaps.push(Gap::Unlisted { path: path() }),
                _ => {
                    let module = Some(self.module_of(vma));
                    let (addr, size, memory) = (vma.start, vma.end - vma.start, vma.describe());
                    let kind = StrayKind::Unlisted;
                    self.stray(Stray { kind, module, addr, size, memory, differing: None });
                }
            }
        }
        Ok(())
    }

    fn has_second_libc(&self) -> bool {
        let process = self.process;
        self.layout.modules.iter().any(|module| {
            let Some(own) = process.area(module.dynamic) else { return false };
            let name = own.path.rsplit('/').next().unwrap_or_default();
            let libc = name.starts_with("libc.so.") || name.starts_with("libc-2.");
            let outside =
                |vma: &Vma| vma.exec && vma.same_file(own) && module.offset_of(vma.start).is_none();
            libc && process.maps.iter().any(outside)
        })
    }

    /// An entry of the list whose file is not known: moved, or without a file.
    fn check_entry(&mut self, module: &Module) {
        let process = self.process;
        let vma = process.area(module.dynamic);
        let Some(vma) = vma.filter(|vma| vma.is_file()) else {
            let memory = vma.map_or_else(|| "unmapped".to_owned(), Vma::describe);
            let reference =
                ModuleRef { path: module.path.to_string(), dev: 0, ino: 0, build_id: None };
            let (kind, addr) = (StrayKind::Unmapped, module.dynamic);
            let module = Some(reference);
            self.stray(Stray { kind, module, addr, size: 0, memory, differing: None });
            return;
        };
        // Other files that could not be read are gaps already.
        let Ok(loaded) = self.files.load(process, vma) else { return };
        let contradicts = loaded.elf.headers.dynamic.is_some_and(|(vaddr, offset, _)| {
            let mapped = vma.offset.wrapping_add(module.dynamic - vma.start);
            module.addr(vaddr) != module.dynamic || mapped != offset
        });
        if contradicts && !loaded.changed_since(process.started()) {
            let (kind, addr, memory) = (StrayKind::Misplaced, module.base, vma.describe());
            let module = Some(loaded.module_ref(&vma.path));
            self.stray(Stray { kind, module, addr, size: 0, memory, differing: None });
        }
    }

    /// Every executable segment must be mapped from the module's own file.
    fn check_segments(&mut self, module: &Module, loaded: &Loaded) -> Result<(), VerifyError> {
        let process = self.process;
        let Some(own) = process.area(module.dynamic) else { return Ok(()) };
        for load in loaded.elf.headers.loads.iter().filter(|load| load.exec && load.filesz > 0) {
            let mut at = self.page_of(module.addr(load.vaddr));
            let end = module.addr(load.vaddr).saturating_add(load.filesz);
            while at < end {
                self.budget.check()?;
                let vma = process.area(at);
                let next = match vma {
                    Some(vma) => vma.end,
                    None => process.maps.after(at).map_or(end, |vma| vma.start),
                };
                let expected = load.offset.wrapping_add(at.wrapping_sub(module.addr(load.vaddr)));
                let kind = match vma {
                    None => Some(StrayKind::Missing),
                    Some(vma) if !vma.is_file() => Some(StrayKind::Replaced),
                    Some(vma)
                        if vma.same_file(own)
                            && vma.offset.wrapping_add(at - vma.start) == expected =>
                    {
                        None
                    }
                    Some(vma)
                        if vma.same_file(own)
                            && self.is_shared_page(
                                &loaded.elf.headers,
                                load,
                                module.width.sub(at, module.base),
                            ) =>
                    {
                        None
                    }
                    Some(_) => Some(StrayKind::Foreign),
                };
                if let Some(kind) = kind {
                    let stop = next.min(self.page_of(end.saturating_add(self.page - 1)));
                    let differing = match vma {
                        Some(vma) if !vma.is_file() => {
                            self.compare_replaced(own, at, stop, expected)?
                        }
                        _ => None,
                    };
                    let memory = vma.map_or_else(|| "unmapped".to_owned(), Vma::describe);
                    let (module, size) = (Some(loaded.module_ref(&module.path)), stop - at);
                    self.stray(Stray { kind, module, addr: at, size, memory, differing });
                }
                at = next;
            }
        }
        Ok(())
    }

    /// Two segments may meet in a page; it is mapped for the later one.
    fn is_shared_page(&self, headers: &Headers, load: &Segment, vaddr: u64) -> bool {
        let page = self.page_of(vaddr);
        headers.loads.iter().any(|other| {
            let last = other.vaddr.saturating_add(other.filesz).saturating_add(self.page - 1);
            other != load && self.page_of(other.vaddr) <= page && page < self.page_of(last)
        })
    }

    /// How many bytes of memory that stands for text are not the file's. Pages that are not there
    /// are left out: a process may make us wait for them.
    fn compare_replaced(
        &mut self,
        own: &Vma,
        start: u64,
        end: u64,
        offset: u64,
    ) -> Result<Option<u64>, VerifyError> {
        let Ok(file) = self.process.open_file(own) else { return Ok(None) };
        let end = end.min(start.saturating_add(REPLACED_MAX));
        let Ok(found) = self.pagemap.private(start..end) else { return Ok(None) };
        let mut differing = 0;
        for range in found.private {
            for reading in Reading::steps(range) {
                self.budget.check()?;
                let mut actual = vec![0; index(reading.end - reading.start)];
                if self.process.read(reading.start, &mut actual).is_err() {
                    return Ok(None);
                }
                let at = offset.wrapping_add(reading.start - start);
                let Ok(expected) = super::read_padded(&file, at, actual.len()) else {
                    return Ok(None);
                };
                let differs = expected.iter().zip(&actual).filter(|(a, b)| a != b).count();
                differing += differs as u64;
            }
        }
        Ok(Some(differing))
    }

    pub(super) fn page_of(&self, addr: u64) -> u64 {
        addr - addr % self.page
    }
}

/// Whether a file that begins as an ELF file contradicts itself, is of another machine, or ends
/// before what it says it has.
fn is_broken(error: &FileError) -> bool {
    match error {
        FileError::Elf(ElfError::Read { source, .. }) => {
            source.kind() == io::ErrorKind::UnexpectedEof
        }
        FileError::Elf(error) => !matches!(error, ElfError::NotElf),
        FileError::Open(_) => false,
    }
}

/// Whether reading failed because the file is no ELF file at all.
pub(super) fn is_data(error: &FileError) -> bool {
    match error {
        FileError::Elf(ElfError::NotElf) => true,
        FileError::Elf(ElfError::Read { source, .. }) => {
            source.kind() == io::ErrorKind::UnexpectedEof
        }
        _ => false,
    }
}
