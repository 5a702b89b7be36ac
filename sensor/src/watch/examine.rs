//! One look at a root: what the loader's files are there, and marks on all that can change them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;

use super::change::Preloaded;
use super::roots::RootKey;
use super::spot::{self, Folder, Role, Spot};
use super::state::{Content, Identity, State, TOLD_MAX, fnv};
use super::sys::{self, Group, Object};
use super::walk::{Dirs, Way, key, look, walk, walk_with};
use super::{cache, text};
use crate::host::build_id_of;
use crate::pam;

/// Looks until one finds what the marks before it were put on.
const TRIES: usize = 3;
/// Bytes of a loader.
const LOADER_MAX: u64 = 8 << 20;
/// Bytes of a module of PAM.
const MODULE_MAX: u64 = 4 << 20;
/// Libraries of one preload list, or modules out of their directory, that are looked at.
const LIBRARIES_MAX: usize = 32;
/// Files of all directories of a root that are watched by name: each takes a descriptor for the
/// moment, two while a look is repeated.
const FILES_MAX: usize = 384;

/// What is watched in a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) object: Object,
    /// Which name of a directory; `None` for a file itself.
    pub(super) name: Option<Name>,
    /// Of which spot.
    pub(super) spot: Spot,
}

/// Names in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// This one.
    One(String),
    /// All that count in the directory.
    Every,
}

/// What a look found.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    pub(super) states: BTreeMap<Spot, State>,
    pub(super) watched: Vec<Watched>,
    /// Pairs of a cache that the state told last does not have, in words.
    pub(super) fresh: BTreeMap<Spot, Vec<String>>,
    /// Libraries of the preload list, and modules of PAM that are named by their whole path.
    pub(super) libraries: Vec<Preloaded>,
    /// Why something could not be marked: changes of it are found by comparison.
    pub(super) unmarked: Option<String>,
    /// Directories on the way: device and inode.
    pub(super) dirs: Vec<(u64, u64)>,
}

/// What to look at.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) root: RootKey,
    pub(super) tgid: u32,
    /// The last look.
    pub(super) before: Option<Arc<Look>>,
    /// What was told last.
    pub(super) told: BTreeMap<Spot, State>,
}

/// How a look came out.
#[derive(Debug)]
pub(super) enum Answer {
    /// As at the last look.
    Same,
    /// Something differs.
    New(Box<Look>),
    /// The process no longer has this root.
    Gone,
    /// The root cannot be looked at.
    Failed,
}

/// Looks at a root. May block for as long as its file system does.
pub(super) fn examine(group: &Group, task: &Task) -> Answer {
    let root = match task.root.open(task.tgid) {
        Ok(root) => root,
        Err(Errno::SRCH | Errno::NOENT) => return Answer::Gone,
        Err(_) => return Answer::Failed,
    };
    let mut ways = ways(root.as_fd());
    if task.before.as_ref().is_some_and(|before| same(before, &ways)) {
        return Answer::Same;
    }
    let mut look = Look::default();
    for _ in 0..TRIES {
        look = Look::default();
        mark(group, &ways, &mut look);
        // What comes after the marks raises events; what came before them is seen now.
        let again = self::ways(root.as_fd());
        let settled = shape(&again) == shape(&ways);
        ways = again;
        if settled {
            break;
        }
    }
    look.dirs = shape(&ways).0;
    for (spot, way) in ways {
        read_spot(root.as_fd(), task, &spot, way, &mut look);
    }
    look.libraries.extend(modules_elsewhere(root.as_fd(), &look.states));
    Answer::New(Box::new(look))
}

type Ways = Vec<(Spot, Result<Way, Errno>)>;

fn ways(root: BorrowedFd<'_>) -> Ways {
    let mut spots = spot::fixed();
    let mut seen = Vec::new();
    let mut left = FILES_MAX;
    for folder in spot::folders() {
        let opened = open_folder(root, folder);
        // One directory by two paths is watched once.
        if let Some((_, key)) = &opened {
            if seen.contains(key) {
                continue;
            }
            seen.push(*key);
        }
        spots.push(folder.spot());
        let files = opened.map(|(dir, _)| files(&dir, folder, left)).unwrap_or_default();
        left -= files.len();
        spots.extend(files);
    }
    let mut dirs = Dirs::default();
    let mut way = |spot: Spot| {
        let way = walk_with(root, &spot.path, &mut dirs);
        (spot, way)
    };
    spots.into_iter().map(&mut way).collect()
}

