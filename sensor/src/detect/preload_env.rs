//! `preload_env`: a loader variable stands where the baseline has none.
//!
//! Environments are inherited: what an ancestor was told to have is only a remark on its ordinary
//! descendants, or one variable at an sshd would be an incident for every program a session runs.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Detector, Draft, World, judge};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Observation, Variable};

/// Variables remembered for the descendants of who had them; the oldest goes beyond.
const TOLD_MAX: usize = 256;

/// The detector.
#[derive(Debug, Default)]
pub(super) struct PreloadEnv {
    told: VecDeque<Told>,
}

/// A variable that was more than a remark.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    exe: String,
    name: String,
    value: String,
}

// === impl PreloadEnv ===

impl PreloadEnv {
    /// The ancestor that this variable was already told of.
    fn told_of_ancestor(&self, seen: &Observation, variable: &Variable) -> Option<&str> {
        let same = |told: &&Told| {
            told.name == variable.name
                && told.value == variable.value
                && seen.process.shown.ancestors.contains(&told.exe)
        };
        self.told.iter().find(same).map(|told| told.exe.as_str())
    }

    fn remember(&mut self, seen: &Observation, variable: &Variable) {
        let told = Told {
            exe: seen.process.program.module.path.clone(),
            name: variable.name.clone(),
            value: variable.value.clone(),
        };
        if !self.told.contains(&told) {
            if self.told.len() >= TOLD_MAX {
                self.told.pop_front();
            }
            self.told.push_back(told);
        }
    }
}

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
        let heir = self.told_of_ancestor(seen, variable).map(str::to_owned);
        let (severity, confidence) = match (guarded, injects) {
            // Across a change of user the loader ignores it: someone tried, nothing was loaded.
            _ if seen.process.secure => (Severity::Info, 0.2),
            (true, true) => (Severity::High, 0.8),
            _ if heir.is_some() => (Severity::Info, 0.2),
            (true, false) | (false, true) => (Severity::Medium, 0.5),
            // Compilers' and test runners' daily bread.
            (false, false) => (Severity::Info, 0.2),
        };
        if severity > Severity::Info {
            self.remember(seen, variable);
        }
        let mut evidence =
            vec![Evidence::Environment { name: name.to_owned(), value: variable.value.clone() }];
        if let Some(heir) = heir {
            evidence.push(Evidence::Note { text: format!("inherited from {heir}") });
        }
        let program = &seen.process.program;
        out.push(Draft {
            detector: self.id(),
            family: Family::Linker,
            severity,
            confidence,
            title: format!("{} was started with {name}", program.name()),
            evidence,
            attack: &["T1574.006"],
            object: name.to_owned(),
            program: Arc::clone(program),
            ktime_ns: None,
        });
    }
}
