//! `kernel_hook`: something new instruments the host that its baseline does not have: a BPF
//! program, a kprobe, an ftrace hook, a tracer, a kernel module.
//!
//! Silent while the host's baseline is learned. What a program does inside cannot be told from
//! outside, so its kind decides: what that kind may do.

use std::sync::Arc;

use super::{Detector, Draft, World};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Observation};
use crate::instrument::{Owner, Seen, What};

/// The detector.
#[derive(Debug)]
pub(super) struct KernelHook;

/// What something may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    /// Decide in the kernel's place, change its code or what functions return.
    Changes,
    /// Read everything, and write to programs' memory.
    Reads,
    /// Handle packets, or what control groups may do.
    Handles,
    /// In-tree, signed code of the kernel's own.
    Expected,
}

// === impl KernelHook ===

impl Detector for KernelHook {
    fn id(&self) -> &'static str {
        "kernel_hook"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        let Body::Instrument(found) = &seen.body else { return };
        // A uprobe in a protected file is told by `foreign_probe`, any other is a debugger's work.
        if matches!(found.instrument.what, What::Uprobe(_)) || is_known(found, world) {
            return;
        }
        if !world.own.settled(world.learning.observations, false) {
            return;
        }
        let (severity, confidence) = judge(found);
        let key = found.key();
        out.push(Draft {
            detector: self.id(),
            family: Family::Hook,
            severity,
            confidence,
            title: title(found),
            evidence: evidence(found),
            attack: attack(&found.instrument.what),
            object: key,
            program: Arc::clone(&seen.process.program),
            ktime_ns: None,
            explained_by: explanation(found.owner.as_ref()),
        });
    }
}

/// The host's baseline has it.
pub(super) fn is_known(found: &Seen, world: &World<'_>) -> bool {
    world.own.instruments.contains(&found.key())
}

/// A tool's or agent's package. Another process that runs this sensor's program explains nothing: its
/// settings, and what drives it, are not this sensor's.
pub(super) fn explanation(owner: Option<&Owner>) -> Option<String> {
    owner.filter(|owner| owner.is_tool)?.package.clone()
}

fn judge(found: &Seen) -> (Severity, f64) {
    let owner = found.owner.as_ref();
    let is_tool = owner.is_some_and(|owner| owner.is_tool);
    let is_vouched = owner.is_some_and(Owner::is_vouched);
    match (power(&found.instrument.what), is_tool, is_vouched) {
        (Power::Expected, ..) | (Power::Reads | Power::Handles, true, _) => (Severity::Info, 0.1),
        (Power::Changes, true, _) => (Severity::Low, 0.2),
        (Power::Changes, false, true) => (Severity::Medium, 0.4),
        (Power::Changes, false, false) => (Severity::High, 0.7),
        (Power::Reads, false, false) => (Severity::Medium, 0.5),
        (Power::Handles, false, true) => (Severity::Info, 0.2),
        (Power::Reads, false, true) | (Power::Handles, false, false) => (Severity::Low, 0.3),
    }
}

fn power(what: &What) -> Power {
    /// Kinds of programs whose result the kernel obeys beyond packets.
    const CHANGES: [&str; 3] = ["lsm", "struct_ops", "ext"];
    match what {
        // Out of tree, unsigned, forced, proprietary.
        What::Module(module) if module.taint.contains(['O', 'E', 'F']) => Power::Changes,
        What::Module(_) => Power::Expected,
        // The flag says that the hook may go on elsewhere (include/linux/ftrace.h
        // `FTRACE_FL_IPMODIFY`): a function replaced.
        What::Ftrace { flags, .. } if flags.contains(" I") => Power::Changes,
        What::Program(program) if CHANGES.contains(&program.kind.as_str()) => Power::Changes,
        What::Program(program) if observes(&program.kind) => Power::Reads,
        What::Program(_) => Power::Handles,
        What::Ftrace { .. } | What::Tracer(_) | What::Kprobe { .. } | What::Uprobe(_) => {
            Power::Reads
        }
    }
}

/// Kinds that may call `bpf_probe_read_*` and `bpf_probe_write_user` (`kernel/trace/bpf_trace.c`).
fn observes(kind: &str) -> bool {
    const KINDS: [&str; 8] = [
        "kprobe",
        "tracepoint",
        "raw_tracepoint",
        "raw_tracepoint_writable",
        "perf_event",
        "tracing",
        "syscall",
        "unknown",
    ];
    KINDS.contains(&kind)
}

fn title(found: &Seen) -> String {
    let (kind, name) = (found.instrument.kind(), found.instrument.name());
    let who = found.owner.as_ref().map(|owner| format!(" of {}", owner.shown.exe));
    format!("new {kind} {name}{} in the kernel", who.unwrap_or_default())
}

fn attack(what: &What) -> &'static [&'static str] {
    match what {
        What::Module(_) => &["T1547.006", "T1014"],
        _ => &["T1014", "T1205.002"],
    }
}

