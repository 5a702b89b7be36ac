//! From calls into libpam to logins: of sudo, su, login and whoever else authenticates by it. Of
//! sshd its own processes tell more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::flow::{End, Flow, Point};
use super::record::linked;
use super::{LoginId, Phase, Told};
use crate::host::{Body, Observation, PamCall, PamStep, Process, ProcessId};

/// Logins followed at once; the oldest is given up beyond.
const OPEN_MAX: usize = 4096;
/// Starts of programs remembered.
const LINKED_MAX: usize = 4096;

/// For so long somebody may have been asked before the account was: sudo's `passwd_timeout`.
const ASKED_NS: u64 = 300_000_000_000;

/// A process, and the thread of it.
type Key = (ProcessId, u32);

/// Logins through libpam that are not over.
#[derive(Debug, Default)]
pub(super) struct Flows {
    open: BTreeMap<Key, Flow>,
    by_age: BTreeSet<(u64, Key)>,
    /// What linking took of programs that run.
    linked: BTreeMap<ProcessId, Phase>,
    /// Of these a call was seen whose function is not known, and nothing yet that begins a login.
    unnamed: BTreeSet<Key>,
    /// The latest call, and what it was when observations were last missed.
    latest_ktime_ns: u64,
    lost_ktime_ns: Option<u64>,
}

// === impl Flows ===

impl Flows {
    /// One observation, in order; gives what can be told now.
    pub(super) fn note(&mut self, seen: &Observation) -> Vec<Told> {
        if !tells(&seen.process) && !matches!(seen.body, Body::Started) {
            return Vec::new();
        }
        let process = seen.process.id;
        match &seen.body {
            Body::Linked(timing) => {
                if self.linked.len() >= LINKED_MAX {
                    self.linked.pop_first();
                }
                self.linked.insert(process, linked(timing));
                Vec::new()
            }
            // Another program now runs in its place.
            Body::Started | Body::Ended => {
                self.linked.remove(&process);
                let of = (process, 0)..=(process, u32::MAX);
                let gone: Vec<Key> = self.open.range(of).map(|(key, _)| *key).collect();
                self.unnamed.retain(|key| key.0 != process);
                let end = Some((seen.time, seen.ktime_ns));
                gone.into_iter().filter_map(|key| self.over(key, End::Gone, end)).collect()
            }
            Body::Pam(call) => self.called(seen, call),
            _ => Vec::new(),
        }
    }

    /// Observations are missing: what is open now may lack some.
    pub(super) fn on_loss(&mut self) {
        self.open.values_mut().for_each(Flow::lost);
        self.lost_ktime_ns = Some(self.latest_ktime_ns);
    }

    fn called(&mut self, seen: &Observation, call: &PamCall) -> Vec<Told> {
        let key = (seen.process.id, call.tid);
        let now = Point { ktime_ns: seen.ktime_ns, usage: call.usage };
        let end = Some((seen.time, seen.ktime_ns));
        self.latest_ktime_ns = seen.ktime_ns.max(self.latest_ktime_ns);
        let mut told = Vec::new();
        if call.step == PamStep::Authenticate && self.open.get(&key).is_some_and(Flow::is_through) {
            // A service that lets in one after the other.
            told.extend(self.over(key, End::Untold, end));
        }
        // Who was let in before the sensor looked only has to leave.
        if matches!(call.step, PamStep::Authenticate | PamStep::Account) {
            told.extend(self.admit(key, seen, call));
        }
        let Some(flow) = self.open.get_mut(&key) else {
            if call.step == PamStep::Unnamed && self.unnamed.len() < OPEN_MAX {
                self.unnamed.insert(key);
            }
            return told;
        };
        match call.step {
            PamStep::Authenticate => flow.authenticates(now),
            PamStep::Account => flow.asks_account(now),
            PamStep::Credentials => flow.granted(now),
            PamStep::Session => {
                if flow.opens_session(now) {
                    let login = flow.login(End::Untold, None);
                    told.push(Told::Begun(LoginId::Thread(key.0, key.1), login));
                }
            }
            PamStep::Unnamed => flow.lost(),
            PamStep::End => {
                let with = flow.ends(now, call.status);
                told.extend(self.over(key, with, end));
            }
        }
        told
    }

    /// Makes room for one that is new.
    fn admit(&mut self, key: Key, seen: &Observation, call: &PamCall) -> Option<Told> {
        if self.open.contains_key(&key) {
            return None;
        }
        let oldest = (self.open.len() >= OPEN_MAX).then(|| self.by_age.first().copied()).flatten();
        let told = oldest.and_then(|(_, oldest)| self.over(oldest, End::GivenUp, None));
        let link = self.linked.get(&key.0).copied();
        self.by_age.insert((seen.ktime_ns, key));
        let process = Arc::clone(&seen.process);
        let mut flow = Flow::new(process, seen.time, seen.ktime_ns, link, call.end_told);
        // That nobody was asked is only known where nothing was missed.
        let lost = self.lost_ktime_ns;
        let lately = lost.is_some_and(|lost| seen.ktime_ns.saturating_sub(lost) < ASKED_NS);
        if self.unnamed.remove(&key) || (lately && call.step == PamStep::Account) {
            flow.lost();
        }
        self.open.insert(key, flow);
        told
    }

    /// `end` is `None` where it is given up for want of room.
    fn over(&mut self, key: Key, with: End, end: Option<(Timestamp, u64)>) -> Option<Told> {
        let flow = self.open.remove(&key)?;
        self.by_age.remove(&(flow.start_ktime_ns(), key));
        let id = LoginId::Thread(key.0, key.1);
        Some(Told::Ended { id, login: flow.login(with, end), begun: flow.has_begun() })
    }

    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        assert_eq!(self.open.len(), self.by_age.len());
        assert!(self.linked.len() <= LINKED_MAX);
        self.open.len()
    }
}

/// As the host station does.
fn tells(process: &Process) -> bool {
    process.program.guarded() && !process.program.sshd()
}
