//! How a connection ended, by what was seen of it.

use serde::{Deserialize, Serialize};

use super::{Attempt, Verdict};
use crate::host::Connection;

/// Exit status of a monitor whose client did not log in within `LoginGraceTime`: `EXIT_LOGIN_GRACE`
/// of srclimit.h since OpenSSH 9.8, when sshd-session came; before, 1 by `sigdie`.
const GRACE_SPLIT: u8 = 3;
const GRACE_WHOLE: u8 = 1;
/// `EXIT_AUTH_ATTEMPTED` of the same file: it ended unauthenticated after an attempt.
const ATTEMPTED_SPLIT: u8 = 5;

/// How a connection went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Somebody was let in.
    Accepted,
    /// Somebody was not.
    Refused,
    /// It ended before anything was decided.
    Aborted,
    /// It did not log in in time.
    TimedOut,
    /// What was seen does not tell.
    Unknown,
}

/// What a process ended with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) status: Option<u8>,
    pub(super) signal: Option<u8>,
}

// === impl Outcome ===

impl Outcome {
    /// As output and metrics write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Aborted => "aborted",
            Self::TimedOut => "timed_out",
            Self::Unknown => "unknown",
        }
    }
}

// === impl Exit ===

impl Exit {
    /// From status << 8 | signal; bit 7 says that there is a core dump.
    pub(super) fn of(code: u32) -> Self {
        let [low, status, ..] = code.to_le_bytes();
        match low & 0x7f {
            0 => Self { status: Some(status), signal: None },
            signal => Self { status: None, signal: Some(signal) },
        }
    }
}

/// The outcome of a connection with these attempts, and what is to be said of it. What is proven
/// comes before what is missing.
pub(super) fn decide(
    facts: &Connection,
    attempts: &[Attempt],
    exit: Exit,
    partial: bool,
) -> (Outcome, Option<&'static str>) {
    use Outcome::{Aborted, Accepted, Refused, TimedOut, Unknown};
    let split = facts.program.name().starts_with("sshd-session");
    let grace = if split { GRACE_SPLIT } else { GRACE_WHOLE };
    if facts.authenticated {
        return match facts.method {
            Some(_) => (Accepted, None),
            None => (Unknown, Some("it was open before the sensor started")),
        };
    }
    if facts.finished_unseen {
        return (Unknown, Some("sshd went on as after a success, but none was seen"));
    }
    if exit.status == Some(grace) {
        return (TimedOut, Some("sshd gave up waiting (LoginGraceTime)"));
    }
    let unseen = match (partial, facts.watched) {
        (true, _) => Some("records about it were lost"),
        (false, false) => Some("what sshd's processes tell each other is not seen here"),
        (false, true) => None,
    };
    if let Some(why) = unseen {
        // The status is the same where a client goes away before it has signed with its key.
        let attempted = split && exit.status == Some(ATTEMPTED_SPLIT);
        return if attempted { (Refused, None) } else { (Unknown, Some(why)) };
    }
    if attempts.iter().any(|attempt| attempt.verdict == Verdict::Refused) {
        return (Refused, None);
    }
    (Aborted, Some(how_far(facts, attempts)))
}

/// How far a connection came that nothing was decided on.
fn how_far(facts: &Connection, attempts: &[Attempt]) -> &'static str {
    match (attempts, facts.marks.asked) {
        ([_, ..], _) => "a method was begun, not decided",
        ([], Some(_)) => "ended after the key exchange",
        ([], None) => "ended before or in the key exchange",
    }
}
