//! A database file to read only, whatever state it was left in: redb repairs a file that a killed
//! process left, and here it does so in memory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use redb::{BackendError, StorageBackend};

/// Granularity of what is kept in memory, bytes.
const BLOCK: usize = 4096;
const BLOCK_U64: u64 = 4096;

/// The file below, the writes above it. A lock is always taken as a shared one: it keeps a sensor
/// from writing, and other readers not from reading.
#[derive(Debug)]
pub(crate) struct Overlay {
    file: Box<dyn StorageBackend>,
    above: RwLock<Above>,
}

#[derive(Debug)]
struct Above {
    len: u64,
    /// Bytes of the file that still count; beyond them it reads as zeros.
    file_len: u64,
    /// By number; a few: the header and what a repair changes.
    blocks: BTreeMap<u64, Vec<u8>>,
}

// === impl Overlay ===

impl Overlay {
    /// Over a file that is left as it is.
    pub(crate) fn new(file: impl StorageBackend) -> Result<Self, io::Error> {
        let file: Box<dyn StorageBackend> = Box::new(file);
        let len = file.len()?;
        let above = Above { len, file_len: len, blocks: BTreeMap::new() };
        Ok(Self { file, above: RwLock::new(above) })
    }

    /// Block `number` of the file, with zeros where it ends.
    fn below(&self, number: u64, file_len: u64) -> Result<Vec<u8>, io::Error> {
        let mut block = vec![0; BLOCK];
        let start = number * BLOCK_U64;
        let there = file_len.saturating_sub(start).min(BLOCK_U64);
        let there = usize::try_from(there).unwrap_or(BLOCK);
        self.file.read(start, &mut block[..there])?;
        Ok(block)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.above.read().unwrap_or_else(PoisonError::into_inner).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let above = self.above.read().unwrap_or_else(PoisonError::into_inner);
        if end(offset, out.len())? > above.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for piece in pieces(offset, out.len()) {
            let target = &mut out[piece.done..piece.done + piece.len];
            let within = piece.from..piece.from + piece.len;
            if let Some(block) = above.blocks.get(&piece.block) {
                target.copy_from_slice(&block[within]);
            } else {
                let block = self.below(piece.block, above.file_len)?;
                target.copy_from_slice(&block[within]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut above = self.above.write().unwrap_or_else(PoisonError::into_inner);
        if len < above.len {
            above.file_len = above.file_len.min(len);
            let keep = len.div_ceil(BLOCK_U64);
            above.blocks.retain(|number, _| *number < keep);
            let tail = usize::try_from(len % BLOCK_U64).unwrap_or_default();
            if let Some(block) = above.blocks.get_mut(&(len / BLOCK_U64)) {
                block[tail..].fill(0);
            }
        }
        above.len = len;
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut above = self.above.write().unwrap_or_else(PoisonError::into_inner);
        let end = end(offset, data.len())?;
        for piece in pieces(offset, data.len()) {
            let file_len = above.file_len;
            let block = match above.blocks.entry(piece.block) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(free) => free.insert(self.below(piece.block, file_len)?),
            };
            let source = &data[piece.done..piece.done + piece.len];
            block[piece.from..piece.from + piece.len].copy_from_slice(source);
        }
        above.len = above.len.max(end);
        Ok(())
    }

    fn close(&self) -> Result<(), io::Error> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        // Asked before a lock is taken, to find the locks of others: a shared one of another
        // reader is none here.
        if self.file.try_lock_shared_range(start, end)? {
            self.file.unlock_range(start, end)?;
            return Ok(false);
        }
        Ok(true)
    }
}

/// A part of a read or write that lies in one block.
struct Piece {
    block: u64,
    /// Offset in the block.
    from: usize,
    /// Offset in the buffer.
    done: usize,
    len: usize,
}

fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + u64::try_from(done).ok()?;
        let from = usize::try_from(at % BLOCK_U64).ok()?;
        let piece =
            Piece { block: at / BLOCK_U64, from, done, len: (BLOCK - from).min(len - done) };
        done += piece.len;
        Some(piece)
    })
}

fn end(offset: u64, len: usize) -> Result<u64, io::Error> {
    let len = u64::try_from(len).unwrap_or(u64::MAX);
    offset.checked_add(len).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use redb::backends::FileBackend;

    use proptest::collection::vec;
    use proptest::prelude::{
        ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
    };
    use tempfile::NamedTempFile;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..20_000_u64, vec(any::<u8>(), 0..9000)).prop_map(|(at, data)| Step::Write(at, data)),
            (0..30_000_u64).prop_map(Step::SetLen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_reads_as_a_changed_file_would_and_leaves_the_file_alone(
            content in vec(any::<u8>(), 0..20_000),
            steps in vec(step(), 0..12),
        ) {
            let file = NamedTempFile::new().unwrap();
            fs::write(file.path(), &content).unwrap();
            let below = FileBackend::new(File::open(file.path()).unwrap()).unwrap();
            let overlay = Overlay::new(below).unwrap();
            let mut model = content.clone();
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        overlay.write(at, &data).unwrap();
                        let at = usize::try_from(at).unwrap();
                        model.resize(model.len().max(at + data.len()), 0);
                        model[at..at + data.len()].copy_from_slice(&data);
                    }
                    Step::SetLen(len) => {
                        overlay.set_len(len).unwrap();
                        model.resize(usize::try_from(len).unwrap(), 0);
                    }
                }
                let mut found = vec![0; model.len()];
                prop_assert_eq!(overlay.len().unwrap(), u64::try_from(model.len()).unwrap());
                overlay.read(0, &mut found).unwrap();
                prop_assert_eq!(&found, &model);
                prop_assert!(overlay.read(1, &mut found).is_err() || found.is_empty());
            }
            prop_assert_eq!(fs::read(file.path()).unwrap(), content);
        }
    }
}
