//! `auth_without_method`: a session has appeared that nobody authenticated.
//!
//! A session needs a verdict: a method's own answer that was positive, and with `UsePAM` PAM's word
//! on the account. Told only where the whole of the connection was seen; otherwise the host station
//! counts why nobody can say (`halfsecond_sessions_not_known_total`). Whoever answers in the
//! monitor's place is believed: that is for `got_redirected` and `text_patched`.

use std::sync::Arc;

use super::preauth_exec::{attempts, is_unlearned};
use super::{Detector, Draft, World};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Observation, Sign, Unproven};

/// The detector.
#[derive(Debug)]
pub(super) struct AuthWithoutMethod;

// === impl AuthWithoutMethod ===

impl Detector for AuthWithoutMethod {
    fn id(&self) -> &'static str {
        "auth_without_method"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        let (Body::Unproven(unproven), Some(connection)) = (&seen.body, &seen.connection) else {
            return;
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
