//! Guarded functions: a small library of the test's own, called from the test.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use sensor::event::{EventBody, Role};
use sensor_common::record::InodeKey;

use crate::harness::{Bench, kernel_dev, same, skip};

fn key(path: &Path) -> InodeKey {
    let ino = std::fs::metadata(path).expect("stat").ino();
    InodeKey { ino, dev: kernel_dev(path), reserved: 0 }
}

/// A program that exports and calls `guarded_function`; `None` without a C compiler.
fn caller(dir: &Path) -> Option<std::path::PathBuf> {
    let source = dir.join("caller.c");
    let program = dir.join("caller");
    let text = "__attribute__((noinline)) int guarded_function(int n) { __asm__ volatile(\"\"); \
                return n + 1; } int main(void) { return guarded_function(6); }";
    std::fs::write(&source, text).expect("write the source");
    let mut cc = Command::new("cc");
    match cc.args(["-O1", "-rdynamic", "-o"]).arg(&program).arg(&source).status() {
        Ok(status) if status.success() => Some(program),
        Ok(status) => panic!("cc: {status}"),
        Err(error) => {
            skip(&format!("no C compiler: {error}"));
            None
        }
    }
}

#[test]
fn a_call_of_a_guarded_function_tells_where_it_returns_to() {
    let Some(mut bench) = Bench::start() else { return };
    if let Some(reason) = bench.missing("functions") {
        skip(&reason);
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let Some(program) = caller(dir.path()) else { return };
    let file = File::open(&program).expect("open");
    let symbols = ["guarded_function".to_owned(), "no_such_function".to_owned()];
    let probes = bench.sensor.attach_functions(&file, &program, key(&program), &symbols);
    same("probes", probes.len(), 1);
    same("error", probes[0].error.as_deref(), None);
    bench.sensor.guard_inode(key(&program), Role::GUARDED).expect("guard");

    let mut child = Command::new(&program).spawn().expect("spawn");
    let status = child.wait().expect("wait");
    same("exit code: the probe changes nothing", status.code(), Some(7));
    let events = bench.until_exit(child.id());
    let calls: Vec<_> = events
        .iter()
        .filter_map(|event| match event.body {
            EventBody::Caller(caller) => Some(caller),
            _ => None,
        })
        .collect();
    same("calls", calls.len(), 1);
    same("place in its page", calls[0].ip & 0xfff, probes[0].offset & 0xfff);
    // main follows or precedes the function in the same small text.
    let distance = calls[0].return_address.abs_diff(calls[0].ip);
    assert!(distance < 4096, "return address {:#x}, {:#x} off", calls[0].return_address, distance);

    assert!(bench.sensor.release_functions(key(&program)), "was watched");
    let mut child = Command::new(&program).spawn().expect("spawn");
    child.wait().expect("wait");
    let events = bench.until_exit(child.id());
    let silent = !events.iter().any(|event| matches!(event.body, EventBody::Caller(_)));
    assert!(silent, "released, and still told");
}

#[test]
fn a_program_that_is_not_guarded_is_not_told_of() {
    let Some(mut bench) = Bench::start() else { return };
    if let Some(reason) = bench.missing("functions") {
        skip(&reason);
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let Some(program) = caller(dir.path()) else { return };
    let file = File::open(&program).expect("open");
    let symbols = ["guarded_function".to_owned()];
    bench.sensor.attach_functions(&file, &program, key(&program), &symbols);
    let mut child = Command::new(&program).spawn().expect("spawn");
    child.wait().expect("wait");
    let events = bench.until_exit(child.id());
    let silent = !events.iter().any(|event| matches!(event.body, EventBody::Caller(_)));
    assert!(silent, "an unguarded program was told of");
}
