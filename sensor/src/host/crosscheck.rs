//! sshd's verdict compared with what its own libpam was asked.
//!
//! With `UsePAM` the monitor says yes only after libpam did (OpenSSH 8.4 to 10.2):
//!
//! * to a password after `pam_authenticate` in the monitor (auth-pam.c `sshpam_auth_passwd`), unless
//!   Kerberos has answered before (auth-passwd.c `auth_password`, `KerberosAuthentication`);
//! * at the end of a dialogue after `pam_authenticate` in a child that the monitor forked for it
//!   (`sshpam_thread`), whose last frame has PAM's status for its type;
//! * to the account after `pam_acct_mgmt` in either (`do_pam_account`).
//!
//! Before a session there are `pam_setcred` and `pam_open_session`, so `pam_end`, which is handed the
//! status of the call before it (`sshpam_cleanup`), cannot be handed one of those then.
//!
//! Only entries are seen, so a monitor that asks and does not listen agrees here. What was not seen, or
//! may not have been, is counted with its reason and accuses nobody.

use serde::{Deserialize, Serialize};

use super::below::Starter;
use super::frames::{self, Said};
use super::method::Method;
use super::observe::{Body, ConnectionId, Observation, ProcessId};
use super::pam::PamStep;
use super::pipeline::{At, Pipeline};
use super::proof::Sign;
use crate::event::{Caller, Frame};

/// `MONITOR_REQ_AUTHPASSWORD`: its header is told before its payload is sent, so before it is answered.
const PASSWORD: u8 = 12;
/// What PAM's child can end its dialogue with: `PAM_SUCCESS`, `PAM_AUTH_ERR`, `PAM_MAXTRIES`,
/// `PAM_ACCT_EXPIRED` (auth-pam.c `sshpam_thread`). Its other frames are 1 to 4, what PAM has to say.
const ENDS: [u8; 4] = [SUCCESS, 7, 11, 13];
const SUCCESS: u8 = 0;
/// With these nobody is let in: `PAM_PERM_DENIED`, `PAM_AUTH_ERR`, `PAM_USER_UNKNOWN`, `PAM_MAXTRIES`,
/// `PAM_ACCT_EXPIRED`.
const REFUSALS: [u8; 5] = [6, 7, 10, 11, 13];
/// Disagreements told of one connection.
const TOLD_MAX: u32 = 4;

/// The monitor's word, and libpam's, which do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disagreement {
    /// This method was accepted, and no process of the connection had entered `pam_authenticate` for
    /// it.
    Unasked(Method),
    /// A dialogue was accepted after PAM's own child had ended it with this status.
    Refused(u8),
    /// The account was let in, and no process of the connection had entered `pam_acct_mgmt`.
    AccountUnasked,
    /// There was a session, and libpam's last word, before any session of its own, was this status.
    Ended(u8),
}

/// What became of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// libpam was asked before.
    Agreed,
    /// It was not, or said no.
    Disagreed,
    /// The connection was not seen as a whole.
    PartlySeen,
    /// Calls of its libpam are not told, or have not been since before it began.
    Unwatched,
    /// It made a call that nobody could name.
    CallUnnamed,
    /// Kerberos may have checked the password, or nobody could read whether it does.
    Elsewhere,
}

/// How often, in the order of [`Compared::ALL`].
pub(super) type Comparisons = [u64; Compared::ALL.len()];

/// What libpam was asked on one connection.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each true from some moment on"
)]
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// `pam_authenticate` was entered since the attempt began.
    asked: bool,
    account: bool,
    unnamed: bool,
    /// The monitor's call before, whose status `pam_end` is handed.
    last: Option<PamStep>,
    /// The child that talks to PAM, and what it has ended the dialogue with.
    dialogue: Option<(ProcessId, Option<u8>)>,
    /// A process that serves a user was seen.
    served: bool,
    told: u32,
}

/// The monitor's positive answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Yes {
    Method(Method),
    Account,
}

