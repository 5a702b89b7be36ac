//! Whether the code of a process is the code of its files: every page that a write made private is
//! compared with the file, every module with the mappings.
//!
//! Only private pages are read, so a check costs a look at the page table and little else. Blind to
//! a file that is changed in place: its pages stay shared, and the process runs what the file says.

mod diff;
mod disasm;
mod owners;
mod pages;
mod patch;
mod report;
mod site;
mod strays;
mod vdso;

use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use self::owners::Owners;
pub(super) use self::pages::Pagemap;
use self::patch::{Origin, Source};
use self::vdso::{OwnVdso, Seen};
use super::budget::Budget;
use super::bytes::{index, printable};
use super::elf::{Machine, read_text_relocations};
use super::error::VerifyError;
use super::layout::{Files, Layout, Loaded};
use super::maps::Vma;
use super::process::{FileKey, Process};
use super::report::{Gap, Linkage, ModuleRef};
use super::width::Width;

pub use self::owners::OwnProbes;
pub(crate) use self::owners::program_target;
pub(crate) use self::report::shown;
pub use self::report::{Explanation, Loose, Patch, RestoredPage, Stray, StrayKind, Text};

/// Pages of one process whose table entry is looked at (16 GiB of code with small pages).
pub(super) const LOOKED_MAX: u64 = 4 << 20;
/// Private pages of one process that are compared.
const COMPARED_MAX: u64 = 16_384;
/// Bytes compared at once.
const STEP: u64 = 1 << 20;
/// Restored pages told.
const RESTORED_MAX: usize = 64;

/// What checks of code have in common.
#[derive(Debug)]
pub(super) struct TextChecker {
    own: OwnProbes,
    owners: Owners,
    vdso: OwnVdso,
}

/// One look at the code of one process.
#[derive(Debug)]
struct Look<'a> {
    process: &'a Process,
    layout: &'a Layout,
    files: &'a mut Files,
    own: &'a OwnProbes,
    owners: &'a mut Owners,
    budget: Budget,
    gaps: &'a mut Vec<Gap>,
    pagemap: Pagemap,
    page: u64,
    /// Private pages that may still be compared.
    left: u64,
    /// Who traces the process, once it was asked.
    tracer: OnceCell<Option<(u32, String)>>,
    /// Files mapped executable that are no ELF files.
    data: Vec<&'a Vma>,
    text: Text,
}

/// Splits a stretch of memory into parts that are read at once.
struct Reading;

// === impl TextChecker ===

impl TextChecker {
    /// `own` are the probes that the sensor itself has set.
    pub(super) fn new(own: OwnProbes) -> Self {
        Self { own, owners: Owners::default(), vdso: OwnVdso::read() }
    }

    /// Looks at a process; without a layout (static programs, unknown loaders) only at pages.
    pub(super) fn look(
        &mut self,
        process: &Process,
        layout: Option<&Layout>,
        files: &mut Files,
        budget: Budget,
        gaps: &mut Vec<Gap>,
    ) -> Result<Text, VerifyError> {
        let nothing = Layout {
            modules: Vec::new(),
            namespaces: Vec::new(),
            numbers: Vec::new(),
            linkage: Linkage::Static,
            width: process.width(),
            loader: None,
        };
        let pagemap = Pagemap::open(process.pid, LOOKED_MAX)
            .map_err(|source| VerifyError::proc(process.pid, "pagemap", source))?;
        let mut look = Look {
            process,
            layout: layout.unwrap_or(&nothing),
            files,
            own: &self.own,
            owners: &mut self.owners,
            budget,
            gaps,
            page: pagemap.page(),
            pagemap,
            left: COMPARED_MAX,
            tracer: OnceCell::new(),
            data: Vec::new(),
            text: Text::default(),
        };
        look.compare_pages()?;
        look.compare_vdso(&self.vdso, layout.is_some());
        if layout.is_some() {
            look.find_strays()?;
        }
        look.find_loose();
        Ok(look.text)
    }
}

// === impl Look ===

