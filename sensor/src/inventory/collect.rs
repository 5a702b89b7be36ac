//! Walking all processes once.

use std::collections::BTreeMap;
use std::io;

use super::file::{File, Role, Unread};
use super::files::Files;
use super::mapped::mapped_files;
use super::owner::Owners;
use super::process::{Around, Closed, Opened, Process};
use crate::verify::list_processes;

/// Mappings kept, 16 bytes each; more are counted only.
const MAX_USES: usize = 4_000_000;
/// Looks at a process that changes while it is looked at.
const TRIES: usize = 3;
/// Failures told one by one; the rest is only counted.
const MAX_FAILURES: usize = 20;

/// What is loaded where.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Ascending by number.
    pub processes: Vec<Process>,
    /// Distinct files, in no particular order.
    pub files: Vec<File>,
    /// By process, then by path.
    pub uses: Vec<Use>,
    /// What was looked at and what was not.
    pub tally: Tally,
}

/// One file of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Index into [`Inventory::processes`].
    pub process: u32,
    /// Index into [`Inventory::files`].
    pub file: u32,
    /// What it is there.
    pub role: Role,
    /// It is mapped executable; a library of data only is not.
    pub code: bool,
}

/// The account.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Processes looked at; kernel threads, zombies and this one are not counted.
    pub processes: u64,
    /// Of these: read.
    pub read: u64,
    /// Refused by the kernel.
    pub denied: u64,
    /// Ended meanwhile.
    pub gone: u64,
    /// Not readable for other reasons.
    pub failed: u64,
    /// Why, for the first of them.
    pub failures: Vec<String>,
    /// Static programs among those read: what they contain cannot be seen.
    pub static_programs: u64,
    /// Files that were not opened or not read, by reason.
    pub unread: BTreeMap<String, u64>,
    /// Mappings left out, because a process or the host has more files than are kept.
    pub left_out: u64,
}

/// Reads `/proc`. `progress` is called after every process with how many are left.
pub fn collect(owners: &mut dyn Owners, progress: &mut dyn FnMut(usize)) -> io::Result<Inventory> {
    let mut pids = list_processes()?;
    pids.retain(|pid| *pid != std::process::id());
    let around = Around::now();
    let mut found = Collector { files: Files::new(), inventory: Inventory::default() };
    let mut left = pids.len();
    for pid in pids {
        let closed = found.process(pid, &around, owners);
        found.count(pid, closed);
        left -= 1;
        progress(left);
    }
    Ok(found.finish())
}

struct Collector {
    files: Files,
    inventory: Inventory,
}

impl Collector {
    fn process(
        &mut self,
        pid: u32,
        around: &Around,
        owners: &mut dyn Owners,
    ) -> Result<(), Closed> {
        for last in (0..TRIES).map(|attempt| attempt + 1 == TRIES) {
            let opened = Opened::open(pid, around)?;
            let before = self.inventory.uses.len();
            let complete = self.uses(&opened, owners);
            let same = opened.is_same();
            if same && (complete || last) {
                self.keep(opened.process, before);
                return Ok(());
            }
            self.inventory.uses.truncate(before);
        }
        Err(Closed::Gone)
    }

    /// Adds the process's files; `false` where a mapping went away meanwhile.
    fn uses(&mut self, opened: &Opened, owners: &mut dyn Owners) -> bool {
        let process = u32::try_from(self.inventory.processes.len()).unwrap_or(u32::MAX);
        let view = self.files.view(&opened.root);
        let (mapped, more) = mapped_files(&opened.maps);
        let mut complete = true;
        for one in mapped {
            let is_exe = *one.vma.path == *opened.exe_in_maps;
            let role = if is_exe { Role::Application } else { Role::Library };
            match self.files.find((&opened.root, view), one.vma, owners) {
                Ok(Some(file)) if self.inventory.uses.len() < MAX_USES => {
                    self.inventory.uses.push(Use { process, file, role, code: one.code });
                }
                Ok(Some(_)) => self.files.left_out += 1,
                Ok(None) => {}
                Err(_) => complete = false,
            }
        }
        self.files.left_out += more as u64;
        complete
    }

