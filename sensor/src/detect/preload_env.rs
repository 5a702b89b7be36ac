//! `preload_env`: a loader variable stands where the baseline has none.

mod benign;

use std::sync::Arc;

use super::{Detector, Draft, World, judge};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Observation, Preloaded, Variable};

/// Bytes of `GLIBC_TUNABLES` beyond which nobody tunes a program with more rights than his own.
const TUNABLES_LONG: usize = 1024;

/// The detector.
#[derive(Debug)]
pub(super) struct PreloadEnv;

// === impl PreloadEnv ===

impl Detector for PreloadEnv {
    fn id(&self) -> &'static str {
        "preload_env"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        match &seen.body {
            Body::Environment(variable) => out.extend(self.variable(seen, variable, world)),
            Body::LongEnvironment { read } => out.extend(self.long(seen, *read, world)),
            _ => {}
        }
    }
}

impl PreloadEnv {
    fn variable(
        &self,
        seen: &Observation,
        variable: &Variable,
        world: &World<'_>,
    ) -> Option<Draft> {
        let overflow = seen.process.secure && overflows(variable);
        if !overflow && judge::knows_variable(variable, world) {
            return None;
        }
        let program = &seen.process.program;
        // Nobody is to be trusted at first sight who puts code into a guarded program.
        let at_once = overflow || (program.guarded() && judge::injects(&variable.name));
        if !at_once && !judge::settled(seen, world) {
            return None;
        }
        let (severity, confidence, explained_by) =
            if overflow { (Severity::Medium, 0.6, None) } else { judged(seen, variable) };
        let name = &variable.name;
        let title = if overflow {
            format!("{} was started with a {name} made to overflow", program.name())
        } else {
            format!("{} was started with {name}", program.name())
        };
        let object = name.clone();
        let evidence = evidence(seen, variable, overflow);
        Some(self.draft(seen, (severity, confidence), title, evidence, object, explained_by))
    }

    /// Nobody's environment has thousands of variables, unless something is to be hidden in it.
    fn long(&self, seen: &Observation, read: bool, world: &World<'_>) -> Option<Draft> {
        let program = &seen.process.program;
        let matters = program.guarded() || seen.process.secure;
        if !matters && !judge::settled(seen, world) {
            return None;
        }
        let judged = match (program.guarded(), read) {
            (true, _) => (Severity::Medium, 0.4),
            (false, false) => (Severity::Low, 0.3),
            (false, true) => (Severity::Info, 0.1),
        };
        let text = if read {
            "What was found in it was read while the program was running, which may have changed it"
        } else {
            "It could not be read later either: what it held is not known"
        };
        let evidence = vec![Evidence::Note { text: text.to_owned() }];
        let title =
            format!("{} was started with thousands of environment variables", program.name());
        Some(self.draft(seen, judged, title, evidence, "environment".to_owned(), None))
    }

    fn draft(
        &self,
        seen: &Observation,
        (severity, confidence): (Severity, f64),
        title: String,
        evidence: Vec<Evidence>,
        object: String,
        explained_by: Option<String>,
    ) -> Draft {
        Draft {
            detector: self.id(),
            family: Family::Linker,
            severity,
            confidence,
            title,
            evidence,
            attack: &["T1574.006"],
            object,
            program: Arc::clone(&seen.process.program),
            ktime_ns: None,
            explained_by,
        }
    }
}

fn judged(seen: &Observation, variable: &Variable) -> (Severity, f64, Option<String>) {
    let guarded = seen.process.program.guarded();
    let injects = judge::injects(&variable.name);
    let (severity, confidence) = match (guarded, injects) {
        // Someone tried, nothing was loaded. An empty one loads nothing.
        _ if is_ignored(seen, variable) || variable.value.trim().is_empty() => {
            (Severity::Info, 0.2)
        }
        // Told where it first stood; children only pass it on.
        (false, _) if variable.inherited => (Severity::Info, 0.1),
        // A search path at a start that serves nobody, such as `sshd -V` by a test.
        (true, false) if unserving(seen) => (Severity::Info, 0.2),
        (true, true) => (Severity::High, 0.8),
        (false, true) => match benign::explain(variable) {
            Some(reason) => return (Severity::Info, 0.1, Some(reason)),
            // What is then mapped is told with its file.
            None if benign::is_unseen(variable) => (Severity::Low, 0.3),
            None => (Severity::Medium, 0.5),
        },
        (true, false) => (Severity::Medium, 0.5),
        // Compilers' and test runners' daily bread.
        (false, false) => (Severity::Info, 0.2),
    };
    (severity, confidence, None)
}

/// A program of sshd that is on no connection: a listener shows its environment again there.
fn unserving(seen: &Observation) -> bool {
    seen.process.program.sshd() && seen.connection.is_none()
}

/// With more rights than who started it, a program's loader ignores these, but for a library named
/// without a path that is set-uid itself (glibc elf/dl-load.c `open_verify`, `ld.so(8)`).
fn is_ignored(seen: &Observation, variable: &Variable) -> bool {
    seen.process.secure
        && !variable.libraries.iter().any(|library| {
            !library.name.contains('/') && library.file.as_ref().is_some_and(|file| file.set_uid)
        })
}

/// CVE-2023-4911: glibc 2.34 to 2.38 copied `name=name=value` beyond its buffer, in programs with
/// more rights too.
fn overflows(variable: &Variable) -> bool {
    variable.name == "GLIBC_TUNABLES"
        && (variable.value.len() > TUNABLES_LONG
            || variable.value.split(':').any(|tunable| tunable.matches('=').count() > 1))
}

fn evidence(seen: &Observation, variable: &Variable, overflow: bool) -> Vec<Evidence> {
    let mut evidence =
        vec![Evidence::Environment { name: variable.name.clone(), value: variable.value.clone() }];
    let mut note = |text: String| evidence.push(Evidence::Note { text });
    // What is odd first: a story is cut at some length.
    let protected = |library: &&Preloaded| library.file.as_ref().is_some_and(|it| it.protected);
    let (usual, odd): (Vec<_>, Vec<_>) = variable.libraries.iter().partition(protected);
    odd.into_iter().chain(usual).for_each(|library| note(benign::found(library)));
    if variable.inherited {
        note("The program that started it had the same".to_owned());
    }
    if variable.again {
        note("It is set more than once: glibc obeys the last, musl the first".to_owned());
    }
    if variable.cut {
        note("The value is longer: this is its beginning".to_owned());
    }
    if variable.late {
        note("It was read while the program was running, which may have changed it".to_owned());
    }
    if overflow {
        note("The value has the form of an attack on CVE-2023-4911".to_owned());
    } else if is_ignored(seen, variable) {
        note("It runs with more rights than who started it, so its loader ignored this".to_owned());
    }
    evidence
}
