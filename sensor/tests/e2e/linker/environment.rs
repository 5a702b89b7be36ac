//! What the environment of a program says to its loader.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::Result;

use super::{Case, extra, waiting};
use crate::{
    lab::must,
    running::PATIENCE,
    victim::{PROGRAM, Victim},
};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "LD_PRELOAD behind 128 KB of environment",
        act: padded,
        detector: "preload_env",
        severity: "high",
        evidence: "LD_PRELOAD",
    },
    Case {
        name: "LD_PRELOAD behind 5000 variables",
        act: crowded,
        detector: "preload_env",
        severity: "high",
        evidence: "LD_PRELOAD",
    },
    Case {
        name: "LD_PRELOAD set twice",
        act: twice,
        detector: "preload_env",
        severity: "high",
        evidence: "/nowhere/second.so",
    },
    Case {
        name: "LD_LIBRARY_PATH",
        act: searched,
        detector: "library_unexpected",
        severity: "medium",
        evidence: "elsewhere/libinner.so",
    },
    Case {
        name: "LD_DEBUG",
        act: debugged,
        detector: "preload_env",
        severity: "medium",
        evidence: "LD_DEBUG_OUTPUT",
    },
    Case {
        name: "LD_PROFILE",
        act: profiled,
        detector: "preload_env",
        severity: "medium",
        evidence: "libouter.so",
    },
    Case {
        name: "LD_BIND_NOT",
        act: unbound,
        detector: "preload_env",
        severity: "medium",
        evidence: "LD_BIND_NOT",
    },
    Case {
        name: "GLIBC_TUNABLES",
        act: tuned,
        detector: "preload_env",
        severity: "medium",
        evidence: "glibc.malloc.arena_max=1",
    },
    Case {
        name: "LD_AUDIT",
        act: audited,
        detector: "preload_env",
        severity: "high",
        evidence: "LD_AUDIT",
    },
];

fn padded(victim: &Victim) -> Result<Child> {
    let library = extra(victim)?;
    let mut command = victim.command();
    // Variables are handed over in the order of their names; no single one may be longer.
    command.env("AAAA", "x".repeat(120 << 10)).env("AAAB", "x".repeat(8 << 10));
    waiting(command.env("LD_PRELOAD", library))
}

fn crowded(victim: &Victim) -> Result<Child> {
    let library = extra(victim)?;
    let mut command = victim.command();
    command.envs((0..5_000).map(|at| (format!("A{at:04}"), "x")));
    waiting(command.env("LD_PRELOAD", library))
}

fn twice(victim: &Victim) -> Result<Child> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/c/raw_exec.c");
    must(victim.cc("raw_exec").arg(source), "", PATIENCE)?;
    let mut command = Command::new(victim.path("raw_exec"));
    Ok(command.arg("twice").arg(victim.path(PROGRAM)).stdin(Stdio::piped()).spawn()?)
}

fn audited(victim: &Victim) -> Result<Child> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verify/c/audit.c");
    must(victim.cc("libaudit.so").args(["-shared", "-fPIC", source]), "", PATIENCE)?;
    waiting(victim.command().env("LD_AUDIT", victim.path("libaudit.so")))
}

fn searched(victim: &Victim) -> Result<Child> {
    let other = victim.other("libinner.so", "-DCONSTRUCTOR_MS=1")?;
    fs::create_dir(victim.path("elsewhere"))?;
    fs::rename(other, victim.path("elsewhere/libinner.so"))?;
    waiting(victim.command().env("LD_LIBRARY_PATH", victim.path("elsewhere")))
}

fn debugged(victim: &Victim) -> Result<Child> {
    let output = victim.path("debug");
    waiting(victim.command().env("LD_DEBUG", "statistics").env("LD_DEBUG_OUTPUT", output))
}

fn profiled(victim: &Victim) -> Result<Child> {
    let output = victim.path("");
    waiting(victim.command().env("LD_PROFILE", "libouter.so").env("LD_PROFILE_OUTPUT", output))
}

fn unbound(victim: &Victim) -> Result<Child> {
    waiting(victim.command().env("LD_BIND_NOT", "1"))
}

fn tuned(victim: &Victim) -> Result<Child> {
    waiting(victim.command().env("GLIBC_TUNABLES", "glibc.malloc.arena_max=1"))
}
