//! Who logged in over ssh or through libpam, how, with what outcome, and what each phase cost.
//!
//! A record of logins beside the incidents: made from the same observations on the same clock,
//! bounded, and without secrets. A [`Recorder`] turns observations into [`Login`]s, [`Kept`] holds
//! the latest for the pages, and [`read`] finds those that an earlier run has written.

mod flow;
mod guess;
mod kept;
mod outcome;
mod pam;
mod read;
mod record;

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::{ConnectionId, Method, ProcessId};

pub(crate) use flow::name as pam_status;
pub use guess::Guessing;
pub use kept::{Kept, Page, Query};
pub use outcome::Outcome;
pub use read::{FILE, Past, read};
pub use record::{Recorder, Told};
#[cfg(test)]
pub(crate) use tests::sample;

/// Logins that one answer of the API holds at most.
pub const ANSWER_MAX: usize = 20_000;

/// What [`Login::program`] says of every connection to sshd.
pub const SSHD: &str = "sshd";

/// What a login is told apart by while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoginId {
    /// A connection to sshd.
    Connection(ConnectionId),
    /// A thread that calls libpam.
    Thread(ProcessId, u32),
}

/// One ssh connection, from accept to its end or as far as it has come; or one login through libpam
/// by another guarded program (sudo, su, login), from its first call to `pam_end`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Login {
    /// When the listener accepted it, or libpam was first called.
    pub start: Timestamp,
    /// When its last process ended, or `pam_end` was called; `None` while it is open.
    pub end: Option<Timestamp>,
    /// Between the two, seconds.
    pub duration_seconds: Option<f64>,
    /// The process that serves it (sshd's monitor).
    pub pid: u32,
    /// [`SSHD`], or the file name of the program that calls libpam.
    #[serde(default = "sshd")]
    pub program: Box<str>,
    /// The client's address; `None` where descriptor 0 was no TCP socket.
    pub peer: Option<IpAddr>,
    /// The client's port.
    pub peer_port: Option<u16>,
    /// The monitor's program: path and build-id, in a container also its image.
    pub subject: Box<str>,
    /// Id of its container.
    pub container: Option<Box<str>>,
    /// Who started the program that calls libpam, by real user id (user namespace of the host); not
    /// who he becomes.
    #[serde(default)]
    pub uid: Option<u32>,
    /// User name; not known where libpam is called. Of logins that were not accepted only with
    /// `logins.failed_users`: people type passwords there.
    pub user: Option<Box<str>>,
    /// The method that was accepted, else the last that was begun.
    pub method: Option<Method>,
    /// How it went.
    pub outcome: Outcome,
    /// Why the outcome is not known, or what is known of one that never came to a decision.
    pub reason: Option<Box<str>>,
    /// What was tried, in order; what was begun and not decided stands last.
    pub attempts: Vec<Attempt>,
    /// Attempts beyond those.
    pub attempts_left_out: u32,
    /// What its parts took.
    pub phases: Phases,
    /// A program of a session has begun.
    pub session: bool,
    /// What the monitor exited with; not known where libpam is called.
    pub exit_status: Option<u8>,
    /// The signal that ended it.
    pub exit_signal: Option<u8>,
    /// What many failures from this peer look like.
    pub guessing: Option<Guessing>,
    /// Records about it may be missing.
    pub partial: bool,
}

/// One attempt to authenticate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// How.
    pub method: Method,
    /// Type of the key, as OpenSSH names it (`ssh-ed25519`, `ssh-rsa-cert-v01@openssh.com`), or `other`.
    #[serde(default)]
    pub key_type: Option<Box<str>>,
    /// sshd's answer, or PAM's.
    pub verdict: Verdict,
    /// From accept to the answer, seconds; with the client's and the network's share. Of libpam:
    /// from `pam_authenticate` to the next call, with the time that somebody types.
    pub seconds: Option<f64>,
    /// CPU time of all the connection's processes from accept to the answer, seconds. Of libpam: of
    /// the thread, between those calls.
    pub cpu_seconds: Option<f64>,
}

/// sshd's answer to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Yes.
    Accepted,
    /// No; of a key also where sshd does not know it.
    Refused,
    /// None that was seen: a key that was not signed with, a dialogue that was broken off.
    Undecided,
}

/// What the parts of a connection took; `None` where a part was not reached or not measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// Linking of the monitor's program: exec to the last seal.
    pub link: Option<Phase>,
    /// Accept to the question for the user, less the linking: start-up, banners and key exchange, and
    /// the linking of sshd-auth where there is one.
    pub key_exchange: Option<Phase>,
    /// From there to the last verdict: verification; for passwords PAM's authentication, too. Of
    /// libpam: from the first `pam_authenticate` to the call after the last.
    pub auth: Option<Phase>,
    /// From there to PAM's word on the account. Of libpam: from `pam_acct_mgmt` to the next call.
    pub pam: Option<Phase>,
    /// From there to the first program of the session.
    pub session: Option<Phase>,
}

/// What one part took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Wall time, seconds.
    pub wall_seconds: f64,
    /// CPU time, seconds: of the monitor while it links, else of all the connection's processes.
    pub cpu_seconds: Option<f64>,
    /// Minor page faults, of whom `cpu_seconds` is.
    pub page_faults: Option<u32>,
}

fn sshd() -> Box<str> {
    SSHD.into()
}

// === impl Login ===

impl Login {
    /// It is one through libpam.
    #[must_use]
    pub fn is_pams(&self) -> bool {
        self.method == Some(Method::Pam)
    }

    /// Nobody was asked and nobody refused: cron's jobs, and sudo for who need not authenticate.
    /// Such ones are counted and not kept; they would soon be all there is.
    #[must_use]
    pub fn is_routine(&self) -> bool {
        let asked = self.partial || !self.attempts.is_empty();
        self.is_pams() && !asked && self.outcome != Outcome::Refused
    }
}

// === impl Verdict ===

impl Verdict {
    /// As output writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Undecided => "undecided",
        }
    }
}

// === impl Phases ===

impl Phases {
    /// Each with the name that output and metrics have for it.
    #[must_use]
    pub fn named(&self) -> [(&'static str, Option<Phase>); 5] {
        [
            ("link", self.link),
            ("key_exchange", self.key_exchange),
            ("auth", self.auth),
            ("pam", self.pam),
            ("session", self.session),
        ]
    }
}

#[cfg(test)]
mod tests;
