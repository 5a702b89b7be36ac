//! The toolchain's parts that a plain install lacks: core's source and the musl targets.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::report;
use crate::{repo, sh};

/// Rebuilding `core` for the BPF target needs its source; lints need the other two.
const COMPONENTS: [&str; 3] = ["rust-src", "rustfmt", "clippy"];

/// Static binaries: the container image, and the guests of the virtual machine tests.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"];

/// Adds what is missing to the toolchain that rust-toolchain.toml names.
pub(super) fn ensure(verbose: bool) -> Result<()> {
    if sh::which("rustup").is_none() {
        bail!(
            "rustup is not installed, and a distribution's own rustc cannot rebuild core for BPF; \
             see README.md, \"Before you start\""
        );
    }
    add("component", &COMPONENTS, verbose)?;
    add("target", &TARGETS, verbose)
}

/// The major version of the LLVM inside rustc, which decides the LLVM that bpf-linker needs.
///
/// # Errors
/// When rustc cannot be run or does not tell.
pub(super) fn llvm_major() -> Result<u32> {
    let version = sh::output(Command::new("rustc").arg("-vV").current_dir(repo::root()))?;
    parse_llvm_major(&version).with_context(|| format!("rustc tells no LLVM version:\n{version}"))
}

fn parse_llvm_major(version: &str) -> Option<u32> {
    let version = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

fn add(kind: &str, wanted: &[&str], verbose: bool) -> Result<()> {
    let list = sh::output(rustup([kind, "list", "--installed"]).env("RUSTUP_LOG", "error"))?;
    let mut missing = Vec::new();
    for name in wanted {
        let have = list.lines().any(|line| provides(line, name));
        report(verbose, have, &format!("rust {kind} {name}"));
        if !have {
            missing.push(*name);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    sh::run(rustup([kind, "add"]).args(missing)).with_context(|| {
        format!("rustup could not fetch it; once there is a network: rustup {kind} add {names}")
    })
}

/// Whether a line of rustup's list names `wanted`; host components carry the host's triple.
fn provides(line: &str, wanted: &str) -> bool {
    line.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn rustup<const N: usize>(args: [&str; N]) -> Command {
    let mut command = Command::new("rustup");
    // In the tree, so that rust-toolchain.toml decides which toolchain is meant.
    command.args(args).current_dir(repo::root());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_recognised_with_and_without_the_host_triple() {
        assert!(provides("rust-src", "rust-src"));
        assert!(provides("clippy-x86_64-unknown-linux-gnu", "clippy"));
        assert!(!provides("rustfmt-x86_64-unknown-linux-gnu", "rust-src"));
        assert!(!provides("rust-srcs", "rust-src"));
    }

    #[test]
    fn the_llvm_major_is_read_from_the_verbose_version() {
        assert_eq!(
            parse_llvm_major("rustc 1.95.0\nrelease: 1.95.0\nLLVM version: 22.1.2\n"),
            Some(22)
        );
        assert_eq!(parse_llvm_major("rustc 1.95.0\n"), None);
    }
}