    fn keep(&mut self, mut process: Process, from: usize) {
        let files = &self.files.all;
        let file = |one: &Use| files.get(usize::try_from(one.file).unwrap_or(usize::MAX));
        let uses = self.inventory.uses.get_mut(from..).unwrap_or_default();
        uses.sort_by(|a, b| {
            let path = |one| file(one).map(|file| &file.path);
            (path(a), a.role, a.file).cmp(&(path(b), b.role, b.file))
        });
        process.is_static = match uses {
            [only] if only.role == Role::Application => {
                file(only).and_then(|file| file.elf.as_ref()).is_some_and(|elf| !elf.interpreter)
            }
            _ => false,
        };
        self.inventory.tally.static_programs += u64::from(process.is_static);
        self.inventory.processes.push(process);
    }

    fn count(&mut self, pid: u32, outcome: Result<(), Closed>) {
        let tally = &mut self.inventory.tally;
        tally.processes += 1;
        match outcome {
            Ok(()) => tally.read += 1,
            Err(Closed::NoMemory) => tally.processes -= 1,
            Err(Closed::Gone) => tally.gone += 1,
            Err(Closed::Denied) => tally.denied += 1,
            Err(Closed::Failed(why)) => {
                tally.failed += 1;
                if tally.failures.len() < MAX_FAILURES {
                    tally.failures.push(format!("process {pid}: {why}"));
                }
            }
        }
    }

    fn finish(self) -> Inventory {
        let mut inventory = self.inventory;
        inventory.files = self.files.all;
        inventory.tally.left_out = self.files.left_out;
        for unread in inventory.files.iter().filter_map(|file| file.unread.as_ref()) {
            let reason = match unread {
                Unread::Failed(_) => "cannot be read".to_owned(),
                other => other.to_string(),
            };
            *inventory.tally.unread.entry(reason).or_default() += 1;
        }
        inventory
    }
}

// === impl Inventory ===

impl Inventory {
    /// The process and the file of a use.
    #[must_use]
    pub fn of(&self, one: &Use) -> Option<(&Process, &File)> {
        let process = self.processes.get(usize::try_from(one.process).ok()?)?;
        Some((process, self.files.get(usize::try_from(one.file).ok()?)?))
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::owner::{Owner, Package};
    use super::super::root::ProcRoot;
    use super::*;

    /// Says that every file belongs to one package, and remembers what it was asked.
    #[derive(Default)]
    struct Everything(Vec<(u64, PathBuf, PathBuf)>);

    impl Owners for Everything {
        fn owner(&mut self, root: &ProcRoot, path: &Path) -> Owner {
            self.0.push((root.mount_namespace, root.path.clone(), path.to_owned()));
            let version = Some("2.0-1".to_owned());
            Owner::Package(Package { name: "all".into(), version, ..Package::default() })
        }
    }

    #[test]
    fn each_file_is_looked_at_and_asked_for_once() {
        let sleep = || std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let mut children = [sleep(), sleep(), sleep()];
        let mut owners = Everything::default();
        let mut calls = Vec::new();
        let inventory = collect(&mut owners, &mut |left| calls.push(left)).unwrap();
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(calls.is_sorted_by(|a, b| a > b) && calls.last() == Some(&0), "{calls:?}");
        let ours = |one: &&Use| {
            let process = inventory.of(one).unwrap().0;
            one.role == Role::Application && children.iter().any(|child| child.id() == process.pid)
        };
        let programs: Vec<&Use> = inventory.uses.iter().filter(ours).collect();
        assert_eq!(programs.len(), 3, "{:?}", inventory.tally);
        assert!(programs.iter().all(|one| one.file == programs[0].file), "{programs:?}");
        let (process, file) = inventory.of(programs[0]).unwrap();
        let own = ProcRoot::read(std::process::id()).unwrap();
        let question = (own.mount_namespace, own.path, process.exe.clone());
        assert_eq!(
            owners.0.iter().filter(|one| **one == question).count(),
            1,
            "{}",
            process.exe.display()
        );
        assert_eq!(file.owner.package().unwrap().name, "all");
        assert_eq!(file.version().unwrap().0, "2.0-1");
    }
}
