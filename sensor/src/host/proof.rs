//! What the frames of a connection prove: a session needs a verdict.
//!
//! OpenSSH's monitor lets nobody in before a method's own answer was positive
//! (`mm_answer_keyverify`, `mm_answer_authpassword`, `mm_answer_pam_respond`,
//! `mm_answer_gss_userok`) and, with `UsePAM`, `mm_answer_pam_account` as well (monitor.c,
//! `monitor_child_preauth`, 8.4 to 10.2). What could not be seen is a [`Doubt`], never an
//! accusation.

use serde::{Deserialize, Serialize};

use super::frames::Said;
use super::method::Method;

/// `MONITOR_REQ_PAM_START`: the network child is told to use PAM, and the account is asked about.
const PAM_START: u8 = 100;
/// `MONITOR_REQ_PWNAM`: once, before any method.
const PWNAM: u8 = 8;
/// `MONITOR_REQ_PAM_ACCOUNT` and `MONITOR_REQ_KEYEXPORT`.
const ACCOUNT: u8 = 102;
const KEY_EXPORT: u8 = 26;
/// Requests that only a session's process makes: PTY, PTYCLEANUP, TERM
/// (`mon_dispatch_postauth20`).
const POSTAUTH: [u8; 3] = [28, 30, 50];
/// Requests with the answers that verdicts come in: `AUTHPASSWORD`, `KEYVERIFY`, `GSSUSEROK`,
/// `PAM_ACCOUNT`, `PAM_RESPOND`.
const PAIRS: [(u8, u8); 5] = [(12, 13), (24, 25), (46, 47), (102, 103), (108, 109)];
/// The answer that ends PAM's dialogue with success.
const RESPOND: u8 = 109;

/// What of the proof is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// No method was answered with success, or the latest answer was a refusal.
    Verdict,
    /// A method succeeded, and PAM was never asked whether the account may log in.
    Account,
    /// PAM has refused the account.
    Refused,
}

/// By what a session was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sign {
    /// The monitor forked after its network child had taken authentication for finished: the
    /// user's process.
    Forked,
    /// A process asked for what only sessions ask for: a terminal, or its end.
    Asked,
    /// A program was executed. `finished`: after the network child had taken authentication for
    /// finished; otherwise with another user's identity than root's.
    Executed {
        /// The network child had handed over its keys.
        finished: bool,
    },
}

/// Why nobody can say whether there was a verdict, or who ran a program before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Doubt {
    /// The sensor came later than the connection, or did not see it begin, or the kernel side did not
    /// know yet that its program is an sshd.
    BegunBefore,
    /// Records that matter were lost meanwhile.
    RecordsLost,
    /// No frame of this connection was read: another layout, or the frames are not seen at all.
    FramesUnread,
    /// The monitor was asked, and its answer was not seen.
    AnswerUnseen,
    /// It has more processes than are followed.
    TooManyProcesses,
    /// A program ran that may be configured to: its own arguments, the server's or the configuration
    /// could not be read.
    ConfigurationUnread,
}

/// A session's process has appeared without a complete proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unproven {
    /// How it was noticed.
    pub sign: Sign,
    /// What is missing.
    pub missing: Missing,
    /// Why this may be wrong; `None` where it is certain.
    pub doubt: Option<Doubt>,
}

/// What the frames of one connection have said so far.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each true from some moment on"
)]
#[derive(Debug, Default)]
pub(super) struct Proof {
    spoke: bool,
    pam: bool,
    method: Option<Method>,
    account: Option<bool>,
    /// Requests without an answer, as bits by their place in [`PAIRS`].
    open: u8,
    /// The values of PAM's answers in a dialogue are told.
    dialogue_read: bool,
    finished: bool,
    /// A program's role came late, and whether a user was named, which comes before all that counts.
    late: bool,
    named: bool,
    doubt: Option<Doubt>,
}

// === impl Doubt ===

impl Doubt {
    /// All of them, in their order.
    pub const ALL: [Self; 6] = [
        Self::BegunBefore,
        Self::RecordsLost,
        Self::FramesUnread,
        Self::AnswerUnseen,
        Self::TooManyProcesses,
        Self::ConfigurationUnread,
    ];

    /// As a label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BegunBefore => "begun_before",
            Self::RecordsLost => "records_lost",
            Self::FramesUnread => "frames_unread",
            Self::AnswerUnseen => "answer_unseen",
            Self::TooManyProcesses => "too_many_processes",
            Self::ConfigurationUnread => "configuration_unread",
        }
    }
}

// === impl Missing ===

impl Missing {
    /// As a clause that follows "although".
    #[must_use]
    pub fn clause(self) -> &'static str {
        match self {
            Self::Verdict => "no method of authentication had succeeded",
            Self::Account => "PAM was never asked about the account",
            Self::Refused => "PAM had refused the account",
        }
    }
}

