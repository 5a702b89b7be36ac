//! `library_writable_path`: code is mapped that someone else could have placed or can change, or that
//! the loader looked for where someone else could have.

mod search;

use std::sync::Arc;

use super::judge::{self, Judged};
use super::{Detector, Draft, World};
use crate::finding::{Evidence, Exposure, Family, Severity};
use crate::host::{Body, Library, Observation, inode_text};

/// The detector.
#[derive(Debug)]
pub(super) struct LibraryWritablePath;

// === impl LibraryWritablePath ===

impl Detector for LibraryWritablePath {
    fn id(&self) -> &'static str {
        "library_writable_path"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        let library = match &seen.body {
            Body::Library(library) => library,
            Body::Traced(traced) => {
                return out.extend(search::observe(self.id(), seen, traced, world));
            }
            _ => return,
        };
        let place = library.placed.exposure;
        if place == Exposure::Ordinary || judge::library(seen, library, world) == Judged::Known {
            return;
        }
        let Some((severity, confidence)) = severity(seen, library, world) else { return };
        let program = &seen.process.program;
        let module = &library.module;
        out.push(Draft {
            detector: self.id(),
            family: Family::Linker,
            severity,
            confidence,
            title: format!("{} maps {}, {}", program.name(), module.name(), place.clause()),
            evidence: vec![
                Evidence::Library {
                    path: module.path.clone(),
                    build_id: module.build_id().map(str::to_owned),
                    inode: inode_text(&library.file),
                },
                evidence(library),
            ],
            attack: &["T1574.006", "T1620"],
            object: format!("{} {}", module.path, module.build),
            program: Arc::clone(program),
            ktime_ns: None,
            explained_by: None,
        });
    }
}

fn evidence(library: &Library) -> Evidence {
    let placed = &library.placed;
    Evidence::File {
        exposure: placed.exposure,
        mode: format!("{:04o}", placed.mode & 0o7777),
        owner: placed.facts.owner,
        links: placed.facts.links,
        modified: placed
            .facts
            .mtime_s
            .and_then(|seconds| jiff::Timestamp::from_second(i64::try_from(seconds).ok()?).ok()),
    }
}

/// `None` where it is daily bread: what a user's own program loads of that user's own making.
fn severity(seen: &Observation, library: &Library, world: &World<'_>) -> Option<(Severity, f64)> {
    let process = &seen.process;
    let settled = judge::settled(seen, world);
    if process.program.guarded() {
        // Until it has settled the place alone is no proof: a site may have put its sshd there.
        return Some(if settled { (Severity::High, 0.8) } else { (Severity::Info, 0.4) });
    }
    // What a preload brings along is told of the preload.
    if !settled || process.injected {
        return None;
    }
    let privileged = process.euid == 0 || process.secure;
    Some(match library.placed.exposure {
        // Someone without its rights decides what it runs.
        Exposure::WritableByAll | Exposure::ForeignOwner if privileged => (Severity::Medium, 0.5),
        Exposure::AnyonesDirectory if privileged => match library.placed.facts.owner {
            Some(0) | None => (Severity::Info, 0.2),
            Some(_) => (Severity::Medium, 0.5),
        },
        // Just-in-time compilers and self-extracting programs do it too.
        Exposure::Memory | Exposure::Deleted => (Severity::Info, 0.3),
        _ => (Severity::Info, 0.1),
    })
}
