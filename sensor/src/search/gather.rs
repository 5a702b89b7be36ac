//! What a running process's loader was given, read from outside: nothing is opened by a path that
//! the process chose, and nothing is waited for.

mod config;
mod view;

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::view::Below;
use super::{Asked, FileId, Found, Loader, Module, Names, Preload, Start};
use crate::inventory::mounts::{Mounts, Reach};
use crate::verify::bytes::printable;
use crate::verify::cache::Lru;
use crate::verify::elf;
use crate::verify::maps::Vma;
use crate::verify::process::{FileKey, Process};
use crate::verify::width::Width;

/// Files of one process looked at; chromium has about 200.
const MODULES_MAX: usize = 1024;
/// Names of one file kept.
const NEEDED_MAX: usize = 512;
/// Bytes of one name or list of directories.
const TEXT_MAX: usize = 64 << 10;
/// Files remembered, and bytes of what they say.
const FILES_MAX: usize = 4096;
const FILES_BYTES: usize = 4 << 20;
/// Bytes of an environment looked through.
const ENVIRON_MAX: u64 = 2 << 20;
const MOUNTINFO_MAX: u64 = 8 << 20;

/// Why nothing can be said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unexplained {
    /// It has ended, or may not be looked at.
    #[error("the process could not be looked at: {0}")]
    Process(String),
    /// Its loader's rules are not known.
    #[error("{0}")]
    Unknown(&'static str),
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// Process.
    pub(crate) pid: u32,
    /// The library.
    pub(crate) file: FileId,
    /// Loader variables (`NAME=value`) that were seen at the exec; where there are none the
    /// environment as it is now has to do.
    pub(crate) variables: &'a [String],
}

/// The same of a process that has ended, of which only the files are left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remains<'a> {
    /// The program.
    pub(crate) program: (&'a Path, FileId),
    /// The library.
    pub(crate) library: (&'a Path, FileId),
    /// As in [`Question`].
    pub(crate) variables: &'a [String],
    /// Effective user.
    pub(crate) euid: u32,
    /// Its environment did not count.
    pub(crate) secure: bool,
}

/// The answer, with where the library lies for the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// Why it was found there.
    pub found: Found,
    /// Its path, as the process sees it.
    #[serde(with = "crate::serial::one")]
    pub inside: PathBuf,
    /// The same as seen from here, or why that cannot be told.
    #[serde(with = "crate::serial::either")]
    pub on_host: Result<PathBuf, &'static str>,
}

/// Reads processes and remembers files.
#[derive(Debug)]
pub(crate) struct Gatherer {
    files: Lru<FileKey, Arc<Names>>,
    caches: config::Caches,
    last: Option<Read>,
}

/// One process as it was read.
#[derive(Debug)]
struct Read {
    pid: u32,
    start_ticks: u64,
    start: Start,
    below: Below,
    mounts: Vec<u8>,
}

// === impl Gatherer ===

impl Gatherer {
    pub(crate) fn new() -> Self {
        Self {
            files: Lru::new(FILES_MAX, FILES_BYTES),
            caches: config::Caches::default(),
            last: None,
        }
    }

    /// Why the process has the file.
    pub(crate) fn explain(&mut self, question: &Question<'_>) -> Result<Explained, Unexplained> {
        let Question { pid, file, .. } = *question;
        let holds = |read: &Read| read.start.modules.iter().any(|module| module.file == file);
        let now = || crate::host::Outside::stat(&crate::host::Procfs, pid);
        let is_known = self.last.as_ref().is_some_and(|read| {
            read.pid == pid
                && holds(read)
                && now().is_some_and(|stat| stat.start_ticks == read.start_ticks)
        });
        if !is_known {
            self.last = None;
            self.last = Some(self.read(question)?);
        }
        let unmapped = Unexplained::Unknown("the process has it mapped no more");
        let Some(read) = &self.last else { return Err(unmapped) };
        let module = read.start.modules.iter().find(|module| module.file == file);
        let module = module.ok_or(unmapped)?;
        Ok(Explained {
            found: read.start.explain(file, &module.path, &read.below),
            inside: module.path.clone(),
            on_host: read.below.on_host(&module.path, file, &read.mounts),
        })
    }

