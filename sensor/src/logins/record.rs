//! From observations to logins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::guess::Guesses;
use super::outcome::{self, Exit, Outcome};
use super::pam::Flows;
use super::{Attempt, Login, LoginId, Phase, Phases, SSHD, Verdict};
use crate::host::{Body, Connection, ConnectionId, LinkTiming, Observation, Owners, seconds};
use crate::host::{Mark, Verdict as Answer};

/// Connections followed at once, as many as the host station follows.
const OPEN_MAX: usize = 4096;
/// Attempts told of one connection; sshd allows six unless told otherwise (`MaxAuthTries`).
const ATTEMPTS_MAX: usize = 16;
/// Characters of a user name that are kept: `LOGIN_NAME_MAX` of Linux is 256.
const USER_MAX: usize = 256;
/// Why the end of a connection is not known that was given up for want of room.
pub(super) const GIVEN_UP: &str = "there were too many at once to follow it";

/// Makes logins from observations, on the event clock alone.
#[derive(Debug)]
pub struct Recorder {
    failed_users: bool,
    open: BTreeMap<ConnectionId, Open>,
    by_age: BTreeSet<(u64, ConnectionId)>,
    guesses: Guesses,
    flows: Flows,
}

/// What became of a login.
#[derive(Clone, Debug)]
pub enum Told {
    /// Somebody was let in and a session has begun; it goes on.
    Begun(LoginId, Login),
    /// It is over.
    Ended {
        /// Which.
        id: LoginId,
        /// What is known in the end.
        login: Login,
        /// It was told when its session began.
        begun: bool,
    },
}

/// A connection that is not over.
#[derive(Debug)]
struct Open {
    facts: Arc<Connection>,
    start: Timestamp,
    container: Option<Box<str>>,
    attempts: Vec<Attempt>,
    left_out: u32,
    /// The latest verdict.
    decided: Option<Mark>,
    link: Option<Phase>,
    session_ktime_ns: Option<u64>,
    partial: bool,
    begun: bool,
}

// === impl Recorder ===

impl Recorder {
    /// With an empty past. `failed_users`: keep the user names of logins that were not accepted.
    #[must_use]
    pub fn new(failed_users: bool) -> Self {
        Self {
            failed_users,
            open: BTreeMap::new(),
            by_age: BTreeSet::new(),
            guesses: Guesses::default(),
            flows: Flows::default(),
        }
    }

    /// One observation, in order; gives what can be told now.
    pub fn note(&mut self, seen: &Observation) -> Vec<Told> {
        let mut told = self.flows.note(seen);
        // Its connection may be over.
        let Some(connection) = seen.connection.as_ref().filter(|_| !is_late(&seen.body)) else {
            return told;
        };
        let id = connection.id;
        told.extend(self.admit(connection, seen));
        let Some(open) = self.open.get_mut(&id) else { return told };
        open.facts = Arc::clone(connection);
        if open.container.is_none() {
            open.container = seen.process.shown.container.as_deref().map(Into::into);
        }
        match &seen.body {
            Body::Linked(timing) if seen.process.id == id.0 => open.link = Some(linked(timing)),
            Body::Verdict(answer) => {
                open.answered(*answer, seen.ktime_ns);
                // At once: whoever guesses can leave the connection open.
                if let Some(peer) = connection.peer.filter(|_| !answer.accepted) {
                    let user = connection.user.as_deref();
                    self.guesses.failed(peer.ip(), user, 1, seen.ktime_ns);
                }
            }
            Body::Session => {
                open.session_ktime_ns.get_or_insert(seen.ktime_ns);
                if !std::mem::replace(&mut open.begun, true) {
                    let login = self.begun(id, seen.ktime_ns);
                    told.extend(login.map(|login| Told::Begun(LoginId::Connection(id), login)));
                }
            }
            Body::Closed => told.extend(self.ended(id, Some((seen.time, seen.ktime_ns)))),
            _ => {}
        }
        told
    }

    /// Observations are missing: what is open now may lack some.
    pub fn on_loss(&mut self) {
        for open in self.open.values_mut() {
            open.partial = true;
        }
        self.flows.on_loss();
    }

