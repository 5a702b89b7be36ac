//! Whose user-space probes sit where, asked of the kernel when a probe has been found.

mod events;
mod sys;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::sys::Uprobes;
pub(crate) use self::sys::program_target;
use super::super::bytes::printable;
use super::super::process::{FileKey, list_processes};

/// How long an answer is good for: the next unknown probe may have been set since.
const FRESH: Duration = Duration::from_secs(1);
/// Links asked for.
const LINKS_MAX: usize = 16_384;
/// Descriptors looked at, of all processes together.
const DESCRIPTORS_MAX: usize = 200_000;
/// Sites kept.
const SITES_MAX: usize = 65_536;
/// Bytes of a descriptor's fdinfo.
const FDINFO_MAX: u64 = 4096;

/// Where a probe sits: a file and an offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Site {
    pub(crate) key: FileKey,
    pub(crate) offset: u64,
}

/// Sites of probes of our own, shared between who sets them and who verifies. A site that is given
/// up stays: its pages stay private.
#[derive(Clone, Debug, Default)]
pub struct OwnProbes(Arc<Mutex<HashSet<Site>>>);

/// What the kernel said last.
#[derive(Debug, Default)]
pub(super) struct Owners {
    table: Table,
    read: Option<Instant>,
}

/// Who has set a probe where.
#[derive(Debug, Default)]
struct Table {
    /// By device, inode and offset.
    sites: HashMap<(u64, u64, u64), String>,
    /// By offset, of probes whose file cannot be told: set through a descriptor.
    offsets: HashMap<u64, String>,
    /// Why not everything could be read.
    unread: Option<String>,
}

/// One probe as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Described {
    path: String,
    offset: u64,
    owner: String,
    /// Below whose root the path is to be looked up.
    root: Option<u32>,
}

// === impl OwnProbes ===

impl OwnProbes {
    /// Notes a probe in an open file at an offset of it.
    pub fn add(&self, file: &File, offset: u64) -> io::Result<()> {
        let key = FileKey::of(&file.metadata()?);
        let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One container of an image after another has it: one site.
        let same = |own: &Site| own.offset == offset && own.key.same_content(&key);
        if sites.len() < SITES_MAX && !sites.iter().any(same) {
            sites.insert(Site { key, offset });
        }
        Ok(())
    }

    /// Whether a probe of ours is or was there. Containers of one image show the file below
    /// through overlays of their own, which differ in the device only.
    pub(super) fn has(&self, site: Site) -> bool {
        let sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |own: &Site| own.offset == site.offset && own.key.same_content(&site.key);
        sites.contains(&site) || sites.iter().any(same)
    }

    /// Whether one is or was between two offsets of a file.
    pub(super) fn any_in(&self, key: &FileKey, start: u64, end: u64) -> bool {
        let sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inside = |own: &Site| (start..end).contains(&own.offset);
        sites.iter().any(|own| inside(own) && own.key.same_content(key))
    }
}

// === impl Owners ===

impl Owners {
    /// Who has a probe there; asks the kernel if what is known does not say.
    pub(super) fn of(&mut self, site: Site) -> Option<String> {
        if let Some(owner) = self.table.owner(site) {
            return Some(owner);
        }
        if self.read.is_some_and(|read| read.elapsed() < FRESH) {
            return None;
        }
        self.table = Table::read();
        self.read = Some(Instant::now());
        self.table.owner(site)
    }

    /// Why some probes are not known, after one was asked for.
    pub(super) fn unread(&self) -> Option<&str> {
        self.table.unread.as_deref()
    }
}

// === impl Table ===

impl Table {
    fn read() -> Self {
        let mut table = Self::default();
        for probe in events::read() {
            table.add(probe);
        }
        let holders = Holders::read();
        for &(pid, fd) in &holders.perf_events {
            match sys::task_probe(pid, fd) {
                Ok(Some((path, offset))) => {
                    let root = Some(pid);
                    table.add(Described { path, offset, owner: name(pid), root });
                }
                Ok(None) => {}
                Err(error) => table.note(&error),
            }
        }
        for (id, probes) in table.links() {
            let holder = holders.links.get(&id).copied();
            let owner = holder.map_or_else(|| format!("BPF link {id}"), name);
            for offset in probes.offsets {
                let (path, owner) = (probes.path.clone(), owner.clone());
                table.add(Described { path, offset, owner, root: holder });
            }
        }
        table
    }

    fn links(&mut self) -> Vec<(u32, Uprobes)> {
        let (mut found, mut id) = (Vec::new(), 0);
        while found.len() < LINKS_MAX {
            match sys::next_link(id) {
                Ok(Some(next)) => id = next,
                Ok(None) => break,
                Err(error) => {
                    self.note(&error);
                    break;
                }
            }
            match sys::link_probes(id) {
                Ok(probes) => found.extend(probes.map(|probes| (id, probes))),
                Err(error) => self.note(&error),
            }
        }
        found
    }

