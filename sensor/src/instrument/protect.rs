//! Files in which nobody else's probe belongs: guarded programs, PAM, libcrypto, the C library and
//! its loader.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::Uprobe;
use super::mounted::Mounted;
use crate::config::GuardedProgram;
use crate::event::FileKey;
use crate::filesystem;
use crate::host::{Aside, Outside, Procfs};
use crate::symbol;

/// A process whose mappings were not told in time is not asked again for this long.
const STUCK_FOR: Duration = Duration::from_mins(10);
/// Such processes remembered.
const STUCK_MAX: usize = 1024;

/// What a protected file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// The C library or its loader: in every program.
    Base,
    /// A guarded program, or a library that secrets pass through.
    Guarded,
}

/// Where a uprobe sits, as far as that matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// The file's path, as the host sees it.
    pub path: String,
    /// What it is.
    pub class: Class,
    /// Nearest function and the distance, bytes.
    pub symbol: Option<(String, u64)>,
}

/// Knows protected files by name and, through running processes, by identity. Whatever may wait for
/// somebody else's answer is asked on another thread.
#[derive(Debug)]
pub(super) struct Protected {
    /// Paths without the leading slash.
    tails: Vec<PathBuf>,
    paths: Vec<PathBuf>,
    /// Protected files that processes have mapped; until [`Self::forget`].
    mapped: Option<HashMap<Identity, (PathBuf, Class)>>,
    files: Aside<()>,
    /// Processes, by id and start, that hold their list of mappings locked, and since when.
    stuck: HashMap<(u32, u64), Instant>,
}

/// A file by what a path, a link and a mount cannot change.
type Identity = (u64, u64);

// === impl Protected ===

impl Protected {
    pub(super) fn new(guarded: &[GuardedProgram]) -> Self {
        let paths: Vec<PathBuf> = guarded.iter().map(|program| program.path.clone()).collect();
        let tail = |path: &PathBuf| path.strip_prefix("/").unwrap_or(path).to_owned();
        let tails = paths.iter().map(tail).filter(|tail| tail.components().next().is_some());
        let files = Aside::new("instrument-files", || ());
        Self { tails: tails.collect(), paths, mapped: None, files, stuck: HashMap::new() }
    }

    /// By name alone.
    fn class(&self, path: &Path) -> Option<Class> {
        if self.tails.iter().any(|tail| path.ends_with(tail)) {
            return Some(Class::Guarded);
        }
        library(path.file_name()?.to_str()?)
    }

    /// Where the probe sits; `None` where that is no protected file. The kernel's word for the file
    /// counts; where there is only a path, what it leads to now does, and the path itself.
    pub(super) fn site(&mut self, probe: &Uprobe) -> Option<Site> {
        let path = Path::new(&probe.path);
        let known = probe.file.map(|key| (key.ino, key.size));
        let there = if known.is_some() { known } else { self.identity(path) };
        let (shown, class) = match (there, self.class(path)) {
            (Some(identity), named) => match self.find(identity) {
                Some(found) => found,
                None => (path.to_owned(), named?),
            },
            (None, named) => (path.to_owned(), named?),
        };
        let (place, offset) = (shown.clone(), probe.offset);
        let symbol = self.files.ask(move |()| symbol_at(&place, known, offset)).flatten();
        Some(Site { path: shown.to_string_lossy().into_owned(), class, symbol })
    }

    /// A guarded program of this host, or a file that some process has mapped, under whatever name
    /// the prober reached it.
    fn find(&mut self, wanted: Identity) -> Option<(PathBuf, Class)> {
        for path in self.paths.clone() {
            if self.identity(&path) == Some(wanted) {
                return Some((path, Class::Guarded));
            }
        }
        if self.mapped.is_none() {
            self.mapped = Some(self.look());
        }
        self.mapped.as_ref()?.get(&wanted).cloned()
    }

