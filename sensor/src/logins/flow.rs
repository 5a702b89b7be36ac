//! One login through libpam, from its first call to `pam_end`.
//!
//! Calls are seen as they are entered. So an attempt has succeeded if the program went on to the
//! account, the credentials or a session, and has failed if it authenticates once more; of the last
//! one `pam_end` tells. A program that goes on although PAM said no is told as one that let somebody
//! in: so it did. One that ends with `PAM_SUCCESS` and never asked about the account may mean
//! anything.

use std::sync::Arc;

use jiff::Timestamp;

use super::record::{GIVEN_UP, faults};
use super::{Attempt, Login, Outcome, Phase, Phases, Verdict};
use crate::event::Usage;
use crate::host::{Method, Process, seconds};

/// Attempts told of one login; sudo and login allow three unless told otherwise.
const ATTEMPTS_MAX: usize = 16;
/// Characters of a program's name that are kept.
const NAME_MAX: usize = 64;

/// What `pam_end` is handed, by its number (Linux-PAM 1.1 to 1.7, `_pam_types.h`).
const STATUSES: [&str; 32] = [
    "PAM_SUCCESS",
    "PAM_OPEN_ERR",
    "PAM_SYMBOL_ERR",
    "PAM_SERVICE_ERR",
    "PAM_SYSTEM_ERR",
    "PAM_BUF_ERR",
    "PAM_PERM_DENIED",
    "PAM_AUTH_ERR",
    "PAM_CRED_INSUFFICIENT",
    "PAM_AUTHINFO_UNAVAIL",
    "PAM_USER_UNKNOWN",
    "PAM_MAXTRIES",
    "PAM_NEW_AUTHTOK_REQD",
    "PAM_ACCT_EXPIRED",
    "PAM_SESSION_ERR",
    "PAM_CRED_UNAVAIL",
    "PAM_CRED_EXPIRED",
    "PAM_CRED_ERR",
    "PAM_NO_MODULE_DATA",
    "PAM_CONV_ERR",
    "PAM_AUTHTOK_ERR",
    "PAM_AUTHTOK_RECOVERY_ERR",
    "PAM_AUTHTOK_LOCK_BUSY",
    "PAM_AUTHTOK_DISABLE_AGING",
    "PAM_TRY_AGAIN",
    "PAM_IGNORE",
    "PAM_ABORT",
    "PAM_AUTHTOK_EXPIRED",
    "PAM_MODULE_UNKNOWN",
    "PAM_BAD_ITEM",
    "PAM_CONV_AGAIN",
    "PAM_INCOMPLETE",
];
const SUCCESS: u8 = 0;
/// The dialogue was broken off, or never came about: `PAM_CONV_ERR`, `PAM_ABORT`, `PAM_CONV_AGAIN`,
/// `PAM_INCOMPLETE`.
const BROKEN_OFF: [u8; 4] = [19, 26, 30, 31];

/// Programs that tell `pam_end` success whatever it was (Dropbear 2014.63 to 2025.88,
/// `svr-authpam.c`).
const CARELESS: [&str; 1] = ["dropbear"];

/// A moment with what its thread had used by then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) ktime_ns: u64,
    pub(super) usage: Usage,
}

/// How it is over, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// `pam_end` with this status.
    Status(u8),
    /// It goes on, or its status was not told.
    Untold,
    /// Its process is gone, or runs another program.
    Gone,
    /// Given up for want of room.
    GivenUp,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Being authenticated.
    Asked,
    /// Authenticated, or let off; the account is asked about.
    Account,
    /// Credentials are given.
    Granted,
    /// A session is opened.
    Session,
}

#[derive(Debug)]
pub(super) struct Flow {
    process: Arc<Process>,
    start: Timestamp,
    start_ktime_ns: u64,
    link: Option<Phase>,
    /// Whether a call of `pam_end` would be seen.
    end_told: bool,
    stage: Stage,
    attempts: Vec<Attempt>,
    left_out: u32,
    /// The first attempt, and the one that is not decided.
    first: Option<Point>,
    pending: Option<Point>,
    /// Since when the account is asked about.
    account: Option<Point>,
    auth: Option<Phase>,
    pam: Option<Phase>,
    partial: bool,
    begun: bool,
}

