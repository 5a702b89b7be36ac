//! The embedded store: one file, one durable transaction per flush, never in anyone's way.
//!
//! A file that is damaged is set aside and reported, and so is one of a later version; one of an
//! earlier version is brought up to date. A disk that is full or read-only leaves the sensor in memory:
//! what is there can still be read, and writing is tried again at the next flush. Opened so that other
//! processes may read it while the sensor writes (`redb::ConcurrencyMode::SingleWriter`).
//!
//! Bounded in entries and bytes. Where there are too many, the least recently seen programs are
//! forgotten first, and guarded ones only once no other is left.

mod entry;
mod file;
mod memory;
mod place;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use redb::Database;
use serde::{Deserialize, Serialize};

pub(super) use entry::Entry;
pub(super) use file::Unread;
use file::{Broken, caught};
pub use memory::Memory;
use memory::Tap;
use place::{Directory, Place, Reader};

/// Of the files that this version writes. Earlier ones are brought up to it.
const SCHEMA: u64 = 2;
const FILE: &str = "baseline.redb";
/// Files kept beside the store for each reason. Beyond, the last damaged one is overwritten; of a file
/// of a later version none ever is.
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

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Baselines.
    pub count: u64,
    /// Bytes of all of them as they are stored.
    pub bytes: u64,
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
    /// Entries removed because there were too many.
    pub evicted: u64,
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
    /// Written by a later version.
    #[error(
        "{path} has schema {found} and this version knows {SCHEMA} at most: use the version that wrote it"
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
    },
    /// The store is kept in memory on purpose.
    #[error("nothing is stored in this run")]
    Off,
    /// What a replay may keep.
    #[error("the baselines of this replay are too large for its memory")]
    Full,
}

/// The store of one state directory.
pub struct Store {
    /// `None` in replays: nothing is read or written.
    place: Option<Box<dyn Place>>,
    db: Option<Database>,
    /// To read by while nothing can be written.
    reader: Option<Reader>,
    /// It could not be had since the last attempt to write.
    unreadable_for_now: bool,
    bounds: Bounds,
    /// A file was set aside, and nothing was written since.
    fresh: Option<Opened>,
    tally: StoreTally,
    /// Stands in for the file in replays.
    memory: Option<Memory>,
    tap: Option<Tap>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { count: 4096, bytes: 64 * 1024 * 1024 }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, bounds, tally, .. } = self;
        let store = &mut f.debug_struct("Store");
        store.field("place", place).field("bounds", bounds).field("tally", tally);
        store.finish_non_exhaustive()
    }
}

// === impl Store ===

impl Store {
    /// Opens or makes the store in a state directory. Never fails: the worst case is memory only.
    pub fn open(dir: &Path) -> (Self, Opened) {
        Self::at(Box::new(Directory::new(dir)))
    }

    fn at(place: Box<dyn Place>) -> (Self, Opened) {
        let mut store = Self { place: Some(place), ..Self::off() };
        let opened = store.reopen();
        if matches!(opened, Opened::SetAside { .. }) {
            store.fresh = None;
        }
        (store, opened)
    }

    /// Keeps nothing, for replays.
    #[must_use]
    pub fn off() -> Self {
        Self {
            place: None,
            db: None,
            reader: None,
            unreadable_for_now: false,
            bounds: Bounds::default(),
            fresh: None,
            tally: StoreTally::default(),
            memory: None,
            tap: None,
        }
    }

    /// Keeps everything in this memory.
    #[must_use]
    pub(crate) fn remembering(memory: Memory) -> Self {
        Self { memory: Some(memory), ..Self::off() }
    }

    /// Tells `tap` of every entry that is read from now on, as JSON.
    pub(crate) fn tell(&mut self, tap: impl Fn(&str, &[u8]) + Send + 'static) {
        self.tap = Some(Tap::new(tap));
    }

