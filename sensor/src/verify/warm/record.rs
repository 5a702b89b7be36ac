//! What one look at a process took into account: which bytes of its memory, which files, which
//! private pages of code.

use std::ops::Range;

use super::super::bytes::index;
use super::super::maps::Vma;
use super::super::process::FileKey;
use super::digest::{Digest, Secret};

/// Pieces of memory and files noted; a look at more is not remembered.
const NOTES_MAX: usize = 1 << 16;
/// Bytes of memory noted (Chromium has 13 MB of slots).
const BYTES_MAX: u64 = 32 << 20;
/// Pieces closer together than this are read together: there is no whole page between them, which
/// might not be there.
const GAP: u64 = 2048;

/// Notes taken while a process is looked at, in the order of the look.
#[derive(Debug)]
pub(crate) struct Record {
    digest: Digest,
    pieces: Vec<Range<u64>>,
    bytes: u64,
    pub(super) files: Vec<(Vma, FileKey)>,
    pub(super) code: Vec<Code>,
    /// Something was taken into account that is not noted.
    incomplete: bool,
}

/// An executable file mapping, with what of it is private.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) area: Range<u64>,
    pub(super) private: Vec<Range<u64>>,
}

/// Which memory was looked at and what it held: a digest of all pieces in the order of the look.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) reads: Vec<Range<u64>>,
    /// Of the bytes of all reads together.
    pieces: Vec<Range<u32>>,
    digest: u64,
    /// Bytes of all reads.
    pub(super) bytes: usize,
}

// === impl Record ===

impl Record {
    pub(super) fn new(secret: &Secret) -> Self {
        Self {
            digest: secret.digest(),
            pieces: Vec::new(),
            bytes: 0,
            files: Vec::new(),
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
        let same = |(other, known): &(Vma, FileKey)| other.same_file(vma) && *known == key;
        if self.files.iter().any(same) {
            return;
        }
        if self.files.len() >= NOTES_MAX {
            return self.fail();
        }
        self.files.push((vma.clone(), key));
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

    /// What is to be read to find out whether the memory is the same; `None` if notes are missing.
    pub(super) fn finish(self) -> Option<(Memory, Vec<(Vma, FileKey)>, Vec<Code>)> {
        if self.incomplete {
            return None;
        }
        let memory = Memory::new(&self.pieces, self.digest.finish())?;
        Some((memory, self.files, self.code))
    }
}

// === impl Memory ===

impl Memory {
    fn new(pieces: &[Range<u64>], digest: u64) -> Option<Self> {
        let reads = joined(pieces);
        let mut starts = Vec::with_capacity(reads.len());
        let mut bytes = 0;
        for read in &reads {
            starts.push(bytes);
            bytes += read.end - read.start;
        }
        let place = |piece: &Range<u64>| {
            let at = reads.partition_point(|read| read.start <= piece.start).checked_sub(1)?;
            let start = starts.get(at)? + (piece.start - reads.get(at)?.start);
            let end = start + (piece.end - piece.start);
            Some(u32::try_from(start).ok()?..u32::try_from(end).ok()?)
        };
        let pieces = pieces.iter().map(place).collect::<Option<Vec<_>>>()?;
        Some(Self { reads, pieces, digest, bytes: index(bytes) })
    }

    /// Whether what all reads gave together is what was there.
    pub(super) fn is_held_by(&self, secret: &Secret, bytes: &[u8]) -> bool {
        let mut digest = secret.digest();
        for piece in &self.pieces {
            let Some(bytes) = bytes.get(index(piece.start)..index(piece.end)) else { return false };
            digest.add(bytes);
        }
        digest.finish() == self.digest
    }

    /// Heap bytes held.
    pub(super) fn held(&self) -> usize {
        self.reads.len() * size_of::<Range<u64>>() + self.pieces.len() * size_of::<Range<u32>>()
    }
}

/// Stretches of memory that hold all pieces, ascending and disjoint.
fn joined(pieces: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted = pieces.to_vec();
    sorted.sort_unstable_by_key(|piece| piece.start);
    let mut reads: Vec<Range<u64>> = Vec::new();
    for piece in sorted {
        match reads.last_mut().filter(|last| piece.start <= last.end.saturating_add(GAP)) {
            Some(last) => last.end = last.end.max(piece.end),
            None => reads.push(piece),
        }
    }
    reads
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory from address 1000 on, and notes of some pieces of it.
    fn noted(secret: &Secret, memory: &[u8], pieces: &[Range<u64>]) -> Memory {
        let mut record = Record::new(secret);
        for piece in pieces {
            record.memory(piece.start, &memory[index(piece.start - 1000)..index(piece.end - 1000)]);
        }
        record.finish().unwrap().0
    }

    fn read(memory: &[u8], reads: &[Range<u64>]) -> Vec<u8> {
        let bytes = |read: &Range<u64>| &memory[index(read.start - 1000)..index(read.end - 1000)];
        reads.iter().flat_map(bytes).copied().collect()
    }

    #[test]
    fn only_a_change_inside_a_piece_counts() {
        let secret = Secret::new();
        let mut memory: Vec<u8> = (0..9000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let pieces = [7000..7100, 1500..1508, 1516..1524, 1508..1512, 1500..1520, 9000..9900];
        let noted = noted(&secret, &memory, &pieces);
        assert_eq!(noted.reads, [1500..1524, 7000..7100, 9000..9900]);
        assert!(noted.is_held_by(&secret, &read(&memory, &noted.reads)));
        for at in 1000..10_000 {
            memory[index(at - 1000)] ^= 1;
            let inside = pieces.iter().any(|piece| piece.contains(&at));
            let held = noted.is_held_by(&secret, &read(&memory, &noted.reads));
            assert_eq!(held, !inside, "{at}");
            memory[index(at - 1000)] ^= 1;
        }
        assert!(!noted.is_held_by(&secret, &[]));
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
}