fn open_folder(root: BorrowedFd<'_>, folder: &Folder) -> Option<(OwnedFd, (u64, u64))> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let dir = openat2(root, folder.path, flags, Mode::empty(), resolve).ok()?;
    let key = key(&look(dir.as_fd()).ok()?);
    Some((dir, key))
}

fn files(dir: &OwnedFd, folder: &Folder, room: usize) -> Vec<Spot> {
    let Ok(entries) = Dir::read_from(dir) else { return Vec::new() };
    let mut found: Vec<Spot> = entries
        .take(folder.files_max * 8)
        .filter_map(|entry| folder.file(entry.ok()?.file_name().to_bytes()))
        .take(folder.files_max.min(room))
        .collect();
    found.sort();
    found
}

type Shape = (Vec<(u64, u64)>, Vec<(u64, u64)>);

/// The directories and files that marks are put on.
fn shape(ways: &Ways) -> Shape {
    let ways = || ways.iter().filter_map(|(_, way)| way.as_ref().ok());
    let dirs = ways().flat_map(|way| way.hops.iter().map(|hop| hop.dir_key)).collect();
    let file = |way: &Way| way.file.as_ref().map(|(_, id, _)| (id.dev, id.ino));
    (dirs, ways().filter_map(file).collect())
}

fn same(before: &Look, ways: &Ways) -> bool {
    let unchanged = |(spot, way): &(Spot, Result<Way, Errno>)| {
        let Some(state) = before.states.get(spot) else { return false };
        match way {
            Ok(way) => {
                let file = way.file.as_ref().map(|(_, identity, _)| *identity);
                state.links == way.links && comparable(spot, state.file) == comparable(spot, file)
            }
            Err(error) => *state.content == Content::Other(error.to_string()),
        }
    };
    before.states.len() == ways.len() && before.dirs == shape(ways).0 && ways.iter().all(unchanged)
}

/// A directory's times and sizes change with what is in it, which is looked at for itself.
fn comparable(spot: &Spot, file: Option<Identity>) -> Option<Identity> {
    let file = file?;
    if spot.folder().is_none() {
        return Some(file);
    }
    Some(Identity {
        dev: file.dev,
        ino: file.ino,
        mode: file.mode,
        uid: file.uid,
        ..Identity::default()
    })
}

fn mark(group: &Group, ways: &Ways, look: &mut Look) {
    let mut marked: BTreeMap<(u64, u64), Option<Object>> = BTreeMap::new();
    let mut put = |key, file: BorrowedFd<'_>, mask, unmarked: &mut Option<String>| {
        let object = marked.entry(key).or_insert_with(|| {
            let put = group.mark(file, mask).and_then(|()| Object::of(file));
            put.map_err(|error| *unmarked = Some(error.to_string())).ok()
        });
        object.clone()
    };
    for (spot, way) in ways {
        let Ok(way) = way else { continue };
        for hop in &way.hops {
            let object = put(hop.dir_key, hop.dir.as_fd(), sys::DIRECTORY, &mut look.unmarked);
            let name = Name::One(hop.name.clone());
            look.watched.extend(object.map(|object| Watched {
                object,
                name: Some(name),
                spot: spot.clone(),
            }));
        }
        let Some((file, identity, kind)) = &way.file else { continue };
        let key = (identity.dev, identity.ino);
        let (mask, name) = match kind {
            FileType::RegularFile => (sys::FILE, None),
            FileType::Directory if spot.folder().is_some() => (sys::DIRECTORY, Some(Name::Every)),
            _ => continue,
        };
        let object = put(key, file.as_fd(), mask, &mut look.unmarked);
        look.watched.extend(object.map(|object| Watched { object, name, spot: spot.clone() }));
    }
}

fn read_spot(
    root: BorrowedFd<'_>,
    task: &Task,
    spot: &Spot,
    way: Result<Way, Errno>,
    look: &mut Look,
) {
    let way = match way {
        Ok(way) => way,
        Err(error) => {
            let content = Arc::new(Content::Other(error.to_string()));
            look.states.insert(spot.clone(), State { content, ..State::default() });
            return;
        }
    };
    let identity = way.file.as_ref().map(|(_, identity, _)| *identity);
    let before = task.before.as_ref();
    let known = before
        .and_then(|before| before.states.get(spot))
        .filter(|state| identity.is_some() && state.file == identity && state.links == way.links);
    let content = match (known, &way.file) {
        (_, None) => Arc::default(),
        (Some(known), Some(_)) => {
            let fresh = before.and_then(|before| before.fresh.get(spot)).cloned();
            look.fresh.extend(fresh.map(|fresh| (spot.clone(), fresh)));
            Arc::clone(&known.content)
        }
        (None, Some((file, _, kind))) => Arc::new(content(task, spot, file, *kind, look)),
    };
    if spot.role == Role::Preload {
        look.libraries = libraries(root, content.entries());
    }
    look.states.insert(spot.clone(), State { links: way.links, file: identity, content });
}

