//! What an `SQLite` database has committed to its write-ahead log and not yet to its file
//! (`fileformat2.html`, section 4).

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::sqlite::{Bad, be32};

/// rpm has its log written back at a thousand pages.
const MAX_WAL: u64 = 256 << 20;
const HEADER: usize = 32;
const FRAME: usize = 24;
/// The last bit says that checksums are of big-endian words.
const MAGIC: u32 = 0x377f_0682;

/// Where the newest committed copy of each page is.
#[derive(Debug)]
pub(super) struct Wal {
    file: File,
    offsets: HashMap<u32, u64>,
}

/// `SQLite`'s two running sums over pairs of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checksum {
    big_endian: bool,
    sums: (u32, u32),
}

// === impl Wal ===

impl Wal {
    /// Reads frames up to the last commit that is whole; `None` for an empty log.
    pub(super) fn read(file: File, page_size: usize) -> Result<Option<Self>, Bad> {
        let size = file.metadata().map_err(|_| Bad("the log's size is not to be had"))?.len();
        if size > MAX_WAL {
            return Err(Bad("a write-ahead log too large"));
        }
        let mut header = [0; HEADER];
        if file.read_exact_at(&mut header, 0).is_err() {
            return Ok(None);
        }
        let magic = be32(&header, 0)?;
        let mut checksum = Checksum { big_endian: magic & 1 == 1, sums: (0, 0) };
        checksum.add(&header[..24]);
        let salts = header.get(16..24).unwrap_or_default();
        if magic & !1 != MAGIC
            || be32(&header, 8)? as usize != page_size
            || !checksum.is(&header[24..])
        {
            // Being begun anew, or left by a crash: SQLite itself takes nothing from it.
            return Ok(None);
        }
        let mut offsets = HashMap::new();
        let mut uncommitted = Vec::new();
        let mut frame = vec![0; FRAME + page_size];
        let mut at = HEADER as u64;
        while file.read_exact_at(&mut frame, at).is_ok() {
            checksum.add(&frame[..8]);
            checksum.add(&frame[FRAME..]);
            if frame.get(8..16) != Some(salts) || !checksum.is(&frame[16..]) {
                break;
            }
            uncommitted.push((be32(&frame, 0)?, at + FRAME as u64));
            if be32(&frame, 4)? != 0 {
                offsets.extend(uncommitted.drain(..));
            }
            at += frame.len() as u64;
        }
        Ok(Some(Self { file, offsets }))
    }

    /// Pages it has copies of.
    pub(super) fn pages(&self) -> u64 {
        self.offsets.len() as u64
    }

    /// Where a page's copy is.
    pub(super) fn page(&self, number: u32) -> Option<(&File, u64)> {
        self.offsets.get(&number).map(|offset| (&self.file, *offset))
    }
}

// === impl Checksum ===

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(8) {
            let (first, second) = pair.split_at(4);
            self.sums.0 = self.sums.0.wrapping_add(self.word(first)).wrapping_add(self.sums.1);
            self.sums.1 = self.sums.1.wrapping_add(self.word(second)).wrapping_add(self.sums.0);
        }
    }

    fn word(&self, bytes: &[u8]) -> u32 {
        let Some(bytes) = bytes.first_chunk() else { return 0 };
        if self.big_endian { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) }
    }

    /// Whether the two big-endian words that begin `bytes` are the sums.
    fn is(&self, bytes: &[u8]) -> bool {
        be32(bytes, 0) == Ok(self.sums.0) && be32(bytes, 4) == Ok(self.sums.1)
    }
}