impl<'a> Look<'a> {
    fn compare_pages(&mut self) -> Result<(), VerifyError> {
        let process = self.process;
        let mut complete = true;
        for vma in process.maps.iter().filter(|vma| vma.exec && vma.is_file()) {
            self.budget.check()?;
            let found = match self.pagemap.private(vma.start..vma.end) {
                Ok(found) => found,
                Err(error) => {
                    process.note_unread();
                    self.unread(vma, &error);
                    continue;
                }
            };
            complete &= found.complete;
            process.note_code(vma, &found.private);
            if !found.private.is_empty() {
                complete &= self.compare_area(vma, found.private)?;
            }
        }
        if !complete {
            self.gaps.push(Gap::Truncated { what: "pages of code" });
        }
        Ok(())
    }

    /// Compares stretches of private pages with the file; false if not all of them.
    fn compare_area(
        &mut self,
        vma: &'a Vma,
        stretches: Vec<Range<u64>>,
    ) -> Result<bool, VerifyError> {
        let Some(source) = self.source(vma) else { return Ok(true) };
        for stretch in stretches {
            for part in Reading::steps(stretch) {
                self.budget.check()?;
                let pages = (part.end - part.start) / self.page;
                let Some(left) = self.left.checked_sub(pages) else { return Ok(false) };
                self.left = left;
                self.text.private_pages += pages;
                self.compare_part(vma, &source, part);
            }
        }
        Ok(true)
    }

    fn compare_part(&mut self, vma: &Vma, source: &Source<'_>, part: Range<u64>) {
        let mut actual = vec![0; index(part.end - part.start)];
        let offset = vma.offset.wrapping_add(part.start - vma.start);
        let read = self.process.read(part.start, &mut actual);
        let expected = match read.and_then(|()| source.read(offset, actual.len())) {
            Ok(expected) => expected,
            Err(error) => return self.unread(vma, &error),
        };
        let page = index(self.page);
        let pages = actual.chunks(page).zip(expected.chunks(page));
        for (number, (actual, expected)) in (0_u64..).zip(pages) {
            let into = number * self.page;
            let (addr, offset) = (part.start + into, offset.wrapping_add(into));
            if !source.is_code(offset) {
                self.writable(vma);
            } else if actual == expected {
                self.restored(source, addr, offset);
            }
        }
        self.patches(source, part.start, offset, &expected, &actual);
    }

    /// A program without a loader may have unmapped its vDSO, as valgrind does: what is nowhere
    /// cannot be run. A loader has told others where it is; it has no business to vanish then.
    fn compare_vdso(&mut self, own: &OwnVdso, linked: bool) {
        if self.process.width() == Width::Four {
            self.gaps.push(Gap::Vdso { reason: "it is the 32-bit one" });
            return;
        }
        match own.look(self.process) {
            Seen::None => {}
            Seen::Unread => self.gaps.push(Gap::Vdso { reason: "it cannot be read" }),
            Seen::Unmapped(_) if !linked => {
                self.gaps.push(Gap::Vdso { reason: "the program has unmapped it" });
            }
            Seen::Moved(addr) | Seen::Unmapped(addr) => {
                let memory =
                    self.process.area(addr).map_or_else(|| "unmapped".to_owned(), Vma::describe);
                self.vdso_moved(addr, 0, memory);
            }
            Seen::Bytes(vma, bytes) if bytes.len() != own.bytes.len() => {
                self.vdso_moved(vma.start, vma.end - vma.start, vma.describe());
            }
            Seen::Bytes(_, bytes) if bytes == own.bytes => {}
            Seen::Bytes(vma, bytes) => {
                let source = Source::vdso(&own.bytes, vdso_module());
                self.patches(&source, vma.start, 0, &own.bytes, &bytes);
            }
        }
    }

    fn vdso_moved(&mut self, addr: u64, size: u64, memory: String) {
        let (kind, module) = (StrayKind::VdsoMoved, Some(vdso_module()));
        self.stray(Stray { kind, module, addr, size, memory, differing: None });
    }