    fn note(&mut self, error: &io::Error) {
        // What ended meanwhile and what is no probe at all.
        let ends =
            [rustix::io::Errno::NOENT, rustix::io::Errno::OPNOTSUPP, rustix::io::Errno::BADF];
        if !ends.iter().any(|end| error.raw_os_error() == Some(end.raw_os_error())) {
            self.unread.get_or_insert_with(|| error.to_string());
        }
    }

    fn add(&mut self, probe: Described) {
        if self.sites.len() >= SITES_MAX || self.offsets.len() >= SITES_MAX {
            return;
        }
        match file_of(&probe) {
            Some((dev, ino)) => {
                self.sites.insert((dev, ino, probe.offset), probe.owner);
            }
            None => {
                self.offsets.insert(probe.offset, probe.owner);
            }
        }
    }

    fn owner(&self, site: Site) -> Option<String> {
        let exact = self.sites.get(&(site.key.dev, site.key.ino, site.offset));
        exact.or_else(|| self.offsets.get(&site.offset)).cloned()
    }
}

/// A path that goes by a descriptor means nothing by now.
fn file_of(probe: &Described) -> Option<(u64, u64)> {
    let path = &probe.path;
    if !path.starts_with('/') || path.starts_with("/proc/") {
        return None;
    }
    let inside = probe.root.map(|pid| format!("/proc/{pid}/root{path}"));
    let found = inside.iter().chain([path]).find_map(|path| fs::metadata(path).ok());
    found.map(|metadata: Metadata| (metadata.dev(), metadata.ino()))
}

/// `bpftrace, process 4711`
fn name(pid: u32) -> String {
    let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{}, process {pid}", printable(comm.trim_ascii_end()))
}

/// Who holds which descriptor.
#[derive(Debug, Default)]
struct Holders {
    perf_events: Vec<(u32, u32)>,
    /// Process by link.
    links: BTreeMap<u32, u32>,
}

impl Holders {
    fn read() -> Self {
        let (mut found, mut left) = (Self::default(), DESCRIPTORS_MAX);
        for pid in list_processes().unwrap_or_default() {
            let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            for entry in entries.flatten() {
                let Some(rest) = left.checked_sub(1) else { return found };
                left = rest;
                let fd = entry.file_name().to_str().and_then(|fd| fd.parse().ok());
                let (Some(fd), Ok(target)) = (fd, fs::read_link(entry.path())) else { continue };
                match target.to_str() {
                    Some("anon_inode:[perf_event]") => found.perf_events.push((pid, fd)),
                    Some("anon_inode:bpf_link" | "anon_inode:bpf-link") => {
                        if let Some(id) = link_id(pid, fd) {
                            found.links.entry(id).or_insert(pid);
                        }
                    }
                    _ => {}
                }
            }
        }
        found
    }
}

/// `link_id:` of a descriptor (kernel: `bpf_link_show_fdinfo`).
fn link_id(pid: u32, fd: u32) -> Option<u32> {
    let file = File::open(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let mut text = String::new();
    file.take(FDINFO_MAX).read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("link_id:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(file: &File, offset: u64) -> Site {
        Site { key: FileKey::of(&file.metadata().unwrap()), offset }
    }

    #[test]
    fn own_probes_are_known_by_file_and_offset() {
        let (file, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let own = OwnProbes::default();
        own.clone().add(&file, 0x1234).unwrap();
        assert!(own.has(site(&file, 0x1234)));
        assert!(!own.has(site(&file, 0x1235)) && !own.has(site(&other, 0x1234)));
        let key = site(&file, 0).key;
        assert!(own.any_in(&key, 0x1000, 0x2000) && !own.any_in(&key, 0x2000, 0x3000));
    }

    #[test]
    fn a_probe_is_found_by_its_file_or_where_that_cannot_be_told_by_its_offset() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let probe = |path: &str, offset| Described {
            path: path.to_owned(),
            offset,
            owner: "somebody".to_owned(),
            root: Some(std::process::id()),
        };
        let mut table = Table::default();
        table.add(probe(file.path().to_str().unwrap(), 0x10));
        table.add(probe("/proc/self/fd/7", 0x20));
        let at = |offset| table.owner(site(file.as_file(), offset));
        assert_eq!((at(0x10), at(0x11)), (Some("somebody".to_owned()), None));
        assert_eq!(at(0x20).as_deref(), Some("somebody"));
        let other = tempfile::tempfile().unwrap();
        assert_eq!(table.owner(site(&other, 0x10)), None);
    }
}
