//! Which processes are the corpus', by program.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// How long one is there that stays.
pub(super) const WHILE: Duration = Duration::from_secs(10);

/// Everyone seen so far.
pub(super) struct Census {
    /// Where the corpus' Debian lies.
    root: PathBuf,
    /// Everyone who was ever seen.
    known: HashMap<u32, Known>,
    /// Those seen at the latest look, and since when at every look.
    alive: BTreeMap<u32, Instant>,
    /// Not to be counted with the others.
    aside: BTreeSet<u32>,
}

struct Known {
    /// Name of the program's file.
    class: String,
    /// Path of that in its own root.
    path: PathBuf,
}

// === impl Census ===

impl Census {
    pub(super) fn new(root: &Path) -> Self {
        let (known, alive, aside) = (HashMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { root: root.to_owned(), known, alive, aside }
    }

    /// Looks who runs below `tops`. Processes that share the host's root are no part of the corpus.
    pub(super) fn look(&mut self, tops: &[u32]) -> Result<()> {
        let (now, below) = (Instant::now(), below(tops, &parents()?));
        let before = std::mem::take(&mut self.alive);
        let since = |pid| (pid, before.get(&pid).copied().unwrap_or(now));
        self.alive = below.into_iter().map(since).collect();
        let host = fs::metadata("/").context("no root")?;
        let host = (host.dev(), host.ino());
        // Whoever ends meanwhile, and a zombie, has no program.
        self.alive.retain(|pid, _| {
            let Ok(root) = fs::metadata(format!("/proc/{pid}/root/.")) else { return false };
            let Ok(exe) = fs::read_link(format!("/proc/{pid}/exe")) else { return false };
            if (root.dev(), root.ino()) == host {
                return false;
            }
            self.known.insert(*pid, Known::new(&self.root, &exe));
            true
        });
        Ok(())
    }

    /// Who has been there for a while, by program, but for those set aside: what traffic starts is
    /// over sooner.
    pub(super) fn staying(&self) -> BTreeMap<String, Vec<u32>> {
        let mut staying: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (pid, since) in &self.alive {
            if let Some(class) = self.class(*pid)
                && since.elapsed() >= WHILE
            {
                staying.entry(class.to_owned()).or_default().push(*pid);
            }
        }
        staying
    }

    /// Who runs this program.
    pub(super) fn running(&self, class: &str) -> Vec<u32> {
        let of = |pid: &u32| self.known.get(pid).is_some_and(|known| known.class == class);
        self.alive.keys().copied().filter(of).collect()
    }

    pub(super) fn is_alive(&self, pid: u32) -> bool {
        self.alive.contains_key(&pid)
    }

    /// The program of a process that is the corpus' or was.
    pub(super) fn class(&self, pid: u32) -> Option<&str> {
        if self.aside.contains(&pid) {
            return None;
        }
        self.known.get(&pid).map(|known| known.class.as_str())
    }

    /// Paths of the programs that run, in their own roots.
    pub(super) fn paths(&self) -> BTreeSet<&Path> {
        let running = self.alive.keys().filter_map(|pid| self.known.get(pid));
        running.map(|known| known.path.as_path()).collect()
    }

    pub(super) fn is_aside(&self, pid: u32) -> bool {
        self.aside.contains(&pid)
    }

    pub(super) fn set_aside(&mut self, pids: &[u32]) {
        self.aside.extend(pids);
    }
}

// === impl Known ===

impl Known {
    fn new(root: &Path, exe: &Path) -> Self {
        let text = exe.to_string_lossy();
        let exe = Path::new(text.strip_suffix(" (deleted)").unwrap_or(&text));
        let class = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = exe.strip_prefix(root).map(|inside| Path::new("/").join(inside));
        Self { class, path: path.unwrap_or_else(|_| exe.to_owned()) }
    }
}

/// The parent of every process.
fn parents() -> Result<HashMap<u32, u32>> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that has ended meanwhile has none.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parent_in(&stat) {
            parents.insert(pid, parent);
        }
    }
    Ok(parents)
}

/// Of `/proc/PID/stat`: the second field after the name, which may hold anything.
fn parent_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn below(tops: &[u32], parents: &HashMap<u32, u32>) -> BTreeSet<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (pid, parent) in parents {
        children.entry(*parent).or_default().push(*pid);
    }
    let (mut found, mut left) = (BTreeSet::new(), tops.to_vec());
    while let Some(pid) = left.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if found.insert(*child) {
                left.push(*child);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_past_any_name() {
        assert_eq!(parent_in("7 (a) b) 9) S 41 7 7 0"), Some(41));
        assert_eq!(parent_in("7 (a"), None);
    }

    #[test]
    fn everyone_below_is_found_once() {
        let parents = HashMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 9)]);
        assert_eq!(below(&[2], &parents), BTreeSet::from([3, 4]));
        assert_eq!(below(&[1], &parents), BTreeSet::from([2, 3, 4, 5]));
    }

    #[test]
    fn a_program_is_named_as_in_its_own_root() {
        let known = Known::new(Path::new("/t/root"), Path::new("/t/root/usr/bin/perl (deleted)"));
        assert_eq!(
            (known.class.as_str(), known.path.as_path()),
            ("perl", Path::new("/usr/bin/perl"))
        );
        assert_eq!(Known::new(Path::new("/t"), Path::new("/bin/x")).path, Path::new("/bin/x"));
    }
}