// === impl Point ===

impl Point {
    /// From here to there. Where the thread slept meanwhile, as for a password, its CPU time is what
    /// the kernel's scheduler has counted, which is stale by up to a tick.
    fn until(&self, to: &Self) -> Phase {
        let wall = to.ktime_ns.saturating_sub(self.ktime_ns);
        let (from, to) = (&self.usage, &to.usage);
        let cpu = if from.voluntary_switches == to.voluntary_switches {
            wall.saturating_sub(to.run_delay_ns.saturating_sub(from.run_delay_ns))
        } else {
            to.sum_exec_ns.saturating_sub(from.sum_exec_ns).min(wall)
        };
        let page_faults = Some(faults(to.minor_faults.saturating_sub(from.minor_faults)));
        Phase { wall_seconds: seconds(wall), cpu_seconds: Some(seconds(cpu)), page_faults }
    }
}

// === impl Flow ===

impl Flow {
    pub(super) fn new(
        process: Arc<Process>,
        start: Timestamp,
        start_ktime_ns: u64,
        link: Option<Phase>,
        end_told: bool,
    ) -> Self {
        Self {
            process,
            start,
            start_ktime_ns,
            link,
            end_told,
            stage: Stage::Asked,
            attempts: Vec::new(),
            left_out: 0,
            first: None,
            pending: None,
            account: None,
            auth: None,
            pam: None,
            partial: false,
            begun: false,
        }
    }

    pub(super) fn start_ktime_ns(&self) -> u64 {
        self.start_ktime_ns
    }

    /// It was told while it went on.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whoever it is has authenticated, or did not have to.
    pub(super) fn is_through(&self) -> bool {
        self.stage > Stage::Asked
    }

    /// Records of it may be missing.
    pub(super) fn lost(&mut self) {
        self.partial = true;
    }

    pub(super) fn authenticates(&mut self, now: Point) {
        self.decide(&now, Verdict::Refused);
        self.first.get_or_insert(now);
        self.pending = Some(now);
    }

    pub(super) fn asks_account(&mut self, now: Point) {
        self.decide(&now, Verdict::Accepted);
        if self.stage == Stage::Asked {
            (self.stage, self.account) = (Stage::Account, Some(now));
        }
    }

    pub(super) fn granted(&mut self, now: Point) {
        self.decide(&now, Verdict::Accepted);
        self.account_answered(&now);
        self.stage = self.stage.max(Stage::Granted);
    }

    /// True if somebody who authenticated is in from now on.
    pub(super) fn opens_session(&mut self, now: Point) -> bool {
        self.granted(now);
        self.stage = Stage::Session;
        let is_first = !self.attempts.is_empty() && !self.begun;
        self.begun |= is_first;
        is_first
    }

    /// `pam_end`, with this status; gives what that says.
    pub(super) fn ends(&mut self, now: Point, status: Option<u8>) -> End {
        let status = status.filter(|_| !CARELESS.contains(&self.process.program.name()));
        let refused = |status: u8| status != SUCCESS && !BROKEN_OFF.contains(&status);
        let verdict =
            if status.is_some_and(refused) { Verdict::Refused } else { Verdict::Undecided };
        self.decide(&now, verdict);
        self.account_answered(&now);
        status.map_or(End::Untold, End::Status)
    }

    /// The attempt under way, if there is one, has come to this.
    fn decide(&mut self, now: &Point, verdict: Verdict) {
        let Some(since) = self.pending.take() else { return };
        let took = since.until(now);
        self.auth = self.first.map(|first| first.until(now));
        let (seconds, cpu_seconds) = (Some(took.wall_seconds), took.cpu_seconds);
        let (method, key_type) = (Method::Pam, None);
        let attempt = Attempt { method, key_type, verdict, seconds, cpu_seconds };
        if self.attempts.len() < ATTEMPTS_MAX {
            self.attempts.push(attempt);
            return;
        }
        self.left_out = self.left_out.saturating_add(1);
        // The last one decides.
        if let Some(last) = self.attempts.last_mut() {
            *last = attempt;
        }
    }

