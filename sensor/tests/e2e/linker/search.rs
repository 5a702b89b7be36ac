//! How the loader found a library, and what is odd on that way.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Child};

use anyhow::{Context as _, Result};

use super::{Case, extra, preloading, waiting};
use crate::victim::Victim;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "library found by its module's RUNPATH",
        act: replaced,
        detector: "library_unexpected",
        severity: "medium",
        evidence: "\"found_by\":\"RUNPATH /",
    },
    Case {
        name: "library from the current directory",
        act: from_current,
        detector: "library_writable_path",
        severity: "high",
        evidence: "LD_LIBRARY_PATH \\\"\\\" means the current directory",
    },
    Case {
        name: "library from a RUNPATH that every user can write to",
        act: from_open_runpath,
        detector: "library_writable_path",
        severity: "high",
        evidence: "where every user may put files; it was found there",
    },
];

fn replaced(victim: &Victim) -> Result<Child> {
    victim.library("libinner.so", "-DRESOLVER_MS=2")?;
    waiting(&mut victim.command())
}

/// A copy elsewhere, found because an empty element means where the program was started.
fn from_current(victim: &Victim) -> Result<Child> {
    let elsewhere = victim.path("elsewhere");
    fs::create_dir(&elsewhere)?;
    fs::copy(victim.path("libinner.so"), elsewhere.join("libinner.so"))?;
    let mut command = victim.command();
    waiting(command.current_dir(elsewhere).env("LD_LIBRARY_PATH", "/nonexistent:"))
}

/// By its name alone, so that the program's own list decides.
fn from_open_runpath(victim: &Victim) -> Result<Child> {
    let library = extra(victim)?;
    fs::set_permissions(victim.path("."), fs::Permissions::from_mode(0o1777))?;
    preloading(victim, Path::new(library.file_name().context("no name")?))
}
