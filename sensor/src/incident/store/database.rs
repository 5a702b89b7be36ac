//! The database file: its tables, how it is opened, and what redb's errors mean here.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition,
};
use rustix::fs::OFlags;

use super::error::StoreError;
use super::overlay::Overlay;

/// Raised when a reader of the former schema would misread the tables.
pub(super) const SCHEMA: u64 = 1;
/// The store is small and read rarely.
const CACHE_BYTES: usize = 1024 * 1024;

/// Id to JSON of the entry.
pub(super) const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
/// Nanosecond it opened and id, to its bytes and whether it is open.
pub(super) const ORDER: TableDefinition<'_, (i128, &str), (u64, bool)> =
    TableDefinition::new("order");
/// `schema`, and `bytes` of all entries.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// What redb can fail with, as one.
pub(super) type Failure = redb::Error;

/// Opens for writing; makes the file (mode 0600) and its tables where they are missing. Verifies
/// every page, since redb may panic later over a file that somebody else changed.
pub(super) fn open(path: &Path) -> Result<Database, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow())
        .open(path)
        .map_err(|source| StoreError::Io { action: "open", path: path.to_owned(), source })?;
    let database = guarded(path, || build(FileBackend::new(file)?))?;
    let found = guarded(path, || {
        let write = database.begin_write()?;
        write.open_table(ENTRIES)?;
        write.open_table(ORDER)?;
        let found = {
            let mut meta = write.open_table(META)?;
            let found = meta.get("schema")?.map(|found| found.value());
            if found.is_none() {
                meta.insert("schema", SCHEMA)?;
            }
            found.unwrap_or(SCHEMA)
        };
        write.commit()?;
        Ok(found)
    })?;
    same_schema(path, found)?;
    Ok(database)
}

/// Opens for reading; changes nothing on the disk, also where a killed sensor left work to do.
pub(super) fn open_read_only(path: &Path) -> Result<Database, StoreError> {
    let file = match OpenOptions::new().read(true).custom_flags(no_follow()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        Err(source) => {
            return Err(StoreError::Io { action: "open", path: path.to_owned(), source });
        }
    };
    let overlay =
        FileBackend::new(file).map_err(Failure::from).and_then(|file| Ok(Overlay::new(file)?));
    let overlay = overlay.map_err(|failure| typed(path, failure))?;
    let database = guarded(path, || build(overlay))?;
    let found = read(path, &database, |read| {
        Ok(read.open_table(META)?.get("schema")?.map_or(0, |found| found.value()))
    })?;
    same_schema(path, found)?;
    Ok(database)
}

fn build(backend: impl StorageBackend) -> Result<Database, Failure> {
    Ok(Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .create_with_backend(backend)?)
}

/// Runs `work` in one read transaction.
pub(super) fn read<T>(
    path: &Path,
    database: &Database,
    work: impl FnOnce(&ReadTransaction) -> Result<T, Failure>,
) -> Result<T, StoreError> {
    guarded(path, || work(&database.begin_read()?))
}

/// Runs `work` on the database. redb's open trusts a file that was closed in order and may panic
/// over one that was changed since (its documentation says so); that is damage like any other.
pub(super) fn guarded<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|failure| typed(path, failure)),
        Err(_) => Err(StoreError::Corrupt {
            path: path.to_owned(),
            reason: "the database gave up on it".to_owned(),
        }),
    }
}

/// Makes the rename or the creation of a file last.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn same_schema(path: &Path, found: u64) -> Result<(), StoreError> {
    if found == SCHEMA {
        return Ok(());
    }
    Err(StoreError::Schema { path: path.to_owned(), found, supported: SCHEMA })
}

fn typed(path: &Path, failure: Failure) -> StoreError {
    let path = path.to_owned();
    match failure {
        Failure::DatabaseAlreadyOpen | Failure::LockProtocolMismatch => StoreError::InUse { path },
        Failure::Io(source) if !is_damage(&source) => {
            StoreError::Io { action: "use", path, source }
        }
        // Begun and killed before its first commit, or empty.
        Failure::TableDoesNotExist(_) => StoreError::Missing { path },
        Failure::PreviousIo => {
            let source = io::Error::other("an earlier write to it failed");
            StoreError::Io { action: "use", path, source }
        }
        other => StoreError::Corrupt { path, reason: other.to_string() },
    }
}

/// Not a database, or one that ends too early.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn no_follow() -> i32 {
    i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default()
}
