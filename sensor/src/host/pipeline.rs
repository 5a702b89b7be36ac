//! The station itself: one method per kind of event.

use super::below::{Configs, NotKnown};
use super::clock::Clock;
use super::constructors::Constructors;
use super::crosscheck::Comparisons;
use super::directive::Directive;
use super::environ::Reads;
use super::guard::Guards;
use super::home::Homes;
use super::link;
use super::observe::{Body, Called, CheckReason, Library, LinkTiming, Observation, ProcessId};
use super::opened::{self, Openings};
use super::outside::{Locate, Outside};
use super::pam::PamPlaces;
use super::patrol::Patrol;
use super::place::Placed;
use super::programs;
use super::programs::{Found, Programs, walked};
use super::schedule::Schedule;
use super::table::{Proc, Table};
use super::tracker::Tracker;
use super::watched::Watched;
use crate::config::Config;
use crate::event::{Caller, Event, EventBody, Exec, Exit, Fork, Frame, InodeKey, Map, Role, Seal};

/// Seals of one process remembered.
const SEALED_MAX: usize = 512;
const PROT_WRITE: u32 = 2;
const PROT_EXEC: u32 = 4;

/// What the station counts of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Processes in the table.
    pub processes: usize,
    /// Running processes forgotten for want of room.
    pub processes_evicted: u64,
    /// sshd connections followed.
    pub connections: usize,
    /// Checks given up for want of room.
    pub checks_dropped: u64,
    /// Rounds over everything that were begun to make up for those.
    pub sweeps: u64,
    /// Records about a process that is in neither the table nor `/proc`.
    pub strangers: u64,
    /// Callers that could not be found in the process's maps.
    pub callers_unknown: u64,
    /// Libraries opened after the start that could not be named.
    pub openings_unnamed: u64,
    /// Files that carry no probes for want of room, or because they may hang.
    pub unwatched: u64,
    /// Questions to files and processes that were given up because no answer came.
    pub given_up: u64,
    /// Connections of which nobody can say whether what ran had a verdict, in the order of
    /// [`super::Doubt::ALL`].
    pub not_known: NotKnown,
    /// Verdicts of sshd compared with what its libpam was asked, in the order of
    /// [`super::Compared::ALL`].
    pub comparisons: Comparisons,
}

/// The host station.
pub struct Pipeline {
    pub(super) outside: Box<dyn Outside + Send>,
    pub(super) locate: Box<dyn Locate + Send>,
    pub(super) clock: Clock,
    pub(super) guards: Guards,
    gross_ns: u64,
    pub(super) table: Table,
    pub(super) programs: Programs,
    pub(super) homes: Homes,
    pub(super) watched: Watched,
    pub(super) tracker: Tracker,
    pub(super) schedule: Schedule,
    pub(super) patrol: Patrol,
    pub(super) constructors: Constructors,
    pub(super) openings: Openings,
    pub(super) pam_places: PamPlaces,
    pub(super) directives: Vec<Directive>,
    pub(super) strangers: u64,
    callers_unknown: u64,
    pub(super) reads: Reads,
    pub(super) configs: Configs,
    pub(super) not_known: NotKnown,
    pub(super) comparisons: Comparisons,
}

// === impl Pipeline ===

impl Pipeline {
    /// An empty station; see [`Pipeline::start`].
    #[must_use]
    pub fn new(
        config: &Config,
        clock: Clock,
        outside: Box<dyn Outside + Send>,
        locate: Box<dyn Locate + Send>,
    ) -> Self {
        Self {
            outside,
            locate,
            clock,
            guards: Guards::new(&config.guarded, &config.functions),
            gross_ns: nanos(config.detect.link_gross_excess),
            table: Table::new(config.limits.processes),
            programs: Programs::default(),
            homes: Homes::default(),
            watched: Watched::default(),
            tracker: Tracker::default(),
            schedule: Schedule::new(nanos(config.detect.settle)),
            patrol: Patrol::new(config.patrol.every.map_or(0, nanos)),
            constructors: Constructors::default(),
            openings: Openings::default(),
            pam_places: PamPlaces::default(),
            directives: Vec::new(),
            strangers: 0,
            callers_unknown: 0,
            reads: Reads::default(),
            configs: Configs::default(),
            not_known: NotKnown::default(),
            comparisons: Comparisons::default(),
        }
    }

