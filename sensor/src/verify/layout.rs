//! Which file each module of a process is, and where it sits.

use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::budget::Budget;
use super::bytes::printable;
use super::cache::Lru;
use super::elf::{Depth, ElfError, ElfFile, Segment};
use super::error::VerifyError;
use super::link_map::{Entry, LinkMaps};
use super::maps::Vma;
use super::process::{FileKey, Process};
use super::report::{Gap, Linkage, ModuleRef, Namespace};
use super::width::Width;
use crate::trouble::chain;

/// Heap bytes of all parsed files of one process; those of a browser take 20 MB. Behind them modules
/// count as not read.
const PROCESS_BYTES: usize = 256 << 20;

/// A file that was read, with the identity it had then.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) key: FileKey,
    /// Last change of the content.
    modified: SystemTime,
    pub(crate) elf: ElfFile,
}

/// Parsed files by identity.
#[derive(Debug)]
pub(crate) struct Files {
    cache: Lru<FileKey, Arc<Loaded>>,
    /// To which depth files are read; those known to a greater one are good as well.
    pub(crate) depth: Depth,
}

/// Why a mapped file is not available.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot open it: {0}")]
    Open(#[from] io::Error),
    #[error("{}", chain(.0))]
    Elf(#[from] ElfError),
}

/// What a link map entry stands for.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Object(Arc<Loaded>),
    Vdso,
    /// The loader's stand-in in another namespace; the number is the real module's.
    Proxy(usize),
    /// Its file is not available; nothing is known but where its dynamic section is.
    Unreadable,
}

#[derive(Clone, Debug)]
pub(crate) struct Module {
    pub(crate) kind: Kind,
    /// Address of the loader's entry.
    pub(crate) link_map: u64,
    pub(crate) base: u64,
    pub(crate) width: Width,
    /// Address of the dynamic section, which names the mapping.
    pub(crate) dynamic: u64,
    pub(crate) namespace: usize,
    /// Path of the mapping.
    pub(crate) path: Arc<str>,
    /// The loader's name for it.
    pub(crate) name: Vec<u8>,
}

/// All modules, namespace after namespace in link map order.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) modules: Vec<Module>,
    pub(crate) namespaces: Vec<Range<usize>>,
    /// Their numbers.
    pub(crate) numbers: Vec<usize>,
    pub(crate) linkage: Linkage,
    pub(crate) width: Width,
    /// The loader's own entry.
    pub(crate) loader: Option<usize>,
}

// === impl Loaded ===

impl Loaded {
    pub(crate) fn module_ref(&self, path: &str) -> ModuleRef {
        ModuleRef {
            path: path.to_owned(),
            dev: self.key.dev,
            ino: self.key.ino,
            build_id: self.elf.headers.build_id.clone(),
        }
    }

    /// Whether the content changed after `started` (by more than the clocks' error).
    pub(crate) fn changed_since(&self, started: Option<SystemTime>) -> bool {
        started.is_some_and(|started| self.modified > started + Duration::from_secs(2))
    }
}

// === impl Files ===

impl Files {
    pub(crate) fn new(entries: usize, bytes: usize, depth: Depth) -> Self {
        Self { cache: Lru::new(entries, bytes), depth }
    }

    /// The file an area maps, from the cache where its identity is known.
    pub(crate) fn load(&mut self, process: &Process, vma: &Vma) -> Result<Arc<Loaded>, FileError> {
        let key = FileKey::of(&process.stat_file(vma)?);
        if let Some(known) = self.cache.get(&key).filter(|known| known.elf.depth >= self.depth) {
            return Ok(known);
        }
        let file = process.open_file(vma)?;
        // The identity of what was opened counts: the file may have been written since the stat.
        let metadata = file.metadata()?;
        let elf = ElfFile::read_to(&file, self.depth)?;
        let bytes = elf.bytes();
        let key = FileKey::of(&metadata);
        let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let loaded = Arc::new(Loaded { key, modified, elf });
        self.cache.insert(key, Arc::clone(&loaded), bytes);
        Ok(loaded)
    }

    /// Entries and bytes held.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.cache.len(), self.cache.bytes())
    }
}

// === impl Module ===

impl Module {
    pub(crate) fn object(&self) -> Option<&Arc<Loaded>> {
        match &self.kind {
            Kind::Object(loaded) => Some(loaded),
            _ => None,
        }
    }

