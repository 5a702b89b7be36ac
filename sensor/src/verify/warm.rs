//! Looks at processes that were found clean before: is all that decided the verdict as it was?
//!
//! A look is a function of what it reads. While one is made, everything that enters into it is
//! noted ([`Record`]): each piece of memory with a digest of its content (the lists of the loader,
//! names, slots, private pages of code, the vDSO), each mapped file with its identity, each area of a
//! file that was asked for by an address, each page of code that is private. If the look finds the
//! process clean, and the kernel later gives the same executable areas, the same auxiliary vector, the
//! same areas that were asked for, the same files, the same private pages and the same memory, then the
//! look would go the same way again, branch for branch, and say the same: the notes are as good as the
//! look. Whatever differs, or cannot be compared, leads to the whole look; so this path only ever
//! answers "clean", and only where that would.
//!
//! What a look takes from elsewhere, and why it cannot make the answer worse:
//! - A look goes through all areas only for those that are executable ([`Process::area`] is for the
//!   rest, and notes what it gives). Memory of no file without execute permission (heap, stacks) only
//!   says whether an address can be read, and every read counts by its content; one that failed is
//!   never remembered.
//! - Who owns a probe, who traces the process and its environment are asked only where there is
//!   something to explain: such a look is not remembered.
//! - Probes of our own are only ever added.
//! - When the process started matters only for files that contradict it: not remembered, either.
//!   So what was learned of one process holds for every process that looks the same: its forks.

mod areas;
mod digest;
mod record;

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) use self::areas::Areas;
use self::digest::{Digest, Secret};
pub(crate) use self::record::Record;
use self::record::{Code, Memory, Notes};
use super::cache::Lru;
use super::elf::Depth;
use super::maps::{Area, Query, Vma};
use super::process::{FileKey, Opened, Process};
use super::report::{ModuleRef, Report};
use super::text::{LOOKED_MAX, Pagemap};
use crate::inventory::mounts::Device;

/// How long a file that was asked for by one process counts as asked for by all that map it.
const FRESH: Duration = Duration::from_secs(1);
/// Files known at once.
const FRESH_MAX: usize = 4096;
/// A buffer larger than this is given back, bytes.
const BUFFER_MAX: usize = 1 << 20;

/// What clean processes looked like.
#[derive(Debug)]
pub(crate) struct Warm {
    secret: Secret,
    images: Lru<Key, Arc<Image>>,
    files: Fresh,
    buffer: Vec<u8>,
    /// The kernel does not know how to be asked for areas.
    texts_only: bool,
    /// Looks that gave a report.
    pub(crate) known: u64,
}

/// Digest of the areas that matter and of the auxiliary vector, and what is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    areas: u64,
    count: u64,
    depth: Depth,
}

/// What a clean look rested on, and what it said.
#[derive(Debug)]
struct Image {
    notes: Notes,
    report: Report,
}

/// Files that were asked for a short time ago, by device and inode as areas name them.
#[derive(Debug, Default)]
struct Fresh(HashMap<(Device, u64), (FileKey, Instant)>);

// === impl Warm ===

impl Warm {
    pub(crate) fn new(entries: usize, bytes: usize) -> Self {
        Self {
            secret: Secret::new(),
            images: Lru::new(entries, bytes),
            files: Fresh::default(),
            buffer: Vec::new(),
            texts_only: false,
            known: 0,
        }
    }

    /// Notes for a whole look.
    pub(crate) fn record(&self) -> Record {
        Record::new(&self.secret)
    }