    /// The same with other bounds.
    #[must_use]
    pub fn bounded(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// Counts so far.
    #[must_use]
    pub fn tally(&self) -> StoreTally {
        self.tally
    }

    /// Nothing is read or written.
    pub(super) fn is_off(&self) -> bool {
        self.place.is_none() && self.memory.is_none()
    }

    /// Bytes that may be kept.
    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The entry of a subject. One that is damaged counts as not there, and is counted.
    ///
    /// While nothing can be written what is there can mostly be read; else `Err`: it must not be
    /// overwritten by what is learned meanwhile.
    pub(super) fn read(&mut self, subject: &str) -> Result<Option<Entry>, Unread> {
        if let Some(memory) = &self.memory {
            return Ok(memory.read(subject).and_then(|json| Entry::of_json(&json)));
        }
        let Some(place) = &self.place else { return Ok(None) };
        if self.db.is_none() && self.reader.is_none() && !self.unreadable_for_now {
            self.reader = caught(|| place.open_to_read()).ok();
            self.unreadable_for_now = self.reader.is_none();
        }
        let begun = match (&self.db, &self.reader) {
            (Some(db), _) => caught(|| redb::ReadableDatabase::begin_read(db)),
            (None, Some(reader)) => caught(|| reader.begin_read()),
            (None, None) => return Err(Unread::ForNow),
        };
        let found = begun.map_err(Unread::from).and_then(|read| {
            caught(|| Ok::<_, redb::Error>(file::read_one(&read, subject)))
                .unwrap_or(Err(Unread::Damaged))
        });
        match found {
            Ok(entry) => {
                if let (Some(tap), Some(json)) = (&self.tap, entry.as_ref().and_then(Entry::json)) {
                    tap.tell(subject, &json);
                }
                Ok(entry)
            }
            Err(Unread::Damaged) => {
                self.tally.unreadable += 1;
                Ok(None)
            }
            Err(Unread::ForNow) => {
                // redb refuses everything after a failure until the file is opened again.
                self.unreadable_for_now = self.db.is_none();
                self.close();
                Err(Unread::ForNow)
            }
        }
    }

    /// An entry that was read but not understood.
    pub(super) fn count_unreadable(&mut self) {
        self.tally.unreadable += 1;
    }

    /// Opens the file again where a failure has closed it.
    pub(super) fn ready(&mut self) -> Result<(), StoreError> {
        if self.memory.is_some() {
            return Ok(());
        }
        let Some(place) = &self.place else { return Err(StoreError::Off) };
        if self.db.is_some() {
            return Ok(());
        }
        let path = place.path().to_owned();
        let Opened::InMemory { reason } = self.reopen() else { return Ok(()) };
        self.tally.failures += 1;
        Err(StoreError::Io { path, source: io::Error::other(reason) })
    }

    /// Writes all changes or none, durably. After a failure the file is opened afresh next time.
    /// Tells whether an opening has lost what was stored before (`Opened::SetAside`).
    pub(super) fn write(
        &mut self,
        changes: &[(&str, &Entry)],
    ) -> Result<Option<Opened>, StoreError> {
        if self.is_off() {
            return Ok(None);
        }
        if let Some(memory) = &self.memory {
            let json = changes
                .iter()
                .map(|(subject, entry)| (String::from(*subject), entry.json().unwrap_or_default()));
            let fits = memory.write(&json.collect::<Vec<_>>());
            return if fits { Ok(None) } else { Err(StoreError::Full) };
        }
        self.ready()?;
        let (Some(place), Some(db)) = (&self.place, &self.db) else { return Err(StoreError::Off) };
        match caught(|| file::commit(db, changes, self.bounds)) {
            Ok(evicted) => {
                self.tally.flushes += 1;
                self.tally.evicted += evicted;
                Ok(self.fresh.take())
            }
            Err(source) => {
                let path = place.path().to_owned();
                self.tally.failures += 1;
                self.close();
                Err(StoreError::Redb { path, source: Box::new(source) })
            }
        }
    }

    /// Lets go of the file: it cannot be opened while it is open.
    fn close(&mut self) {
        let open = (self.db.take(), self.reader.take());
        // What a panic has left behind may panic once more.
        let _ = caught(|| {
            drop(open);
            Ok::<_, redb::Error>(())
        });
    }

    fn reopen(&mut self) -> Opened {
        self.close();
        self.unreadable_for_now = false;
        match self.open_file() {
            Ok(()) => Opened::Ready,
            Err(Broken::InUse(reason) | Broken::ForNow(reason)) => self.in_memory(&reason),
            Err(Broken::Damaged(reason)) => self.set_aside("corrupt", true, reason),
            Err(Broken::Newer(found)) => {
                let reason = format!(
                    "written by a later version (schema {found}, this one knows {SCHEMA} at most); to \
                     use it with that version, move it back"
                );
                self.set_aside("newer", false, reason)
            }
        }
    }

    fn open_file(&mut self) -> Result<(), Broken> {
        let Some(place) = &self.place else {
            return Err(Broken::ForNow(StoreError::Off.to_string()));
        };
        place.make().map_err(|error| Broken::ForNow(error.to_string()))?;
        let new = place.is_new();
        let opened = file::open(|| place.open());
        if new && matches!(opened, Err(Broken::ForNow(_))) {
            // It would be taken for damage next time.
            let _ = place.discard();
        }
        let (db, unreadable) = opened?;
        self.db = Some(db);
        self.tally.unreadable += unreadable;
        Ok(())
    }

    fn set_aside(&mut self, why: &str, overwrite: bool, reason: String) -> Opened {
        let Some(place) = &self.place else { return self.in_memory(&reason) };
        let Some(moved_to) = aside(place.as_ref(), why, overwrite) else {
            let there = format!("{reason}; not set aside: there are {ASIDE_MAX} already");
            return self.in_memory(&there);
        };
        if let Err(error) = place.rename(&moved_to) {
            return self.in_memory(&format!("{reason}; not set aside: {error}"));
        }
        self.tally.set_aside += 1;
        let opened = Opened::SetAside { moved_to, reason };
        self.fresh = Some(opened.clone());
        match self.open_file() {
            Ok(()) => opened,
            Err(Broken::InUse(again) | Broken::ForNow(again) | Broken::Damaged(again)) => {
                self.in_memory(&again)
            }
            Err(Broken::Newer(found)) => self.in_memory(&format!("schema {found}")),
        }
    }

    fn in_memory(&self, reason: &str) -> Opened {
        let path = self.place.as_ref().map_or(Path::new(FILE), |place| place.path());
        Opened::InMemory { reason: format!("{}: {reason}", path.display()) }
    }
}

/// A name beside the file that is free; the last one anyway where it may be overwritten.
fn aside(place: &dyn Place, why: &str, overwrite: bool) -> Option<PathBuf> {
    let name = |n: u32| {
        let mut name = place.path().as_os_str().to_owned();
        name.push(format!(".{why}-{n}"));
        PathBuf::from(name)
    };
    let free = (1..=ASIDE_MAX).map(name).find(|to| !place.exists(to));
    free.or_else(|| overwrite.then(|| name(ASIDE_MAX)))
}

/// Every baseline of a state directory as JSON by subject, for commands that look on while the sensor
/// runs. Changes nothing.
///
/// # Errors
/// Where there is no store, it is no good, or of a later version.
pub fn read_subjects(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let place = Directory::new(dir);
    let path = place.path().to_owned();
    if let Err(source) = fs::metadata(&path) {
        return Err(StoreError::Io { path, source });
    }
    let found = caught(|| place.open_to_read())
        .and_then(|reader| caught(|| file::read_all(&reader.begin_read()?)));
    match found {
        Ok(Ok(all)) => Ok(all),
        Ok(Err(found)) => Err(StoreError::Schema { path, found }),
        Err(source) => Err(StoreError::Redb { path, source: Box::new(source) }),
    }
}

#[cfg(test)]
mod tests;
