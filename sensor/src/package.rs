//! Which distribution package a file belongs to, and whether it is what the package brought: the
//! records of dpkg, apk and rpm, read directly, on the host and in containers.
//!
//! Nothing here is to be called where waiting is not allowed: databases are files. What a container
//! holds is hostile, and believed no further than as its own word: that a file is recorded there
//! says nothing against its owner having written both.

mod apk;
mod database;
pub mod digest;
mod dpkg;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub mod history;
mod index;
mod lines;
mod origin;
mod os_release;
mod owned;
mod path;
mod root;
mod rpm;

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::database::{Built, Database, full};
use self::digest::Digest;
use self::lines::Budget;
use self::root::Stamp;

pub use self::error::PackageError;
pub use self::origin::{Content, Origin, Owner};
pub use self::owned::{Distro, Manager, Owned, Verdict};
pub use self::root::{Root, RootKey};

const MANAGERS: [Manager; 3] = [Manager::Dpkg, Manager::Apk, Manager::Rpm];
/// A database is read anew at most this often, and at most a twentieth of the time: dpkg and rpm
/// write theirs many times during one upgrade.
const REST: Duration = Duration::from_secs(2);
const REST_FACTOR: u32 = 20;
/// What one question may cost beyond that: the records of a few packages are read.
const RECORD_BYTES: u64 = 256 << 20;
const RECORD_TIME: Duration = Duration::from_secs(2);

/// Bounds of [`Packages`].
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Roots remembered.
    pub roots: usize,
    /// Heap bytes of the indexes remembered; the one in use may be larger.
    pub bytes: usize,
    /// Bytes read for one database.
    pub read_bytes: u64,
    /// Time spent on reading one database.
    pub read_time: Duration,
    /// Changes kept until they are taken.
    pub changes: usize,
}

/// Knows the packages of every root it was asked about lately.
#[derive(Debug)]
pub struct Packages {
    bounds: Bounds,
    views: HashMap<RootKey, View>,
    clock: u64,
    changes: VecDeque<Change>,
    changes_dropped: u64,
}

/// A package that was installed, upgraded or removed between two readings of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub root: RootKey,
    /// By whom.
    pub manager: Manager,
    /// Name of the package.
    pub package: String,
    /// Its architecture.
    pub arch: String,
    /// The version before, with rpm's epoch; `None` where there was none.
    pub old: Option<String>,
    /// The version now; `None` where there is none any more.
    pub new: Option<String>,
    /// When, as the database or its log tells.
    pub at: Option<Timestamp>,
}

/// How much is remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Roots.
    pub roots: usize,
    /// Indexes; containers of one image share theirs.
    pub indexes: usize,
    /// Paths in the indexes.
    pub paths: usize,
    /// Heap bytes of the indexes, nearly.
    pub bytes: usize,
    /// Changes that nobody took in time.
    pub changes_dropped: u64,
}

/// What a database says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    digest: Option<Digest>,
    config: bool,
    /// When the record was written.
    written: Option<Timestamp>,
}

/// One root's databases.
#[derive(Debug)]
struct View {
    distro: Distro,
    overlay: bool,
    slots: Vec<Slot>,
    used: u64,
}

/// One manager's database, or why it cannot be read.
#[derive(Debug)]
struct Slot {
    manager: Manager,
    stamps: Vec<Option<Stamp>>,
    state: Result<Arc<Database>, String>,
    built: Instant,
    took: Duration,
    /// The files are newer than what was read from them.
    stale: bool,
}

// === impl Bounds ===

impl Default for Bounds {
    fn default() -> Self {
        Self {
            roots: 4096,
            bytes: 16 << 20,
            read_bytes: 512 << 20,
            read_time: Duration::from_secs(10),
            changes: 4096,
        }
    }
}

// === impl Packages ===

impl Packages {
    /// Knows nothing yet.
    pub fn new(bounds: Bounds) -> Self {
        let (views, changes) = (HashMap::new(), VecDeque::new());
        Self { bounds, views, clock: 0, changes, changes_dropped: 0 }
    }

