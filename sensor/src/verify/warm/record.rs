//! What one look at a process took into account: which bytes of its memory, which files, which
//! private pages of code.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::Range;

use super::super::bytes::index;
use super::super::maps::{Area, Vma};
use super::super::process::FileKey;
use super::digest::{Digest, Secret};

/// Pieces of memory and files noted; a look at more is not remembered.
const NOTES_MAX: usize = 1 << 16;
/// Bytes of memory noted (Chromium has 13 MB of slots).
const BYTES_MAX: u64 = 32 << 20;
/// Pieces shorter than this are read together with their neighbours, bytes.
const SHORT: u64 = 1024;
/// Longer ones are read in parts of this many bytes, so that they stay in the processor's cache.
const PART: usize = 64 << 10;
/// Bytes of all short pieces and what lies between them: a hostile process spreads its own out.
const JOINED_MAX: u64 = 8 << 20;
/// Pieces closer together than this are read together: there is no whole page between them, which
/// might not be there.
const GAP: u64 = 4095;

/// The kernel reads memory for us page by page from where we begin: from the middle of a page on,
/// each piece of that length is two pages, which costs twice. (Where pages are longer, so is this.)
const PAGE: u64 = 4096;

/// Notes taken while a process is looked at, in the order of the look.
#[derive(Debug)]
pub(crate) struct Record {
    digest: Digest,
    pieces: Vec<Range<u64>>,
    bytes: u64,
    files: Vec<(Vma, FileKey)>,
    areas: BTreeMap<u64, Area>,
    /// Device, inode and what the file was, of those noted.
    noted: HashSet<((u32, u32), u64, FileKey)>,
    code: Vec<Code>,
    /// Something was taken into account that is not noted.
    incomplete: bool,
}

/// An executable file mapping, with what of it is private.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) area: Range<u64>,
    pub(super) private: Vec<Range<u64>>,
}

/// All that a look rested on.
#[derive(Debug)]
pub(super) struct Notes {
    pub(super) memory: Memory,
    pub(super) files: Vec<(Vma, FileKey)>,
    /// Areas of files that are not executable.
    pub(super) areas: Vec<Area>,
    pub(super) code: Vec<Code>,
}

/// Which memory was looked at and what it held: a digest of all pieces in the order of the look.
#[derive(Debug)]
pub(super) struct Memory {
    /// Stretches that hold all short pieces.
    joined: Vec<Range<u64>>,
    pieces: Vec<Piece>,
    digest: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// Of the bytes of all joined stretches together.
    Short(Range<u32>),
    Long(Range<u64>),
}

// === impl Record ===

impl Record {
    pub(super) fn new(secret: &Secret) -> Self {
        Self {
            digest: secret.digest(),
            pieces: Vec::new(),
            bytes: 0,
            files: Vec::new(),
            areas: BTreeMap::new(),
            noted: HashSet::new(),
            code: Vec::new(),
            incomplete: false,
        }
    }

    /// Memory that was read.
    pub(crate) fn memory(&mut self, addr: u64, bytes: &[u8]) {
        let Some(end) = addr.checked_add(bytes.len() as u64) else { return self.fail() };
        self.bytes += bytes.len() as u64;
        if self.pieces.len() >= NOTES_MAX || self.bytes > BYTES_MAX {
            return self.fail();
        }
        self.digest.add(bytes);
        match self.pieces.last_mut().filter(|last| last.end == addr) {
            Some(last) => last.end = end,
            None => self.pieces.push(addr..end),
        }
    }

    /// A mapped file and what it was.
    pub(crate) fn file(&mut self, vma: &Vma, key: FileKey) {
        // Once each, and in linear time: a process may map a great many.
        let noted = (vma.dev, vma.ino, key);
        if self.noted.contains(&noted) {
            return;
        }
        if self.files.len() >= NOTES_MAX {
            return self.fail();
        }
        if vma.is_file() {
            self.noted.insert(noted);
        }
        self.files.push((vma.clone(), key));
    }

    /// An area that something was decided by. What is executable is compared anyway, and memory
    /// without a file by its content.
    pub(crate) fn area(&mut self, vma: &Vma) {
        if vma.exec || !vma.is_file() {
            return;
        }
        if self.areas.len() >= NOTES_MAX {
            return self.fail();
        }
        self.areas.insert(vma.start, Area::of(vma));
    }

    /// Which pages of code are private.
    pub(crate) fn code(&mut self, vma: &Vma, private: &[Range<u64>]) {
        if self.code.len() >= NOTES_MAX {
            return self.fail();
        }
        self.code.push(Code { area: vma.start..vma.end, private: private.to_vec() });
    }