    /// One event, in the order of its ring. Two rings may be read in turn: a record about a process
    /// whose fork is still in the other ring is understood.
    pub fn on_event(&mut self, event: Event, out: &mut impl FnMut(Observation)) {
        self.tick(event.ktime_ns, out);
        let Event { ktime_ns, tgid, tid, role, body, .. } = event;
        let at = At { ktime_ns, tgid, tid, role };
        match body {
            EventBody::Fork(fork) => self.on_fork(at, &fork, out),
            EventBody::Exec(exec) => self.on_exec(at, &exec, out),
            EventBody::Exit(exit) => self.on_exit(at, &exit, out),
            EventBody::Map(map) => self.on_map(at, &map, out),
            EventBody::Link(link) => self.on_link(at, &link, out),
            EventBody::Seal(seal) => self.on_seal(at, &seal, out),
            EventBody::Frame(frame) => self.on_frame(at, &frame, out),
            EventBody::Caller(caller) => self.on_caller(at, &caller, out),
            EventBody::Env(env) => self.on_env(at, &env, out),
            EventBody::Sample(sample) => self.on_sample(at, sample),
            EventBody::Opened(opened) => self.on_opened(at, &opened, out),
            EventBody::Modules(modules) => self.on_modules(at, &modules),
            EventBody::Write(write) => self.on_write(at, &write, out),
        }
    }

    /// Tells the time: emits the checks that are due.
    pub fn tick(&mut self, now_ktime_ns: u64, out: &mut impl FnMut(Observation)) {
        self.constructors_tick(now_ktime_ns);
        self.openings_tick(now_ktime_ns, out);
        self.watched_tick(now_ktime_ns);
        while let Some((process, reason, _)) = self.schedule.pop(now_ktime_ns) {
            let guarded = self.table.get(process).is_some_and(Proc::guarded);
            let reason = match reason {
                // An unguarded one's has to fit into the allowance.
                CheckReason::Memfd if guarded => CheckReason::Written,
                other => other,
            };
            let anybody = matches!(reason, CheckReason::Written | CheckReason::Memfd);
            let wanted = |proc: &Proc| proc.guarded() || anybody;
            if self.table.get(process).is_some_and(|proc| !proc.ended && wanted(proc)) {
                self.learn_details(process);
                self.emit(process, now_ktime_ns, Body::CheckDue(reason), out);
            }
        }
        self.patrol_tick(now_ktime_ns, out);
    }

