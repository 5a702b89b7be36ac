//! One sshd connection as the tracker keeps it: its facts, its processes and what frames make of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use sensor_common::record::FRAME_KEY_ALLOWED;

use super::below::Starter;
use super::crosscheck::Heard;
use super::frames::Said;
use super::marks::{Mark, Marks};
use super::method::{KeyType, Method};
use super::observe::{Connection, ConnectionId, Lineage, ProcessId, Program, Verdict};
use super::proof::Proof;
use super::tries::Tries;
use crate::event::{Frame, Usage};

/// Places remembered of processes that may have ended.
const STARTERS_MAX: usize = 1024;

/// Everything known of it.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each true from some moment on"
)]
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) lineage: Lineage,
    pub(super) program: Option<Arc<Program>>,
    /// It is a connection and not a daemon's fork: it re-executed or spoke.
    pub(super) confirmed: bool,
    pub(super) peer: Option<SocketAddr>,
    pub(super) user: Option<String>,
    pub(super) attempted: Vec<Method>,
    pub(super) last_attempt: Option<Method>,
    pub(super) method: Option<Method>,
    /// The key that was looked up last, and whether it is a host's.
    pub(super) key: Option<KeyType>,
    pub(super) of_host: bool,
    pub(super) authenticated: bool,
    pub(super) finished_unseen: bool,
    pub(super) session: bool,
    pub(super) accepted_ktime_ns: u64,
    pub(super) partial: bool,
    /// Of every living process.
    pub(super) usage: BTreeMap<ProcessId, Used>,
    /// Of all that have ended or left.
    pub(super) usage_of_gone: Used,
    pub(super) living: BTreeSet<ProcessId>,
    pub(super) answers: u32,
    pub(super) proof: Proof,
    pub(super) tries: Tries,
    pub(super) heard: Heard,
    /// Told already, and given up: its processes are a session's, whoever let them in.
    pub(super) released: bool,
    /// Programs told that were executed before the end of the proof.
    pub(super) executed: u32,
    /// Counted already: nobody could say whether a program of it was configured.
    pub(super) unsaid: bool,
    /// Signs of a session told.
    pub(super) signs: u32,
    /// What its processes are to sshd, but the monitor.
    pub(super) starters: BTreeMap<ProcessId, Starter>,
    pub(super) network: Option<ProcessId>,
    pub(super) marks: Marks,
    pub(super) shown: Option<Arc<Connection>>,
}

/// What a process has used, as it was last told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    cpu_ns: u64,
    minor_faults: u64,
}

// === impl Used ===

impl Used {
    /// Records of one process may be read out of their order.
    pub(super) fn raise(&mut self, usage: &Usage) {
        self.cpu_ns = self.cpu_ns.max(usage.sum_exec_ns);
        self.minor_faults = self.minor_faults.max(usage.minor_faults);
    }

    fn and(self, other: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_add(other.cpu_ns),
            minor_faults: self.minor_faults.saturating_add(other.minor_faults),
        }
    }
}

// === impl Conn ===

impl Conn {
    pub(super) fn new(lineage: Lineage, accepted_ktime_ns: u64) -> Self {
        Self {
            lineage,
            program: None,
            confirmed: false,
            peer: None,
            user: None,
            attempted: Vec::new(),
            last_attempt: None,
            method: None,
            key: None,
            of_host: false,
            authenticated: false,
            finished_unseen: false,
            session: false,
            accepted_ktime_ns,
            partial: false,
            usage: BTreeMap::new(),
            usage_of_gone: Used::default(),
            living: BTreeSet::new(),
            answers: 0,
            proof: Proof::default(),
            tries: Tries::default(),
            heard: Heard::default(),
            released: false,
            executed: 0,
            unsaid: false,
            signs: 0,
            starters: BTreeMap::new(),
            network: None,
            marks: Marks::default(),
            shown: None,
        }
    }

    pub(super) fn answered(&self, said: Said) -> Option<(Method, bool)> {
        match said {
            Said::Answer(method, accepted) => Some((method, accepted)),
            // Where these methods' own answers are not told, PAM's word on the account follows
            // success.
            Said::Account(true) if !self.authenticated && !self.proof.dialogue_read() => {
                let late = [Method::KeyboardInteractive, Method::GssapiWithMic];
                self.last_attempt
                    .filter(|method| late.contains(method))
                    .map(|method| (method, true))
            }
            Said::Account(false) => self.method.map(|method| (method, false)),
            _ => None,
        }
    }

    /// What a frame says of keys, for the key that is looked up: requests with a signature and their
    /// answers do not tell whose it is.
    pub(super) fn of_key(&self, said: Said) -> Said {
        match said {
            Said::Attempt(Method::Publickey) if self.of_host => Said::Attempt(Method::Hostbased),
            Said::Answer(Method::Publickey, accepted) if self.of_host => {
                Said::Answer(Method::Hostbased, accepted)
            }
            said => said,
        }
    }

