//! What a program maps: files that are new, others, in odd places or none.

use std::{
    fs::{self, File},
    os::fd::{AsRawFd as _, OwnedFd},
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::Path,
    process::Child,
};

use anyhow::Result;
use rustix::fs::{MemfdFlags, memfd_create};

use super::{Case, extra, preloading, waiting};
use crate::{
    lab::{must, wait_until},
    running::PATIENCE,
    victim::Victim,
};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "LD_PRELOAD through a symbolic link",
        act: linked,
        detector: "library_unexpected",
        severity: "medium",
        evidence: "libextra",
    },
    Case {
        name: "library replaced by a rename",
        act: replaced,
        detector: "library_unexpected",
        severity: "medium",
        evidence: "libinner.so",
    },
    Case {
        name: "library overwritten in place",
        act: overwritten,
        detector: "library_unexpected",
        severity: "medium",
        evidence: "libinner.so",
    },
    Case {
        name: "library that every user can write",
        act: writable,
        detector: "library_writable_path",
        severity: "high",
        evidence: "writable_by_all",
    },
    Case {
        name: "library of another user",
        act: foreign,
        detector: "library_writable_path",
        severity: "high",
        evidence: "foreign_owner",
    },
    Case {
        name: "library below /tmp",
        act: in_tmp,
        detector: "library_writable_path",
        severity: "high",
        evidence: "anyones_directory",
    },
    Case {
        name: "memfd with a plausible name",
        act: memfd,
        detector: "library_writable_path",
        severity: "high",
        evidence: "/memfd:libc.so.6",
    },
    Case {
        name: "library deleted before it is mapped",
        act: deleted,
        detector: "library_writable_path",
        severity: "high",
        evidence: "deleted",
    },
    Case {
        name: "forged audit state",
        act: forged,
        detector: "audit_unrequested",
        severity: "critical",
        evidence: "libouter.so",
    },
];

fn linked(victim: &Victim) -> Result<Child> {
    let link = victim.path("innocent.so");
    symlink(extra(victim)?, &link)?;
    preloading(victim, &link)
}

fn replaced(victim: &Victim) -> Result<Child> {
    victim.library("libinner.so", "-DRESOLVER_MS=1")?;
    waiting(&mut victim.command())
}

fn overwritten(victim: &Victim) -> Result<Child> {
    let other = victim.other("libinner.so", "-DCONSTRUCTOR_MS=1")?;
    fs::copy(other, victim.path("libinner.so"))?;
    waiting(&mut victim.command())
}

fn writable(victim: &Victim) -> Result<Child> {
    let library = extra(victim)?;
    fs::set_permissions(&library, fs::Permissions::from_mode(0o777))?;
    preloading(victim, &library)
}

fn foreign(victim: &Victim) -> Result<Child> {
    let library = extra(victim)?;
    chown(&library, Some(65_534), None)?;
    preloading(victim, &library)
}

fn in_tmp(victim: &Victim) -> Result<Child> {
    let dir = tempfile::Builder::new().prefix("halfsecond-linker-").tempdir_in("/tmp")?;
    let library = dir.path().join("libextra.so");
    fs::copy(extra(victim)?, &library)?;
    let child = preloading(victim, &library)?;
    // Removed once it is mapped: the program says nothing, but it maps before it reads.
    wait_until("the mapping", PATIENCE, || {
        let maps = fs::read_to_string(format!("/proc/{}/maps", child.id()))?;
        Ok(maps.contains("libextra.so").then_some(()))
    })?;
    Ok(child)
}

/// A descriptor's file in front of the libraries.
fn by_descriptor(victim: &Victim, file: &OwnedFd) -> Result<Child> {
    rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty())?;
    preloading(victim, Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
}

fn memfd(victim: &Victim) -> Result<Child> {
    let file = memfd_create("libc.so.6", MemfdFlags::empty())?;
    std::io::copy(&mut File::open(extra(victim)?)?, &mut File::from(file.try_clone()?))?;
    by_descriptor(victim, &file)
}

fn deleted(victim: &Victim) -> Result<Child> {
    let library = extra(victim)?;
    let file = OwnedFd::from(File::open(&library)?);
    fs::remove_file(library)?;
    by_descriptor(victim, &file)
}

fn forged(victim: &Victim) -> Result<Child> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verify/c/forge_audit.c");
    let inner = ["-Wl,--no-as-needed", "-l:libinner.so"];
    let outer = victim.other("libouter.so", "-DRESOLVER_MS=0")?;
    let mut cc = victim.cc("libforge.so");
    must(cc.args(["-shared", "-fPIC", source]), "", PATIENCE)?;
    // As if the library in place had been built with it.
    let mut cc = victim.cc("libouter.so");
    let slow_start = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/slow_start.c");
    cc.args(["-shared", "-fPIC", "-fno-stack-protector", "-Wl,-soname,libouter.so"]);
    cc.args(["-DNAME=outer", "-DCALLS=inner", slow_start, source]).args(inner);
    must(&mut cc, "", PATIENCE)?;
    fs::remove_file(outer)?;
    waiting(&mut victim.command())
}
