//! `preload_env`: a loader variable stands where the baseline has none.

use std::sync::Arc;

use super::{Detector, Draft, World, judge};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Observation, Variable};

/// The detector.
#[derive(Debug)]
pub(super) struct PreloadEnv;

// === impl PreloadEnv ===

impl Detector for PreloadEnv {
    fn id(&self) -> &'static str {
        "preload_env"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        let Body::Environment(variable) = &seen.body else { return };
        let name = variable.name.as_str();
        if world.own.environment.contains(name) {
            return;
        }
        let guarded = seen.process.program.guarded();
        let injects = matches!(name, "LD_PRELOAD" | "LD_AUDIT");
        // Nobody is to be trusted at first sight who puts code into a guarded program.
        let at_once = guarded && injects;
        if !at_once && !judge::settled(seen, world) {
            return;
        }
        let (severity, confidence) = match (guarded, injects) {
            // Across a change of user the loader ignores it: someone tried, nothing was loaded.
            // An empty one loads nothing.
            _ if seen.process.secure || variable.value.is_empty() => (Severity::Info, 0.2),
            // Told where it first stood; children only pass it on.
            (false, _) if variable.inherited => (Severity::Info, 0.1),
            // A search path at a start that serves nobody, such as `sshd -V` by a test.
            (true, false) if unserving(seen) => (Severity::Info, 0.2),
            (true, true) => (Severity::High, 0.8),
            (true, false) | (false, true) => (Severity::Medium, 0.5),
            // Compilers' and test runners' daily bread.
            (false, false) => (Severity::Info, 0.2),
        };
        let program = &seen.process.program;
        out.push(Draft {
            detector: self.id(),
            family: Family::Linker,
            severity,
            confidence,
            title: format!("{} was started with {name}", program.name()),
            evidence: evidence(variable),
            attack: &["T1574.006"],
            object: name.to_owned(),
            program: Arc::clone(program),
            ktime_ns: None,
            explained_by: None,
        });
    }
}

/// A program of sshd that is on no connection: a listener shows its environment again there.
fn unserving(seen: &Observation) -> bool {
    seen.process.program.sshd() && seen.connection.is_none()
}

fn evidence(variable: &Variable) -> Vec<Evidence> {
    let mut evidence =
        vec![Evidence::Environment { name: variable.name.clone(), value: variable.value.clone() }];
    if variable.inherited {
        let text = "The program that started it had the same".to_owned();
        evidence.push(Evidence::Note { text });
    }
    evidence
}