    /// Makes room for a connection that is new.
    fn admit(&mut self, connection: &Arc<Connection>, seen: &Observation) -> Vec<Told> {
        let id = connection.id;
        if self.open.contains_key(&id) {
            return Vec::new();
        }
        let mut told = Vec::new();
        if self.open.len() >= OPEN_MAX
            && let Some((_, oldest)) = self.by_age.first().copied()
        {
            told.extend(self.ended(oldest, None));
        }
        let age = seen.ktime_ns.saturating_sub(connection.accepted_ktime_ns);
        self.by_age.insert((connection.accepted_ktime_ns, id));
        self.open.insert(id, Open::new(Arc::clone(connection), before(seen.time, age)));
        told
    }

    fn begun(&mut self, id: ConnectionId, now: u64) -> Option<Login> {
        let mut login = self.open.get(&id)?.login(None, self.failed_users);
        login.guessing = login.peer.and_then(|peer| self.guesses.of(peer, now));
        Some(login)
    }

    /// `end` is `None` where it is given up for want of room.
    fn ended(&mut self, id: ConnectionId, end: Option<(Timestamp, u64)>) -> Option<Told> {
        let open = self.open.remove(&id)?;
        self.by_age.remove(&(open.facts.accepted_ktime_ns, id));
        let mut login = open.login(end, self.failed_users);
        let now = end.map_or(open.facts.accepted_ktime_ns, |(_, ktime_ns)| ktime_ns);
        if end.is_none() {
            login.reason = Some(GIVEN_UP.into());
        }
        if let Some(peer) = login.peer {
            if !matches!(login.outcome, Outcome::Accepted | Outcome::Unknown) {
                // Those that had a verdict are counted already.
                let left = login.attempts.len().saturating_sub(open.attempts.len());
                self.guesses.failed(peer, open.facts.user.as_deref(), left, now);
            }
            login.guessing = self.guesses.of(peer, now);
        }
        let id = LoginId::Connection(id);
        Some(Told::Ended { id, login, begun: open.begun })
    }

    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        assert_eq!(self.open.len(), self.by_age.len());
        self.open.len() + self.flows.open()
    }
}

// === impl Open ===

impl Open {
    fn new(facts: Arc<Connection>, start: Timestamp) -> Self {
        Self {
            facts,
            start,
            container: None,
            attempts: Vec::new(),
            left_out: 0,
            decided: None,
            link: None,
            session_ktime_ns: None,
            partial: false,
            begun: false,
        }
    }

    fn answered(&mut self, answer: Answer, ktime_ns: u64) {
        let Answer { cpu_ns, minor_faults, .. } = answer;
        self.decided = Some(Mark { ktime_ns, cpu_ns, minor_faults });
        let since = ktime_ns.saturating_sub(self.facts.accepted_ktime_ns);
        let attempt = Attempt {
            method: answer.method,
            key_type: answer.key.map(|key| key.name().into()),
            verdict: if answer.accepted { Verdict::Accepted } else { Verdict::Refused },
            seconds: Some(seconds(since)),
            cpu_seconds: Some(seconds(answer.cpu_ns)),
        };
        if self.attempts.len() < ATTEMPTS_MAX {
            self.attempts.push(attempt);
        } else {
            self.left_out = self.left_out.saturating_add(1);
            // The last one decides.
            if let Some(last) = self.attempts.last_mut() {
                *last = attempt;
            }
        }
    }

    /// As it stands now; `end` where it is over.
    fn login(&self, end: Option<(Timestamp, u64)>, failed_users: bool) -> Login {
        let facts = &self.facts;
        let attempts = self.attempts();
        let exit = facts.marks.exit_code.map(Exit::of).unwrap_or_default();
        let partial = facts.partial || self.partial || (end.is_none() && !self.begun);
        let (outcome, reason) = outcome::decide(facts, &attempts, exit, partial);
        let told = failed_users || outcome == Outcome::Accepted;
        let user = facts.user.as_deref().filter(|_| told).map(cut);
        let duration = end.map(|(_, now)| now.saturating_sub(facts.accepted_ktime_ns));
        Login {
            start: self.start,
            end: end.map(|(time, _)| time),
            duration_seconds: duration.map(seconds),
            pid: facts.id.0.tgid,
            program: SSHD.into(),
            peer: facts.peer.map(|peer| peer.ip().to_canonical()),
            peer_port: facts.peer.map(|peer| peer.port()),
            subject: facts.program.subject.as_str().into(),
            container: self.container.clone(),
            uid: None,
            user,
            method: facts.method.or_else(|| attempts.last().map(|attempt| attempt.method)),
            outcome,
            reason: reason.map(Into::into),
            attempts,
            attempts_left_out: self.left_out,
            phases: self.phases(),
            session: facts.session || self.session_ktime_ns.is_some(),
            exit_status: exit.status,
            exit_signal: exit.signal,
            guessing: None,
            partial,
        }
    }

