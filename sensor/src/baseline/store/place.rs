//! Where a store's file is, and how it is opened there.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{
    Builder, ConcurrencyMode, Database, DatabaseError, ReadOnlyDatabase, ReadTransaction,
    ReadableDatabase, TransactionError,
};

use super::FILE;
use crate::incident::Overlay;

/// Page cache, bytes.
const CACHE: usize = 1024 * 1024;

/// Where the file is: a directory, or in tests a disk that fails.
pub(super) trait Place: Debug + Send {
    /// What messages call it.
    fn path(&self) -> &Path;
    /// Makes the directory and the file where they are missing.
    fn make(&self) -> io::Result<()>;
    /// Opens the file for writing, with a check of every page: one altered by others must not be
    /// trusted.
    fn open(&self) -> Result<Database, DatabaseError>;
    /// Opens it for reading, whatever state it was left in, and changes nothing.
    fn open_to_read(&self) -> Result<Reader, DatabaseError>;
    /// It is not there, or nothing was ever written to it.
    fn is_new(&self) -> bool;
    /// Makes it as if nothing ever was: what is half made is no store, and nothing to be kept.
    fn discard(&self) -> io::Result<()>;
    /// Moves it away.
    fn rename(&self, to: &Path) -> io::Result<()>;
    /// There is something at a path beside it.
    fn exists(&self, path: &Path) -> bool;
}

/// A file open for reading.
pub(super) enum Reader {
    /// Others may write to it.
    Shared(ReadOnlyDatabase),
    /// Left in the middle of a write by somebody who is gone, and repaired in memory.
    Repaired(Database),
}

// === impl Reader ===

impl Reader {
    /// What was committed until now.
    pub(super) fn begin_read(&self) -> Result<ReadTransaction, TransactionError> {
        match self {
            Self::Shared(db) => db.begin_read(),
            Self::Repaired(db) => db.begin_read(),
        }
    }
}

/// A state directory.
#[derive(Debug)]
pub(super) struct Directory {
    dir: PathBuf,
    path: PathBuf,
}

// === impl Directory ===

impl Directory {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), path: dir.join(FILE) }
    }
}

impl Place for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        // For root's eyes: it tells what runs here. redb would make it as the umask says.
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).open(&self.path).map(drop)
    }

    fn open(&self) -> Result<Database, DatabaseError> {
        writing().create(&self.path)
    }

    fn open_to_read(&self) -> Result<Reader, DatabaseError> {
        match shared().open_read_only(&self.path) {
            Ok(db) => Ok(Reader::Shared(db)),
            // Left behind by a kill: only a writer may repair it.
            Err(DatabaseError::RepairAborted) => {
                let file = fs::File::open(&self.path)?;
                repaired(FileBackend::new(file)?)
            }
            Err(error) => Err(error),
        }
    }

    fn is_new(&self) -> bool {
        fs::metadata(&self.path).map_or(true, |found| found.len() == 0)
    }

    fn discard(&self) -> io::Result<()> {
        fs::OpenOptions::new().write(true).truncate(true).open(&self.path).map(drop)
    }

    fn rename(&self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        fs::File::open(&self.dir)?.sync_all()
    }

    fn exists(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }
}

/// Opens what is left in a file, with the repair that it needs done in memory.
pub(super) fn repaired(file: impl redb::StorageBackend) -> Result<Reader, DatabaseError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder.create_with_backend(Overlay::new(file)?).map(Reader::Repaired)
}

fn shared() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE).set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder
}

fn writing() -> Builder {
    let mut builder = shared();
    builder.set_check_integrity_on_open(true);
    builder
}
