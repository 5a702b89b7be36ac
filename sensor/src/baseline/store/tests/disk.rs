//! A disk in memory that fails where it is told to, and remembers what it was asked to make last.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{Database, DatabaseError, StorageBackend};

use crate::baseline::store::place::{Place, Reader, repaired};

/// Shared by all who have it open.
#[derive(Clone, Debug, Default)]
pub(in crate::baseline) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The file as whoever reads it finds it.
    content: Vec<u8>,
    /// The file as it would be found after a power cut: as of the last sync.
    durable: Vec<u8>,
    /// What was changed since the last sync, in order.
    unsynced: Vec<Change>,
    /// Files moved away.
    aside: BTreeMap<PathBuf, Vec<u8>>,
    /// Writes, changes of size and syncs so far.
    operations: u64,
    fault: Option<Fault>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// What goes wrong, and from which operation on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::baseline) struct Fault {
    /// The first operation that fails, from 0.
    pub(in crate::baseline) at: u64,
    pub(in crate::baseline) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::baseline) enum Kind {
    /// EIO, once.
    Once,
    /// EIO of whatever writes, until it is mended.
    Broken,
    /// ENOSPC of whatever writes, until there is space.
    Full,
    /// Half of a write arrives, then EIO until it is mended.
    Torn,
    /// EIO of whatever writes or reads, until it is mended.
    Dead,
}

// === impl Disk ===

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        // redb may panic while it holds the disk.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(in crate::baseline) fn holding(content: &[u8]) -> Self {
        let disk = Self::default();
        disk.state().content = content.to_vec();
        disk.state().durable = content.to_vec();
        disk
    }

    pub(in crate::baseline) fn content(&self) -> Vec<u8> {
        self.state().content.clone()
    }

    pub(in crate::baseline) fn operations(&self) -> u64 {
        self.state().operations
    }

    pub(in crate::baseline) fn break_by(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    pub(in crate::baseline) fn files_aside(&self) -> usize {
        self.state().aside.len()
    }

    /// What a power cut now may leave: all that was synced, and of what was not whatever `chosen` picks.
    /// The last that it picks is torn.
    pub(in crate::baseline) fn after_power_cut(&self, mut chosen: impl FnMut() -> bool) -> Vec<u8> {
        let state = self.state();
        let mut left = state.durable.clone();
        let picked: Vec<&Change> = state.unsynced.iter().filter(|_| chosen()).collect();
        for (at, change) in picked.iter().enumerate() {
            match change {
                Change::Length(length) => left.resize(*length, 0),
                Change::Write(from, data) => {
                    let torn = at + 1 == picked.len();
                    let data = if torn { &data[..data.len() / 2] } else { &data[..] };
                    left.resize(left.len().max(from + data.len()), 0);
                    left[*from..from + data.len()].copy_from_slice(data);
                }
            }
        }
        left
    }
}

// === impl State ===

impl State {
    /// Counts an operation; how it fails, where it does.
    fn operate(&mut self) -> Option<Kind> {
        let fault = self.fault.filter(|fault| self.operations >= fault.at);
        self.operations += 1;
        if fault.is_some_and(|fault| fault.kind == Kind::Once) {
            self.fault = None;
        }
        fault.map(|fault| fault.kind)
    }
}

impl Kind {
    fn error(self) -> io::Error {
        match self {
            Self::Full => ErrorKind::StorageFull.into(),
            // EIO has no kind of its own.
            _ => io::Error::from_raw_os_error(libc::EIO),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(u64::try_from(self.state().content.len()).unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let state = self.state();
        let dead = state.fault.filter(|fault| state.operations > fault.at);
        if let Some(Fault { kind: Kind::Dead, .. }) = dead {
            return Err(Kind::Dead.error());
        }
        let from = usize::try_from(offset).unwrap();
        let found = from.checked_add(out.len()).and_then(|end| state.content.get(from..end));
        out.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut state = self.state();
        if let Some(kind) = state.operate() {
            return Err(kind.error());
        }
        let len = usize::try_from(len).unwrap();
        state.content.resize(len, 0);
        state.unsynced.push(Change::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut state = self.state();
        if let Some(kind) = state.operate() {
            return Err(kind.error());
        }
        state.durable = state.content.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut state = self.state();
        let fault = state.operate();
        let written = match fault {
            None => data,
            Some(Kind::Torn) => &data[..data.len() / 2],
            Some(kind) => return Err(kind.error()),
        };
        let from = usize::try_from(offset).unwrap();
        let end = from + written.len();
        if state.content.len() < end {
            state.content.resize(end, 0);
        }
        state.content[from..end].copy_from_slice(written);
        state.unsynced.push(Change::Write(from, written.to_vec()));
        fault.map_or(Ok(()), |kind| Err(kind.error()))
    }
}

impl Place for Disk {
    fn path(&self) -> &Path {
        Path::new("disk")
    }

    fn make(&self) -> io::Result<()> {
        Ok(())
    }

    fn open(&self) -> Result<Database, DatabaseError> {
        let mut builder = Database::builder();
        builder.set_cache_size(64 * 1024).set_check_integrity_on_open(true);
        builder.create_with_backend(self.clone())
    }

    fn open_to_read(&self) -> Result<Reader, DatabaseError> {
        repaired(self.clone())
    }

    fn is_new(&self) -> bool {
        self.state().content.is_empty()
    }

    fn discard(&self) -> io::Result<()> {
        let mut state = self.state();
        match state.fault {
            // A full disk gives back what it has.
            None | Some(Fault { kind: Kind::Full, .. }) => {
                state.content.clear();
                state.unsynced.push(Change::Length(0));
                Ok(())
            }
            Some(fault) => Err(fault.kind.error()),
        }
    }

    fn rename(&self, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        if let Some(kind) = state.operate() {
            return Err(kind.error());
        }
        let content = std::mem::take(&mut state.content);
        state.durable.clear();
        state.unsynced.clear();
        state.aside.insert(to.to_owned(), content);
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        self.state().aside.contains_key(path)
    }
}
