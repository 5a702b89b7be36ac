//! `relro_reopened`: a guarded program made memory of a file writable after it had been linked.
//!
//! Needs no baseline: what the loader has sealed nobody has business with, and code is not written
//! to. What a library does while the loader still links is the loader's: text relocations, lazy
//! binding. Blind to musl programs until their first fork, exec or exit: their linking seems to go on.

use std::sync::Arc;

use super::remote_write::located;
use super::{Detector, Draft, World};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Observation, Reopened};

const PROT_READ: u32 = 1;
const PROT_WRITE: u32 = 2;
const PROT_EXEC: u32 = 4;

/// The detector.
#[derive(Debug)]
pub(super) struct RelroReopened;

// === impl RelroReopened ===

impl Detector for RelroReopened {
    fn id(&self) -> &'static str {
        "relro_reopened"
    }

    fn observe(&mut self, seen: &Observation, _world: &World<'_>, out: &mut Vec<Draft>) {
        let Body::Reopened(reopened) = &seen.body else { return };
        let executable = reopened.prot & PROT_EXEC != 0;
        let (severity, confidence) = if reopened.relro {
            (Severity::High, 0.9)
        } else if executable {
            (Severity::High, 0.8)
        } else {
            (Severity::Medium, 0.5)
        };
        let module = &reopened.place.module.path;
        out.push(Draft {
            detector: self.id(),
            family: Family::Hook,
            severity,
            confidence,
            title: title(seen, reopened, executable),
            evidence: vec![evidence(reopened)],
            attack: &["T1574", "T1055"],
            object: format!("{module} {} {executable}", reopened.relro),
            program: Arc::clone(&seen.process.program),
            ktime_ns: None,
            explained_by: None,
        });
    }
}

fn title(seen: &Observation, reopened: &Reopened, executable: bool) -> String {
    let program = seen.process.program.name();
    let module = reopened.place.module.path.rsplit('/').next().unwrap_or_default();
    match (reopened.relro, executable) {
        (true, _) => format!("{program} made the sealed RELRO of {module} writable again"),
        (false, true) => format!("{program} made code of {module} writable"),
        (false, false) => format!("{program} made memory of {module} writable after linking"),
    }
}

/// What was made writable, as every finding of what became of it tells it.
pub(crate) fn evidence(reopened: &Reopened) -> Evidence {
    let letters = [(PROT_READ, 'r'), (PROT_WRITE, 'w'), (PROT_EXEC, 'x')];
    let access =
        letters.iter().map(|(bit, letter)| if reopened.prot & bit != 0 { *letter } else { '-' });
    Evidence::Protection {
        module: reopened.place.module.path.clone(),
        place: located(&reopened.place),
        length: reopened.len,
        access: access.collect(),
        relro: reopened.relro,
    }
}
