use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

mod rules;
mod weak;

/// A file system in memory: files by path, directories by owner and mode.
#[derive(Default)]
pub(super) struct Disk {
    files: BTreeMap<PathBuf, FileId>,
    directories: BTreeMap<PathBuf, Inode>,
}

impl View for Disk {
    fn file(&self, path: &Path) -> Option<FileId> {
        self.files.get(&writers::plain(path)).copied()
    }

    fn directory(&self, path: &Path) -> Directory {
        self.directories.get(path).map_or(Directory::Absent, |inode| Directory::Is(*inode))
    }
}

impl Disk {
    /// A file of root's, and its directories.
    pub(super) fn put(&mut self, path: &str) -> FileId {
        let file = FileId { ino: 100 + self.files.len() as u64, size: 1 };
        self.files.insert(path.into(), file);
        for above in Path::new(path).ancestors().skip(1) {
            let inode = Inode { uid: 0, gid: 0, mode: 0o755 };
            self.directories.entry(above.to_owned()).or_insert(inode);
        }
        file
    }

    pub(super) fn make(&mut self, path: &str, uid: u32, mode: u32) {
        self.put(&format!("{path}/.keep"));
        self.directories.insert(path.into(), Inode { uid, gid: uid, mode });
    }
}

/// A process being put together.
pub(super) struct Case {
    pub(super) disk: Disk,
    pub(super) start: Start,
}

impl Case {
    /// `/opt/app/bin/run` with these lists.
    pub(super) fn new(names: Names) -> Self {
        let mut disk = Disk::default();
        let start = Start {
            loader: Loader::Glibc,
            secure: false,
            euid: 0,
            modules: Vec::new(),
            interpreter: None,
            library_path: None,
            preloads: Vec::new(),
            cache: Arc::default(),
            system: vec!["/lib".into(), "/usr/lib".into()],
            cwd: Some("/work".into()),
        };
        disk.make("/work", 0, 0o755);
        let mut case = Self { disk, start };
        case.module("/opt/app/bin/run", names);
        case
    }

    pub(super) fn module(&mut self, path: &str, names: Names) -> FileId {
        let file = self.disk.put(path);
        let names = Arc::new(names);
        self.start.modules.push(Module { path: path.into(), file, owner: Some(0), names });
        file
    }

    pub(super) fn library(&mut self, path: &str) -> FileId {
        self.module(path, Names::default())
    }

    pub(super) fn cached(&mut self, name: &str, path: &str) {
        let mut cache: HashMap<_, _> = HashMap::clone(&self.start.cache);
        cache.entry(name.to_owned()).or_default().push(path.into());
        self.start.cache = Arc::new(cache);
    }

    pub(super) fn explain(&self, file: FileId) -> Found {
        let module = self.start.modules.iter().find(|module| module.file == file).unwrap();
        self.start.explain(file, &module.path, &self.disk)
    }

    pub(super) fn found_by(&self, file: FileId) -> String {
        self.explain(file).found_by()
    }
}

pub(super) fn needs(needed: &[&str]) -> Names {
    Names { needed: needed.iter().map(|name| (*name).to_owned()).collect(), ..Names::default() }
}

pub(super) fn runpath(needed: &[&str], list: &str) -> Names {
    Names { runpath: Some(list.to_owned()), ..needs(needed) }
}

pub(super) fn rpath(needed: &[&str], list: &str) -> Names {
    Names { rpath: Some(list.to_owned()), ..needs(needed) }
}

proptest! {
    #[test]
    fn any_input_is_answered_within_bounds(
        lists in prop::collection::vec("[$OIG{}LB:;/. a-z]{0,40}", 0..6),
        names in prop::collection::vec("[$ORIGN{}/.a-c]{0,12}", 0..6),
        variable in prop::option::of("[$ORIGN:;/.a-c]{0,40}"),
        musl: bool,
        secure: bool,
        absent: bool,
    ) {
        let mut case = Case::new(needs(&[]));
        case.start.loader = if musl { Loader::Musl } else { Loader::Glibc };
        case.start.secure = secure;
        case.start.library_path = variable;
        case.start.cwd = (!absent).then(|| "/tmp".into());
        for (at, list) in lists.iter().enumerate() {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let names = if at % 2 == 0 { rpath(&names, list) } else { runpath(&names, list) };
            case.module(&format!("/x/{at}/liba.so.{at}"), names);
        }
        for preload in &names {
            case.start.preloads.push((Preload::Variable, preload.clone()));
        }
        for module in &case.start.modules {
            let found = case.start.explain(module.file, &module.path, &case.disk);
            let _ = (found.found_by(), found.asked_by());
            prop_assert!(found.weak.iter().all(|weak| !weak.to_string().is_empty()));
        }
    }
}
