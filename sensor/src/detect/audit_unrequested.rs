//! `audit_unrequested`: the loader's audit interface is in use though nobody asked for it.
//!
//! Needs no baseline. Blind to state that was forged and undone between two checks, as the XZ
//! backdoor did it: of that the slots tell, which stay redirected.

use std::sync::Arc;

use super::check::UnrequestedAudit;
use super::{Detector, Draft, World};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, ModuleId, Observation};

/// The detector.
#[derive(Debug)]
pub(super) struct AuditUnrequested;

// === impl AuditUnrequested ===

impl Detector for AuditUnrequested {
    fn id(&self) -> &'static str {
        "audit_unrequested"
    }

    fn observe(&mut self, seen: &Observation, _world: &World<'_>, out: &mut Vec<Draft>) {
        let Body::Checked(report) = &seen.body else { return };
        let Some(audit) = &report.audit else { return };
        let program = &seen.process.program;
        let (severity, confidence) =
            if program.guarded() { (Severity::Critical, 0.9) } else { (Severity::High, 0.7) };
        let callback = audit.callback.as_ref();
        let owner = callback.map_or_else(|| "somebody".to_owned(), super::Place::owner);
        out.push(Draft {
            detector: self.id(),
            family: Family::Linker,
            severity,
            confidence,
            title: format!(
                "{}: the loader calls back {owner} for auditing that nobody asked for",
                program.name()
            ),
            evidence: vec![evidence(audit)],
            attack: &["T1574.006", "T1556"],
            object: callback.map_or_else(String::new, super::Place::owner_path),
            program: Arc::clone(program),
            ktime_ns: report.taken_ktime_ns,
            explained_by: None,
        });
    }
}

fn evidence(audit: &UnrequestedAudit) -> Evidence {
    let module = audit.callback.as_ref().and_then(|callback| callback.module.as_ref());
    Evidence::Audit {
        count: audit.count,
        callback: audit.callback.as_ref().map(super::Place::shown).unwrap_or_default(),
        callback_module: module.map(|module| module.path.clone()).unwrap_or_default(),
        callback_build_id: module.and_then(ModuleId::build_id).map(str::to_owned),
    }
}