/// What it is, whose, and what else is known of it.
pub(super) fn evidence(found: &Seen) -> Vec<Evidence> {
    let instrument = &found.instrument;
    let owner = found.owner.as_ref();
    let mut details = Vec::new();
    match &instrument.what {
        What::Program(program) => {
            details.push(format!("type {}, tag {:016x}", program.kind, program.tag));
            details.extend(program.loaded.map(|time| format!("loaded {time:.0}")));
            details.extend(program.uid.map(|uid| format!("by uid {uid}")));
            details.extend(program.places.iter().take(4).map(|place| format!("at {place}")));
            let functions = program.functions.iter().take(4);
            details.extend(functions.map(|function| format!("called by {function}")));
        }
        What::Uprobe(probe) => {
            details.push(format!("by {}", probe.by));
            let program = probe.program.as_ref();
            details.extend(program.map(|(id, name)| format!("runs BPF program {id} {name}")));
        }
        What::Kprobe { by, .. } => details.push(format!("by {by}")),
        What::Ftrace { flags, .. } => details.push(flags.clone()),
        What::Tracer(_) => {}
        What::Module(module) => {
            details.push(format!("{} bytes at {:#x}", module.size, module.address));
            if !module.taint.is_empty() {
                details.push(format!("taints the kernel: {}", module.taint));
            }
        }
    }
    let (file, offset) = match &instrument.what {
        What::Uprobe(probe) => {
            let path = found.site.as_ref().map_or_else(|| probe.shown(), |site| site.path.clone());
            (Some(path), Some(format!("{:#x}", probe.offset)))
        }
        _ => (None, None),
    };
    let symbol = found.site.as_ref().and_then(|site| site.symbol.as_ref());
    let told = Evidence::Instrument {
        what: instrument.kind().to_owned(),
        name: instrument.name(),
        file,
        offset,
        symbol: symbol.map(|(name, distance)| format!("{name}+{distance:#x}")),
        owner: owner.map(|owner| owner.shown.exe.clone()),
        package: owner.and_then(|owner| owner.package.clone()),
        details,
    };
    let nobody = owner.is_none().then(|| Evidence::Note {
        text: "no running process holds it: it lives by itself, or whoever made it has ended"
            .to_owned(),
    });
    std::iter::once(told).chain(nobody).chain(owner.into_iter().flat_map(notes)).collect()
}

fn notes(owner: &Owner) -> Vec<Evidence> {
    let twin = "it runs the code that this sensor runs, loaded by the same program: another sensor, \
                or somebody who has started this one with settings of his own";
    let unread = "its executable, arguments and package could not be read in time: somebody answers \
                  for its files and does not, or it holds its own memory locked";
    let told = [(owner.is_twin, twin), (owner.is_unread, unread)];
    told.into_iter()
        .filter(|(holds, _)| *holds)
        .map(|(_, text)| Evidence::Note { text: text.to_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::{Instrument, Module, Program};

    fn seen(what: What, owner: Option<Owner>) -> Seen {
        let instrument = Instrument { id: "1".to_owned(), what, holders: Vec::new() };
        Seen { instrument, owner, site: None }
    }

    fn program(kind: &str) -> What {
        What::Program(Program {
            kind: kind.to_owned(),
            name: "x".to_owned(),
            tag: 1,
            loaded: None,
            uid: None,
            places: Vec::new(),
            functions: vec!["vfs_read".to_owned()],
        })
    }

    fn module(taint: &str) -> What {
        let (name, taint) = ("m".to_owned(), taint.to_owned());
        What::Module(Module { name, size: 1, taint, address: 0 })
    }

    #[expect(clippy::unnecessary_wraps, reason = "as every caller wants it")]
    fn systemd() -> Option<Owner> {
        let package = Some("systemd 252".to_owned());
        Some(Owner { package, is_tool: true, ..Owner::default() })
    }

    #[test]
    fn severity_follows_what_a_kind_may_do_and_who_stands_for_it() {
        let severity = |what, owner| judge(&seen(what, owner)).0;
        assert_eq!(severity(program("cgroup_skb"), systemd()), Severity::Info);
        assert_eq!(severity(program("cgroup_skb"), None), Severity::Low);
        assert_eq!(severity(program("lsm"), None), Severity::High);
        assert_eq!(severity(program("lsm"), systemd()), Severity::Low);
        assert_eq!(severity(program("kprobe"), None), Severity::Medium);
        assert_eq!(severity(program("kprobe"), systemd()), Severity::Info);
        assert_eq!(severity(module(""), None), Severity::Info);
        assert_eq!(severity(module("OE"), None), Severity::High);
        let hook = |flags: &str| What::Ftrace { function: "f".to_owned(), flags: flags.to_owned() };
        assert_eq!(severity(hook("(1) R I"), None), Severity::High);
        assert_eq!(severity(hook("(1) "), None), Severity::Medium);
    }

    #[test]
    fn an_interpreters_package_stands_for_nothing() {
        let package = Some("python3.11-minimal 3.11".to_owned());
        let python = Owner { package, is_interpreter: true, ..Owner::default() };
        assert_eq!(judge(&seen(program("tracing"), Some(python))).0, Severity::Medium);
    }

    #[test]
    fn another_process_with_this_sensors_code_is_told_and_explains_nothing() {
        let twin = Owner { is_twin: true, ..Owner::default() };
        let found = seen(program("kprobe"), Some(twin));
        assert_eq!(judge(&found).0, Severity::Low);
        assert_eq!(explanation(found.owner.as_ref()), None);
        let told = evidence(&found);
        assert!(told.iter().any(|one| matches!(one, Evidence::Note { .. })), "{told:?}");
        let Evidence::Instrument { details, .. } = &told[0] else { panic!("{told:?}") };
        assert!(details.iter().any(|detail| detail == "called by vfs_read"), "{details:?}");
    }

    #[test]
    fn what_nobody_holds_is_told_as_such() {
        let told = evidence(&seen(module("OE"), None));
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(explanation(systemd().as_ref()).as_deref(), Some("systemd 252"));
    }
}