    /// Protected files that processes have mapped, but for processes that keep the look waiting.
    fn look(&mut self) -> HashMap<Identity, (PathBuf, Class)> {
        self.stuck.retain(|_, since| since.elapsed() < STUCK_FOR);
        let mut all: HashMap<Identity, (PathBuf, Class)> = HashMap::new();
        let covered = Mounted::now().covered(Path::new("/proc"));
        let is_clear = |tgid: &u32| !covered.contains(tgid);
        for tgid in Procfs.processes().into_iter().filter(is_clear) {
            for (path, key) in self.libraries(tgid) {
                let Some(class) = self.class(&path) else { continue };
                let found = (path, class);
                let known = all.entry((key.ino, key.size)).or_insert_with(|| found.clone());
                // A file can be made to look like another one: the graver view counts.
                if found.1 > known.1 {
                    *known = found;
                }
            }
        }
        all
    }

    fn libraries(&mut self, tgid: u32) -> Vec<(PathBuf, FileKey)> {
        let Some(stat) = Procfs.stat(tgid) else { return Vec::new() };
        let process = (tgid, stat.start_ticks);
        if self.stuck.contains_key(&process) {
            return Vec::new();
        }
        let answer = self.files.ask(move |()| Procfs.libraries(tgid));
        if answer.is_none() && self.stuck.len() < STUCK_MAX {
            self.stuck.insert(process, Instant::now());
        }
        answer.unwrap_or_default()
    }

    fn identity(&mut self, path: &Path) -> Option<Identity> {
        let path = path.to_owned();
        self.files.ask(move |()| identity(&path)).flatten()
    }

    /// Questions that were given up, and processes that are not asked any more for now.
    pub(super) fn unanswered(&self) -> (u64, usize) {
        (self.files.given_up(), self.stuck.len())
    }

    /// What is mapped is looked for anew with the next question.
    pub(super) fn forget(&mut self) {
        self.mapped = None;
    }
}

/// Libraries by file name, with or without version.
fn library(name: &str) -> Option<Class> {
    const GUARDED: [&str; 4] = ["libpam.so", "libpam_misc.so", "libcrypto.so", "libcrypt.so"];
    const BASE: [&str; 7] =
        ["libc.so", "libc.musl-", "ld-linux", "ld-musl-", "ld64.so", "ld.so", "libpthread.so"];
    let begins = |names: &[&str]| names.iter().any(|known| name.starts_with(known));
    let module = name.starts_with("pam_") && name.strip_suffix(".so").is_some();
    if module || begins(&GUARDED) {
        Some(Class::Guarded)
    } else if begins(&BASE) {
        Some(Class::Base)
    } else {
        None
    }
}

/// Of a regular file on a file system that answers by itself; the path is hostile.
fn identity(path: &Path) -> Option<Identity> {
    let metadata = open(path)?.metadata().ok()?;
    Some((metadata.ino(), metadata.size()))
}

/// Opened as a place first, so that no device, pipe or network server notices.
fn open(path: &Path) -> Option<File> {
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty());
    let place = File::from(place.ok()?);
    if !path.is_absolute() || !filesystem::answers_soon(&place) {
        return None;
    }
    if !place.metadata().ok()?.is_file() {
        return None;
    }
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).ok()?;
    File::options().read(true).custom_flags(flags).open(path).ok()
}