    /// Why a process had the file that has ended since, from the files as they are on this host now.
    /// Only what the program itself needs or was made to load: whom else it had loaded is not known.
    pub(crate) fn explain_remains(&mut self, one: &Remains<'_>) -> Result<Explained, Unexplained> {
        let ended = Unexplained::Unknown("the process had ended before it could be looked at");
        let below = Below::of(std::process::id()).map_err(|_| ended.clone())?;
        let modules = [one.program, one.library].map(|(path, file)| self.left(&below, path, file));
        let [Some(program), Some(library)] = modules else { return Err(ended) };
        let path = library.path.clone();
        let musls = |name: &String| name == "libc.so" || name.starts_with("libc.musl-");
        let is_musl = program.names.needed.iter().any(musls);
        let loader = if is_musl { Loader::Musl } else { Loader::Glibc };
        let mut start = Start {
            loader,
            secure: one.secure,
            euid: one.euid,
            modules: vec![program, library],
            interpreter: None,
            library_path: value(one.variables, "LD_LIBRARY_PATH", loader),
            preloads: Vec::new(),
            cache: Arc::default(),
            system: Vec::new(),
            cwd: None,
        };
        add_preloads(&mut start, one.variables);
        self.caches.add_to(&mut start, &below);
        let found = start.explain(one.library.1, &path, &below);
        match found.asked {
            Asked::Needed(_) | Asked::Preload(_) => {
                Ok(Explained { found, inside: path.clone(), on_host: Ok(path) })
            }
            Asked::Opened | Asked::Kernel => Err(ended),
        }
    }

    fn left(&mut self, below: &Below, path: &Path, file: FileId) -> Option<Module> {
        let found = below.open_own(path)?;
        if id(&found.metadata) != file {
            return None;
        }
        let names = self.names(found.key(), || found.open())?;
        Some(Module { path: path.to_owned(), file, owner: Some(found.metadata.uid()), names })
    }

    fn names(&mut self, key: FileKey, open: impl FnOnce() -> Option<File>) -> Option<Arc<Names>> {
        if let Some(known) = self.files.get(&key) {
            return Some(known);
        }
        let names = Arc::new(names_of(&open()?)?);
        let bytes = size_of::<Names>() + names.needed.len() * 48;
        self.files.insert(key, Arc::clone(&names), bytes);
        Some(names)
    }

    fn read(&mut self, question: &Question<'_>) -> Result<Read, Unexplained> {
        let pid = question.pid;
        let gone = |error: &dyn std::error::Error| Unexplained::Process(error.to_string());
        let process = Process::open(pid).map_err(|error| gone(&error))?;
        let auxv = match &process.auxv {
            Ok(auxv) if auxv.width == Width::Eight => *auxv,
            _ => return Err(Unexplained::Unknown("a 32-bit program")),
        };
        let below = Below::of(pid).map_err(|error| gone(&error))?;
        let mounts = bounded(&format!("/proc/{pid}/mountinfo"), MOUNTINFO_MAX).unwrap_or_default();
        let reach = Mounts::parse(&mounts, None);
        let interpreter = process.maps.find(auxv.base).filter(|vma| vma.is_file());
        let Some(interpreter) = interpreter.filter(|_| auxv.base != 0) else {
            return Err(Unexplained::Unknown("the program has no loader, or was started by it"));
        };
        let name = interpreter.path.rsplit('/').next().unwrap_or_default();
        let loader = match name {
            name if name.starts_with("ld-musl-") || name.starts_with("libc.musl-") => Loader::Musl,
            // musl's loader is its libc, by whatever name.
            "libc.so" => Loader::Musl,
            name if name.starts_with("ld-") || name.starts_with("ld.so") => Loader::Glibc,
            _ => return Err(Unexplained::Unknown("a loader whose rules are not known")),
        };
        let modules = self.modules(&process, &below, &reach)?;
        let environment = environment(&process, question.variables);
        let value = |name: &str| value(&environment, name, loader);
        let mut start = Start {
            loader,
            secure: auxv.secure,
            euid: crate::host::Outside::stat(&crate::host::Procfs, pid).map_or(0, |it| it.euid),
            interpreter: process.stat_file(interpreter).ok().map(|metadata| id(&metadata)),
            library_path: value("LD_LIBRARY_PATH"),
            preloads: Vec::new(),
            cache: Arc::default(),
            system: Vec::new(),
            cwd: fs::read_link(format!("/proc/{pid}/cwd")).ok().and_then(|cwd| below.inside(&cwd)),
            modules,
        };
        add_preloads(&mut start, &environment);
        self.caches.add_to(&mut start, &below);
        let start_ticks = process.start_ticks();
        Ok(Read { pid, start_ticks, start, below, mounts })
    }