    /// Address in the process of an address in the file.
    pub(crate) fn addr(&self, vaddr: u64) -> u64 {
        self.width.add(self.base, vaddr)
    }

    /// Address in the module's file, if `addr` lies in its segments.
    pub(crate) fn offset_of(&self, addr: u64) -> Option<u64> {
        let vaddr = self.width.sub(addr, self.base);
        let (start, end) = self.object()?.elf.headers.span()?;
        (start <= vaddr && vaddr < end).then_some(vaddr)
    }

    /// Whether it is a file of its own, not the vDSO nor a proxy.
    pub(crate) fn is_file_module(&self) -> bool {
        matches!(self.kind, Kind::Object(_) | Kind::Unreadable)
    }

    pub(crate) fn module_ref(&self) -> Option<ModuleRef> {
        Some(self.object()?.module_ref(&self.path))
    }
}

// === impl Layout ===

impl Layout {
    /// All but the program's own, without what stands in for the loader there.
    pub(crate) fn other_namespaces(&self) -> Vec<Namespace> {
        let all = self.numbers.iter().zip(&self.namespaces).skip(1);
        let files = |range: &Range<usize>| {
            let modules = self.modules.get(range.clone()).unwrap_or_default();
            modules.iter().filter_map(Module::module_ref).collect()
        };
        all.map(|(number, range)| Namespace { number: *number, modules: files(range) }).collect()
    }

    pub(crate) fn build(
        process: &Process,
        maps: LinkMaps,
        loader: (&Arc<Loaded>, u64),
        linkage: Linkage,
        files: &mut Files,
        budget: Budget,
        gaps: &mut Vec<Gap>,
    ) -> Result<Self, VerifyError> {
        let width = loader.0.elf.headers.width;
        let mut layout = Self {
            modules: Vec::new(),
            namespaces: Vec::new(),
            numbers: maps.numbers,
            linkage,
            width,
            loader: None,
        };
        if let Some(what) = maps.truncated {
            gaps.push(Gap::Truncated { what });
        }
        let mut room = PROCESS_BYTES;
        for (namespace, entries) in maps.namespaces.into_iter().enumerate() {
            let first = layout.modules.len();
            for entry in entries {
                budget.check()?;
                let module = layout.place(process, entry, namespace, files, &mut room, gaps);
                layout.modules.push(module);
            }
            layout.namespaces.push(first..layout.modules.len());
        }
        layout.loader = layout.modules.iter().position(|module| {
            module.base == loader.1
                && module.object().is_some_and(|object| object.key == loader.0.key)
        });
        Ok(layout)
    }

    fn place(
        &self,
        process: &Process,
        entry: Entry,
        namespace: usize,
        files: &mut Files,
        room: &mut usize,
        gaps: &mut Vec<Gap>,
    ) -> Module {
        let vma = process.area(entry.dynamic);
        let path = vma.map_or_else(|| printable(&entry.name).into(), |vma| Arc::clone(&vma.path));
        let twin = self.modules.iter().position(|module| module.dynamic == entry.dynamic);
        let kind = match (vma, twin) {
            (_, Some(real)) => Kind::Proxy(real),
            (Some(vma), _) if &*vma.path == "[vdso]" => Kind::Vdso,
            (Some(vma), _) if vma.is_file() => {
                let kind = load(process, vma, &entry, self.width, files, gaps);
                self.keep(kind, room, &path, gaps)
            }
            _ => {
                let reason = "its dynamic section is not in a file mapping".to_owned();
                gaps.push(Gap::Module { path: printable(&entry.name), reason });
                Kind::Unreadable
            }
        };
        let Entry { link_map, base, dynamic, name } = entry;
        Module { kind, link_map, base, width: self.width, dynamic, namespace, path, name }
    }

    /// Counts what a file takes, and lets go of one that takes too much. Modules share a file.
    fn keep(&self, kind: Kind, room: &mut usize, path: &str, gaps: &mut Vec<Gap>) -> Kind {
        let Kind::Object(loaded) = &kind else { return kind };
        let known = |module: &Module| module.object().is_some_and(|one| Arc::ptr_eq(one, loaded));
        if self.modules.iter().any(known) {
            return kind;
        }
        if let Some(left) = room.checked_sub(loaded.elf.bytes()) {
            *room = left;
            return kind;
        }
        let reason = "the files of one process take more memory than it is worth".to_owned();
        gaps.push(Gap::Module { path: path.to_owned(), reason });
        Kind::Unreadable
    }

