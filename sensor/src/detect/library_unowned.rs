//! `library_unowned`: a mapped library is no package's where only packages put files, or is not
//! what its package brought.
//!
//! Blind to files whose package records no digest, and to what was changed together with the
//! package's records: those are the host's own, and whoever is root can write them.

use std::sync::Arc;

use super::judge::{self, Judged};
use super::{Detector, Draft, World};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Observation, Traced, inode_text};
use crate::package::{Content, Owner};

/// Where nobody but a package manager has business (FHS 3.0, chapters 3 and 4); what people install
/// by themselves goes to `/usr/local`, `/opt` and their homes.
const SYSTEM: [&str; 8] = [
    "/lib/",
    "/lib32/",
    "/lib64/",
    "/libx32/",
    "/usr/lib/",
    "/usr/lib32/",
    "/usr/lib64/",
    "/usr/libexec/",
];

/// The detector.
#[derive(Debug)]
pub(super) struct LibraryUnowned;

// === impl LibraryUnowned ===

impl Detector for LibraryUnowned {
    fn id(&self) -> &'static str {
        "library_unowned"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        let Body::Traced(traced) = &seen.body else { return };
        let module = &traced.library.module;
        let Some((severity, confidence, how)) = judged(seen, traced, world) else { return };
        let program = &seen.process.program;
        out.push(Draft {
            detector: self.id(),
            family: Family::Linker,
            severity,
            confidence,
            title: format!("{} maps {}, {how}", program.name(), module.name()),
            evidence: vec![
                Evidence::Library {
                    path: module.path.clone(),
                    build_id: module.build_id().map(str::to_owned),
                    inode: inode_text(&traced.library.file),
                },
                Evidence::of_origin(&module.path, &traced.origin),
            ],
            attack: &["T1574", "T1195.002", "T1036.005"],
            object: format!("{} {}", module.path, module.build),
            program: Arc::clone(program),
            ktime_ns: None,
            explained_by: None,
        });
    }
}

/// How bad, how sure, and what it is.
fn judged(
    seen: &Observation,
    traced: &Traced,
    world: &World<'_>,
) -> Option<(Severity, f64, &'static str)> {
    let guarded = seen.process.program.guarded();
    if let Content::Differs { .. } = traced.origin.content {
        // No baseline makes another content the package's.
        let severity = if guarded { Severity::High } else { Severity::Medium };
        return Some((severity, 0.8, "which is not what its package brought"));
    }
    let path = &traced.library.module.path;
    let system = SYSTEM.iter().any(|place| path.starts_with(place));
    if traced.origin.owner != Owner::Nobody || !system {
        return None;
    }
    let (severity, confidence) = match (judge::library(seen, &traced.library, world), guarded) {
        // What was there while learning is how this host is.
        (Judged::Known | Judged::Learning | Judged::Undecided, _) => (Severity::Info, 0.2),
        (Judged::Unexpected, true) => (Severity::High, 0.7),
        (Judged::Unexpected, false) => (Severity::Low, 0.3),
    };
    Some((severity, confidence, "which no package owns"))
}
