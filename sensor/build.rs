//! Builds the kernel object, nothing more.

use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, process};

use aya_build::{Package, Toolchain};

/// Lets a stable compiler build `core` for the BPF target.
const BOOTSTRAP: &str = "RUSTC_BOOTSTRAP";
/// Set by rustup for whatever it starts: the toolchain that builds the agent, which is the one that
/// rust-toolchain.toml names and whose `rust-src` is there.
const TOOLCHAIN: &str = "RUSTUP_TOOLCHAIN";
const REMEDY: &str = "run `cargo xtask setup`, which installs what is missing";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error=cannot build the kernel object: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed={BOOTSTRAP}");
    println!("cargo:rerun-if-changed=../sensor-common/src");
    // The builder reads the variable from its own environment, which a program may only change
    // safely for a child: so this script runs itself once more.
    if env::var_os(BOOTSTRAP).is_none() {
        let status = Command::new(env::current_exe()?).env(BOOTSTRAP, "1").status()?;
        process::exit(status.code().unwrap_or(1));
    }
    require_linker()?;
    let toolchain = env::var(TOOLCHAIN).unwrap_or_else(|_| "stable".to_owned());
    require_core_sources(&toolchain)?;
    let package = Package { name: "sensor-ebpf", root_dir: "../sensor-ebpf", ..Package::default() };
    aya_build::build_ebpf([package], Toolchain::Custom(&toolchain))
        .map_err(|error| format!("{error:#}"))?;
    Ok(())
}

fn require_linker() -> Result<(), Box<dyn Error>> {
    match Command::new("bpf-linker").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(format!("bpf-linker does not run ({said}): {REMEDY}").into())
        }
        Err(error) => Err(format!("bpf-linker does not start ({error}): {REMEDY}").into()),
    }
}

fn require_core_sources(toolchain: &str) -> Result<(), Box<dyn Error>> {
    // Without rustup the compiler in PATH is used, as aya-build does.
    let output = Command::new("rustup")
        .args(["run", toolchain, "rustc", "--print", "sysroot"])
        .output()
        .or_else(|_| Command::new("rustc").args(["--print", "sysroot"]).output())?;
    let sysroot = String::from_utf8(output.stdout)?;
    let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
    if output.status.success() && sources.is_dir() {
        return Ok(());
    }
    Err(format!("rust-src of the {toolchain} toolchain is missing: {REMEDY}").into())
}
