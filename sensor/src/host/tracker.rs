//! sshd's connections: from the fork of a listener to the end of the last process.
//!
//! OpenSSH 8.4 to 9.7: listener forks, the child re-executes `sshd -R` (monitor), which forks a
//! network child that executes nothing. 9.8: the child executes `sshd-session -R` instead; 10.x: its
//! network child executes `sshd-auth`. All: after the verdict the monitor forks the session's
//! process.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::conn::{Conn, Used};
use super::frames;
use super::observe::{Connection, ConnectionId, Lineage, ProcessId, Program, Verdict};
use super::proof::{Doubt, Proof, Sign};
use super::table::{Proc, Table};
use crate::event::{Exec, Frame, Usage};

/// Connections followed at once; the oldest is given up beyond.
const CONNECTIONS_MAX: usize = 4096;
/// Living processes of one connection followed.
const MEMBERS_MAX: usize = 256;
/// Programs remembered to speak.
const PROGRAMS_MAX: usize = 256;

/// Every connection that has a living process.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    connections: BTreeMap<ConnectionId, Conn>,
    by_age: BTreeSet<(u64, ConnectionId)>,
    frames_seen: bool,
    /// Subjects of monitors whose frames were read.
    read: BTreeSet<String>,
    /// Records that matter were lost up to here (`CLOCK_MONOTONIC`, ns).
    lost_until: u64,
    /// Calls were missed up to here (the same clock).
    missed_until: u64,
    /// Not everything was attached before (the same clock).
    armed_at: u64,
}

/// What an exec meant to the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Executed {
    /// A session of this connection has begun with it.
    pub(super) session: Option<ConnectionId>,
    /// The process has left the connection with it.
    pub(super) left: bool,
}

// === impl Tracker ===

impl Tracker {
    /// A fork: of a listener it may be a connection, of a member it is one more member. A sign of a
    /// session where the monitor forks once authentication is over.
    pub(super) fn forked(
        &mut self,
        table: &mut Table,
        child: ProcessId,
        now_ns: u64,
    ) -> Option<(ConnectionId, Sign)> {
        let parent = table.get(table.get(child)?.parent?)?;
        let (parent_id, sshd) = (parent.id, parent.sshd());
        match parent.connection {
            Some(id) => {
                self.join(table, id, child);
                let conn = self.connections.get_mut(&id)?;
                if conn.living.contains(&child) {
                    conn.forked(id.0, parent_id, child);
                }
                (parent_id == id.0 && conn.proof.finished()).then_some((id, Sign::Forked))
            }
            None if sshd => {
                let lineage = Lineage::Sshd(parent_id);
                self.open(table, child, lineage, now_ns);
                None
            }
            None => None,
        }
    }

    /// The same for a process that was found in `/proc`: its records until now were missed.
    pub(super) fn forked_unseen(&mut self, table: &mut Table, child: ProcessId, now_ns: u64) {
        let _ = self.forked(table, child, now_ns);
        let id = table.get(child).and_then(|proc| proc.connection);
        if let Some(conn) = id.and_then(|id| self.connections.get_mut(&id)) {
            conn.proof.doubt(Doubt::BegunBefore);
        }
    }

    /// An exec, after the table has the new program. `serves`: the program was started to serve
    /// one connection; `None` where it was gone before anybody could read what it was started for.
    pub(super) fn executed(
        &mut self,
        table: &mut Table,
        process: ProcessId,
        exec: &Exec,
        serves: Option<bool>,
    ) -> Executed {
        let Some(proc) = table.get(process) else { return Executed::default() };
        let (sshd, connection) = (proc.sshd(), proc.connection);
        self.used(connection, process, &exec.usage);
        match connection.and_then(|id| Some((id, self.connections.get(&id)?.confirmed))) {
            Some((id, confirmed)) if sshd => {
                self.sshd_executed(table, process, id, confirmed, exec, serves);
                Executed::default()
            }
            Some((id, confirmed)) => self.other_executed(table, process, id, confirmed, exec),
            None => {
                if sshd && serves == Some(true) {
                    let born = proc.born_ktime_ns;
                    let lineage = Self::lineage_of_parent(table, proc);
                    let id = self.open(table, process, lineage, born);
                    self.confirm(table, id, exec.peer);
                    self.used(Some(id), process, &exec.usage);
                }
                Executed::default()
            }
        }
    }

