//! The embedded store: one file, one durable transaction per flush, never in anyone's way.
//!
//! A file that is damaged or of another version is set aside and reported; a disk that is full or
//! read-only leaves the sensor in memory and is tried again at the next flush. Opened so that other
//! processes may read it while the sensor writes (`redb::ConcurrencyMode::SingleWriter`).

mod memory;

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Builder, ConcurrencyMode, Database, DatabaseError, ReadableDatabase, ReadableTable,
    StorageError, TableDefinition,
};

pub use memory::Memory;

use memory::Tap;

/// Written into every file; a file with another is set aside.
const SCHEMA: u64 = 1;
const SCHEMA_KEY: &str = "schema";
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Baselines by subject.
const SUBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("subjects");
/// Page cache, bytes.
const CACHE: usize = 2 * 1024 * 1024;
const FILE: &str = "baseline.redb";
/// Damaged files kept beside the store; beyond, the last is overwritten.
const ASIDE_MAX: u32 = 16;

/// How opening went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The file was there, or is new.
    Ready,
    /// The file was no good and has been set aside; this is a fresh start.
    SetAside {
        /// Where it is now.
        moved_to: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// Nothing can be written for now; the sensor goes on in memory and tries again.
    InMemory {
        /// What was wrong.
        reason: String,
    },
}

/// What the store counts of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreTally {
    /// Flushes that are on disk.
    pub flushes: u64,
    /// Flushes that failed; what they held is kept and tried again.
    pub failures: u64,
    /// Files set aside.
    pub set_aside: u64,
    /// Entries that could not be read or understood.
    pub unreadable: u64,
}

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Anything redb says.
    #[error("{path}: {source}")]
    Redb {
        /// The file.
        path: PathBuf,
        /// What it says.
        #[source]
        source: Box<redb::Error>,
    },
    /// The directory or a rename.
    #[error("{path}: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The store is kept in memory on purpose.
    #[error("nothing is stored in this run")]
    Off,
    /// What a replay may keep.
    #[error("the baselines of this replay are too large for its memory")]
    Full,
}

/// One entry of a flush.
pub(super) type Change = (String, Vec<u8>);

/// The store of one state directory.
#[derive(Debug)]
pub struct Store {
    /// `None` in replays: nothing is read or written.
    dir: Option<PathBuf>,
    db: Option<Database>,
    tally: StoreTally,
    /// Stands in for the file in replays.
    memory: Option<Memory>,
    tap: Option<Tap>,
}

// === impl Store ===

impl Store {
    /// Opens or makes the store in a state directory. Never fails: the worst case is memory only.
    pub fn open(dir: &Path) -> (Self, Opened) {
        let mut store = Self { dir: Some(dir.to_owned()), ..Self::off() };
        let opened = store.reopen();
        (store, opened)
    }

    /// Keeps nothing, for replays.
    #[must_use]
    pub fn off() -> Self {
        Self { dir: None, db: None, tally: StoreTally::default(), memory: None, tap: None }
    }

    /// Keeps everything in this memory.
    #[must_use]
    pub(crate) fn remembering(memory: Memory) -> Self {
        Self { memory: Some(memory), ..Self::off() }
    }

    /// Tells `tap` of every entry that is read from now on.
    pub(crate) fn tell(&mut self, tap: impl Fn(&str, &[u8]) + Send + 'static) {
        self.tap = Some(Tap::new(tap));
    }

    /// The state directory.
    #[must_use]
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Counts so far.
    #[must_use]
    pub fn tally(&self) -> StoreTally {
        self.tally
    }

    /// The entry of a subject. What cannot be read counts as not there.
    pub(super) fn read(&mut self, subject: &str) -> Option<Vec<u8>> {
        if let Some(memory) = &self.memory {
            return memory.read(subject);
        }
        let db = self.db.as_ref()?;
        let found = read_one(db, subject).unwrap_or_else(|_| {
            self.tally.unreadable += 1;
            None
        });
        if let (Some(tap), Some(stored)) = (&self.tap, &found) {
            tap.tell(subject, stored);
        }
        found
    }

    /// An entry that was read but not understood.
    pub(super) fn count_unreadable(&mut self) {
        self.tally.unreadable += 1;
    }

    /// Writes all changes or none, durably. After a failure the file is opened afresh next time.
    /// Tells whether that opening lost what was stored before (`Opened::SetAside`).
    pub(super) fn write(&mut self, changes: &[Change]) -> Result<Option<Opened>, StoreError> {
        if let Some(memory) = &self.memory {
            return if memory.write(changes) { Ok(None) } else { Err(StoreError::Full) };
        }
        let Some(dir) = &self.dir else { return Ok(None) };
        let path = dir.join(FILE);
        let reopened = self.db.is_none().then(|| self.reopen());
        let written = match (&self.db, &reopened) {
            (Some(db), _) => commit(db, changes)
                .map_err(|source| StoreError::Redb { path, source: Box::new(source) }),
            (None, Some(Opened::InMemory { reason })) => {
                Err(StoreError::Io { path, source: io::Error::other(reason.clone()) })
            }
            (None, _) => Err(StoreError::Off),
        };
        if written.is_ok() {
            self.tally.flushes += 1;
        } else {
            // redb refuses everything after a failed write until the file is opened again.
            self.tally.failures += 1;
            self.db = None;
        }
        written.map(|()| reopened)
    }

