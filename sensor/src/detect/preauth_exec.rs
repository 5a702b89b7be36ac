//! `preauth_exec`: a program was executed under sshd before authentication was proven.
//!
//! What sshd and PAM run then is known by its place and file, and by their configuration; the rest
//! by having been learned. What nobody ever has a reason to run needs no learning: whatever the
//! network child executes, and files that others than root decide about. Where the connection was
//! not seen as a whole nothing is told; the host station counts why.

use std::sync::Arc;

use super::{Detector, Draft, World};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Below, Body, Connection, Observation, Starter};

/// The detector.
#[derive(Debug)]
pub(super) struct PreauthExec;

// === impl PreauthExec ===

impl Detector for PreauthExec {
    fn id(&self) -> &'static str {
        "preauth_exec"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        let (Body::Below(below), Some(connection)) = (&seen.body, &seen.connection) else {
            return;
        };
        if below.known.is_some() || below.doubt.is_some() || !is_strange(seen, below, world) {
            return;
        }
        let path = &seen.process.program.module.path;
        let beyond = below.by == Starter::Network || seen.process.euid == 0;
        let (severity, confidence) =
            if beyond { (Severity::Critical, 0.9) } else { (Severity::High, 0.8) };
        out.push(Draft {
            detector: self.id(),
            family: Family::Sshd,
            severity,
            confidence,
            title: format!(
                "{} ran under {} before anyone had authenticated",
                seen.process.program.name(),
                connection.program.name()
            ),
            evidence: vec![
                Evidence::Exec { path: path.clone(), cmdline: seen.process.shown.cmdline.clone() },
                Evidence::Note { text: format!("{} had started it", below.by.name()) },
            ],
            attack: &["T1190", "T1556", "T1554"],
            object: path.clone(),
            program: Arc::clone(&connection.program),
            ktime_ns: None,
            explained_by: None,
        });
    }
}

/// Neither learned, nor likely to be learned.
fn is_strange(seen: &Observation, below: &Below, world: &World<'_>) -> bool {
    if below.by == Starter::Network || !below.protected {
        return true;
    }
    is_unlearned(seen, world)
}

/// The baseline is settled and does not have the program.
pub(super) fn is_unlearned(seen: &Observation, world: &World<'_>) -> bool {
    let learned = |path: &str| world.login.is_some_and(|login| login.helpers.contains(path));
    let settled =
        |login: &crate::baseline::Baseline| login.settled(world.learning.observations, true);
    world.login.is_some_and(settled) && !learned(&seen.process.program.module.path)
}

/// For evidence: what the connection was about to do.
pub(super) fn attempts(connection: &Connection) -> Option<Evidence> {
    let methods: Vec<&str> = connection.attempted.iter().map(|method| method.name()).collect();
    let text = match methods.as_slice() {
        [] => return None,
        methods => format!("until then {} had been tried", methods.join(", ")),
    };
    Some(Evidence::Note { text })
}