fn symbol_at(path: &Path, known: Option<Identity>, offset: u64) -> Option<(String, u64)> {
    let file = open(path)?;
    let metadata = file.metadata().ok()?;
    let same = known.is_none_or(|known| known == (metadata.ino(), metadata.size()));
    if !same {
        return None;
    }
    symbol::name_at(&file, offset).ok()?
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::config::Config;
    use crate::host::testing::Hanging;

    const DEADLINE: Duration = Duration::from_mins(1);

    fn probe(path: &str, offset: u64) -> Uprobe {
        Uprobe {
            file: None,
            path: PathBuf::from(path),
            offset,
            is_return: false,
            is_usdt: false,
            by: "tracefs",
            program: None,
        }
    }

    #[test]
    fn protected_files_are_known_by_name() {
        let protected = Protected::new(&Config::default().guarded);
        let class = |path: &str| protected.class(Path::new(path));
        assert_eq!(class("/usr/sbin/sshd"), Some(Class::Guarded));
        assert_eq!(class("/srv/root/usr/sbin/sshd"), Some(Class::Guarded));
        assert_eq!(class("/lib/x86_64-linux-gnu/libpam.so.0.85.1"), Some(Class::Guarded));
        assert_eq!(class("/lib/security/pam_unix.so"), Some(Class::Guarded));
        assert_eq!(class("/usr/lib/libc.so.6"), Some(Class::Base));
        assert_eq!(class("/lib64/ld-linux-x86-64.so.2"), Some(Class::Base));
        for other in ["/usr/bin/bash", "/usr/lib/libcurl.so.4", "/", "/usr/lib/xlibc.so.6"] {
            assert_eq!(class(other), None, "{other}");
        }
    }

    #[test]
    fn a_protected_file_is_found_under_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let mapped = Procfs.libraries(std::process::id());
        let libc = mapped.iter().find(|(path, _)| library(name(path)) == Some(Class::Base));
        let Some((libc, _)) = libc else {
            println!("not tried: this test is linked statically");
            return;
        };
        let link = folder.path().join("innocent");
        std::os::unix::fs::symlink(libc, &link).unwrap();
        let mut protected = Protected::new(&[]);
        let site = protected.site(&probe(link.to_str().unwrap(), 0)).unwrap();
        assert_eq!(site.class, Class::Base);
        assert_ne!(site.path, link.to_str().unwrap());
        let own = std::env::current_exe().unwrap();
        assert_eq!(protected.site(&probe(own.to_str().unwrap(), 0)), None);
    }

    #[test]
    fn a_path_on_a_file_system_that_never_answers_is_judged_by_its_name() {
        let Some(hanging) = Hanging::start() else { return };
        let folder = hanging.path().parent().unwrap().to_owned();
        let (out, told) = channel();
        std::thread::spawn(move || {
            let mut protected = Protected::new(&[]);
            let at = |name: &str| probe(folder.join(name).to_str().unwrap(), 0);
            let found = protected.site(&at("libpam.so.0"));
            let _ = out.send((found, protected.site(&at("other")), protected.unanswered().0));
        });
        let (named, other, given_up) = told.recv_timeout(DEADLINE).expect("it hangs");
        assert_eq!(named.map(|site| site.class), Some(Class::Guarded));
        assert_eq!(other, None);
        assert!(given_up > 0, "nothing hung");
    }

    #[test]
    fn a_path_longer_than_is_shown_leads_to_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let mapped = Procfs.libraries(std::process::id());
        let Some((libc, _)) = mapped.iter().find(|(path, _)| name(path).starts_with("libc.so"))
        else {
            println!("not tried: this test is linked statically");
            return;
        };
        let deep = folder.path().join("x".repeat(200)).join("y".repeat(200));
        std::fs::create_dir_all(&deep).unwrap();
        let link = deep.join("innocent");
        std::os::unix::fs::symlink(libc, &link).unwrap();
        let site = Protected::new(&[]).site(&probe(link.to_str().unwrap(), 0)).unwrap();
        assert_eq!(site.class, Class::Base);
    }

    #[test]
    fn a_place_in_a_library_has_its_functions_name() {
        let mapped = Procfs.libraries(std::process::id());
        let Some((libc, _)) = mapped.iter().find(|(path, _)| name(path).starts_with("libc.so"))
        else {
            println!("not tried: this test is linked statically");
            return;
        };
        let file = File::open(libc).unwrap();
        let offset = symbol::find_symbol_offset(&file, "getpid").unwrap().unwrap().0;
        let (name, distance) = symbol_at(libc, None, offset + 1).unwrap();
        assert!(name.contains("getpid") && distance == 1, "{name}+{distance}");
    }

    fn name(path: &Path) -> &str {
        path.file_name().unwrap().to_str().unwrap()
    }
}
