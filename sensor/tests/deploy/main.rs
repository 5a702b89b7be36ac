//! The files under deploy/ hold what they promise: read by the programs they are for, and in step
//! with each other and with the sensor.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test panics with what it found, and says what it skips"
)]

mod kubernetes;
mod prometheus;
mod systemd;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name).canonicalize().unwrap()
}

fn text(name: &str) -> String {
    fs::read_to_string(deployed(name)).unwrap()
}

/// Whether the program is there; says that the test is skipped where it is not.
fn has(program: &str, package: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: {program} (package {package}) is not installed");
    }
    found
}

/// What the program says on both streams, and whether it was content.
fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let both = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&both).into_owned())
}