    fn sshd_executed(
        &mut self,
        table: &mut Table,
        process: ProcessId,
        id: ConnectionId,
        confirmed: bool,
        exec: &Exec,
        serves: Option<bool>,
    ) {
        if confirmed {
            self.refresh(table, id);
        } else if process == id.0 {
            if serves == Some(false) {
                // A daemon that restarts itself: a listener. One would not be gone already.
                self.dissolve(table, id);
            } else {
                self.confirm(table, id, exec.peer);
            }
        } else if serves == Some(true) {
            // The child of a process that had been taken for a connection: that one listens.
            let born = table.get(process).map_or(0, |proc| proc.born_ktime_ns);
            self.dissolve(table, id);
            let opened = self.open(table, process, Lineage::Sshd(id.0), born);
            self.confirm(table, opened, exec.peer);
            self.used(Some(opened), process, &exec.usage);
        }
    }

    fn other_executed(
        &mut self,
        table: &mut Table,
        process: ProcessId,
        id: ConnectionId,
        confirmed: bool,
        exec: &Exec,
    ) -> Executed {
        let Some(conn) = self.connections.get_mut(&id) else { return Executed::default() };
        if confirmed && !conn.is_over() {
            return Executed::default();
        }
        // Root's own session looks like a PAM helper; only its user name tells.
        let users = exec.uid != 0 || conn.user.as_deref() == Some("root");
        let session = confirmed && users && !conn.session;
        conn.session |= session;
        conn.shown = None;
        conn.gone(process);
        if let Some(proc) = table.get_mut(process) {
            proc.connection = None;
            proc.shown = None;
        }
        Executed { session: session.then_some(id), left: true }
    }

    /// A frame; gives the verdict if it is one.
    pub(super) fn frame(
        &mut self,
        table: &mut Table,
        process: ProcessId,
        frame: &Frame,
        now_ns: u64,
    ) -> Option<Verdict> {
        self.frames_seen = true;
        let id = table.get(process)?.connection?;
        self.used(Some(id), process, &frame.usage);
        if !self.connections.get(&id)?.confirmed {
            self.confirm(table, id, None);
        }
        let conn = self.connections.get_mut(&id)?;
        if let Some(program) = &conn.program
            && self.read.len() < PROGRAMS_MAX
            && !self.read.contains(&program.subject)
        {
            self.read.insert(program.subject.clone());
        }
        conn.shown = None;
        let said = frames::read(frame.frame_type, frame.verdict);
        conn.mark(said, process == id.0, now_ns);
        // The monitor alone answers; a network child that sends an answer is lying.
        let answer = if process == id.0 {
            conn.proof.answered(frame.frame_type, said, frame.verdict.is_some());
            conn.tries.answered(frame.frame_type, frame.verdict);
            let answer = conn.answered(conn.of_key(said));
            if let Some((method, accepted)) = answer {
                conn.proof.judged(method, accepted);
            }
            answer
        } else {
            let network = conn.is_network(process, frame.frame_type);
            conn.proof.asked(frame.frame_type, network);
            // A session writes what it likes to sockets of its own.
            if network { conn.requested(said, frame) } else { None }
        };
        answer.map(|(method, accepted)| conn.verdict(method, accepted))
    }

    /// What a frame says of its sender, after [`Tracker::frame`]: a session's process.
    pub(super) fn sign_of(
        &self,
        table: &Table,
        process: ProcessId,
        frame: &Frame,
    ) -> Option<(ConnectionId, Sign)> {
        let id = table.get(process)?.connection?;
        let conn = self.connections.get(&id)?;
        let other = process != id.0 && conn.network != Some(process);
        (other && Proof::is_of_a_session(frame.frame_type)).then_some((id, Sign::Asked))
    }

