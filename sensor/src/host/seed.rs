//! Processes that already run: from `/proc`, at start and where records were missed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::directive::Directive;
use super::home::Home;
use super::observe::ProcessId;
use super::outside::Stat;
use super::pipeline::Pipeline;
use super::programs::Found;
use super::table::Proc;
use super::watched::{Wanted, inode};
use crate::event::Role;

impl Pipeline {
    /// Learns what runs now, and asks the kernel side to guard what is configured. Guarded
    /// processes are checked like new ones: a redirected slot shows whenever it was made.
    pub fn start(&mut self, now_ktime_ns: u64) {
        self.watched.stay(self.outside.host_devices());
        let guarded: Vec<(PathBuf, Role)> =
            self.guards.paths().map(|(path, role)| (path.to_owned(), role)).collect();
        for (path, role) in guarded {
            if let Some(file) = self.outside.file(&path) {
                self.directives.push(Directive::Guard { inode: inode(&file), role });
                self.watched.stay([file.dev]);
                let tgid = std::process::id();
                self.constructors_watch(Wanted { tgid, exe: file, path, file, fs_magic: None });
            }
        }
        let mut found: BTreeMap<(u64, u32), Stat> = BTreeMap::new();
        for tgid in self.outside.processes() {
            if let Some(stat) = self.outside.stat(tgid) {
                found.insert((stat.start_ticks, tgid), stat);
            }
        }
        // Oldest first, so that parents are there before their children.
        for ((_, tgid), stat) in found {
            if let Some(id) = self.seed(tgid, &stat, now_ktime_ns) {
                self.tracker.found_established(&mut self.table, id);
                self.guard_running(id, now_ktime_ns);
            }
        }
    }

    /// One process that was not in the table.
    pub(super) fn look_up(&mut self, tgid: u32, now_ktime_ns: u64) -> Option<ProcessId> {
        let stat = self.outside.stat(tgid)?;
        let known = self.table.current(tgid);
        if let Some(known) = known.filter(|id| id.start_ticks == stat.start_ticks) {
            return Some(known);
        }
        let id = self.seed(tgid, &stat, now_ktime_ns)?;
        self.tracker.forked_unseen(&mut self.table, id, now_ktime_ns);
        Some(id)
    }

    fn seed(&mut self, tgid: u32, stat: &Stat, now_ktime_ns: u64) -> Option<ProcessId> {
        // Kernel threads have no executable.
        let (path, file) = self.outside.exe(tgid)?;
        let id = ProcessId { tgid, start_ticks: stat.start_ticks };
        let mut proc = Proc::new(id, now_ktime_ns);
        proc.parent = self.table.current(stat.parent_tgid);
        (proc.uid, proc.euid) = (stat.uid, stat.euid);
        proc.home = self.outside.root(tgid).map_or(Home::Host, |root| Home::of(root, &Home::Host));
        let role = self.guards.role(&path);
        let found = Found { tgid, path: &path, file: &file, far: false };
        proc.program = Some(self.programs.program(&*self.outside, &found, role, &proc.home));
        self.table.insert(proc);
        Some(id)
    }

    fn guard_running(&mut self, id: ProcessId, now_ktime_ns: u64) {
        let Some(program) = self.table.get(id).and_then(|proc| proc.program.clone()) else {
            return;
        };
        if !program.guarded() {
            return;
        }
        self.learn_details(id);
        self.directives.push(Directive::Guard { inode: inode(&program.file), role: program.role });
        self.directives.push(Directive::SetRole { tgid: id.tgid, role: program.role });
        for (path, file) in self.outside.libraries(id.tgid) {
            self.watch_library(id.tgid, program.file, path, file, None);
        }
        self.schedule.late(id, now_ktime_ns);
    }
}
