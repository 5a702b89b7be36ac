//! The corpus' own Debian: made once, completed where a workload needs more, used off line.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::chamber::Chamber;
use super::workload::{COMMON, Workload};
use crate::{debian, setup, sh};

const RELEASE: &str = "bookworm";
/// In the root: the packages that were asked for and are there.
const INSTALLED: &str = "corpus/installed";
/// Packages that the apt workload reinstalls from downloads kept for it: programs, and libraries
/// that programs of other workloads use.
const REINSTALLED: &[&str] = &[
    "nginx-light",
    "git",
    "libjemalloc2",
    "zlib1g",
    "libssl3",
    "perl-base",
    "faketime",
    "libfaketime",
];

/// A root with everything the workloads need.
pub(super) fn prepare(folder: &Path, workloads: &[Workload]) -> Result<Chamber> {
    let root = folder.join("root");
    if !root.exists() {
        setup::ensure(setup::Scope::Test, false)?;
        bootstrap(&root)?;
    }
    let chamber = Chamber::new(root.clone(), folder.join("logs"));
    let wanted: BTreeSet<&str> = workloads
        .iter()
        .flat_map(|workload| workload.packages)
        .chain(COMMON)
        .chain(REINSTALLED)
        .copied()
        .collect();
    let have = fs::read_to_string(root.join(INSTALLED)).unwrap_or_default();
    let have: BTreeSet<&str> = have.split_whitespace().collect();
    if !wanted.is_subset(&have) {
        let all: Vec<_> = wanted.union(&have).copied().collect();
        println!("installing into the root: {}", all.join(" "));
        let part = root.join("corpus/wanted");
        fs::write(&part, all.join("\n"))?;
        fs::write(root.join("corpus/reinstall"), REINSTALLED.join("\n"))?;
        chamber.set_up("setup", include_str!("scripts/setup.sh"))?;
        fs::rename(part, root.join(INSTALLED))?;
    }
    Ok(chamber)
}

/// Debian's minimal system, and a copy of it inside for chroots and containers.
fn bootstrap(root: &Path) -> Result<()> {
    let debian::Mirrors { main, security } = debian::mirrors();
    let part = root.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    debian::bootstrap(RELEASE, &[], &part)?;
    let copy = part.with_extension("copy");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    sh::output(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&part).arg(&copy))?;
    fs::rename(&copy, part.join("srv/minbase"))?;
    fs::create_dir_all(part.join("corpus"))?;
    let sources = format!(
        "deb {main} {RELEASE} main\ndeb {main} {RELEASE}-updates main\n\
         deb {security} {RELEASE}-security main\n"
    );
    fs::write(part.join("etc/apt/sources.list"), sources)?;
    fs::write(part.join("etc/apt/apt.conf.d/90corpus"), debian::network() + "\n")?;
    fs::rename(&part, root)?;
    Ok(())
}