    /// Frames of this program were read: its layout is understood.
    pub(super) fn reads(&self, monitor: &Program) -> bool {
        self.read.contains(&monitor.subject)
    }

    pub(super) fn conn(&self, id: ConnectionId) -> Option<&Conn> {
        self.connections.get(&id)
    }

    pub(super) fn conn_mut(&mut self, id: ConnectionId) -> Option<&mut Conn> {
        self.connections.get_mut(&id)
    }

    /// What a member has used by now.
    pub(super) fn used(
        &mut self,
        connection: Option<ConnectionId>,
        process: ProcessId,
        usage: &Usage,
    ) {
        let conn = connection.and_then(|id| self.connections.get_mut(&id));
        if let Some(latest) = conn.and_then(|conn| conn.usage.get_mut(&process)) {
            latest.raise(usage);
        }
    }

    /// What a process ended with: of the connection's first it is kept.
    pub(super) fn exited(
        &mut self,
        connection: Option<ConnectionId>,
        process: ProcessId,
        exit_code: u32,
    ) {
        let first = connection.filter(|id| id.0 == process);
        if let Some(conn) = first.and_then(|id| self.connections.get_mut(&id)) {
            conn.marks.exit_code = Some(exit_code);
            conn.shown = None;
        }
    }

    /// An end; gives the connection if that was its last process.
    pub(super) fn ended(
        &mut self,
        table: &mut Table,
        process: ProcessId,
    ) -> Option<Arc<Connection>> {
        let id = table.get(process)?.connection?;
        let conn = self.connections.get_mut(&id)?;
        conn.gone(process);
        if !conn.living.is_empty() {
            return None;
        }
        let shown = self.shown(id);
        self.forget(id);
        shown
    }

    /// Records were lost: nothing that is open now adds up any more.
    pub(super) fn lost_records(&mut self) {
        for conn in self.connections.values_mut() {
            conn.partial = true;
            conn.shown = None;
        }
    }

    /// Some of them were lost that verdicts come in, before `now_ns`: nobody can say which.
    pub(super) fn lost_proof(&mut self, now_ns: u64) {
        self.lost_until = now_ns;
        for conn in self.connections.values_mut() {
            conn.proof.doubt(Doubt::RecordsLost);
        }
    }

    /// The kernel side does not know yet that a process of the connection is an sshd: what it says until
    /// then is not told.
    pub(super) fn unheard(&mut self, connection: Option<ConnectionId>) {
        if let Some(conn) = connection.and_then(|id| self.connections.get_mut(&id)) {
            conn.proof.begins_late();
        }
    }

    /// A call may not have been told before `now_ns`, or was of a process that nobody knows: it may
    /// have been any connection's.
    pub(super) fn misses_call(&mut self, now_ns: u64) {
        self.missed_until = now_ns;
        self.connections.values_mut().for_each(|conn| conn.heard.misses());
    }

    /// Every probe is attached now.
    pub(super) fn armed(&mut self, now_ns: u64) {
        self.armed_at = now_ns;
    }

    /// A connection that was already there when the sensor started.
    pub(super) fn found_established(&mut self, table: &mut Table, process: ProcessId) {
        let Some(proc) = table.get(process) else { return };
        let parent = proc.parent.and_then(|id| table.get(id)).filter(|parent| parent.sshd());
        match parent.map(|parent| (parent.id, parent.connection)) {
            Some((_, Some(id))) => self.join(table, id, process),
            Some((listener, None)) if proc.sshd() => {
                let id = self.open(table, process, Lineage::Sshd(listener), proc.born_ktime_ns);
                self.confirm(table, id, None);
                if let Some(conn) = self.connections.get_mut(&id) {
                    conn.authenticated = true;
                    conn.session = true;
                    conn.partial = true;
                    conn.proof.doubt(Doubt::BegunBefore);
                }
            }
            _ => {}
        }
    }

