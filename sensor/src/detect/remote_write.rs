//! `remote_write`: one process writes into another program's memory.
//!
//! Needs no baseline. Debuggers do that for a living: one that root runs and that is what its
//! package brought explains itself, whatever it is called.

use std::sync::Arc;

use super::{Detector, Draft, World};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Located, Observation, Process, Written};
use crate::package::Content;

/// Programs that write into others on purpose, by the first word of their file names.
const DEBUGGERS: [&str; 7] = ["gdb", "gdbserver", "strace", "ltrace", "perf", "lldb", "rr"];

/// The detector.
#[derive(Debug)]
pub(super) struct RemoteWrite;

// === impl RemoteWrite ===

impl Detector for RemoteWrite {
    fn id(&self) -> &'static str {
        "remote_write"
    }

    fn observe(&mut self, seen: &Observation, _world: &World<'_>, out: &mut Vec<Draft>) {
        let Body::Written(written) = &seen.body else { return };
        let explained_by = explained(written);
        let (severity, confidence) = judged(seen, written, explained_by.is_some());
        let mut all = vec![evidence(written)];
        all.extend(
            written
                .origin
                .as_deref()
                .map(|origin| Evidence::of_origin(exe(&written.writer), origin)),
        );
        if !written.is_target {
            let text = "Whose memory it was, this kernel does not tell".to_owned();
            all.push(Evidence::Note { text });
        }
        out.push(Draft {
            detector: self.id(),
            family: Family::Hook,
            severity,
            confidence,
            title: title(seen, written),
            evidence: all,
            attack: &["T1055"],
            object: format!("{}>{}", exe(&written.writer), seen.process.program.module.path),
            program: Arc::clone(&seen.process.program),
            ktime_ns: None,
            explained_by,
        });
    }
}

fn judged(seen: &Observation, written: &Written, explained: bool) -> (Severity, f64) {
    let guarded = written.is_target && seen.process.program.guarded();
    match (guarded, written.is_root_daemon) {
        (true, _) | (_, true) if explained => (Severity::Medium, 0.5),
        (true, _) => (Severity::Critical, 0.8),
        (_, true) => (Severity::High, 0.7),
        // Debuggers, sandboxes and emulators write into what they have started.
        _ if explained || written.is_own => (Severity::Info, 0.3),
        _ => (Severity::Low, 0.4),
    }
}

/// A debugger of a package's, run by root.
fn explained(written: &Written) -> Option<String> {
    let origin = written.origin.as_ref()?;
    let owned = origin.package()?;
    let is_it = asks_whose(&written.writer) && origin.content == Content::Matches;
    is_it.then(|| {
        format!(
            "{} of the package {} {}, run by root",
            exe(&written.writer),
            owned.package,
            owned.version
        )
    })
}

/// Whether it matters which package the writer belongs to.
pub(crate) fn asks_whose(writer: &Process) -> bool {
    let name = writer.program.name();
    let first = name.split(['-', '_', '.']).next().unwrap_or_default();
    writer.shown.uid == 0 && DEBUGGERS.contains(&first)
}

fn exe(writer: &Process) -> &str {
    &writer.program.module.path
}

fn title(seen: &Observation, written: &Written) -> String {
    let writer = written.writer.program.name();
    let ways = written.ways.join(" and ");
    if !written.is_target {
        return format!("{writer} wrote into another process's memory by {ways}");
    }
    let target = seen.process.program.name();
    format!("{writer} (pid {}) wrote into {target}'s memory by {ways}", written.writer.id.tgid)
}

/// Who it was, as every finding of what became of the memory tells it.
pub(crate) fn evidence(written: &Written) -> Evidence {
    let shown = &written.writer.shown;
    Evidence::Writer {
        pid: shown.pid,
        exe: shown.exe.clone(),
        cmdline: shown.cmdline.clone(),
        uid: shown.uid,
        ancestors: shown.ancestors.clone(),
        ways: written.ways.iter().map(|way| (*way).to_owned()).collect(),
        times: written.count,
        place: written.place.as_ref().map(located).unwrap_or_default(),
    }
}

/// `module+offset`, with the nearest symbol.
pub(super) fn located(place: &Located) -> String {
    let module = place.module.path.rsplit('/').next().unwrap_or_default();
    match &place.symbol {
        Some((symbol, 0)) => format!("{module}+{:#x} ({symbol})", place.offset),
        Some((symbol, more)) => format!("{module}+{:#x} ({symbol}+{more:#x})", place.offset),
        None => format!("{module}+{:#x}", place.offset),
    }
}