// === impl Disagreement ===

impl Disagreement {
    /// Functions of libpam whose calls must be told, so that the lack of one means something.
    fn functions(self) -> &'static [&'static str] {
        match self {
            Self::Unasked(_) => &["pam_authenticate"],
            Self::Refused(_) => &[],
            Self::AccountUnasked => &["pam_acct_mgmt"],
            Self::Ended(_) => &["pam_setcred", "pam_open_session"],
        }
    }
}

// === impl Compared ===

impl Compared {
    /// All of them, in their order.
    pub const ALL: [Self; 6] = [
        Self::Agreed,
        Self::Disagreed,
        Self::PartlySeen,
        Self::Unwatched,
        Self::CallUnnamed,
        Self::Elsewhere,
    ];

    /// As a label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agreed => "agreed",
            Self::Disagreed => "disagreed",
            Self::PartlySeen => "partly_seen",
            Self::Unwatched => "unwatched",
            Self::CallUnnamed => "call_unnamed",
            Self::Elsewhere => "checked_elsewhere",
        }
    }
}

// === impl Heard ===

impl Heard {
    /// A function of libpam was entered; `None` for one that is no step. Gives the refusal that
    /// `pam_end` is handed by the monitor straight after it was asked.
    fn called(
        &mut self,
        step: Option<PamStep>,
        by_monitor: bool,
        status: Option<u8>,
    ) -> Option<u8> {
        match step {
            Some(PamStep::Authenticate) => self.asked = true,
            Some(PamStep::Account) => self.account = true,
            Some(PamStep::Unnamed) => self.unnamed = true,
            _ => {}
        }
        if !by_monitor {
            return None;
        }
        let last = std::mem::replace(&mut self.last, step);
        let is_checked = matches!(last, Some(PamStep::Authenticate | PamStep::Account));
        status
            .filter(|status| step == Some(PamStep::End) && is_checked && REFUSALS.contains(status))
    }

    /// A module of PAM asks for a password: somebody is being authenticated, whoever has said so.
    fn wants_password(&mut self) {
        self.asked = true;
    }

    /// Another attempt begins.
    fn next_attempt(&mut self) {
        self.asked = false;
    }

    /// The child that talks to PAM sends a frame: its last one counts.
    fn child_said(&mut self, child: ProcessId, frame_type: u8) {
        self.dialogue = Some((child, ENDS.contains(&frame_type).then_some(frame_type)));
    }

    fn disagrees(&self, yes: Yes) -> Option<Disagreement> {
        let ended = self.dialogue.and_then(|(_, status)| status);
        match yes {
            Yes::Method(Method::KeyboardInteractive) if ended.is_some_and(|end| end != SUCCESS) => {
                ended.map(Disagreement::Refused)
            }
            Yes::Method(method) => (!self.asked).then_some(Disagreement::Unasked(method)),
            Yes::Account => (!self.account).then_some(Disagreement::AccountUnasked),
        }
    }

    /// A call may have been missed.
    pub(super) fn misses(&mut self) {
        self.unnamed = true;
    }