    /// The package that owns a file, `None` if no package does. `path` is absolute inside `root`,
    /// as the kernel resolved it: a symbolic link is answered for itself, not for what it leads to.
    ///
    /// The first question about a root reads its database (tens of milliseconds for a host);
    /// later ones read the records of the package alone.
    ///
    /// # Errors
    ///
    /// [`PackageError::NoDatabase`] and [`PackageError::Unsupported`] where there is nothing to ask,
    /// [`PackageError::Changing`] while a package manager is at work, others where the database
    /// cannot be read. None of them means that the file has no owner.
    pub fn owner(&mut self, root: &Root, path: &Path) -> Result<Option<Owned>, PackageError> {
        self.refresh(root)?;
        let Some(view) = self.views.get(&root.key()) else { return Err(PackageError::NoDatabase) };
        let budget = Budget::new(RECORD_BYTES, RECORD_TIME);
        let path = plain(root, path);
        let mut error = None;
        for slot in &view.slots {
            match slot.owner(root, &path, &view.distro, &budget) {
                Ok(None) => {}
                Ok(owned) => return Ok(owned),
                Err(failed) => error = Some(failed),
            }
        }
        error.map_or(Ok(None), Err)
    }

    /// The distribution of a root that was asked about.
    pub fn distro(&self, root: RootKey) -> Option<&Distro> {
        self.views.get(&root).map(|view| &view.distro)
    }

    /// The changes noticed since this was last asked, oldest first.
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.changes.drain(..).collect()
    }

    /// How much is remembered.
    pub fn held(&self) -> Held {
        let mut held = Held {
            roots: self.views.len(),
            changes_dropped: self.changes_dropped,
            ..Held::default()
        };
        let mut seen: HashSet<*const Database> = HashSet::new();
        for database in self.views.values().flat_map(View::databases) {
            if seen.insert(Arc::as_ptr(database)) {
                held.indexes += 1;
                held.paths += database.index().len();
                held.bytes += database.bytes();
            }
        }
        held
    }

    /// Sees to it that the databases of `root` are known as they are now, or nearly.
    fn refresh(&mut self, root: &Root) -> Result<(), PackageError> {
        let mut found = Vec::new();
        let mut unsupported = None;
        for manager in MANAGERS {
            match database::stamps(manager, root) {
                Ok(None) => {}
                Ok(Some(stamps)) => found.push((manager, stamps)),
                Err(error @ PackageError::Unsupported { .. }) => unsupported = Some(error),
                Err(error) => return Err(error),
            }
        }
        if found.is_empty() {
            self.views.remove(&root.key());
            return Err(unsupported.unwrap_or(PackageError::NoDatabase));
        }
        self.clock += 1;
        let mut view = self.views.remove(&root.key()).unwrap_or_else(|| View::new(root));
        view.used = self.clock;
        view.slots.retain(|slot| found.iter().any(|(manager, _)| *manager == slot.manager));
        let mut is_new = false;
        for (manager, stamps) in found {
            is_new |= self.refresh_slot(root, &mut view, manager, stamps);
        }
        self.views.insert(root.key(), view);
        if is_new {
            self.evict(root.key());
        }
        Ok(())
    }

    /// Whether there is a new index.
    fn refresh_slot(
        &mut self,
        root: &Root,
        view: &mut View,
        manager: Manager,
        stamps: Vec<Option<Stamp>>,
    ) -> bool {
        let number = view.slots.iter().position(|slot| slot.manager == manager);
        if let Some(slot) = number.and_then(|number| view.slots.get_mut(number)) {
            slot.stale = slot.stamps != stamps;
            if !slot.stale || slot.built.elapsed() < REST.max(slot.took * REST_FACTOR) {
                return false;
            }
        } else {
            view.distro = os_release::read(root);
        }
        let slot = self.shared(view, manager, &stamps).unwrap_or_else(|| {
            let budget = Budget::new(self.bounds.read_bytes, self.bounds.read_time);
            Slot::build(manager, root, stamps, &budget)
        });
        let old = number.map(|number| view.slots.swap_remove(number));
        if let (Some(Ok(old)), Ok(new)) = (old.map(|old| old.state), &slot.state) {
            self.note(old.changes(new, root.key()));
        }
        view.slots.push(slot);
        true
    }

    /// The index of another container of the same image: on overlays, inode and times of every
    /// file of the database agree, and they cannot be chosen.
    fn shared(&self, view: &View, manager: Manager, stamps: &[Option<Stamp>]) -> Option<Slot> {
        if !view.overlay {
            return None;
        }
        let slots = self.views.values().filter(|other| other.overlay).flat_map(|view| &view.slots);
        let mut same = slots.filter(|slot| slot.manager == manager && !slot.stale);
        let slot = same.find(|slot| {
            slot.stamps.len() == stamps.len()
                && slot.stamps.iter().zip(stamps).all(|(one, other)| same_inode(*one, *other))
        })?;
        let database = Arc::clone(slot.state.as_ref().ok()?);
        Some(Slot {
            manager,
            stamps: stamps.to_vec(),
            state: Ok(database),
            built: Instant::now(),
            took: Duration::ZERO,
            stale: false,
        })
    }

    fn note(&mut self, changes: Vec<Change>) {
        for change in changes {
            if self.changes.len() >= self.bounds.changes {
                self.changes.pop_front();
                self.changes_dropped += 1;
            }
            self.changes.push_back(change);
        }
    }

    /// Forgets the roots that were not asked about for the longest time.
    fn evict(&mut self, keep: RootKey) {
        loop {
            let held = self.held();
            if held.roots <= self.bounds.roots && held.bytes <= self.bounds.bytes {
                return;
            }
            let others = self.views.iter().filter(|(key, _)| **key != keep);
            let Some((oldest, _)) = others.min_by_key(|(_, view)| view.used) else { return };
            let oldest = *oldest;
            self.views.remove(&oldest);
        }
    }
}