    /// The facts as they are now; `None` while it may be no connection at all.
    pub(super) fn shown(&mut self, id: ConnectionId) -> Option<Arc<Connection>> {
        let watched = self.frames_seen;
        let conn = self.connections.get_mut(&id).filter(|conn| conn.confirmed)?;
        if conn.shown.is_none() {
            conn.shown = conn.facts(id, watched).map(Arc::new);
        }
        conn.shown.clone()
    }

    /// Which incident family a process belongs to.
    pub(super) fn lineage(&self, proc: &Proc) -> Lineage {
        let conn = proc.connection.and_then(|id| self.connections.get(&id));
        match (conn, &proc.program) {
            (Some(conn), _) => conn.lineage.clone(),
            (None, Some(program)) if !program.sshd() => Lineage::Program(program.subject.clone()),
            (None, _) => Lineage::Sshd(proc.id),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    fn lineage_of_parent(table: &Table, proc: &Proc) -> Lineage {
        match proc.parent.and_then(|id| table.get(id)).filter(|parent| parent.sshd()) {
            Some(listener) => Lineage::Sshd(listener.id),
            // Started by inetd or a socket unit: nothing listens but the program as such.
            None => Lineage::Program(
                proc.program.as_ref().map(|program| program.subject.clone()).unwrap_or_default(),
            ),
        }
    }

    fn open(
        &mut self,
        table: &mut Table,
        process: ProcessId,
        lineage: Lineage,
        accepted_ktime_ns: u64,
    ) -> ConnectionId {
        if self.connections.len() >= CONNECTIONS_MAX
            && let Some((_, oldest)) = self.by_age.first().copied()
        {
            self.forget(oldest);
        }
        let id = ConnectionId(process);
        self.by_age.insert((accepted_ktime_ns, id));
        let mut conn = Conn::new(lineage, accepted_ktime_ns);
        if accepted_ktime_ns <= self.armed_at {
            conn.proof.doubt(Doubt::BegunBefore);
        } else if accepted_ktime_ns <= self.lost_until {
            conn.proof.doubt(Doubt::RecordsLost);
        }
        if accepted_ktime_ns <= self.missed_until {
            conn.heard.misses();
        }
        self.connections.insert(id, conn);
        self.join(table, id, process);
        id
    }

    fn join(&mut self, table: &mut Table, id: ConnectionId, process: ProcessId) {
        let Some(conn) = self.connections.get_mut(&id) else { return };
        if conn.living.len() >= MEMBERS_MAX {
            conn.partial = true;
            conn.proof.doubt(Doubt::TooManyProcesses);
            conn.shown = None;
            return;
        }
        if let Some(proc) = table.get_mut(process) {
            proc.connection = Some(id);
            proc.shown = None;
            conn.usage.insert(process, Used::default());
            conn.living.insert(process);
        }
    }

    fn confirm(&mut self, table: &mut Table, id: ConnectionId, peer: Option<SocketAddr>) {
        if let Some(conn) = self.connections.get_mut(&id) {
            conn.confirmed = true;
            conn.peer = peer;
        }
        self.refresh(table, id);
    }

    /// Takes the program of the connection's first process.
    fn refresh(&mut self, table: &Table, id: ConnectionId) {
        let program = table.get(id.0).and_then(|proc| proc.program.clone());
        if let Some(conn) = self.connections.get_mut(&id) {
            conn.program = program.or(conn.program.take());
            conn.shown = None;
        }
    }

    /// It was none.
    fn dissolve(&mut self, table: &mut Table, id: ConnectionId) {
        let members = self.connections.get(&id).map(|conn| conn.living.clone());
        for member in members.into_iter().flatten() {
            if let Some(proc) = table.get_mut(member) {
                proc.connection = None;
                proc.shown = None;
            }
        }
        self.forget(id);
    }

    fn forget(&mut self, id: ConnectionId) {
        if let Some(conn) = self.connections.remove(&id) {
            self.by_age.remove(&(conn.accepted_ktime_ns, id));
        }
    }
}