    fn reopen(&mut self) -> Opened {
        let Some(dir) = self.dir.clone() else {
            return Opened::InMemory { reason: StoreError::Off.to_string() };
        };
        if let Err(error) = fs::create_dir_all(&dir) {
            return Opened::InMemory { reason: format!("{}: {error}", dir.display()) };
        }
        let path = dir.join(FILE);
        match open_checked(&path) {
            Ok(db) => {
                self.db = Some(db);
                Opened::Ready
            }
            Err(Broken::ForNow(reason)) => {
                Opened::InMemory { reason: format!("{}: {reason}", path.display()) }
            }
            Err(Broken::ForGood(reason)) => self.set_aside(&path, reason),
        }
    }

    fn set_aside(&mut self, path: &Path, reason: String) -> Opened {
        let free = (1..ASIDE_MAX).map(|n| aside(path, n)).find(|to| !to.exists());
        let moved_to = free.unwrap_or_else(|| aside(path, ASIDE_MAX));
        if let Err(error) = fs::rename(path, &moved_to) {
            let reason = format!("{}: {reason}; not set aside: {error}", path.display());
            return Opened::InMemory { reason };
        }
        self.tally.set_aside += 1;
        match open_checked(path) {
            Ok(db) => {
                self.db = Some(db);
                Opened::SetAside { moved_to, reason }
            }
            Err(Broken::ForNow(again) | Broken::ForGood(again)) => {
                Opened::InMemory { reason: format!("{}: {again}", path.display()) }
            }
        }
    }
}

/// Every baseline of a state directory as stored (JSON) by subject, for commands that look on while the sensor runs.
///
/// # Errors
/// Where there is no store, or it is no good.
pub fn read_subjects(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let path = dir.join(FILE);
    let failed =
        |source: redb::Error| StoreError::Redb { path: path.clone(), source: Box::new(source) };
    if let Err(source) = fs::metadata(&path) {
        return Err(StoreError::Io { path: path.clone(), source });
    }
    match builder().open_read_only(&path) {
        Ok(db) => read_all(&db).map_err(failed),
        // Left behind by a kill: only a writer may repair it, and no sensor is running to do so.
        Err(DatabaseError::RepairAborted) => {
            let db = builder().open(&path).map_err(|error| failed(error.into()))?;
            read_all(&db).map_err(failed)
        }
        Err(error) => Err(failed(error.into())),
    }
}

enum Broken {
    /// Trying later may help.
    ForNow(String),
    /// The file itself is no good.
    ForGood(String),
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE).set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder
}

/// Opens with a full check of every page: a file altered by others must not be trusted. redb may
/// panic on a file made to confuse it, which must not take the sensor down.
fn open_checked(path: &Path) -> Result<Database, Broken> {
    // For root's eyes: it tells what runs here. redb would make it as the umask says.
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    if let Err(error) = options.open(path) {
        return Err(Broken::ForNow(error.to_string()));
    }
    let opened =
        catch_unwind(AssertUnwindSafe(|| builder().set_check_integrity_on_open(true).create(path)));
    let db = match opened {
        Ok(Ok(db)) => db,
        Ok(Err(error)) if is_damage(&error) => return Err(Broken::ForGood(error.to_string())),
        Ok(Err(error)) => return Err(Broken::ForNow(error.to_string())),
        Err(_) => return Err(Broken::ForGood("the store could not be understood".to_owned())),
    };
    match schema(&db) {
        Ok(SCHEMA) => Ok(db),
        Ok(other) => Err(Broken::ForGood(format!("written by another version (schema {other})"))),
        Err(redb::Error::Io(error)) => Err(Broken::ForNow(error.to_string())),
        Err(error) => Err(Broken::ForGood(error.to_string())),
    }
}

fn is_damage(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::UpgradeRequired(_)
        | DatabaseError::RepairAborted
        | DatabaseError::Storage(StorageError::Corrupted(_)) => true,
        DatabaseError::Storage(StorageError::Io(error)) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

/// The file's version; a new file gets ours.
fn schema(db: &Database) -> Result<u64, redb::Error> {
    let write = db.begin_write()?;
    let found = {
        let mut meta = write.open_table(META)?;
        let found = meta.get(SCHEMA_KEY)?.map(|value| value.value());
        if found.is_none() {
            meta.insert(SCHEMA_KEY, SCHEMA)?;
        }
        write.open_table(SUBJECTS)?;
        found
    };
    if found.is_none() {
        write.commit()?;
    } else {
        write.abort()?;
    }
    Ok(found.unwrap_or(SCHEMA))
}

fn commit(db: &Database, changes: &[Change]) -> Result<(), redb::Error> {
    let write = db.begin_write()?;
    {
        let mut table = write.open_table(SUBJECTS)?;
        for (subject, value) in changes {
            table.insert(subject.as_str(), value.as_slice())?;
        }
    }
    write.commit()?;
    Ok(())
}

fn read_one(db: &Database, subject: &str) -> Result<Option<Vec<u8>>, redb::Error> {
    let table = db.begin_read()?.open_table(SUBJECTS)?;
    Ok(table.get(subject)?.map(|value| value.value().to_vec()))
}

fn read_all(db: &impl ReadableDatabase) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
    let table = db.begin_read()?.open_table(SUBJECTS)?;
    let mut all = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        all.push((key.value().to_owned(), value.value().to_vec()));
    }
    Ok(all)
}

fn aside(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".corrupt-{n}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