    /// `CLOCK_MONOTONIC` of the next check, ns: when to call [`Pipeline::tick`] if no event comes.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        let due = [self.constructors.next_due(), self.openings.next_due(), self.watched.next_due()];
        let due = due.into_iter().chain([self.patrol.next_due()]);
        self.schedule.next_due().into_iter().chain(due.flatten()).min()
    }

    /// Records were lost before the next event.
    pub fn on_loss(&mut self) {
        self.tracker.lost_records();
        self.watched.lost_records();
    }

    /// Every probe is attached from `now_ktime_ns` on: what began before may have done so unseen.
    pub fn armed(&mut self, now_ktime_ns: u64) {
        self.tracker.armed(now_ktime_ns);
    }

    /// Records of the priority ring were lost before `now_ktime_ns`: no verdict of a connection that
    /// had begun by then is sure to have been seen. To be told before the records that came after.
    pub fn on_proof_loss(&mut self, now_ktime_ns: u64) {
        self.tracker.lost_proof(now_ktime_ns);
    }

    /// A call of a guarded function may not have been told before `now_ktime_ns`, as its process had
    /// no room in the kernel side's maps. To be told before the records that came after.
    pub fn call_missed(&mut self, now_ktime_ns: u64) {
        self.tracker.misses_call(now_ktime_ns);
    }

    /// What the kernel side is asked for since the last call.
    pub fn directives(&mut self) -> Vec<Directive> {
        std::mem::take(&mut self.directives)
    }

    /// Counts of this moment.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally {
            processes: self.table.len(),
            processes_evicted: self.table.evicted_alive(),
            connections: self.tracker.len(),
            checks_dropped: self.schedule.dropped(),
            sweeps: self.patrol.sweeps(),
            strangers: self.strangers,
            callers_unknown: self.callers_unknown,
            openings_unnamed: self.openings.unnamed(),
            unwatched: self.watched.refused(),
            given_up: self.outside.given_up(),
            not_known: self.not_known,
            comparisons: self.comparisons,
        }
    }

    fn on_fork(&mut self, at: At, fork: &Fork, out: &mut impl FnMut(Observation)) {
        let Some(parent) = self.find(at) else { return };
        let connection = self.table.get(parent).and_then(|proc| proc.connection);
        self.tracker.used(connection, parent, &fork.usage);
        if let Some(proc) = self.table.get_mut(parent) {
            proc.linking = false;
        }
        let child = self.child_identity(fork, at.ktime_ns);
        if self.table.get(child).is_some() {
            // Its exec was read first, from the other ring.
            self.adopt_parent(child, parent);
            return;
        }
        self.replace(child, at.ktime_ns, out);
        let Some(proc) = self.table.get(parent) else { return };
        self.table.insert(proc.child(child, at.ktime_ns));
        let sign = self.tracker.forked(&mut self.table, child, at.ktime_ns);
        if let Some((connection, sign)) = sign {
            self.tell_unproven(child, connection, at, sign, out);
        }
    }

    fn on_exec(&mut self, at: At, exec: &Exec, out: &mut impl FnMut(Observation)) {
        let id = self.identity(at.tgid, exec.start_ns, at.ktime_ns);
        if self.table.get(id).is_none() {
            self.replace(id, at.ktime_ns, out);
            let mut proc = Proc::new(id, at.ktime_ns);
            proc.parent = self.find(At { tgid: exec.parent_tgid, ..at });
            self.table.insert(proc);
            // Its own exec is the better sign of a session.
            let _ = self.tracker.forked(&mut self.table, id, at.ktime_ns);
        }
        self.constructors_over(id);
        self.openings_over(id, out);
        self.pam_places.forget(id);
        let path = walked(&exec.path);
        // A guarded file stays guarded under another name (hard link, bind mount).
        let role = self.guards.role(&path).with(at.role.without(Role::BELOW_SSHD));
        let home = self.home(id, exec, role);
        let far = programs::is_far(exec.fs_magic);
        let found = Found { tgid: at.tgid, path: &path, file: &exec.exe, far };
        let program = self.programs.program(&*self.outside, &found, role, &home);
        let Some(proc) = self.table.get_mut(id) else { return };
        (proc.program, proc.home, proc.root) = (Some(program), home, exec.root);
        (proc.uid, proc.euid, proc.secure) = (exec.uid, exec.euid, exec.secure);
        (proc.linking, proc.cmdline, proc.shown) = (true, None, None);
        (proc.placed, proc.libpams) = Default::default();
        proc.sealed.clear();
        proc.inherited = std::mem::take(&mut proc.variables);
        if !role.is_none() || proc.connection.is_some() || !at.role.is_none() {
            self.learn_details(id);
        }
        self.constructors_start(id, at, exec);
        self.watch_start(id, at);
        let serves = self.serves(id, exec);
        let executed = self.tracker.executed(&mut self.table, id, exec, serves);
        self.correct_role(id, at, exec, role, executed.left);
        self.emit(id, at.ktime_ns, Body::Started, out);
        self.executed_below(id, at, exec, out);
        if let Some(connection) = executed.session {
            self.emit_of(id, Some(connection), at.ktime_ns, Body::Session, out);
        }
    }

    /// The listener starts this program for one connection: `-R`, or a socket at descriptor 0, or
    /// the program that does nothing else. `None`: its arguments were gone with it.
    fn serves(&self, id: ProcessId, exec: &Exec) -> Option<bool> {
        let Some(proc) = self.table.get(id).filter(|proc| proc.sshd()) else { return Some(false) };
        let named = proc.program.as_ref().is_some_and(|program| program.name() == "sshd-session");
        if named || exec.peer.is_some() {
            return Some(true);
        }
        let arguments = proc.cmdline.as_ref().filter(|all| !all.is_empty())?;
        Some(arguments.iter().any(|argument| argument == "-R"))
    }

    /// The kernel side knows roles by inode; a guarded path that is new to it is told now.
    fn correct_role(&mut self, id: ProcessId, at: At, exec: &Exec, role: Role, left: bool) {
        let known = at.role.without(Role::BELOW_SSHD);
        if role.contains(Role::SSHD) && !known.contains(Role::SSHD) {
            self.tracker.unheard(self.table.get(id).and_then(|proc| proc.connection));
        }
        if role != known {
            let inode = InodeKey { ino: exec.exe.ino, dev: exec.exe.dev, reserved: 0 };
            self.directives.push(Directive::Guard { inode, role });
            if role.contains(Role::GUARDED) {
                self.schedule.late(id, at.ktime_ns);
            }
        }
        let below = at.role.contains(Role::BELOW_SSHD);
        let member = self.table.get(id).is_some_and(|proc| proc.connection.is_some());
        if role != known || left || (below && !member) {
            let role = if below && member && !left { role.with(Role::BELOW_SSHD) } else { role };
            self.directives.push(Directive::SetRole { tgid: at.tgid, role });
        }
    }

    fn on_exit(&mut self, at: At, exit: &Exit, out: &mut impl FnMut(Observation)) {
        let Some(id) = self.table.current(at.tgid) else { return };
        let Some(proc) = self.table.get(id).filter(|proc| !proc.ended) else { return };
        let connection = proc.connection;
        self.tracker.used(connection, id, &exit.usage);
        self.tracker.exited(connection, id, exit.exit_code);
        self.finish(id, at.ktime_ns, out);
    }

    /// A process is over, seen or concluded.
    pub(super) fn finish(&mut self, id: ProcessId, now_ns: u64, out: &mut impl FnMut(Observation)) {
        let Some(proc) = self.table.get(id).filter(|proc| !proc.ended) else { return };
        let told = proc.guarded() || proc.connection.is_some();
        self.constructors_over(id);
        self.openings_over(id, out);
        self.pam_places.forget(id);
        self.schedule.forget(id);
        if told {
            self.emit(id, now_ns, Body::Ended, out);
        }
        let process = self.shown(id);
        if let Some(connection) = self.tracker.ended(&mut self.table, id)
            && let Some(process) = process
        {
            out(Observation {
                ktime_ns: now_ns,
                time: self.clock.wall(now_ns),
                process,
                connection: Some(connection),
                body: Body::Closed,
            });
        }
        self.table.end(id);
    }

    fn on_map(&mut self, at: At, map: &Map, out: &mut impl FnMut(Observation)) {
        let Some(id) = self.find(at) else { return };
        if (map.file.ino, map.file.dev) == (map.exe.ino, map.exe.dev) {
            return;
        }
        let path = walked(&map.path);
        let far = programs::is_far(map.facts.fs_magic);
        let found = Found { tgid: at.tgid, path: &path, file: &map.file, far };
        let module = self.programs.module(&*self.outside, &found);
        self.learn_details(id);
        let Some(proc) = self.table.get(id) else { return };
        let during_link = proc.linking;
        if proc.guarded() {
            self.watch_library(at.tgid, map.exe, path, map.file, map.facts.fs_magic);
        }
        let placed = Placed::of(map, &module.path);
        let library =
            Library { module: module.clone(), file: map.file, during_link, placed, asked: false };
        self.emit(id, at.ktime_ns, Body::Library(library), out);
        if map.facts.links == Some(0) && module.path.starts_with("/memfd:") {
            self.schedule.injected(id, at.ktime_ns);
        }
        self.opening_named(id, &map.file, &module, out);
    }

    fn on_link(&mut self, at: At, link: &crate::event::Link, out: &mut impl FnMut(Observation)) {
        let Some(id) = self.find(at) else { return };
        let Some(proc) = self.table.get_mut(id) else { return };
        proc.linking = false;
        let guarded = proc.guarded();
        let placed = std::sync::Arc::clone(&proc.placed);
        let modules = if guarded || link::cpu_ns(link) >= self.gross_ns {
            self.learn_details(id);
            let addresses: Vec<u64> = link.seals.iter().map(|seal| seal.addr).collect();
            let located = self.locate.locate(at.tgid, &addresses);
            let found = located.into_iter().map(|found| found.map(|located| located.module));
            // A process that is gone cannot be asked; where its code lay was told before.
            let told = |addr: &u64| opened::owner(&placed, *addr).cloned();
            found.zip(&addresses).map(|(found, addr)| found.or_else(|| told(addr))).collect()
        } else {
            Vec::new()
        };
        let busy = self.constructors_linked(id, at, link);
        let timing = LinkTiming { busy, ..link::timing(link, modules) };
        self.emit(id, at.ktime_ns, Body::Linked(timing), out);
    }

    fn on_seal(&mut self, at: At, seal: &Seal, out: &mut impl FnMut(Observation)) {
        let Some(id) = self.find(at) else { return };
        if seal.prot & PROT_WRITE != 0 {
            return self.on_reopened(id, at, seal, out);
        }
        if seal.prot & PROT_EXEC != 0 {
            // What was written before can run from now on: code that is put back, or put there.
            return self.schedule.reopened(id, at.ktime_ns);
        }
        let Some(proc) = self.table.get_mut(id) else { return };
        proc.linking &= !seal.after_link;
        if proc.guarded() {
            if proc.sealed.len() < SEALED_MAX {
                proc.sealed.push((seal.at.addr, seal.len));
            }
            self.schedule.sealed(id, at.ktime_ns);
        }
        if seal.after_link {
            self.opening_sealed(id, at, seal, out);
        }
    }

    fn on_frame(&mut self, at: At, frame: &Frame, out: &mut impl FnMut(Observation)) {
        let Some(id) = self.find(at) else { return };
        let verdict = self.tracker.frame(&mut self.table, id, frame, at.ktime_ns);
        let Some(proc) = self.table.get_mut(id) else { return };
        proc.linking = false;
        if let Some(connection) = proc.connection.filter(|_| matches!(frame.frame_type, 12 | 24)) {
            // The last moment before it matters: the monitor, whoever asked.
            self.schedule.requested(connection.0, at.ktime_ns);
            self.tick(at.ktime_ns, out);
        }
        if let Some(verdict) = verdict {
            self.emit(id, at.ktime_ns, Body::Verdict(verdict), out);
        }
        self.cross_check(id, at, frame, out);
        if let Some((connection, sign)) = self.tracker.sign_of(&self.table, id, frame) {
            self.tell_unproven(id, connection, at, sign, out);
        }
    }

    fn on_caller(&mut self, at: At, caller: &Caller, out: &mut impl FnMut(Observation)) {
        let Some(id) = self.find(at) else {
            return self.call_missed(at.ktime_ns);
        };
        let connection = self.table.get(id).and_then(|proc| proc.connection);
        self.tracker.used(connection, id, &caller.usage);
        let mut found =
            self.locate.locate(at.tgid, &[caller.ip, caller.return_address]).into_iter();
        let (function, returns) = (found.next().flatten(), found.next().flatten());
        if self.constructors_entered(id, at, (caller, function.as_ref()), out) {
            return;
        }
        let Some(function) = function else {
            let known = self.pam_recalled(id, at, caller, out);
            self.callers_unknown += u64::from(!known);
            return;
        };
        self.callers_unknown += u64::from(returns.is_none());
        self.learn_details(id);
        let name = match &function.symbol {
            Some((symbol, _)) => self.guards.function(symbol.clone()),
            None => format!("{:#x}", function.offset),
        };
        if self.pam_entered(id, at, caller, (&function, &name), out) {
            return;
        }
        let told = !caller.stack.words.is_empty();
        let frames = if told { self.locate.callers(at.tgid, &caller.stack) } else { Vec::new() };
        let library = Some(function.module);
        let call = Called { function: name, library, caller: returns, frames };
        self.emit(id, at.ktime_ns, Body::Called(call), out);
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("tally", &self.tally()).finish_non_exhaustive()
    }
}

/// Head of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) ktime_ns: u64,
    pub(super) tgid: u32,
    pub(super) tid: u32,
    pub(super) role: Role,
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