    pub(super) fn requested(&mut self, said: Said, frame: &Frame) -> Option<(Method, bool)> {
        self.tries.asked(frame.frame_type);
        if frame.frame_type == FRAME_KEY_ALLOWED {
            self.key = frame.key_type.as_deref().map(KeyType::of);
            self.of_host = said == Said::Attempt(Method::Hostbased);
        }
        let said = self.of_key(said);
        match said {
            Said::User => self.user = frame.user.clone().or(self.user.take()),
            Said::Attempt(method) => {
                self.last_attempt = Some(method);
                if !self.attempted.contains(&method) {
                    self.attempted.push(method);
                }
            }
            Said::KeyExport if !self.authenticated => {
                self.finished_unseen = true;
                // The answer may have been lost; otherwise the network child is not believed.
                return self.last_attempt.filter(|_| self.partial).map(|method| (method, true));
            }
            _ => {}
        }
        None
    }

    pub(super) fn verdict(&mut self, method: Method, accepted: bool) -> Verdict {
        let Used { cpu_ns, minor_faults } = self.used();
        let asked = self.marks.asked.filter(|_| self.tries.is_one(method));
        let check_ns = asked.map(|asked| cpu_ns.saturating_sub(asked.cpu_ns));
        let earlier = self.answers;
        self.answers = self.answers.saturating_add(1);
        self.authenticated = accepted;
        self.method = accepted.then_some(method);
        let key = self.key.filter(|_| method.is_by_key());
        Verdict { method, key, accepted, cpu_ns, minor_faults, check_ns, earlier }
    }

    /// What runs below it now runs in a session.
    pub(super) fn is_over(&self) -> bool {
        let proven = self.proof.missing().is_none();
        self.released || proven || (self.authenticated && self.proof.is_doubted())
    }

    /// A process forked by `parent`, which the first time is the monitor for its network child.
    pub(super) fn forked(&mut self, monitor: ProcessId, parent: ProcessId, child: ProcessId) {
        let of_parent = self.starters.get(&parent).copied();
        let starter = match of_parent {
            None if parent == monitor && self.network.is_none() => {
                self.network = Some(child);
                Starter::Network
            }
            Some(Starter::Leaf) => Starter::Stranger,
            Some(starter) => starter,
            None => Starter::Sshd,
        };
        self.starters.insert(child, starter);
    }

    /// Whether a process that sends a frame, and is not the monitor, is the network child. The first
    /// to speak is, as nobody else has anything to say then: what was forked before it ran a command
    /// (`hosts_access(5)` has such ones). Where a session's process is the first, the network child's
    /// frames were not seen.
    pub(super) fn is_network(&mut self, process: ProcessId, frame_type: u8) -> bool {
        if !self.proof.has_spoken() && Proof::is_of_a_session(frame_type) {
            return false;
        }
        if !self.proof.has_spoken() && self.network != Some(process) {
            if let Some(other) = self.network.replace(process) {
                self.starters.insert(other, Starter::Sshd);
            }
            self.starters.insert(process, Starter::Network);
        }
        self.network == Some(process)
    }

    /// The place of a process that executes a program other than the network child's own: one that
    /// has not spoken yet is no network child.
    pub(super) fn place(&mut self, monitor: ProcessId, process: ProcessId) -> Starter {
        if self.network == Some(process) && !self.proof.has_spoken() {
            self.network = None;
            self.starters.insert(process, Starter::Sshd);
        }
        let elsewhere = if process == monitor { Starter::Monitor } else { Starter::Sshd };
        self.starters.get(&process).copied().unwrap_or(elsewhere)
    }

    /// A process has ended or left.
    pub(super) fn gone(&mut self, process: ProcessId) {
        self.living.remove(&process);
        let used = self.usage.remove(&process).unwrap_or_default();
        self.usage_of_gone = self.usage_of_gone.and(used);
        // A child may be told after the end of its parent: places are kept while there is room.
        if self.starters.len() > STARTERS_MAX {
            let living = &self.living;
            self.starters.retain(|id, _| living.contains(id));
        }
    }

    /// Of all its processes since accept.
    fn used(&self) -> Used {
        self.usage.values().fold(self.usage_of_gone, |sum, used| sum.and(*used))
    }

    /// Notes the moment where a phase ends with the frame.
    pub(super) fn mark(&mut self, said: Said, by_monitor: bool, ktime_ns: u64) {
        let Used { cpu_ns, minor_faults } = self.used();
        let now = Some(Mark { ktime_ns, cpu_ns, minor_faults });
        match said {
            Said::User if !by_monitor => self.marks.asked = self.marks.asked.or(now),
            Said::Account(_) if by_monitor => self.marks.account = now,
            Said::Offered(allowed) if by_monitor => self.marks.key_refused = !allowed,
            _ => {}
        }
    }

    pub(super) fn facts(&self, id: ConnectionId, watched: bool) -> Option<Connection> {
        Some(Connection {
            id,
            program: self.program.clone()?,
            peer: self.peer,
            user: self.user.clone(),
            attempted: self.attempted.clone(),
            method: self.method,
            key: self.key,
            authenticated: self.authenticated,
            session: self.session,
            accepted_ktime_ns: self.accepted_ktime_ns,
            partial: self.partial,
            finished_unseen: self.finished_unseen,
            marks: self.marks,
            watched,
        })
    }
}
