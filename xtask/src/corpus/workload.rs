//! The workloads: what ordinary machines run.

use anyhow::{Context as _, Result};

/// One entry of the corpus.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    /// What it stands for.
    pub(super) about: &'static str,
    /// Debian packages it needs, besides those of every workload.
    pub(super) packages: &'static [&'static str],
    /// Times in a round.
    pub(super) runs: u32,
    /// For `sh -eu` in the root; see `chamber.rs` for what it finds there.
    pub(super) script: &'static str,
}

/// Installed for every workload.
pub(super) const COMMON: &[&str] = &["iproute2", "procps", "ca-certificates"];

/// An entry whose script is `scripts/NAME.sh`.
macro_rules! workload {
    ($name:literal, $runs:literal, $about:literal, $packages:expr) => {
        Workload {
            name: $name,
            about: $about,
            packages: &$packages,
            runs: $runs,
            script: include_str!(concat!("scripts/", $name, ".sh")),
        }
    };
}

/// A program that a round starts once is settled a round later than one it starts twice.
const ALL: &[Workload] = &[
    workload!(
        "apt",
        1,
        "install, upgrade and purge of 20 packages, reinstalls",
        ["gcc", "libc6-dev", "nginx-light", "git", "libjemalloc2", "faketime"]
    ),
    workload!("c", 2, "make -j2 of fifty C files", ["gcc", "libc6-dev", "make"]),
    workload!("rust", 2, "cargo build and test", ["cargo", "rustc"]),
    workload!("python", 3, "python3 with numpy", ["python3-numpy", "python3-venv", "gcc"]),
    workload!("node", 3, "node with workers and TLS", ["nodejs", "openssl"]),
    workload!("java", 2, "javac, jar and java", ["openjdk-17-jdk-headless", "gcc", "libc6-dev"]),
    workload!("postgres", 2, "a cluster of its own", ["postgresql", "openssl"]),
    workload!("nginx", 3, "nginx and curl, plain and TLS", ["nginx-light", "curl", "openssl"]),
    workload!("redis", 3, "a server and its client", ["redis-server", "redis-tools"]),
    workload!("git", 2, "commits, merge, clone, gc", ["git"]),
    workload!("perl", 3, "compiled modules, children", ["perl"]),
    workload!("chromium", 2, "headless, a local page", ["chromium"]),
    workload!("fakeroot", 3, "a package built by fakeroot", ["fakeroot"]),
    workload!("faketime", 3, "another date", ["faketime", "python3", "perl", "git", "gcc"]),
    workload!("jemalloc", 3, "preloaded", ["libjemalloc2", "python3", "perl", "nodejs"]),
    workload!("valgrind", 2, "three of its tools", ["valgrind", "gcc", "libc6-dev", "libc6-dbg"]),
    workload!("gdb", 2, "run and attach", ["gdb", "gcc", "libc6-dev"]),
    workload!("asan", 3, "sanitized programs, preload", ["gcc", "libc6-dev", "python3"]),
    workload!("chroot", 3, "a debootstrap chroot", []),
    workload!(
        "runc",
        3,
        "containers with glibc and with musl",
        ["runc", "musl-tools", "busybox-static", "python3"]
    ),
    workload!("podman", 2, "the same Debian as a container", ["podman", "runc", "conmon"]),
];

/// The one in which something must be found; it is none of the corpus.
pub(super) const CONTROL: Workload = workload!("control", 1, "a preload that must be found", []);

/// Those named, in the order of the corpus; all where none is.
///
/// # Errors
/// When a name is none of a workload.
pub(super) fn chosen(names: &[String]) -> Result<Vec<Workload>> {
    for name in names {
        let known = || ALL.iter().map(|workload| workload.name).collect::<Vec<_>>().join(", ");
        ALL.iter()
            .find(|workload| workload.name == name)
            .with_context(|| format!("no workload is called {name}; there are {}", known()))?;
    }
    let wanted =
        |workload: &&Workload| names.is_empty() || names.iter().any(|name| name == workload.name);
    Ok(ALL.iter().filter(wanted).copied().collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_workload_is_chosen_by_its_name_and_an_unknown_name_is_told() {
        let names =
            |chosen: Vec<Workload>| chosen.iter().map(|workload| workload.name).collect::<Vec<_>>();
        let wanted = ["git".to_owned(), "apt".to_owned()];
        assert_eq!(names(chosen(&wanted).unwrap()), ["apt", "git"]);
        assert_eq!(chosen(&[]).unwrap().len(), ALL.len());
        let error = chosen(&["gti".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("gti") && error.contains("postgres"), "{error}");
    }

    #[test]
    fn no_two_workloads_share_a_name() {
        let names: BTreeSet<_> = ALL.iter().map(|workload| workload.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
