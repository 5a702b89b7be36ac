//! Incidents on disk: one embedded database file in the state directory, bounded in number and
//! bytes. What [`IncidentStore::put`] has returned from is there after a crash.

mod database;
mod error;
mod overlay;
mod suppressions;

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use redb::{Database, ReadTransaction, ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::{Entry, Incident, Suppression};
use database::{ENTRIES, Failure, META, ORDER, guarded};

pub use error::StoreError;
pub(crate) use overlay::Overlay;

/// Name of the file in the state directory.
const FILE: &str = "incidents.redb";
/// Damaged files kept beside it.
const SET_ASIDE: RangeInclusive<u32> = 1..=9;

/// How often, and after which pause, a start tries again where the file is in use.
const PATIENCE: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// How much is kept; the oldest closed incidents go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Incidents.
    pub count: u64,
    /// Bytes of all of them as JSON.
    pub bytes: u64,
}

/// The sensor's store. Shared between threads as it is.
#[derive(Debug)]
pub struct IncidentStore {
    path: PathBuf,
    limits: StoreLimits,
    /// `None` after a failed write, until it could be opened again.
    database: RwLock<Option<Database>>,
}

/// A store that was opened.
#[derive(Debug)]
pub struct Opened {
    /// It.
    pub store: IncidentStore,
    /// Where a damaged file was moved, and what was wrong with it.
    pub set_aside: Option<(PathBuf, String)>,
}

/// The store while no sensor runs.
#[derive(Debug)]
pub struct IncidentReader {
    path: PathBuf,
    database: Database,
}

/// Incidents, newest first.
#[derive(Debug, Default)]
pub struct Listed {
    /// They.
    pub incidents: Vec<Incident>,
    /// Entries that could not be read as an incident.
    pub unreadable: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { count: 10_000, bytes: 64 * 1024 * 1024 }
    }
}

// === impl IncidentStore ===

impl IncidentStore {
    /// Opens the store in `state_dir`, or makes it. A damaged file is set aside as
    /// `incidents.redb.corrupt-N` and a fresh one begun.
    pub fn open(state_dir: &Path, limits: StoreLimits) -> Result<Opened, StoreError> {
        let path = state_dir.join(FILE);
        let (database, set_aside) = match patiently(|| database::open(&path)) {
            Ok(database) => (database, None),
            Err(StoreError::Corrupt { reason, .. }) => {
                let aside = set_aside(&path)?;
                (database::open(&path)?, Some((aside, reason)))
            }
            Err(error) => return Err(error),
        };
        let store = Self { path, limits, database: RwLock::new(Some(database)) };
        Ok(Opened { store, set_aside })
    }

    /// Opens the store in `state_dir` to change it for a moment, while no sensor runs. Makes none and
    /// sets none aside: that is for the sensor, whose files they are.
    pub fn open_existing(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join(FILE);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing { path });
            }
            Err(source) => return Err(StoreError::Io { action: "open", path, source }),
            Ok(found) if found.len() == 0 => return Err(StoreError::Missing { path }),
            Ok(_) => {}
        }
        let database = patiently(|| database::open(&path))?;
        let limits = StoreLimits::default();
        Ok(Self { path, limits, database: RwLock::new(Some(database)) })
    }

    /// Writes `entries`, all or none, to the disk; returns how many others were evicted for them.
    /// After an error (a full disk) it can be tried again.
    pub fn put(&self, entries: &[&Entry]) -> Result<u64, StoreError> {
        let encoded = entries
            .iter()
            .map(|entry| {
                let id = entry.incident.id.clone();
                let json = serde_json::to_vec(entry)
                    .map_err(|source| StoreError::Serialise { id, source })?;
                Ok((*entry, json))
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        self.change(|usable| write(usable, &encoded, self.limits))
    }

    /// Replaces what is kept of suppressions.
    pub fn put_suppressions(&self, all: &[&Suppression]) -> Result<(), StoreError> {
        let encoded = suppressions::encode(all)?;
        self.change(|usable| suppressions::write(usable, &encoded))
    }

    /// What is kept of suppressions.
    pub fn suppressions(&self) -> Result<Vec<Suppression>, StoreError> {
        self.read(suppressions::read)
    }

    /// One incident, with what is needed to go on with it.
    pub fn entry(&self, id: &str) -> Result<Option<Entry>, StoreError> {
        self.read(|read| {
            let entries = read.open_table(ENTRIES)?;
            let json = entries.get(id)?;
            Ok(json.and_then(|json| serde_json::from_slice(json.value()).ok()))
        })
    }

    /// One incident.
    pub fn get(&self, id: &str) -> Result<Option<Incident>, StoreError> {
        self.read(|read| get(read, id))
    }

    /// The newest incidents, at most `limit`.
    pub fn list(&self, limit: usize) -> Result<Listed, StoreError> {
        self.read(|read| list(read, limit))
    }

    /// What was open when it was last put, oldest first, for
    /// [`Incidents::restore`](super::Incidents::restore).
    pub fn open_entries(&self) -> Result<Vec<Entry>, StoreError> {
        self.read(|read| {
            let entries = read.open_table(ENTRIES)?;
            let mut open = Vec::new();
            for row in read.open_table(ORDER)?.iter()? {
                let (key, value) = row?;
                if value.value().1
                    && let Some(json) = entries.get(key.value().1)?
                {
                    open.extend(serde_json::from_slice::<Entry>(json.value()));
                }
            }
            Ok(open)
        })
    }

    fn change<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let usable = match database.take() {
            Some(usable) => usable,
            None => database::open(&self.path)?,
        };
        // Kept only after success: a redb that failed once refuses everything until reopened.
        let done = guarded(&self.path, || work(&usable))?;
        *database = Some(usable);
        Ok(done)
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        match &*self.database.read().unwrap_or_else(PoisonError::into_inner) {
            Some(database) => database::read(&self.path, database, work),
            // A write has failed: on a full disk the file may still be read, but not be repaired.
            None => database::read(&self.path, &database::open_read_only(&self.path)?, work),
        }
    }
}

