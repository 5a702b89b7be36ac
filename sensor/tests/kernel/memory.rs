//! Executable mappings, RELRO seals and link time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sensor::event::{Event, EventBody, InodeKey, Role};
use sensor::loader::LoaderConfig;
use sensor::loader::probes::Hook;
use sensor_common::{Counter, Ring};

use crate::harness::{Bench, inode_of, same, skip};

/// A dynamically linked program, as its own executable file.
fn program() -> Option<PathBuf> {
    let path = std::fs::canonicalize("/bin/true").expect("/bin/true");
    let bytes = std::fs::read(&path).expect("read");
    if bytes.windows(6).any(|window| window == b"/ld-li" || window == b"/ld-mu") {
        return Some(path);
    }
    skip(&format!("{} is static", path.display()));
    None
}

fn run(program: &Path) -> u32 {
    let mut child = Command::new(program).spawn().expect("spawn");
    child.wait().expect("wait");
    child.id()
}

fn maps(events: &[Event]) -> Vec<&sensor::event::Map> {
    events
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::Map(map) => Some(&**map),
            _ => None,
        })
        .collect()
}

#[test]
fn a_library_is_told_once_per_program() {
    let Some(mut bench) = Bench::start() else { return };
    let (Some(program), true) = (program(), bench.serves(Hook::Memory)) else { return };
    let first = run(&program);
    let events = bench.until_exit(first);
    let libc = maps(&events)
        .into_iter()
        .find(|map| map.path.path.to_string_lossy().contains("libc"))
        .unwrap_or_else(|| panic!("no libc among {events:#?}"))
        .clone();
    let path = std::fs::canonicalize(&libc.path.path).expect("the path exists");
    let stat = std::fs::metadata(&path).expect("stat");
    same("inode", libc.file.ino, std::os::unix::fs::MetadataExt::ino(&stat));
    same("size", libc.file.size, stat.len());
    same("executable bit", libc.prot & 4, 4);
    assert!(libc.len > 0, "{libc:?}");

    let filtered = bench.sensor.counters().expect("counters").get(Counter::MapFiltered);
    let second = run(&program);
    let events = bench.until_exit(second);
    assert!(maps(&events).is_empty(), "told again: {:#?}", maps(&events));
    let after = bench.sensor.counters().expect("counters").get(Counter::MapFiltered);
    assert!(after > filtered, "filtered {filtered}, then {after}");

    bench.sensor.forget_mapping(libc.exe, libc.file).expect("forget");
    let third = run(&program);
    let events = bench.until_exit(third);
    same("mappings once forgotten", maps(&events).len(), 1);
}

#[test]
fn a_start_tells_its_seals_in_order() {
    let Some(mut bench) = Bench::start() else { return };
    let (Some(program), true) = (program(), bench.serves(Hook::Memory)) else { return };
    // Told whenever it happened last.
    let inode = inode_of(&bench.sensor, &program);
    bench.sensor.set_link_limit(inode, Some(0)).expect("limit");
    let tgid = run(&program);
    let events = bench.until_exit(tgid);
    bench.sensor.set_link_limit(inode, None).expect("limit");
    let link = events
        .iter()
        .find_map(|event| match &event.body {
            EventBody::Link(link) => Some(link),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no link summary among {events:#?}"));
    // The program, its libc and the loader itself.
    assert!(link.seals.len() >= 2, "{link:#?}");
    assert!(link.seals.is_sorted_by_key(|seal| seal.wall_ns), "{link:#?}");
    assert!(link.seals.iter().all(|seal| seal.wall_ns > 0 && seal.addr > 0), "{link:#?}");
    let exec = events
        .iter()
        .find_map(|event| match &event.body {
            EventBody::Exec(exec) => Some(exec.exe),
            _ => None,
        })
        .expect("an exec");
    same("executable", link.exe, exec);
}

#[test]
fn an_unremarkable_start_is_told_once_per_interval() {
    let config = LoaderConfig {
        link_interval: Duration::from_hours(1),
        leave_self_out: false,
        ..LoaderConfig::default()
    };
    let Some(mut bench) = Bench::start_with(&config) else { return };
    let (Some(program), true) = (program(), bench.serves(Hook::Memory)) else { return };
    let links = |events: &[Event]| {
        events.iter().filter(|event| matches!(event.body, EventBody::Link(_))).count()
    };
    let first = run(&program);
    let events = bench.until_exit(first);
    same("summaries of the first start", links(&events), 1);
    let exe = events.iter().find_map(|event| match &event.body {
        EventBody::Exec(exec) => Some(exec.exe),
        _ => None,
    });
    let exe = exe.expect("an exec");
    let second = run(&program);
    same("summaries of the second start", links(&bench.until_exit(second)), 0);
    let inode = InodeKey { ino: exe.ino, dev: exe.dev, reserved: 0 };
    bench.sensor.set_link_limit(inode, Some(1)).expect("limit");
    let third = run(&program);
    same("summaries of a start over its limit", links(&bench.until_exit(third)), 1);
}

#[test]
fn a_guarded_program_tells_each_seal_at_once_through_the_priority_ring() {
    let Some(mut bench) = Bench::start() else { return };
    let (Some(program), true) = (program(), bench.serves(Hook::Memory)) else { return };
    bench.guard(&program, Role::GUARDED);
    let tgid = run(&program);
    let events = bench.until_exit(tgid);
    let seals: Vec<_> = events
        .iter()
        .filter_map(|event| match event.body {
            EventBody::Seal(seal) => Some(seal),
            _ => None,
        })
        .collect();
    let link = events.iter().find_map(|event| match &event.body {
        EventBody::Link(link) => Some(link),
        _ => None,
    });
    let link = link.expect("a link summary");
    let told: Vec<u64> =
        seals.iter().filter(|seal| !seal.after_link).map(|seal| seal.at.addr).collect();
    let summed: Vec<u64> = link.seals.iter().map(|seal| seal.addr).collect();
    same("seals told and summed", told, summed);
    for event in &events {
        same("ring", event.ring, Ring::Priority);
        same("role", event.role, Role::GUARDED);
    }
}