    /// The program first.
    fn modules(
        &mut self,
        process: &Process,
        below: &Below,
        mounts: &Mounts,
    ) -> Result<Vec<Module>, Unexplained> {
        let program = fs::metadata(format!("/proc/{}/exe", process.pid));
        let program = program.map_err(|error| Unexplained::Process(error.to_string()))?;
        let program = id(&program);
        let mut seen: HashSet<((u32, u32), u64)> = HashSet::new();
        let mut modules: Vec<Module> = Vec::new();
        for vma in process.maps.iter().filter(|vma| vma.is_file() && vma.exec) {
            if modules.len() >= MODULES_MAX || !seen.insert((vma.dev, vma.ino)) {
                continue;
            }
            // Memory is mounted nowhere.
            let is_memory = || vma.path.starts_with("/memfd:");
            match mounts.reach(vma.dev) {
                Reach::Local => {}
                Reach::Unknown if is_memory() => {}
                Reach::Unknown | Reach::Remote(_) => continue,
            }
            let Some(module) = self.module(process, vma, below) else { continue };
            if module.file == program {
                modules.insert(0, module);
            } else {
                modules.push(module);
            }
        }
        match modules.first() {
            Some(first) if first.file == program => Ok(modules),
            _ => Err(Unexplained::Unknown("the program's own file could not be read")),
        }
    }

    fn module(&mut self, process: &Process, vma: &Vma, below: &Below) -> Option<Module> {
        let metadata = process.stat_file(vma).ok().filter(Metadata::is_file)?;
        let open = || process.open_file(vma).ok();
        let names = self.names(FileKey::of(&metadata), open)?;
        let told = vma.path.strip_suffix(" (deleted)").unwrap_or(&vma.path);
        let path = below.inside(Path::new(told)).unwrap_or_else(|| PathBuf::from(told));
        Some(Module { path, file: id(&metadata), owner: Some(metadata.uid()), names })
    }
}

pub(super) fn id(metadata: &Metadata) -> FileId {
    FileId { ino: metadata.ino(), size: metadata.size() }
}

/// What a file's dynamic section says; `None` for what is no ELF file that is understood.
fn names_of(file: &File) -> Option<Names> {
    let dynamic = elf::read_dynamic(file).ok()?;
    let text = |bytes: &[u8]| printable(bytes.get(..TEXT_MAX).unwrap_or(bytes));
    let of = |tag| dynamic.text(tag).map(text);
    Some(Names {
        needed: dynamic.needed.iter().take(NEEDED_MAX).map(|name| text(name)).collect(),
        soname: dynamic.soname.as_deref().map(text),
        rpath: of(elf::DT_RPATH),
        runpath: of(elf::DT_RUNPATH),
        no_default: dynamic.tag(elf::DT_FLAGS_1).is_some_and(|it| it & elf::DF_1_NODEFLIB != 0),
    })
}

/// The loader's variables, `NAME=value`, in order.
fn environment(process: &Process, seen: &[String]) -> Vec<String> {
    if !seen.is_empty() {
        return seen.to_vec();
    }
    let bytes = process.environ(ENVIRON_MAX).unwrap_or_default();
    let texts = bytes.split(|byte| *byte == 0).filter(|text| text.starts_with(b"LD_"));
    texts.take(64).map(|text| printable(text.get(..TEXT_MAX).unwrap_or(text))).collect()
}

fn add_preloads(start: &mut Start, environment: &[String]) {
    for (variable, list) in [("LD_AUDIT", Preload::Audit), ("LD_PRELOAD", Preload::Variable)] {
        let names = value(environment, variable, start.loader).unwrap_or_default();
        let names = crate::host::preloaded_names(variable, &names);
        start.preloads.extend(names.map(|name| (list, name.to_owned())));
    }
}

/// glibc obeys the last of a name, musl the first.
fn value(environment: &[String], name: &str, loader: Loader) -> Option<String> {
    let mut values = environment
        .iter()
        .filter_map(|text| text.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')));
    let value = match loader {
        Loader::Glibc => values.next_back(),
        Loader::Musl => values.next(),
    };
    value.map(str::to_owned)
}

fn bounded(path: &str, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(File::open(path)?, limit), &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