    /// What an area is compared with; none, and a gap, where that cannot be had.
    fn source(&mut self, vma: &'a Vma) -> Option<Source<'static>> {
        let loaded = match self.files.load(self.process, vma) {
            Ok(loaded) => Some(loaded),
            Err(error) if strays::is_data(&error) => {
                self.data.push(vma);
                return None;
            }
            Err(super::layout::FileError::Elf(_)) => None,
            Err(error) => {
                self.unread(vma, &error);
                return None;
            }
        };
        let opened = self.process.open_file(vma).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.unread(vma, &error);
                return None;
            }
        };
        let relocated = match read_text_relocations(&file) {
            Ok(relocated) => relocated,
            Err(error) => {
                self.unread(vma, &error);
                return None;
            }
        };
        let module = module_of(loaded.as_deref(), &FileKey::of(&metadata), vma);
        let started = self.process.started();
        let changed = match (&loaded, started, metadata.modified()) {
            (Some(loaded), _, _) => loaded.changed_since(started),
            (None, Some(started), Ok(modified)) => modified > started,
            _ => false,
        };
        let key = Some(FileKey::of(&metadata));
        let (origin, functions) = (Origin::File(file), OnceCell::new());
        Some(Source { origin, loaded, module, key, relocated, changed, functions })
    }

    fn module_of(&self, vma: &Vma) -> ModuleRef {
        let metadata = self.process.stat_file(vma).ok();
        let key = metadata.map(|metadata| FileKey::of(&metadata));
        let (dev, ino) = key.map_or((0, vma.ino), |key| (key.dev, key.ino));
        ModuleRef { path: vma.path.to_string(), dev, ino, build_id: None }
    }

    fn restored(&mut self, source: &Source<'_>, addr: u64, offset: u64) {
        if self.text.restored.len() >= RESTORED_MAX {
            return;
        }
        let end = offset.saturating_add(self.page);
        let own_probe = source.key.is_some_and(|key| self.own.any_in(&key, offset, end));
        let module = source.module.clone();
        self.text.restored.push(RestoredPage { module, addr, offset, own_probe });
    }

    fn unread(&mut self, vma: &Vma, error: &dyn std::fmt::Display) {
        let gap = Gap::TextUnread { path: vma.path.to_string(), reason: error.to_string() };
        if !self.gaps.contains(&gap) {
            self.gaps.push(gap);
        }
    }

    /// Code that the file itself lets be written to is no evidence of anything.
    fn writable(&mut self, vma: &Vma) {
        let gap = Gap::WritableCode { path: vma.path.to_string() };
        if !self.gaps.contains(&gap) {
            self.gaps.push(gap);
        }
    }

    /// `TracerPid` with its name.
    fn tracer(&self) -> Option<(u32, String)> {
        self.tracer.get_or_init(|| tracer_of(self.process.pid)).clone()
    }
}

impl Reading {
    fn steps(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let end = range.end;
        let starts = std::iter::successors(Some(range.start), |start| start.checked_add(STEP));
        starts.take_while(move |start| *start < end).map(move |start| start..end.min(start + STEP))
    }
}

fn module_of(loaded: Option<&Loaded>, key: &FileKey, vma: &Vma) -> ModuleRef {
    let path = vma.path.to_string();
    let unread = || ModuleRef { path, dev: key.dev, ino: key.ino, build_id: None };
    loaded.map_or_else(unread, |loaded| loaded.module_ref(&vma.path))
}

fn vdso_module() -> ModuleRef {
    ModuleRef { path: vdso::NAME.to_owned(), dev: 0, ino: 0, build_id: None }
}

pub(super) fn tracer_of(pid: u32) -> Option<(u32, String)> {
    let status = std::fs::read(format!("/proc/{pid}/status")).ok()?;
    let mut lines = status.split(|byte| *byte == b'\n');
    let tracer = lines.find_map(|line| line.strip_prefix(b"TracerPid:"))?;
    let tracer: u32 = std::str::from_utf8(tracer).ok()?.trim().parse().ok()?;
    if tracer == 0 {
        return None;
    }
    let comm = std::fs::read(format!("/proc/{tracer}/comm")).unwrap_or_default();
    Some((tracer, printable(comm.trim_ascii_end())))
}

/// Bytes of a file as a mapping shows them: zeroes beyond its end.
fn read_padded(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// The machine of files whose own is not known.
pub(super) fn native() -> Machine {
    vdso::machine()
}
