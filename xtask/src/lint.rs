//! `cargo xtask lint`: formatting, clippy, and the house rules no tool knows.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::{Context as _, Result, bail};

use crate::{repo, sh};

/// The longest a source file may get; 400 is the aim.
const MAX_LINES: usize = 500;

type Check = (&'static str, fn() -> Result<()>);

/// In the order of how soon they answer.
const CHECKS: [Check; 5] = [
    ("format", format),
    ("file length", file_length),
    ("units", units),
    ("clippy", clippy),
    ("clippy for the kernel", clippy_kernel),
];

/// Runs every check, even after one failed, and fails if any did.
pub(crate) fn lint() -> Result<()> {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        if let Err(error) = check() {
            eprintln!("lint: {name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    println!("lint: all {} checks passed", CHECKS.len());
    Ok(())
}

fn format() -> Result<()> {
    sh::run(&mut sh::cargo(["fmt", "--all", "--check"]))
}

/// Clippy over everything that builds for the host.
fn clippy() -> Result<()> {
    sh::run(&mut sh::cargo([
        "clippy",
        "--workspace",
        "--exclude",
        "sensor-ebpf",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))
}

/// Clippy over the kernel programs, for the target they are built for.
fn clippy_kernel() -> Result<()> {
    let mut cargo = sh::cargo(["clippy", "--package", "sensor-ebpf", "--release", "--quiet"]);
    cargo.args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--", "-D", "warnings"]);
    // As sensor/build.rs has them built. A target folder of its own: the variable that lets a
    // stable compiler rebuild core would have everything else built again.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH));
    cargo.env("CARGO_TARGET_DIR", repo::target().join("lint-ebpf"));
    sh::run(&mut cargo)
}

fn file_length() -> Result<()> {
    let mut too_long = Vec::new();
    for folder in ["sensor", "sensor-common", "sensor-ebpf", "sensor-stats", "xtask"] {
        for file in rust_files(&repo::root().join(folder))? {
            let lines = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?
                .lines()
                .count();
            if lines > MAX_LINES {
                let name = file.strip_prefix(repo::root()).unwrap_or(&file);
                too_long.push(format!("{} has {lines} lines", name.display()));
            }
        }
    }
    if !too_long.is_empty() {
        bail!("split what is longer than {MAX_LINES} lines: {}", too_long.join(", "));
    }
    Ok(())
}

/// Has systemd read our units, where it is installed.
fn units() -> Result<()> {
    let folder = repo::root().join("deploy/systemd");
    if !folder.is_dir() || sh::which("systemd-analyze").is_none() {
        println!("lint: units skipped: no deploy/systemd, or no systemd-analyze on this machine");
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let unit = entry?.path();
        if unit.extension() == Some(OsStr::new("service")) {
            verify_unit(&unit)?;
        }
    }
    Ok(())
}

/// `systemd-analyze verify`, less its complaint that the binary is not installed here.
fn verify_unit(unit: &Path) -> Result<()> {
    let mut verify = std::process::Command::new("systemd-analyze");
    let output = verify.arg("verify").arg("--man=no").arg(unit).output()?;
    let name = unit.file_name().unwrap_or_default();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<_> = stderr
        .lines()
        .filter(|line| line.contains(&*name.to_string_lossy()))
        .filter(|line| !line.contains("is not executable: No such file or directory"))
        .collect();
    if !complaints.is_empty() {
        bail!("{}", complaints.join("\n"));
    }
    Ok(())
}

/// Every `.rs` file below `folder`.
fn rust_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension() == Some(OsStr::new("rs")) {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}