    /// The module whose segments hold `addr`.
    pub(crate) fn module_at(&self, addr: u64) -> Option<(usize, u64)> {
        self.modules.iter().enumerate().find_map(|(at, module)| Some((at, module.offset_of(addr)?)))
    }

    /// Follows a proxy to the module it stands for.
    pub(crate) fn real(&self, module: usize) -> usize {
        match self.modules.get(module).map(|module| &module.kind) {
            Some(Kind::Proxy(real)) => *real,
            _ => module,
        }
    }

    pub(crate) fn object(&self, module: usize) -> Option<&Arc<Loaded>> {
        self.modules.get(module)?.object()
    }

    /// Executable file mappings whose inode no module has.
    pub(crate) fn unlisted<'a>(&self, process: &'a Process) -> Vec<&'a Vma> {
        let listed: Vec<&Vma> =
            self.modules.iter().filter_map(|module| process.area(module.dynamic)).collect();
        let mut found: Vec<&Vma> = Vec::new();
        for vma in process.maps.iter().filter(|vma| vma.exec && vma.is_file()) {
            let known = |other: &&&Vma| other.same_file(vma);
            if listed.iter().find(known).is_none() && found.iter().find(known).is_none() {
                found.push(vma);
            }
        }
        found
    }
}

/// Reads the module's file and checks that it is mapped where the entry says.
fn load(
    process: &Process,
    vma: &Vma,
    entry: &Entry,
    width: Width,
    files: &mut Files,
    gaps: &mut Vec<Gap>,
) -> Kind {
    let path = || vma.path.to_string();
    let loaded = match files.load(process, vma) {
        Ok(loaded) => loaded,
        Err(error) => {
            gaps.push(Gap::Module { path: path(), reason: error.to_string() });
            return Kind::Unreadable;
        }
    };
    let headers = &loaded.elf.headers;
    if headers.width != width {
        gaps.push(Gap::Layout { path: path(), detail: "its addresses have another width" });
        return Kind::Unreadable;
    }
    let Some((vaddr, offset, _)) = headers.dynamic else {
        gaps.push(Gap::Layout { path: path(), detail: "the file has no dynamic section" });
        return Kind::Unreadable;
    };
    let mapped = vma.offset.wrapping_add(entry.dynamic - vma.start);
    if width.add(entry.base, vaddr) != entry.dynamic || mapped != offset {
        gaps.push(Gap::Layout { path: path(), detail: "its address contradicts the file" });
        return Kind::Unreadable;
    }
    let text_moved = |load: &&Segment| {
        load.exec && !is_mapped(process, vma, width.add(entry.base, load.vaddr), load)
    };
    if headers.loads.iter().any(|load| text_moved(&load)) {
        gaps.push(Gap::Layout { path: path(), detail: "its text is not mapped from the file" });
    }
    Kind::Object(loaded)
}

/// Whether the start of a segment is mapped from the same file at the right offset.
pub(super) fn is_mapped(process: &Process, own: &Vma, addr: u64, load: &Segment) -> bool {
    process.area(addr).is_some_and(|vma| {
        vma.same_file(own) && vma.offset.wrapping_add(addr - vma.start) == load.offset
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_more_than_a_process_may_is_not_read_and_told() {
        let process = Process::open(std::process::id()).unwrap();
        let vma = process.maps.iter().find(|vma| vma.exec && vma.is_file()).unwrap();
        let loaded = Files::new(16, 1 << 30, Depth::Got).load(&process, vma).unwrap();
        let layout = Layout {
            modules: Vec::new(),
            namespaces: Vec::new(),
            numbers: Vec::new(),
            linkage: Linkage::Glibc,
            width: Width::Eight,
            loader: None,
        };
        let (mut room, mut gaps) = (loaded.elf.bytes(), Vec::new());
        let mut keep =
            || layout.keep(Kind::Object(Arc::clone(&loaded)), &mut room, "/x", &mut gaps);
        assert!(matches!(keep(), Kind::Object(_)));
        assert!(matches!(keep(), Kind::Unreadable), "nothing is left for it");
        assert_eq!(room, 0);
        assert!(matches!(gaps.as_slice(), [Gap::Module { path, .. }] if path == "/x"), "{gaps:?}");
    }
}
