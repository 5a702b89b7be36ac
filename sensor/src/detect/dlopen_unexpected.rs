//! `dlopen_unexpected`: a guarded program opens a library after its start for somebody, or a library,
//! outside its baseline.
//!
//! A known library is told too where another module asks for it: what a plug-in may do, code that was
//! brought in may not. Code in no file is never told apart from an intruder's, whatever was learned.
//! Blind to who jumps into the loader instead of calling it: his caller is found then.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::judge::{self, Judged};
use super::{Detector, Draft, Namespace, World, upgrade};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{
    Asked, Body, Located, ModuleId, Observation, Opening, ProcessId, inode_text, seconds,
};

/// Processes whose openings are remembered for the look at namespaces, and openings of one.
const PROCESSES_MAX: usize = 256;
const OPENINGS_MAX: usize = 64;

/// The detector.
#[derive(Debug, Default)]
pub(super) struct DlopenUnexpected {
    /// Who asked for what, by path of the library.
    opened: BTreeMap<ProcessId, BTreeMap<String, Asked>>,
}

// === impl DlopenUnexpected ===

impl Detector for DlopenUnexpected {
    fn id(&self) -> &'static str {
        "dlopen_unexpected"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        match &seen.body {
            Body::Opened(opening) => {
                self.remember(seen.process.id, opening);
                if judge::opening(seen, opening, world) == Judged::Unexpected
                    && let Some(asked) = &opening.asked
                {
                    out.push(self.draft(seen, opening, asked, world));
                }
            }
            Body::Checked(report) if seen.process.program.guarded() => {
                for namespace in &report.namespaces {
                    out.extend(self.apart(seen, namespace, world));
                }
            }
            Body::Ended => {
                self.opened.remove(&seen.process.id);
            }
            _ => {}
        }
    }
}

impl DlopenUnexpected {
    fn remember(&mut self, process: ProcessId, opening: &Opening) {
        let Some(asked) = &opening.asked else { return };
        if self.opened.len() >= PROCESSES_MAX && !self.opened.contains_key(&process) {
            // The one that was there first has been looked at.
            self.opened.pop_first();
        }
        let opened = self.opened.entry(process).or_default();
        if opened.len() < OPENINGS_MAX {
            opened.insert(opening.module.path.clone(), asked.clone());
        }
    }

    fn draft(
        &self,
        seen: &Observation,
        opening: &Opening,
        asked: &Asked,
        world: &World<'_>,
    ) -> Draft {
        let program = &seen.process.program;
        let library = &opening.module;
        let took = opening.took_ns.map(seconds);
        let opened = evidence(library, Some(asked), world, (None, took));
        let file = Evidence::Library {
            path: library.path.clone(),
            build_id: library.build_id().map(str::to_owned),
            inode: inode_text(&opening.file),
        };
        let mut evidence = vec![opened, file];
        evidence.extend(compared(library, asked, world));
        let (severity, confidence) = severity(seen, library, asked, world);
        Draft {
            detector: self.id(),
            family: Family::Linker,
            severity,
            confidence,
            title: format!(
                "{}: {} opens {}",
                program.name(),
                asked.place.module.name(),
                library.name()
            ),
            evidence,
            attack: &["T1574.006", "T1055.001"],
            object: format!("{} {}", library.path, asked.place.module.path),
            program: Arc::clone(program),
            ktime_ns: None,
            explained_by: None,
        }
    }

    /// No guarded program that is known uses `dlmopen`; nothing of it is learned.
    fn apart(&self, seen: &Observation, namespace: &Namespace, world: &World<'_>) -> Option<Draft> {
        let program = &seen.process.program;
        let library = namespace.modules.first()?;
        let asked = self.opened.get(&seen.process.id).and_then(|opened| opened.get(&library.path));
        let opened = evidence(library, asked, world, (Some(namespace.number), None));
        let (severity, confidence) = if judge::settled(seen, world) {
            (Severity::Medium, 0.6)
        } else {
            (Severity::Low, 0.4)
        };
        Some(Draft {
            detector: self.id(),
            family: Family::Linker,
            severity,
            confidence,
            title: format!("{} has {} in a namespace of its own", program.name(), library.name()),
            evidence: vec![opened],
            attack: &["T1574.006", "T1055.001"],
            object: format!("namespace {}", library.path),
            program: Arc::clone(program),
            ktime_ns: None,
            explained_by: None,
        })
    }
}

fn evidence(
    library: &ModuleId,
    asked: Option<&Asked>,
    world: &World<'_>,
    (namespace, seconds): (Option<u32>, Option<f64>),
) -> Evidence {
    let module = asked.map(|asked| &asked.place.module);
    let askers = world.own.openings.askers(&library.path);
    Evidence::Opened {
        library: library.path.clone(),
        caller_module: module.map(|module| module.path.clone()).unwrap_or_default(),
        caller_build_id: module.and_then(ModuleId::build_id).map(str::to_owned),
        caller: asked.map(|asked| describe(&asked.place)).unwrap_or_default(),
        unwound: asked.is_some_and(|asked| asked.unwound),
        through_libc: asked.is_some_and(|asked| asked.through_libc),
        known: askers.map(|known| known.path.clone()).collect(),
        namespace,
        seconds,
    }
}

fn compared(library: &ModuleId, asked: &Asked, world: &World<'_>) -> Option<Evidence> {
    let module = asked.place.module.before_deletion();
    let other = world.own.openings.other_build(&library.path, &module)?;
    let text = format!(
        "In {} observations it was build-id {} of {} that asked for it",
        world.own.openings.starts,
        other.build_id().unwrap_or("none"),
        module.name()
    );
    Some(Evidence::Note { text })
}

fn severity(
    seen: &Observation,
    library: &ModuleId,
    asked: &Asked,
    world: &World<'_>,
) -> (Severity, f64) {
    let guarded = seen.process.program.guarded();
    let module = asked.place.module.before_deletion();
    if judge::homeless(seen, asked, world) {
        return match (guarded, asked.unwound) {
            (true, true) => (Severity::Critical, 0.9),
            (true, false) => (Severity::High, 0.6),
            (false, _) => (Severity::Medium, 0.5),
        };
    }
    // The new build itself is told as a library.
    if world.own.openings.other_build(&library.path, &module).is_some() {
        return (Severity::Info, 0.2);
    }
    // What a logged-in user makes his own session's process load decides about no one's login.
    let users_own = seen
        .connection
        .as_ref()
        .is_some_and(|connection| connection.authenticated && seen.process.id != connection.id.0);
    if users_own || !guarded {
        return (Severity::Low, 0.3);
    }
    let stranger = !judge::belongs(seen, &module, world)
        || !world.own.has_library(library)
        || upgrade::has_followed(&module, world.own);
    match (seen.process.program.sshd(), stranger, asked.unwound) {
        (true, true, true) => (Severity::High, 0.7),
        (_, true, true) => (Severity::Medium, 0.6),
        (_, true, false) | (_, false, true) => (Severity::Medium, 0.5),
        // All are known, and the stack may tell of an earlier call.
        (_, false, false) => (Severity::Info, 0.2),
    }
}

/// `liblzma.so.5+0x120f (wrapper+0x1f)`
fn describe(located: &Located) -> String {
    let place = format!("{}+{:#x}", located.module.name(), located.offset);
    match &located.symbol {
        Some((symbol, distance)) => format!("{place} ({symbol}+{distance:#x})"),
        None => place,
    }
}