    /// A look at what the kernel tells when it is asked, which costs less than its text; an error
    /// where the text is to be read.
    pub(crate) fn ask(&mut self, opened: &Opened, depth: Depth) -> io::Result<Option<Report>> {
        if self.texts_only {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut areas = Areas::ask(&opened.maps);
        match self.key(&mut areas, &opened.auxv, depth) {
            Ok(key) => Ok(self.look(opened, &key, &mut areas)),
            Err(error) => {
                self.texts_only = Query::is_missing(&error);
                Err(error)
            }
        }
    }

    /// Only what is read of a text has no error.
    pub(crate) fn key(&self, areas: &mut Areas<'_>, auxv: &[u8], depth: Depth) -> io::Result<Key> {
        let (mut digest, count) = areas.code(&self.secret)?;
        digest.add(auxv);
        Ok(Key { areas: Digest::finish(digest), count, depth })
    }

    /// The report of a process that is as it was, or as another was, when that was found clean.
    pub(crate) fn look(
        &mut self,
        opened: &Opened,
        key: &Key,
        areas: &mut Areas<'_>,
    ) -> Option<Report> {
        let image = self.images.get(key)?;
        let process = &opened.process;
        // Memory last: it can be read only while the process has the address space that was opened,
        // so areas, start time and page table were still that one's.
        let same = image.notes.areas.iter().all(|area| areas.has(area))
            && image.has_same_files(process, &mut self.files, Instant::now())
            && image.has_same_code(process)
            && self.has_same_memory(process, &image.notes.memory);
        let (pid, start_ticks) = (process.pid, process.start_ticks());
        self.known += u64::from(same);
        same.then(|| Report { pid, start_ticks, ..image.report.clone() })
    }

    /// Remembers what a whole look rested on, if it found nothing that has to be explained.
    pub(crate) fn remember(&mut self, key: Key, process: Process, report: &Report) {
        let text = &report.text;
        let plain = report.settled
            && report.is_clean()
            && report.gaps.is_empty()
            && report.audit.is_none()
            && text.patches.is_empty();
        let Some(record) = process.into_record().filter(|_| plain) else { return };
        let Some(notes) = record.finish() else { return };
        let image = Image { notes, report: report.clone() };
        let bytes = image.held();
        self.images.insert(key, Arc::new(image), bytes);
    }

    /// Entries and bytes held.
    pub(crate) fn held(&self) -> (usize, usize) {
        let files = self.files.0.capacity() * size_of::<((Device, u64), (FileKey, Instant))>();
        (self.images.len(), self.images.bytes() + self.buffer.capacity() + files)
    }

    fn has_same_memory(&mut self, process: &Process, memory: &Memory) -> bool {
        let read = |pieces: &[Range<u64>], bytes: &mut [u8]| process.read_pieces(pieces, bytes);
        let same = memory.is_same(&self.secret, &mut self.buffer, read);
        if self.buffer.len() > BUFFER_MAX {
            self.buffer = Vec::new();
        }
        same
    }
}

// === impl Image ===

impl Image {
    fn has_same_files(&self, process: &Process, fresh: &mut Fresh, now: Instant) -> bool {
        self.notes.files.iter().all(|(vma, key)| fresh.is_same(process, vma, key, now))
    }

    fn has_same_code(&self, process: &Process) -> bool {
        if self.notes.code.is_empty() {
            return true;
        }
        let Ok(mut pagemap) = Pagemap::open(process.pid, LOOKED_MAX) else { return false };
        self.notes.code.iter().all(|Code { area, private }| {
            let found = pagemap.private(area.clone());
            found.is_ok_and(|found| found.complete && found.private == *private)
        })
    }

    /// Heap bytes held.
    fn held(&self) -> usize {
        let path =
            |vma: &Vma| size_of::<(Vma, FileKey)>() + vma.path.len() + 2 * size_of::<usize>();
        let code = |code: &Code| size_of::<Code>() + size_of_val(code.private.as_slice());
        let report = &self.report;
        let module = |module: &ModuleRef| {
            let build_id = module.build_id.as_ref().map_or(0, String::len);
            size_of::<ModuleRef>() + module.path.len() + build_id
        };
        let others = report.namespaces.iter().flat_map(|namespace| &namespace.modules);
        let restored = report.text.restored.iter().map(|page| module(&page.module) + 32);
        let loose = report.text.loose.iter().map(|loose| size_of_val(loose) + loose.memory.len());
        size_of::<Self>()
            + self.notes.memory.held()
            + self.notes.areas.len() * size_of::<Area>()
            + self.notes.files.iter().map(|(vma, _)| path(vma)).sum::<usize>()
            + self.notes.code.iter().map(code).sum::<usize>()
            + report.preloads.iter().chain(others).map(module).sum::<usize>()
            + restored.chain(loose).sum::<usize>()
    }
}

// === impl Fresh ===

impl Fresh {
    /// Whether a file is what it was, as of a moment ago: a whole machine maps some files a hundred
    /// times. What a file in place of another would change in the process shows in its areas, and
    /// what a write to the file would change shows in its memory.
    fn is_same(&mut self, process: &Process, vma: &Vma, known: &FileKey, now: Instant) -> bool {
        let id = (vma.dev, vma.ino);
        let fresh = |at: &Instant| now.saturating_duration_since(*at) < FRESH;
        if self.0.get(&id).is_some_and(|(key, at)| key == known && fresh(at)) {
            return true;
        }
        let Ok(metadata) = process.stat_file(vma) else { return false };
        let key = FileKey::of(&metadata);
        if self.0.len() >= FRESH_MAX {
            self.0.clear();
        }
        self.0.insert(id, (key, now));
        key == *known
    }
}