    /// Something that counts and cannot be noted, such as memory that is not there.
    pub(crate) fn fail(&mut self) {
        self.incomplete = true;
    }

    /// What is to be compared to find out whether all is the same; `None` if notes are missing.
    pub(super) fn finish(self) -> Option<Notes> {
        if self.incomplete {
            return None;
        }
        let memory = Memory::new(&self.pieces, self.digest.finish())?;
        let areas = self.areas.into_values().collect();
        Some(Notes { memory, files: self.files, areas, code: self.code })
    }
}

// === impl Memory ===

impl Memory {
    fn new(noted: &[Range<u64>], digest: u64) -> Option<Self> {
        let short = |piece: &&Range<u64>| piece.end - piece.start < SHORT;
        let joined = joined(noted.iter().filter(short).cloned().collect());
        let mut starts = Vec::with_capacity(joined.len());
        let mut bytes = 0;
        for read in &joined {
            starts.push(bytes);
            bytes += read.end - read.start;
        }
        if bytes > JOINED_MAX {
            return None;
        }
        let place = |piece: &Range<u64>| {
            if !short(&piece) {
                return Some(Piece::Long(piece.clone()));
            }
            let at = joined.partition_point(|read| read.start <= piece.start).checked_sub(1)?;
            let start = starts.get(at)? + (piece.start - joined.get(at)?.start);
            let end = start + (piece.end - piece.start);
            Some(Piece::Short(u32::try_from(start).ok()?..u32::try_from(end).ok()?))
        };
        let pieces = noted.iter().map(place).collect::<Option<_>>()?;
        Some(Self { joined, pieces, digest })
    }

    /// Whether memory holds what it held. `read` fills all of a buffer with pieces, or fails;
    /// `buffer` is left for the next use.
    pub(super) fn is_same(
        &self,
        secret: &Secret,
        buffer: &mut Vec<u8>,
        read: impl Fn(&[Range<u64>], &mut [u8]) -> io::Result<()>,
    ) -> bool {
        self.digest_now(secret, buffer, read).is_ok_and(|now| now == self.digest)
    }