    fn account_answered(&mut self, now: &Point) {
        self.pam = self.account.take().map(|since| since.until(now)).or(self.pam);
    }

    /// As it stands now; `end` where it is over.
    pub(super) fn login(&self, with: End, end: Option<(Timestamp, u64)>) -> Login {
        let mut attempts = self.attempts.clone();
        if self.pending.is_some() {
            attempts.push(Attempt {
                method: Method::Pam,
                key_type: None,
                verdict: Verdict::Undecided,
                seconds: None,
                cpu_seconds: None,
            });
        }
        let (outcome, reason) = self.outcome(with);
        let duration = end.map(|(_, now)| now.saturating_sub(self.start_ktime_ns));
        let Process { program, shown, .. } = &*self.process;
        Login {
            start: self.start,
            end: end.map(|(time, _)| time),
            duration_seconds: duration.map(seconds),
            pid: shown.pid,
            program: program.name().chars().take(NAME_MAX).collect::<String>().into(),
            peer: None,
            peer_port: None,
            subject: program.subject.as_str().into(),
            container: shown.container.as_deref().map(Into::into),
            uid: Some(shown.uid),
            user: None,
            method: Some(Method::Pam),
            outcome,
            reason: reason.map(Into::into),
            attempts,
            attempts_left_out: self.left_out,
            phases: Phases {
                link: self.link,
                key_exchange: None,
                auth: self.auth,
                pam: self.pam,
                session: None,
            },
            session: self.stage == Stage::Session,
            exit_status: None,
            exit_signal: None,
            guessing: None,
            partial: self.partial || with == End::GivenUp,
        }
    }

    /// What is proven comes before what is missing.
    fn outcome(&self, with: End) -> (Outcome, Option<&'static str>) {
        use Outcome::{Accepted, Refused, Unknown};
        const NO_SESSION: &str = "no session was opened";
        match (self.stage, with) {
            (Stage::Session, End::Status(SUCCESS)) => (Accepted, None),
            (Stage::Session, End::Status(status)) => (Accepted, name(status)),
            (Stage::Account | Stage::Granted, End::Status(SUCCESS)) => (Accepted, Some(NO_SESSION)),
            (Stage::Account | Stage::Granted, End::Status(status)) => (Refused, name(status)),
            (_, End::GivenUp) if self.stage < Stage::Granted => (Unknown, Some(GIVEN_UP)),
            (Stage::Session | Stage::Granted, _) => (Accepted, None),
            (Stage::Account, _) => {
                (Unknown, Some("it ended before PAM's word on the account was seen"))
            }
            (Stage::Asked, _) => self.not_let_in(with),
        }
    }

    fn not_let_in(&self, with: End) -> (Outcome, Option<&'static str>) {
        use Outcome::{Aborted, Refused, Unknown};
        let refused = self.attempts.iter().any(|attempt| attempt.verdict == Verdict::Refused);
        match with {
            End::Status(SUCCESS) => (Unknown, Some("it never asked about the account")),
            End::Status(status) if refused || !BROKEN_OFF.contains(&status) => {
                (Refused, name(status))
            }
            End::Status(status) => (Aborted, name(status)),
            _ if refused => (Refused, None),
            _ if self.partial => (Unknown, Some("records about it were lost")),
            End::Gone if self.end_told => (Aborted, Some("it ended during an attempt")),
            _ => (Unknown, Some("what it ended with was not seen")),
        }
    }
}

/// A status as `_pam_types.h` names it.
pub(crate) fn name(status: u8) -> Option<&'static str> {
    STATUSES.get(usize::from(status)).copied()
}