fn content(task: &Task, spot: &Spot, file: &OwnedFd, kind: FileType, look: &mut Look) -> Content {
    if kind != FileType::RegularFile {
        return Content::Other(format!("{kind:?}").to_lowercase());
    }
    let opened = match reopen(file) {
        Ok(opened) => opened,
        Err(error) => return Content::Other(error.to_string()),
    };
    let limit = match spot.role {
        Role::Cache => cache::FILE_MAX,
        Role::Loader => LOADER_MAX,
        Role::PamModule => MODULE_MAX,
        Role::Preload | Role::Conf | Role::SearchPath | Role::PamService => text::FILE_MAX,
    };
    let mut bytes = Vec::new();
    if let Err(error) = (&opened).take(limit).read_to_end(&mut bytes) {
        return Content::Other(error.to_string());
    }
    match spot.role {
        Role::Preload => Content::Entries(text::preload(&bytes)),
        Role::Conf => Content::Entries(text::conf(&bytes)),
        Role::SearchPath => Content::Entries(text::search_path(&bytes)),
        Role::PamService => Content::Entries(pam::entries(&bytes)),
        Role::Loader | Role::PamModule => {
            Content::Loader { build_id: build_id_of(&opened), hash: fnv(&bytes, None) }
        }
        Role::Cache => {
            let told = task.told.get(spot).map(|state| Arc::clone(&state.content));
            let (content, fresh) = cached(&bytes, told.as_deref());
            look.fresh.insert(spot.clone(), fresh);
            content
        }
    }
}

fn cached(bytes: &[u8], told: Option<&Content>) -> (Content, Vec<String>) {
    let Some(entries) = cache::entries(bytes) else {
        return (Content::Other("no cache the loader would take".to_owned()), Vec::new());
    };
    let hashed = |(name, path): &(&[u8], &[u8])| fnv(path, Some(fnv(name, None)));
    let fresh = match told {
        Some(Content::Cache(known)) => entries
            .iter()
            .filter(|entry| !known.contains(&hashed(entry)))
            .take(TOLD_MAX)
            .map(|(name, path)| {
                format!("{} => {}", String::from_utf8_lossy(name), String::from_utf8_lossy(path))
            })
            .collect(),
        _ => Vec::new(),
    };
    (Content::Cache(entries.iter().map(hashed).collect()), fresh)
}

/// Through its descriptor: the file that was looked at, not one that has its name now.
fn reopen(file: &OwnedFd) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open(format!("/proc/self/fd/{}", file.as_raw_fd()), flags, Mode::empty()).map(File::from)
}

fn libraries(root: BorrowedFd<'_>, entries: &[String]) -> Vec<Preloaded> {
    entries.iter().take(LIBRARIES_MAX).map(|entry| library(root, entry)).collect()
}

/// Modules that services name by a path, wherever that leads.
fn modules_elsewhere(root: BorrowedFd<'_>, states: &BTreeMap<Spot, State>) -> Vec<Preloaded> {
    let services = states.iter().filter(|(spot, _)| spot.role == Role::PamService);
    let named: BTreeSet<String> = services
        .flat_map(|(spot, state)| {
            let lines = state.content.entries().iter();
            lines.filter_map(|entry| super::pam::module(&spot.path, entry))
        })
        .filter(|module| module.starts_with('/'))
        .collect();
    named.iter().take(LIBRARIES_MAX).map(|module| library(root, module)).collect()
}

fn library(root: BorrowedFd<'_>, entry: &str) -> Preloaded {
    let none = Preloaded { path: entry.to_owned(), ..Preloaded::default() };
    if !entry.starts_with('/') {
        return none;
    }
    let Ok(Way { file: Some((file, identity, FileType::RegularFile)), .. }) = walk(root, entry)
    else {
        return none;
    };
    let build_id = reopen(&file).ok().and_then(|opened| build_id_of(&opened));
    Preloaded { build_id, ..Preloaded::of(entry, &identity) }
}