    fn digest_now(
        &self,
        secret: &Secret,
        buffer: &mut Vec<u8>,
        read: impl Fn(&[Range<u64>], &mut [u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        let short: u64 = self.joined.iter().map(|read| read.end - read.start).sum();
        let short = index(short);
        if buffer.len() < short + PART {
            buffer.resize(short + PART, 0);
        }
        let (short, part) = buffer.split_at_mut(short);
        if !short.is_empty() {
            read(&self.joined, short)?;
        }
        let mut digest = secret.digest();
        for piece in &self.pieces {
            let range = match piece {
                Piece::Long(range) => range,
                Piece::Short(range) => {
                    let bytes = short.get(index(range.start)..index(range.end));
                    digest.add(bytes.ok_or(io::ErrorKind::InvalidInput)?);
                    continue;
                }
            };
            let mut at = range.start;
            while at < range.end {
                let from = whole(&(at..range.end)).start;
                let end = range.end.min(from + PART as u64);
                let part = part.get_mut(..index(end - from)).ok_or(io::ErrorKind::InvalidInput)?;
                read(std::slice::from_ref(&(from..end)), part)?;
                digest.add(part.get(index(at - from)..).unwrap_or_default());
                at = end;
            }
        }
        Ok(digest.finish())
    }

    /// Heap bytes held.
    pub(super) fn held(&self) -> usize {
        self.joined.len() * size_of::<Range<u64>>() + self.pieces.len() * size_of::<Piece>()
    }
}

/// Stretches of memory that hold all pieces, ascending and disjoint: each begins more than a page
/// behind the one before.
fn joined(mut sorted: Vec<Range<u64>>) -> Vec<Range<u64>> {
    sorted.sort_unstable_by_key(|piece| piece.start);
    let mut reads: Vec<Range<u64>> = Vec::new();
    for piece in sorted {
        match reads.last_mut().filter(|last| piece.start <= last.end.saturating_add(GAP)) {
            Some(last) => last.end = last.end.max(piece.end),
            None => reads.push(piece),
        }
    }
    reads.iter().map(whole).collect()
}

/// From the beginning of its first page, where that saves anything: that page is there, since part
/// of it is read anyway.
fn whole(stretch: &Range<u64>) -> Range<u64> {
    let long = stretch.end - stretch.start > PAGE;
    let into = if long { stretch.start % PAGE } else { 0 };
    stretch.start - into..stretch.end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes of some pieces of memory that begins at address 0.
    fn noted(secret: &Secret, memory: &[u8], pieces: &[Range<u64>]) -> Memory {
        let mut record = Record::new(secret);
        for piece in pieces {
            record.memory(piece.start, &memory[index(piece.start)..index(piece.end)]);
        }
        record.finish().unwrap().memory
    }

    fn is_same(noted: &Memory, secret: &Secret, memory: &[u8]) -> bool {
        noted.is_same(secret, &mut Vec::new(), |pieces, bytes| {
            let mut rest = bytes;
            for piece in pieces {
                let (now, later) = rest.split_at_mut(index(piece.end - piece.start));
                crate::verify::elf::ReadAt::read_exact_at(memory, piece.start, now)?;
                rest = later;
            }
            Ok(())
        })
    }

    #[test]
    fn only_a_change_inside_a_piece_counts() {
        let secret = Secret::new();
        let mut memory: Vec<u8> = (0..10_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let pieces = [7000..7100, 1500..1508, 8000..9900, 1516..1524, 1508..1512, 1500..1520];
        let noted = noted(&secret, &memory, &pieces);
        assert_eq!(noted.joined, [1500..1524, 7000..7100]);
        assert!(is_same(&noted, &secret, &memory));
        for at in 0..10_000 {
            memory[index(at)] ^= 1;
            let inside = pieces.iter().any(|piece| piece.contains(&at));
            assert_eq!(is_same(&noted, &secret, &memory), !inside, "{at}");
            memory[index(at)] ^= 1;
        }
        assert!(!is_same(&noted, &secret, &memory[..9000]), "memory that is not there any more");
    }

    #[test]
    fn long_pieces_are_read_in_parts() {
        let secret = Secret::new();
        let mut memory: Vec<u8> = (0..200_000_u32).map(|at| at.to_le_bytes()[1]).collect();
        let noted = noted(&secret, &memory, &[1000..151_000, 150_990..151_000]);
        assert!(is_same(&noted, &secret, &memory));
        for at in [0, 999, 151_000] {
            memory[at] ^= 0x80;
        }
        assert!(is_same(&noted, &secret, &memory), "what lies beside it");
        for at in [1000, 4095, 4096, 65_535, 65_536, 66_535, 66_536, 150_999] {
            memory[at] ^= 0x80;
            assert!(!is_same(&noted, &secret, &memory), "{at}");
            memory[at] ^= 0x80;
        }
    }

    #[test]
    fn short_pieces_that_lie_together_are_read_from_where_their_page_begins() {
        let secret = Secret::new();
        let mut memory: Vec<u8> = (0..30_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let starts = (4200..12_620).step_by(900).chain((17_000..22_000).step_by(980));
        let pieces: Vec<Range<u64>> = starts.map(|at| at..at + 20).collect();
        let noted = noted(&secret, &memory, &pieces);
        assert_eq!(noted.joined, [4096..12_320, 16_384..21_920]);
        for at in 0..30_000 {
            memory[index(at)] ^= 1;
            let inside = pieces.iter().any(|piece| piece.contains(&at));
            assert_eq!(is_same(&noted, &secret, &memory), !inside, "{at}");
            memory[index(at)] ^= 1;
        }
    }

    #[test]
    fn what_is_not_noted_in_full_is_not_remembered() {
        let secret = Secret::new();
        let mut record = Record::new(&secret);
        record.memory(u64::MAX - 3, &[0; 8]);
        assert!(record.finish().is_none());
        let mut record = Record::new(&secret);
        record.fail();
        record.memory(8, &[0; 8]);
        assert!(record.finish().is_none());
        let mut record = Record::new(&secret);
        (0..=NOTES_MAX as u64).for_each(|at| record.memory(at * 16, &[0; 8]));
        assert!(record.finish().is_none());
    }

    #[test]
    fn as_many_files_as_are_noted_are_noted_once_each() {
        let key = FileKey::of(&tempfile::tempfile().unwrap().metadata().unwrap());
        let area = |at: u64| Vma {
            start: at << 12,
            end: (at + 1) << 12,
            read: true,
            write: false,
            exec: true,
            offset: 0,
            dev: (8, 1),
            ino: at,
            path: "/x".into(),
        };
        let secret = Secret::new();
        let mut record = Record::new(&secret);
        // Each twice: a list that is gone through for each would take billions of steps.
        for at in (1..=NOTES_MAX as u64).chain(1..=NOTES_MAX as u64) {
            record.file(&area(at), key);
        }
        assert_eq!(record.files.len(), NOTES_MAX);
        assert!(!record.incomplete);
        record.file(&area(NOTES_MAX as u64 + 1), key);
        assert!(record.finish().is_none());
    }
}
