//! The directory of orders, from both sides.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};
use std::{process, thread};

use jiff::Timestamp;

use super::{Act, Answer, Order, VERSION, WriterLock};

const DIR: &str = "orders";
const ORDER: &str = "order";
const TAKEN: &str = "taken";
const ANSWER: &str = "answer";
/// Bytes of one order: an import is cut into several.
const ORDER_MAX: u64 = 4 * 1024 * 1024;
/// Orders carried out in one go, so that observations need not wait.
const TURN: usize = 4;
/// Files of the directory that are looked at.
const FILES_MAX: usize = 4096;
/// Answers that nobody fetched, and drafts of commands that were killed.
const STALE: Duration = Duration::from_hours(1);
/// How often a command looks for its answer.
const LOOK: Duration = Duration::from_millis(50);

/// Distinguishes orders of one process.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Why an order could not be left, or its answer not be had.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is larger than an order may be.
    #[error("an order of {0} bytes is more than the {ORDER_MAX} that a sensor takes")]
    Large(usize),
    /// It cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A sensor holds the store and takes no orders.
    #[error(
        "a sensor runs and took no order within {0:?}: it was withdrawn, nothing has changed; \
         is the sensor of an earlier version, or is its disk full?"
    )]
    Withdrawn(Duration),
}

/// An order that was left.
#[derive(Debug)]
pub struct Placed {
    dir: PathBuf,
    id: String,
}

/// What came of waiting for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The sensor's answer.
    Answered(Answer),
    /// The sensor has it and has not written it yet: it will, or the next sensor.
    Pending,
}

/// The sensor's side; there is none without the lock.
#[derive(Debug)]
pub(crate) struct Orders {
    dir: PathBuf,
    _lock: WriterLock,
}

/// One order that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    path: PathBuf,
    /// What is asked for, or why that cannot be told.
    pub(crate) act: Result<Act, String>,
}

// === impl Placed ===

impl Placed {
    /// Leaves an order in a state directory.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn leave(state_dir: &Path, act: Act) -> Result<Self, OrderError> {
        let dir = state_dir.join(DIR);
        let failed = |source| OrderError::Io { path: dir.clone(), source };
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let bytes = serde_json::to_vec(&Order::new(act))?;
        if bytes.len() as u64 > ORDER_MAX {
            return Err(OrderError::Large(bytes.len()));
        }
        // In order of time, and of their making.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let now = Timestamp::now().as_nanosecond();
        let placed = Self { id: format!("{now:020}-{}-{number:04}", process::id()), dir };
        write(&placed.path(ORDER), &bytes)?;
        Ok(placed)
    }

    /// Waits for the answer; withdraws the order if no sensor takes it within `patience`. One that has
    /// taken it gets as much again.
    ///
    /// # Errors
    /// Where it was withdrawn, or the files cannot be had.
    pub fn wait(self, patience: Duration) -> Result<Sent, OrderError> {
        if let Some(answer) = self.look_for(patience)? {
            return Ok(Sent::Answered(answer));
        }
        let (order, gone) = (self.path(ORDER), self.path("withdrawn"));
        if fs::rename(&order, &gone).is_ok() {
            // Whoever clears up later takes what is left.
            let _ = fs::remove_file(&gone);
            return Err(OrderError::Withdrawn(patience));
        }
        let answer = self.look_for(patience)?;
        Ok(answer.map_or(Sent::Pending, Sent::Answered))
    }

    fn look_for(&self, patience: Duration) -> Result<Option<Answer>, OrderError> {
        let path = self.path(ANSWER);
        let until = std::time::Instant::now() + patience;
        loop {
            match fs::read(&path) {
                Ok(bytes) => {
                    let answer = serde_json::from_slice(&bytes)?;
                    // It stays where nobody may remove it, and is cleared up in time.
                    let _ = fs::remove_file(&path);
                    return Ok(Some(answer));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(OrderError::Io { path, source }),
            }
            if std::time::Instant::now() >= until {
                return Ok(None);
            }
            thread::sleep(LOOK);
        }
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.dir.join(format!("{}.{extension}", self.id))
    }
}

// === impl Orders ===

impl Orders {
    /// For the sensor that holds the lock.
    pub(crate) fn new(state_dir: &Path, lock: WriterLock) -> Self {
        let orders = Self { dir: state_dir.join(DIR), _lock: lock };
        orders.clear_up();
        orders
    }

    /// Takes the oldest orders, those first that were taken before a crash. None is no error, and what
    /// cannot be read is told in its place.
    pub(crate) fn take(&self) -> Vec<Taken> {
        for path in self.files(ORDER) {
            // One that was withdrawn in this moment is gone.
            let _ = fs::rename(&path, path.with_extension(TAKEN));
        }
        let taken = self.files(TAKEN).into_iter().take(TURN);
        taken.map(|path| Taken { act: read(&path), path }).collect()
    }

    /// Oldest first.
    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let paths = entries.take(FILES_MAX).filter_map(|entry| Some(entry.ok()?.path()));
        let mut files: Vec<PathBuf> =
            paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
        files.sort_unstable();
        files
    }

    /// What nobody waits for any more.
    fn clear_up(&self) {
        let now = SystemTime::now();
        for path in [ANSWER, "withdrawn", "draft"].iter().flat_map(|kind| self.files(kind)) {
            let modified = fs::symlink_metadata(&path).and_then(|metadata| metadata.modified());
            let age = modified.ok().and_then(|then| now.duration_since(then).ok());
            if age.is_some_and(|age| age > STALE) {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

// === impl Taken ===

impl Taken {
    /// Says what became of it; only then is it over.
    pub(crate) fn answer(&self, answer: &Answer) -> Result<(), OrderError> {
        let bytes = serde_json::to_vec(answer)?;
        write(&self.path.with_extension(ANSWER), &bytes)?;
        let path = self.path.clone();
        fs::remove_file(&path).map_err(|source| OrderError::Io { path, source })
    }
}

/// An order is one only if root (or whoever the sensor runs as) has written it for itself.
fn read(path: &Path) -> Result<Act, String> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).map_err(|error| format!("the order cannot be read: {error}"))?;
    let metadata = file.metadata().map_err(|error| format!("the order cannot be read: {error}"))?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_file() || !own || metadata.mode() & 0o077 != 0 {
        return Err("the order is not a file of the sensor's user alone".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(ORDER_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("the order cannot be read: {error}"))?;
    if bytes.len() as u64 > ORDER_MAX {
        return Err(format!("the order is larger than {ORDER_MAX} bytes"));
    }
    let order: Order =
        serde_json::from_slice(&bytes).map_err(|error| format!("the order is none: {error}"))?;
    if order.version != VERSION {
        let found = order.version;
        return Err(format!("orders of version {found} are not understood: restart the sensor"));
    }
    Ok(order.act)
}

/// Complete and on the disk, or not there.
fn write(path: &Path, bytes: &[u8]) -> Result<(), OrderError> {
    let failed = |source| OrderError::Io { path: path.to_owned(), source };
    let draft = path.with_extension("draft");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let written = options.open(&draft).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&draft);
    }
    written.map_err(failed)
}