// === impl IncidentReader ===

impl IncidentReader {
    /// Opens the store in `state_dir` without changing it; [`StoreError::InUse`] while a sensor
    /// runs.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join(FILE);
        let database = database::open_read_only(&path)?;
        Ok(Self { path, database })
    }

    /// One incident.
    pub fn get(&self, id: &str) -> Result<Option<Incident>, StoreError> {
        database::read(&self.path, &self.database, |read| get(read, id))
    }

    /// The newest incidents, at most `limit`.
    pub fn list(&self, limit: usize) -> Result<Listed, StoreError> {
        database::read(&self.path, &self.database, |read| list(read, limit))
    }

    /// What is kept of suppressions.
    pub fn suppressions(&self) -> Result<Vec<Suppression>, StoreError> {
        database::read(&self.path, &self.database, suppressions::read)
    }
}

fn write(
    database: &Database,
    entries: &[(&Entry, Vec<u8>)],
    limits: StoreLimits,
) -> Result<u64, Failure> {
    let write = database.begin_write()?;
    for (entry, json) in entries {
        put(&write, entry, json)?;
    }
    let evicted = evict(&write, limits)?;
    write.commit()?;
    Ok(evicted)
}

fn put(write: &WriteTransaction, entry: &Entry, json: &[u8]) -> Result<(), Failure> {
    let incident = &entry.incident;
    let id = incident.id.as_str();
    let bytes = u64::try_from(json.len()).unwrap_or(u64::MAX);
    let mut order = write.open_table(ORDER)?;
    // An incident never changes when it opened, so the key finds its former state.
    let key = (incident.opened.as_nanosecond(), id);
    let open = entry.joins();
    let former = order.insert(key, (bytes, open))?.map_or(0, |former| former.value().0);
    write.open_table(ENTRIES)?.insert(id, json)?;
    let mut meta = write.open_table(META)?;
    let sum = meta.get("bytes")?.map_or(0, |sum| sum.value());
    meta.insert("bytes", sum.saturating_sub(former).saturating_add(bytes))?;
    Ok(())
}

/// Removes the oldest closed incidents, and where none is closed the oldest, down to `limits`.
fn evict(write: &WriteTransaction, limits: StoreLimits) -> Result<u64, Failure> {
    let mut order = write.open_table(ORDER)?;
    let mut entries = write.open_table(ENTRIES)?;
    let mut meta = write.open_table(META)?;
    let mut sum = meta.get("bytes")?.map_or(0, |sum| sum.value());
    let mut evicted = 0;
    while order.len()? > limits.count || (sum > limits.bytes && order.len()? > 1) {
        let Some((opened, id, bytes)) = oldest(&order)? else { break };
        order.remove((opened, id.as_str()))?;
        entries.remove(id.as_str())?;
        sum = sum.saturating_sub(bytes);
        evicted += 1;
    }
    meta.insert("bytes", sum)?;
    Ok(evicted)
}

type OldestRow = Option<(i128, String, u64)>;

fn oldest(
    order: &impl ReadableTable<(i128, &'static str), (u64, bool)>,
) -> Result<OldestRow, Failure> {
    let mut first = None;
    for row in order.iter()? {
        let (key, value) = row?;
        let ((opened, id), (bytes, open)) = (key.value(), value.value());
        if !open {
            return Ok(Some((opened, id.to_owned(), bytes)));
        }
        first.get_or_insert_with(|| (opened, id.to_owned(), bytes));
    }
    Ok(first)
}

fn get(read: &ReadTransaction, id: &str) -> Result<Option<Incident>, Failure> {
    let entries = read.open_table(ENTRIES)?;
    let json = entries.get(id)?;
    Ok(json.and_then(|json| decode(json.value())))
}

fn list(read: &ReadTransaction, limit: usize) -> Result<Listed, Failure> {
    let entries = read.open_table(ENTRIES)?;
    let mut listed = Listed::default();
    for row in read.open_table(ORDER)?.iter()?.rev().take(limit) {
        let (key, _) = row?;
        let json = entries.get(key.value().1)?;
        match json.and_then(|json| decode(json.value())) {
            Some(incident) => listed.incidents.push(incident),
            None => listed.unreadable += 1,
        }
    }
    Ok(listed)
}

fn decode(json: &[u8]) -> Option<Incident> {
    serde_json::from_slice::<Entry>(json).ok().map(|entry| entry.incident)
}

/// Tries again for a second where somebody is reading the file right now.
fn patiently(open: impl Fn() -> Result<Database, StoreError>) -> Result<Database, StoreError> {
    for _ in 0..PATIENCE {
        match open() {
            Err(StoreError::InUse { .. }) => thread::sleep(PAUSE),
            other => return other,
        }
    }
    open()
}

/// Renames the damaged file to the first free `.corrupt-N`, the last where none is free.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".corrupt-{number}"));
        PathBuf::from(name)
    };
    let free = SET_ASIDE.map(numbered).find(|aside| !aside.exists());
    let aside = free.unwrap_or_else(|| numbered(*SET_ASIDE.end()));
    fs::rename(path, &aside)
        .and_then(|()| database::sync_directory(path))
        .map_err(|source| StoreError::Io { action: "set aside", path: path.to_owned(), source })?;
    Ok(aside)
}

#[cfg(test)]
mod tests;
