//! `library_unexpected`: a program maps a library outside its baseline.

use std::sync::Arc;

use super::judge::{self, Judged};
use super::{Detector, Draft, World};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Library, Observation, inode_text};

/// Starts without a new library, in learning lengths, before an unguarded program's next one, from
/// where any user may put it, is more than a remark.
const LONG_QUIET: u64 = 10;

/// Where any user may put a file.
const ANYONES: [&str; 6] = ["/tmp/", "/var/tmp/", "/dev/shm/", "/run/user/", "/home/", "/memfd:"];

/// The detector.
#[derive(Debug)]
pub(super) struct LibraryUnexpected;

// === impl LibraryUnexpected ===

impl Detector for LibraryUnexpected {
    fn id(&self) -> &'static str {
        "library_unexpected"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        let Body::Library(library) = &seen.body else { return };
        if judge::library(seen, library, world) != Judged::Unexpected {
            return;
        }
        let program = &seen.process.program;
        let module = &library.module;
        let other = world.own.other_build(module);
        let title = match other {
            Some(_) => format!("{} maps another build of {}", program.name(), module.name()),
            None => format!("{} maps {}, which it never did", program.name(), module.name()),
        };
        let mut evidence = vec![Evidence::Library {
            path: module.path.clone(),
            build_id: module.build_id().map(str::to_owned),
            inode: inode_text(&library.file),
        }];
        evidence.push(Evidence::Note { text: compared(world, library) });
        let (severity, confidence) = severity(seen, library, world);
        out.push(Draft {
            detector: self.id(),
            family: Family::Linker,
            severity,
            confidence,
            title,
            evidence,
            attack: &["T1574.006", "T1195.002"],
            object: format!("{} {}", module.path, module.build),
            program: Arc::clone(program),
            ktime_ns: None,
            explained_by: None,
        });
    }
}

fn compared(world: &World<'_>, library: &Library) -> String {
    let starts = world.own.starts;
    match world.own.other_build(&library.module) {
        Some(other) => format!(
            "The file at this path had build-id {} in {starts} observations",
            other.build_id().unwrap_or("none")
        ),
        None => format!(
            "The baseline holds {} libraries from {starts} observations",
            world.own.libraries.len()
        ),
    }
}

fn severity(seen: &Observation, library: &Library, world: &World<'_>) -> (Severity, f64) {
    let program = &seen.process.program;
    if !program.guarded() {
        let long = u64::from(world.learning.observations).saturating_mul(LONG_QUIET);
        let stable = world.own.since_new >= long && world.own.late == 0;
        let odd = ANYONES.iter().any(|place| library.module.path.starts_with(place));
        // What a preload brings along is told of the preload.
        return if stable && odd && !seen.process.injected {
            (Severity::Low, 0.3)
        } else {
            (Severity::Info, 0.1)
        };
    }
    // What a logged-in user makes his own session's process load decides about no one's login.
    let users_own = seen
        .connection
        .as_ref()
        .is_some_and(|connection| connection.authenticated && seen.process.id != connection.id.0);
    if users_own {
        (Severity::Low, 0.3)
    } else if program.sshd() {
        (Severity::High, if library.during_link { 0.8 } else { 0.6 })
    } else {
        (Severity::Medium, 0.5)
    }
}
