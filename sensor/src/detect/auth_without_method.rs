//! `auth_without_method`: a session has appeared that nobody authenticated, or sshd's monitor lets
//! somebody in whom its own libpam was not asked about, or refused.
//!
//! A session needs a verdict: a method's own answer that was positive, and with `UsePAM` PAM's word
//! on the account. Told only where the whole of the connection was seen; otherwise the host station
//! counts why nobody can say (`halfsecond_sessions_not_known_total`,
//! `halfsecond_verdicts_compared_total`). Whoever answers in the monitor's place is believed where
//! libpam does not contradict: that is for `got_redirected` and `text_patched`.
//!
//! What libpam's child has said itself is as good as a proof; that somebody was not asked is concluded
//! from calls that were not told, and weighs less.

use std::sync::Arc;

use super::preauth_exec::{attempts, is_unlearned};
use super::{Detector, Draft, World};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Connection, Disagreement, Observation, Sign, Unproven};

/// The detector.
#[derive(Debug)]
pub(super) struct AuthWithoutMethod;

// === impl AuthWithoutMethod ===

impl Detector for AuthWithoutMethod {
    fn id(&self) -> &'static str {
        "auth_without_method"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        let Some(connection) = &seen.connection else { return };
        let unproven = match &seen.body {
            Body::Unproven(unproven) => unproven,
            Body::Disagreed(disagreement) => return out.push(disagreed(*disagreement, connection)),
            _ => return,
        };
        if unproven.doubt.is_some() || !is_session(seen, *unproven, world) {
            return;
        }
        let exec = matches!(unproven.sign, Sign::Executed { .. }).then(|| Evidence::Exec {
            path: seen.process.program.module.path.clone(),
            cmdline: seen.process.shown.cmdline.clone(),
        });
        let session = Evidence::Session {
            sign: sign(unproven.sign).to_owned(),
            missing: unproven.missing.clause().to_owned(),
            user: connection.user.clone(),
            uid: seen.process.shown.uid,
        };
        let evidence = [Some(session), exec, attempts(connection)];
        out.push(Draft {
            detector: self.id(),
            family: Family::Sshd,
            severity: Severity::Critical,
            confidence: 0.95,
            title: format!(
                "A session began under {} although {}",
                connection.program.name(),
                unproven.missing.clause()
            ),
            evidence: evidence.into_iter().flatten().collect(),
            attack: &["T1556", "T1078", "T1554"],
            object: format!("{:?}", unproven.missing),
            program: Arc::clone(&connection.program),
            ktime_ns: None,
            explained_by: None,
        });
    }
}

/// What sshd's monitor and its libpam say, as clauses.
fn words(disagreement: Disagreement) -> (String, String) {
    let unasked =
        |function: &str| format!("none of the connection's processes had called {function}");
    match disagreement {
        Disagreement::Unasked(method) => {
            (format!("accepted {method}"), unasked("pam_authenticate"))
        }
        Disagreement::Refused(status) => (
            "accepted keyboard-interactive".to_owned(),
            format!("its own child that talks to PAM had ended with {}", named(status)),
        ),
        Disagreement::AccountUnasked => ("let the account in".to_owned(), unasked("pam_acct_mgmt")),
        Disagreement::Ended(status) => {
            ("served a session".to_owned(), format!("PAM's last word was {}", named(status)))
        }
    }
}

fn named(status: u8) -> String {
    crate::logins::pam_status(status).map_or_else(|| format!("status {status}"), str::to_owned)
}

fn disagreed(disagreement: Disagreement, connection: &Arc<Connection>) -> Draft {
    let (severity, confidence) = match disagreement {
        Disagreement::Refused(_) => (Severity::Critical, 0.9),
        _ => (Severity::High, 0.85),
    };
    let (verdict, libpam) = words(disagreement);
    let title = format!("{} {verdict} although {libpam}", connection.program.name());
    let user = connection.user.clone();
    let evidence = [Some(Evidence::Libpam { verdict, libpam, user }), attempts(connection)];
    Draft {
        detector: "auth_without_method",
        family: Family::Sshd,
        severity,
        confidence,
        title,
        evidence: evidence.into_iter().flatten().collect(),
        attack: &["T1556", "T1078", "T1554"],
        object: format!("{disagreement:?}"),
        program: Arc::clone(&connection.program),
        ktime_ns: None,
        explained_by: None,
    }
}

/// Before the network child has handed over its keys, another's identity may be a command's that was
/// learned, or will be.
fn is_session(seen: &Observation, unproven: Unproven, world: &World<'_>) -> bool {
    unproven.sign != Sign::Executed { finished: false } || is_unlearned(seen, world)
}

fn sign(sign: Sign) -> &'static str {
    match sign {
        Sign::Forked => "sshd forked the process that serves a user",
        Sign::Asked => "a process asked for a user's terminal or its end",
        Sign::Executed { .. } => "a program was executed as in a session",
    }
}
