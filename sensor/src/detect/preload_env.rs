//! `preload_env`: a loader variable stands where the baseline has none.

use std::sync::Arc;

use super::{Detector, Draft, World, judge};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Observation};

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
        if !judge::settled(seen, world) && !(guarded && injects) {
            return;
        }
        let (severity, confidence) = match (guarded, injects) {
            // Across a change of user the loader ignores it: someone tried, nothing was loaded.
            _ if seen.process.secure => (Severity::Info, 0.2),
            (true, true) => (Severity::High, 0.8),
            (true, false) => (Severity::Medium, 0.5),
            (false, true) => (Severity::Medium, 0.5),
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
            evidence: vec![Evidence::Environment {
                name: name.to_owned(),
                value: variable.value.clone(),
            }],
            attack: &["T1574.006"],
            object: name.to_owned(),
            program: Arc::clone(program),
            ktime_ns: None,
        });
    }
}