    /// With what was begun and came to no verdict on a proof.
    fn attempts(&self) -> Vec<Attempt> {
        let mut attempts = self.attempts.clone();
        for method in &self.facts.attempted {
            if !self.attempts.iter().any(|attempt| attempt.method == *method) {
                let by_key = method.is_by_key();
                let refused = by_key && self.facts.marks.key_refused;
                attempts.push(Attempt {
                    method: *method,
                    key_type: self.facts.key.filter(|_| by_key).map(|key| key.name().into()),
                    verdict: if refused { Verdict::Refused } else { Verdict::Undecided },
                    seconds: None,
                    cpu_seconds: None,
                });
            }
        }
        attempts
    }

    fn phases(&self) -> Phases {
        let ktime_ns = self.facts.accepted_ktime_ns;
        let accepted = Mark { ktime_ns, cpu_ns: 0, minor_faults: 0 };
        let asked = self.facts.marks.asked;
        let decided = self.decided;
        // PAM's word that is the verdict itself ends no phase of its own.
        let account =
            self.facts.marks.account.filter(|account| {
                decided.is_some_and(|decided| account.ktime_ns > decided.ktime_ns)
            });
        let through = account.or(decided);
        let session = self.session_ktime_ns.zip(through).map(|(began, through)| Phase {
            wall_seconds: seconds(began.saturating_sub(through.ktime_ns)),
            cpu_seconds: None,
            page_faults: None,
        });
        Phases {
            link: self.link,
            key_exchange: asked
                .zip(self.link)
                .map(|(asked, link)| less(between(accepted, asked), link)),
            auth: asked.zip(decided).map(|(asked, decided)| between(asked, decided)),
            pam: decided.zip(account).map(|(decided, account)| between(decided, account)),
            session,
        }
    }
}

/// What provenance and the answers on owners tell comes later than what it is about.
fn is_late(body: &Body) -> bool {
    let owners = match body {
        Body::Traced(_) | Body::Dated(_) => return true,
        Body::Environment(variable) => variable.owners,
        Body::LoaderConfig(change) => change.owners,
        Body::Written(written) => written.owners,
        _ => return false,
    };
    owners == Owners::Answered
}

pub(super) fn linked(timing: &LinkTiming) -> Phase {
    // Stretches with sleep hold the sleep, too: their CPU time is not known.
    let cpu = (timing.blocked_ns == 0).then(|| seconds(timing.cpu_ns));
    Phase {
        wall_seconds: seconds(timing.wall_ns),
        cpu_seconds: cpu,
        page_faults: Some(timing.minor_faults),
    }
}

fn between(from: Mark, to: Mark) -> Phase {
    Phase {
        wall_seconds: seconds(to.ktime_ns.saturating_sub(from.ktime_ns)),
        cpu_seconds: Some(seconds(to.cpu_ns.saturating_sub(from.cpu_ns))),
        page_faults: Some(faults(to.minor_faults.saturating_sub(from.minor_faults))),
    }
}

fn less(whole: Phase, part: Phase) -> Phase {
    let cpu = whole.cpu_seconds.zip(part.cpu_seconds);
    Phase {
        wall_seconds: rounded((whole.wall_seconds - part.wall_seconds).max(0.0)),
        cpu_seconds: cpu.map(|(whole, part)| rounded((whole - part).max(0.0))),
        page_faults: whole
            .page_faults
            .zip(part.page_faults)
            .map(|(all, of)| all.saturating_sub(of)),
    }
}

pub(super) fn faults(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// To a microsecond, as [`seconds`] gives them.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

fn cut(name: &str) -> Box<str> {
    name.chars().take(USER_MAX).collect::<String>().into()
}

fn before(time: Timestamp, ns: u64) -> Timestamp {
    let earlier = SignedDuration::from_nanos(i64::try_from(ns).unwrap_or(i64::MAX));
    time.checked_sub(earlier).unwrap_or(time)
}