impl Default for Packages {
    fn default() -> Self {
        Self::new(Bounds::default())
    }
}

/// The path without `.` and doubled slashes. One with `..` in it no kernel gave: links decide where
/// it leads.
fn plain(root: &Root, path: &Path) -> PathBuf {
    if path.components().any(|component| component == Component::ParentDir) {
        return root.resolve(path);
    }
    path.components().collect()
}

fn same_inode(one: Option<Stamp>, other: Option<Stamp>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == Stamp { dev: one.dev, ..other },
        (None, None) => true,
        _ => false,
    }
}

// === impl View ===

impl View {
    fn new(root: &Root) -> Self {
        Self { distro: Distro::default(), overlay: root.is_overlay(), slots: Vec::new(), used: 0 }
    }

    fn databases(&self) -> impl Iterator<Item = &Arc<Database>> {
        self.slots.iter().filter_map(|slot| slot.state.as_ref().ok())
    }
}

// === impl Slot ===

impl Slot {
    fn build(manager: Manager, root: &Root, stamps: Vec<Option<Stamp>>, budget: &Budget) -> Self {
        let start = Instant::now();
        let built = Database::build(manager, root, budget);
        let now = database::stamps(manager, root).ok().flatten();
        let is_stale = now.as_ref() != Some(&stamps);
        let state = built.map(Arc::new).map_err(|error| describe(&error));
        Self {
            manager,
            stamps,
            state,
            built: Instant::now(),
            took: start.elapsed(),
            stale: is_stale,
        }
    }

    fn owner(
        &self,
        root: &Root,
        path: &Path,
        distro: &Distro,
        budget: &Budget,
    ) -> Result<Option<Owned>, PackageError> {
        let manager = self.manager;
        let path = path.as_os_str().as_bytes();
        match &self.state {
            Ok(database) => match database.owner(root, path, distro, budget) {
                Ok(None) | Err(PackageError::Malformed { .. }) if self.stale => {
                    Err(PackageError::Changing { manager })
                }
                other => other,
            },
            Err(_) if self.stale => Err(PackageError::Changing { manager }),
            Err(reason) => Err(PackageError::Unreadable { manager, reason: reason.clone() }),
        }
    }
}

/// An error with its causes in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
