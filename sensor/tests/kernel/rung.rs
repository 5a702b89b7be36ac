//! Every mechanism of the hooks that have several: each tells the same.

use std::path::PathBuf;
use std::process::Command;

use sensor::event::{Event, EventBody, Role};
use sensor::loader::LoaderConfig;
use sensor::loader::probes::{Hook, Mechanism, PROBES};

use crate::frame;
use crate::harness::{Bench, same, skip};

/// A kernel side whose hook uses this mechanism and no other.
pub fn only(hook: Hook, mechanism: Mechanism) -> Option<Bench> {
    let others = [
        Mechanism::RawTracepoint,
        Mechanism::Fentry,
        Mechanism::Kprobe,
        Mechanism::SyscallTracepoint,
    ];
    let config = LoaderConfig {
        leave_self_out: false,
        syscall_tracepoints: true,
        avoid: others
            .into_iter()
            .filter(|other| *other != mechanism)
            .map(|other| (hook, other))
            .collect(),
        ..LoaderConfig::default()
    };
    let bench = Bench::start_with(&config)?;
    let report = bench.sensor.report().iter().find(|report| report.hook == hook);
    let report = report.expect("the hook is in the table");
    if report.mechanism.is_none() {
        for refusal in report.refused.iter().filter(|refusal| refusal.mechanism == mechanism) {
            // Absent or forbidden is the kernel's affair; what it has must take our programs.
            let is_ours = refusal.reason.contains("load: ")
                && !refusal.reason.contains("Operation not permitted");
            assert!(!is_ours, "{hook} by {mechanism}: {}", refusal.reason);
            skip(&format!("{hook} by {mechanism}: {}", refusal.reason));
        }
        return None;
    }
    same("mechanism", report.mechanism, Some(mechanism));
    Some(bench)
}

fn memory_by(mechanism: Mechanism) {
    let Some(mut bench) = only(Hook::Memory, mechanism) else { return };
    let program: PathBuf = std::fs::canonicalize("/bin/true").expect("/bin/true");
    bench.guard(&program, Role::GUARDED);
    let mut child = Command::new(&program).spawn().expect("spawn");
    child.wait().expect("wait");
    let events = bench.until_exit(child.id());
    let count = |wanted: fn(&EventBody) -> bool| -> usize {
        events.iter().filter(|event| wanted(&event.body)).count()
    };
    let libraries: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::Map(map) => Some((map.path.path.clone(), map.len, map.prot)),
            _ => None,
        })
        .collect();
    println!("{mechanism}: {libraries:?}");
    assert!(
        libraries.iter().any(|(path, len, prot)| path.to_string_lossy().contains("libc")
            && *len > 0
            && *prot & 4 != 0),
        "{events:#?}"
    );
    let seals = count(|body| matches!(body, EventBody::Seal(_)));
    assert!(seals >= 2, "{seals} seals in {events:#?}");
    same("link summaries", count(|body| matches!(body, EventBody::Link(_))), 1);
}

fn frames_by(mechanism: Mechanism) {
    let Some(mut bench) = only(Hook::Frames, mechanism) else { return };
    let writes = [
        frame::frame(8, &frame::string("alice")),
        frame::frame(12, &frame::string(frame::PASSWORD)),
        frame::frame(13, &[0, 0, 0, 1]),
    ]
    .concat();
    let events: Vec<Event> = frame::play(&mut bench, &writes, Role::SSHD);
    let told: Vec<_> = frame::frames(&events)
        .into_iter()
        .map(|frame| (frame.frame_type, frame.verdict, frame.user.clone()))
        .collect();
    same(
        "frames",
        told,
        vec![(8, None, Some("alice".to_owned())), (12, None, None), (13, Some(1), None)],
    );
    assert!(!format!("{:?}", bench.seen).contains(frame::PASSWORD), "the password is in a record");
}

#[test]
fn fentry_tells_libraries_and_seals() {
    memory_by(Mechanism::Fentry);
}

#[test]
fn kprobes_tell_libraries_and_seals() {
    memory_by(Mechanism::Kprobe);
}

#[test]
fn the_mmap_lock_tracepoint_tells_libraries_and_seals() {
    memory_by(Mechanism::RawTracepoint);
}

#[test]
fn syscall_tracepoints_tell_libraries_and_seals() {
    memory_by(Mechanism::SyscallTracepoint);
}

#[test]
fn fentry_tells_frames() {
    frames_by(Mechanism::Fentry);
}

#[test]
fn kprobes_tell_frames() {
    frames_by(Mechanism::Kprobe);
}

#[test]
fn the_socket_tracepoint_tells_frames() {
    frames_by(Mechanism::RawTracepoint);
}

#[test]
fn syscall_tracepoints_tell_frames() {
    frames_by(Mechanism::SyscallTracepoint);
}

#[test]
fn the_tests_cover_every_mechanism_of_the_table() {
    let covered = [
        Mechanism::RawTracepoint,
        Mechanism::Fentry,
        Mechanism::Kprobe,
        Mechanism::SyscallTracepoint,
    ];
    for probe in PROBES.iter().filter(|probe| matches!(probe.hook, Hook::Memory | Hook::Frames)) {
        for rung in probe.rungs {
            assert!(covered.contains(&rung.mechanism), "{} by {}", probe.hook, rung.mechanism);
        }
    }
}