    /// A process that serves a user has appeared.
    pub(super) fn serves(&mut self, sign: Sign) {
        self.served |= !matches!(sign, Sign::Executed { .. });
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// A frame of a connection, after [`super::tracker::Tracker::frame`]: the monitor's yes is compared
    /// with what libpam was asked.
    pub(super) fn cross_check(
        &mut self,
        id: ProcessId,
        at: At,
        frame: &Frame,
        out: &mut impl FnMut(Observation),
    ) {
        let Some(connection) = self.table.get(id).and_then(|proc| proc.connection) else { return };
        let Some(conn) = self.tracker.conn_mut(connection) else { return };
        // What is said later is a session's.
        if conn.proof.finished() {
            return;
        }
        if id != connection.0 {
            if conn.network == Some(id) {
                if frame.frame_type == PASSWORD {
                    conn.heard.next_attempt();
                }
            } else if conn.starters.get(&id) == Some(&Starter::Sshd) {
                conn.heard.child_said(id, frame.frame_type);
            }
            return;
        }
        let (pam, said) = (conn.proof.uses_pam(), frames::read(frame.frame_type, frame.verdict));
        let by_pam = [Method::Password, Method::KeyboardInteractive];
        let yes = match said {
            Said::Answer(method, true) if by_pam.contains(&method) => Some(Yes::Method(method)),
            Said::Account(true) => Some(Yes::Account),
            _ => None,
        };
        if let Some(yes) = yes.filter(|_| pam) {
            let disagreement = conn.heard.disagrees(yes);
            self.settle(connection, at, disagreement, out);
        }
        if let Said::Answer(..) = said
            && let Some(conn) = self.tracker.conn_mut(connection)
        {
            conn.heard.next_attempt();
        }
    }

    /// A process of sshd's has entered libpam, or may have.
    pub(super) fn hear(
        &mut self,
        id: ProcessId,
        at: At,
        caller: &Caller,
        step: Option<PamStep>,
        out: &mut impl FnMut(Observation),
    ) {
        let Some(proc) = self.table.get(id) else { return };
        if step != Some(PamStep::Unnamed) {
            proc.libpams.iter().for_each(|file| self.watched.hear(file));
        }
        let Some(connection) = proc.connection else { return };
        let Some(conn) = self.tracker.conn_mut(connection) else { return };
        let Some(refusal) = conn.heard.called(step, id == connection.0, caller.status) else {
            return;
        };
        let served = conn.heard.served || conn.session;
        if served && conn.proof.uses_pam() && conn.proof.missing().is_none() {
            self.settle(connection, at, Some(Disagreement::Ended(refusal)), out);
        }
    }

    /// A module of PAM in one of sshd's processes asks for a password.
    pub(super) fn hear_password(&mut self, id: ProcessId) {
        let connection = self.table.get(id).and_then(|proc| proc.connection);
        if let Some(conn) = connection.and_then(|id| self.tracker.conn_mut(id)) {
            conn.heard.wants_password();
        }
    }

    fn settle(
        &mut self,
        connection: ConnectionId,
        at: At,
        disagreement: Option<Disagreement>,
        out: &mut impl FnMut(Observation),
    ) {
        let Some(disagreement) = disagreement else { return self.compared(Compared::Agreed) };
        let unknown = self.cannot_compare(connection, at, disagreement);
        self.compared(unknown.unwrap_or(Compared::Disagreed));
        if unknown.is_some() {
            return;
        }
        let Some(conn) = self.tracker.conn_mut(connection) else { return };
        conn.heard.told += 1;
        if conn.heard.told <= TOLD_MAX {
            let body = Body::Disagreed(disagreement);
            self.emit_of(connection.0, Some(connection), at.ktime_ns, body, out);
        }
    }

    /// Why this may be none; `None` where everything that it needs was seen.
    fn cannot_compare(
        &mut self,
        connection: ConnectionId,
        at: At,
        disagreement: Disagreement,
    ) -> Option<Compared> {
        let Some(conn) = self.tracker.conn(connection) else { return Some(Compared::PartlySeen) };
        let (unnamed, accepted_ns) = (conn.heard.unnamed, conn.accepted_ktime_ns);
        if conn.proof.is_doubted() {
            return Some(Compared::PartlySeen);
        }
        let functions = disagreement.functions();
        if functions.is_empty() {
            return None;
        }
        if !self.are_told(connection, functions, accepted_ns) {
            return Some(Compared::Unwatched);
        }
        if unnamed {
            return Some(Compared::CallUnnamed);
        }
        let password = disagreement == Disagreement::Unasked(Method::Password);
        (password && self.may_ask_kerberos(connection, at)).then_some(Compared::Elsewhere)
    }

    /// Whoever enters these functions of the libpam that the monitor was linked with is told, since
    /// before the connection.
    fn are_told(&self, connection: ConnectionId, functions: &[&str], before_ns: u64) -> bool {
        let files = self.table.get(connection.0).map(|proc| &*proc.libpams).unwrap_or_default();
        let is_told =
            |file| functions.iter().all(|function| self.watched.is_told(file, function, before_ns));
        !files.is_empty() && files.iter().all(is_told)
    }

    /// sshd is configured to ask Kerberos about passwords first, or was when that was last read, or
    /// nobody can say.
    fn may_ask_kerberos(&mut self, connection: ConnectionId, at: At) -> bool {
        let key = self.configs_key(connection).or_else(|| self.listeners_key(connection));
        let Some(key) = key else { return true };
        let Ok(read) = self.outside.sshd_commands(connection.0.tgid, &key.1) else { return true };
        let before = self.configs.get(&key).is_some_and(|(_, known)| known.ask_kerberos());
        let now = read.ask_kerberos();
        self.configs.keep(key, at.ktime_ns, read);
        before || now
    }

    fn compared(&mut self, result: Compared) {
        let place = Compared::ALL.iter().position(|known| *known == result);
        if let Some(count) = place.and_then(|place| self.comparisons.get_mut(place)) {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(heard: &mut Heard, calls: &[(PamStep, Option<u8>)]) -> Vec<Option<u8>> {
        calls.iter().map(|(step, status)| heard.called(Some(*step), true, *status)).collect()
    }

    #[test]
    fn only_a_refusal_straight_after_being_asked_is_the_last_word() {
        use PamStep::{Account, Authenticate, Credentials, End, Session, Unnamed};
        let end = |calls: &[PamStep], status| {
            let mut heard = Heard::default();
            let before: Vec<_> = calls.iter().map(|step| (*step, None)).collect();
            called(&mut heard, &before);
            called(&mut heard, &[(PamStep::End, Some(status))])[0]
        };
        assert_eq!(end(&[Authenticate], 7), Some(7));
        assert_eq!(end(&[Authenticate, Account], 13), Some(13));
        assert_eq!(end(&[Authenticate, Account, Credentials], 7), None, "its own status");
        assert_eq!(end(&[Authenticate, Account, Credentials, Session], 6), None);
        for between in [End, Unnamed] {
            assert_eq!(end(&[Authenticate, between], 7), None, "{between:?}");
        }
        for status in [0, 12, 14, 19, 31] {
            assert_eq!(end(&[Authenticate], status), None, "{status}");
        }
        assert_eq!(end(&[], 7), None);
    }

    #[test]
    fn a_childs_call_counts_and_its_end_does_not() {
        let mut heard = Heard::default();
        assert_eq!(heard.called(Some(PamStep::Authenticate), false, None), None);
        assert_eq!(heard.called(Some(PamStep::End), false, Some(7)), None);
        assert_eq!(heard.disagrees(Yes::Method(Method::KeyboardInteractive)), None);
        heard.next_attempt();
        let unasked = Disagreement::Unasked(Method::KeyboardInteractive);
        assert_eq!(heard.disagrees(Yes::Method(Method::KeyboardInteractive)), Some(unasked));
    }

    #[test]
    fn the_childs_last_frame_is_its_word() {
        let child = |tgid| ProcessId { tgid, start_ticks: 1 };
        let mut heard = Heard { asked: true, ..Heard::default() };
        let yes = Yes::Method(Method::KeyboardInteractive);
        for (tgid, frame_type, told) in [
            (1, 1, None),
            (1, 7, Some(Disagreement::Refused(7))),
            (2, 3, None),
            (2, 13, Some(Disagreement::Refused(13))),
            (3, 2, None),
            (3, 0, None),
        ] {
            heard.child_said(child(tgid), frame_type);
            assert_eq!(heard.disagrees(yes), told, "{tgid} {frame_type}");
            assert_eq!(heard.disagrees(Yes::Method(Method::Password)), None, "another's word");
        }
    }
}