// === impl Proof ===

impl Proof {
    /// A frame of another process than the monitor. `network`: of the network child.
    pub(super) fn asked(&mut self, frame_type: u8, network: bool) {
        if !network {
            return;
        }
        self.spoke = true;
        self.pam |= frame_type == PAM_START;
        self.finished |= frame_type == KEY_EXPORT;
        self.named |= frame_type == PWNAM;
        // A request without a payload may be told after its answer: its sender is preempted by whom
        // it wakes.
        if frame_type == ACCOUNT && self.account.is_some() {
            return;
        }
        self.open |= PAIRS.iter().position(|pair| pair.0 == frame_type).map_or(0, |at| 1 << at);
    }

    /// A frame of the monitor. `valued`: its first word could be read. An answer without it leaves its
    /// request open.
    pub(super) fn answered(&mut self, frame_type: u8, said: Said, valued: bool) {
        let bit = PAIRS.iter().position(|pair| pair.1 == frame_type).map_or(0, |at| 1 << at);
        if valued {
            self.open &= !bit;
        }
        // PAM may refuse without a question, and this is its last word then.
        let refused = said == Said::Answer(Method::KeyboardInteractive, false);
        self.dialogue_read |= (frame_type == RESPOND && valued) || refused;
        if let Said::Account(allowed) = said {
            self.account = Some(allowed);
        }
    }

    /// The latest answer on a method counts: each further step of `AuthenticationMethods` must
    /// succeed too.
    pub(super) fn judged(&mut self, method: Method, accepted: bool) {
        self.method = accepted.then_some(method);
    }

    /// Only a session's process sends this.
    pub(super) fn is_of_a_session(frame_type: u8) -> bool {
        POSTAUTH.contains(&frame_type)
    }

    /// The first reason stays.
    pub(super) fn doubt(&mut self, doubt: Doubt) {
        self.doubt = self.doubt.or(Some(doubt));
    }

    /// Frames may not have been told until now. Roles are given in order: once the network child is
    /// heard the monitor is.
    pub(super) fn begins_late(&mut self) {
        self.late = true;
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.begun().is_some()
    }

    fn begun(&self) -> Option<Doubt> {
        self.doubt.or((self.late && !self.named).then_some(Doubt::BegunBefore))
    }

    pub(super) fn missing(&self) -> Option<Missing> {
        match (self.account, self.method) {
            (Some(false), _) => Some(Missing::Refused),
            (_, None) => Some(Missing::Verdict),
            (None, Some(_)) if self.pam => Some(Missing::Account),
            _ => None,
        }
    }

    /// The network child has handed over its keys: for it, authentication is over.
    pub(super) fn finished(&self) -> bool {
        self.finished
    }

    /// The network child's frames are read.
    pub(super) fn has_spoken(&self) -> bool {
        self.spoke
    }

    /// The network child was told to use PAM, which it is with `UsePAM` only.
    pub(super) fn uses_pam(&self) -> bool {
        self.pam
    }

    pub(super) fn dialogue_read(&self) -> bool {
        self.dialogue_read
    }

