//! The way the loader went to a library, where others could have put one in its place.

use std::sync::Arc;

use super::super::judge::{self, Judged};
use super::super::{Draft, World};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Observation, Traced, inode_text};
use crate::search::{Weakness, Why, Writer};

/// One finding for the worst of the odd places.
pub(super) fn observe(
    detector: &'static str,
    seen: &Observation,
    traced: &Traced,
    world: &World<'_>,
) -> Option<Draft> {
    let way = traced.way.as_ref().ok()?;
    if way.found.weak.is_empty() || traced.judged == Some(Judged::Known) {
        return None;
    }
    // The library itself has been learned meanwhile.
    let settled = match traced.judged {
        Some(judged) => judged == Judged::Unexpected,
        None => judge::settled(seen, world),
    };
    let judged = way.found.weak.iter().filter_map(|weak| {
        let (severity, confidence) = severity(seen, weak, settled)?;
        Some((severity, weak, confidence))
    });
    // The first of the worst.
    let (severity, weak, confidence) =
        judged.reduce(|worst, one| if one.0 > worst.0 { one } else { worst })?;
    let program = &seen.process.program;
    let module = &traced.library.module;
    Some(Draft {
        detector,
        family: Family::Linker,
        severity,
        confidence,
        title: title(program.name(), module.name(), weak),
        evidence: vec![
            Evidence::Library {
                path: module.path.clone(),
                build_id: module.build_id().map(str::to_owned),
                inode: inode_text(&traced.library.file),
            },
            Evidence::of_search(&traced.way),
        ],
        attack: &["T1574.006", "T1574.008"],
        // One place, however many libraries are looked for there.
        object: format!("{} {} {}", weak.list, weak.element, weak.hit),
        program: Arc::clone(program),
        ktime_ns: None,
        explained_by: None,
    })
}

fn title(program: &str, library: &str, weak: &Weakness) -> String {
    let verb = if weak.hit { "loads" } else { "looks for" };
    let from = if weak.hit { "from" } else { "in" };
    let directory = weak.directory.as_ref().map(|it| it.display().to_string()).unwrap_or_default();
    let place = match weak.why {
        Why::Current(None) => "the current directory".to_owned(),
        Why::Current(Some(writer)) => {
            format!("the current directory, where {writer} may put files")
        }
        Why::Writable(writer) => format!("{directory}, where {writer} may put files"),
        Why::Missing(writer) => format!("{directory}, which {writer} may make"),
    };
    format!("{program} {verb} {library} {from} {place}")
}

/// `None` where it is daily bread: build trees and what users start of their own.
fn severity(seen: &Observation, weak: &Weakness, settled: bool) -> Option<(Severity, f64)> {
    let process = &seen.process;
    let (current, writer) = match weak.why {
        Why::Current(writer) => (true, writer),
        Why::Writable(writer) | Why::Missing(writer) => (false, Some(writer)),
    };
    // Who the members of a group are is the administrator's choice.
    let strangers = matches!(writer, Some(Writer::Everyone | Writer::User(_)));
    if process.program.guarded() {
        return Some(match (settled, weak.hit) {
            // Until it has settled this may be how the site runs it.
            (false, _) => (Severity::Info, 0.3),
            (true, true) if current || strangers => (Severity::High, 0.7),
            (true, false) if current || strangers => (Severity::Medium, 0.5),
            (true, _) => (Severity::Low, 0.3),
        });
    }
    // What a preload brings along is told of the preload.
    if !settled || process.injected {
        return None;
    }
    Some(match (weak.hit, strangers) {
        // Whoever starts it chooses what it runs with its rights.
        _ if process.secure && current => (Severity::Medium, 0.6),
        (true, true) if process.secure || process.euid == 0 => (Severity::Medium, 0.5),
        (false, true) if process.secure => (Severity::Medium, 0.4),
        (false, true) if process.euid == 0 => (Severity::Low, 0.3),
        _ => (Severity::Info, 0.1),
    })
}
