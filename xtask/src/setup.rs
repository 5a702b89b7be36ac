//! `cargo xtask setup`: brings a machine to where halfsecond builds, runs and is tested.
//!
//! Idempotent: what is there is left alone, what is missing is named before it is installed.

mod apt;
mod frida;
mod linker;
mod rust;
mod services;

use anyhow::{Context as _, Result};

use apt::Need;

/// How much of the machine has to be ready.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// Building and running the sensor.
    Run,
    /// The above, and everything the tests and benchmarks drive.
    Test,
}

/// Packages for building and running; LLVM's come from [`linker`], which knows the version.
const RUN: &[Need] = &[Need::tool("cc", &["gcc"]), Need::library("libc6-dev", &["libc6-dev"])];

/// What the tests, the virtual machines and the benchmarks drive.
const TEST: &[Need] = &[
    Need::tool("sshd", &["openssh-server"]),
    Need::tool("ssh", &["openssh-client"]),
    Need::tool("sshpass", &["sshpass"]),
    Need::tool("prometheus", &["prometheus"]),
    Need::tool("qemu-system-x86_64", &["qemu-system-x86"]),
    Need::tool("qemu-system-aarch64", &["qemu-system-arm"]),
    Need::tool("debootstrap", &["debootstrap"]),
    Need::library("debian-archive-keyring", &["debian-archive-keyring"]),
    Need::tool("auditctl", &["auditd"]),
    Need::tool("bpftrace", &["bpftrace"]),
    Need::tool("bpftool", &["bpftool", "linux-tools-common"]),
    Need::tool("systemd-analyze", &["systemd"]),
    Need::tool("modprobe", &["kmod"]),
    // What libFuzzer is written in.
    Need::tool("c++", &["g++"]),
    Need::tool("make", &["make"]),
    Need::tool("ps", &["procps"]),
    // The modules of the guests' kernels.
    Need::tool("xz", &["xz-utils"]),
    // Programs of another C library.
    Need::tool("musl-gcc", &["musl-tools"]),
    Need::tool("python3", &["python3"]),
    Need::library("python3-venv", &["python3-venv"]),
    Need::tool("perl", &["perl"]),
    // Instruments that the verifier has to know from attacks.
    Need::tool("gdb", &["gdb"]),
    Need::tool("ltrace", &["ltrace"]),
    Need::tool("heaptrack", &["heaptrack"]),
    // Package databases and a hanging file system, for the tests of provenance and inventory.
    Need::tool("rpmbuild", &["rpm"]),
    Need::tool("sqlite3", &["sqlite3"]),
    Need::tool("bindfs", &["bindfs"]),
];

/// What only a machine with a 32-bit mode can have: a compiler for it. Its parts alone do as well;
/// `gcc-multilib` cannot be next to cross compilers.
#[cfg(target_arch = "x86_64")]
const MACHINE: &[Need] = &[Need::library(
    "cc -m32",
    &["gcc-multilib", "lib32gcc-12-dev", "lib32gcc-13-dev", "lib32gcc-14-dev", "lib32gcc-15-dev"],
)];
#[cfg(not(target_arch = "x86_64"))]
const MACHINE: &[Need] = &[];

/// Installs whatever `scope` needs and this machine lacks.
///
/// With `verbose` everything that was looked for is printed, otherwise only what is missing.
///
/// # Errors
/// When something cannot be installed; the message ends in what to do about it.
pub(crate) fn ensure(scope: Scope, verbose: bool) -> Result<()> {
    let mut needs = RUN.to_vec();
    if scope == Scope::Test {
        needs.extend(TEST);
        needs.extend(MACHINE);
    }
    apt::ensure(&needs, verbose)?;
    rust::ensure(verbose).context("the Rust toolchain is not complete")?;
    linker::ensure(verbose).context("bpf-linker, which links the kernel programs, is not ready")?;
    if scope == Scope::Test {
        frida::ensure(verbose);
    }
    Ok(())
}

/// One line per thing looked for.
fn report(verbose: bool, have: bool, what: &str) {
    if !have {
        println!("installing  {what}");
    } else if verbose {
        println!("have        {what}");
    }
}