    /// What a session's process means now; `None` where everything is proven.
    pub(super) fn unproven(&self, sign: Sign) -> Option<Unproven> {
        let missing = self.missing()?;
        // While a question is open, a program that runs is certain to run before the answer.
        let early = sign == Sign::Executed { finished: false };
        let unseen = (self.open != 0 && !early).then_some(Doubt::AnswerUnseen);
        let unread = (!self.spoke).then_some(Doubt::FramesUnread);
        Some(Unproven { sign, missing, doubt: self.begun().or(unread).or(unseen) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::frames;

    /// `(type, value)`: of the network child without a value, of the monitor with one.
    fn proof(frames: &[(u8, Option<u32>)]) -> Proof {
        let mut proof = Proof::default();
        for &(frame_type, value) in frames {
            let Some(value) = value else {
                proof.asked(frame_type, true);
                continue;
            };
            let said = frames::read(frame_type, Some(value));
            proof.answered(frame_type, said, true);
            if let Said::Answer(method, accepted) = said {
                proof.judged(method, accepted);
            }
        }
        proof
    }

    const KEY: [(u8, Option<u32>); 4] = [(22, None), (23, Some(1)), (24, None), (25, Some(0))];

    #[test]
    fn every_method_is_proven_by_its_answer_and_with_pam_by_the_accounts() {
        let methods: [&[(u8, Option<u32>)]; 4] = [
            &KEY,
            &[(12, None), (13, Some(1))],
            &[(104, None), (108, None), (109, Some(1)), (108, None), (109, Some(0))],
            &[(42, None), (44, None), (46, None), (47, Some(1))],
        ];
        for frames in methods {
            assert_eq!(proof(frames).missing(), None, "without PAM: {frames:?}");
            let with_pam = [&[(100, None)], frames].concat();
            assert_eq!(proof(&with_pam).missing(), Some(Missing::Account), "{frames:?}");
            let whole = [&with_pam[..], &[(102, None), (103, Some(1)), (26, None)]].concat();
            assert_eq!(proof(&whole).unproven(Sign::Forked), None, "{frames:?}");
            let refused = [&with_pam[..], &[(102, None), (103, Some(0)), (26, None)]].concat();
            assert_eq!(proof(&refused).missing(), Some(Missing::Refused), "{frames:?}");
        }
    }

    #[test]
    fn a_later_step_that_fails_takes_the_verdict_back() {
        let failed = [&KEY[..], &[(12, None), (13, Some(0))]].concat();
        assert_eq!(proof(&failed).missing(), Some(Missing::Verdict));
        let again = [&failed[..], &[(12, None), (13, Some(1))]].concat();
        assert_eq!(proof(&again).missing(), None);
    }

    #[test]
    fn what_was_not_seen_is_a_doubt_with_its_reason() {
        let of = |proof: Proof| proof.unproven(Sign::Forked).map(|unproven| unproven.doubt);
        assert_eq!(of(Proof::default()), Some(Some(Doubt::FramesUnread)));
        let unanswered = [(8, None), (24, None), (26, None)];
        assert_eq!(of(proof(&unanswered)), Some(Some(Doubt::AnswerUnseen)));
        let mut lost = proof(&unanswered);
        lost.doubt(Doubt::RecordsLost);
        lost.doubt(Doubt::BegunBefore);
        assert_eq!(of(lost), Some(Some(Doubt::RecordsLost)), "the first reason");
        let certain = [(8, None), (24, None), (25, Some(1)), (26, None)];
        assert_eq!(of(proof(&certain)), Some(None));
        let overtaken = [(8, None), (100, None), (103, Some(0)), (102, None), (26, None)];
        assert_eq!(of(proof(&overtaken)), Some(None), "the answer was told first");
    }

    #[test]
    fn an_answer_whose_word_could_not_be_read_is_none() {
        for (asked, answer) in PAIRS {
            let mut unread = proof(&[(8, None), (100, None), (asked, None)]);
            unread.answered(answer, frames::read(answer, None), false);
            unread.asked(KEY_EXPORT, true);
            let doubt = unread.unproven(Sign::Forked).unwrap().doubt;
            assert_eq!(doubt, Some(Doubt::AnswerUnseen), "{answer}");
        }
    }

    #[test]
    fn a_dialogue_that_failed_is_no_verdict_and_certain() {
        let question = [(104, None), (106, None), (107, Some(0)), (108, None), (109, Some(1))];
        let silent = [(106, None), (107, Some(u32::MAX))];
        let told = [(106, None), (107, Some(0)), (108, None), (109, Some(u32::MAX))];
        for end in [&silent[..], &told] {
            let failed = [&[(8, None)], &question[..], end].concat();
            let unproven = proof(&failed).unproven(Sign::Forked).unwrap();
            assert_eq!((unproven.missing, unproven.doubt), (Missing::Verdict, None), "{end:?}");
            // As a later step it takes the verdict back.
            let later = [&KEY[..], &question, end].concat();
            assert_eq!(proof(&later).missing(), Some(Missing::Verdict), "{end:?}");
        }
    }

    #[test]
    fn a_dialogue_refused_without_a_question_is_read() {
        let refused = [(8, None), (104, None), (106, None), (107, Some(u32::MAX))];
        assert!(proof(&refused).dialogue_read());
        assert!(!proof(&[(8, None), (104, None), (106, None), (107, Some(0))]).dialogue_read());
    }

    #[test]
    fn a_program_that_runs_while_the_monitor_is_asked_runs_before_the_answer() {
        let asked = proof(&[(8, None), (24, None)]);
        let early = asked.unproven(Sign::Executed { finished: false }).unwrap();
        assert_eq!((early.missing, early.doubt), (Missing::Verdict, None));
    }

    #[test]
    fn pams_own_child_asks_for_nothing() {
        // Its frames have the same form and other types: 7 is PAM_AUTH_ERR, 13 PAM_ACCT_EXPIRED.
        let mut proof = Proof::default();
        for frame_type in [1, 7, 13, 12, 26, 100] {
            proof.asked(frame_type, false);
        }
        assert!(!proof.finished() && !proof.pam && proof.open == 0 && !proof.spoke);
    }
}
