//! `cargo xtask fuzz`: runs the fuzz targets of `fuzz/` under the address sanitizer.

mod seeds;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{repo, sh};

/// The release everybody uses.
const VERSION: &str = "0.13.2";
/// Every target, and the longest input it is given, bytes. Inputs of real size would only be slow:
/// what counts is how the parts fit together.
const TARGETS: [(&str, u32); 6] = [
    ("elf", 65_536),
    ("link_map", 4096),
    ("maps", 8192),
    ("btf", 16_384),
    ("records", 2048),
    ("cache", 16_384),
];
/// What an input may cost: memory with the sanitizer's own, and time.
const MEMORY_MB: u32 = 256;
const SECONDS_PER_INPUT: u32 = 1;
/// Freed memory that the sanitizer holds back counts as used: not its default of 256 MB.
const SANITIZER: &str = "quarantine_size_mb=16";
/// The sanitizer has no static C library: not the musl targets.
const TRIPLE: &str = if cfg!(target_arch = "aarch64") {
    "aarch64-unknown-linux-gnu"
} else {
    "x86_64-unknown-linux-gnu"
};

/// Arguments of the verb.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these targets
    #[arg(value_name = "TARGET", value_parser = TARGETS.map(|(name, _)| name))]
    targets: Vec<String>,
    /// How long each runs; it goes on where the last run ended
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Only write the seeds, to target/fuzz-corpus
    #[arg(long)]
    seeds: bool,
}

/// Builds the targets and runs them one after the other.
///
/// # Errors
/// When one finds an input that panics, takes too long or too much memory: it is in
/// `fuzz/artifacts`.
pub(crate) fn fuzz(args: &Args) -> Result<()> {
    let wanted = |name: &str| args.targets.is_empty() || args.targets.iter().any(|one| one == name);
    let targets: Vec<_> = TARGETS.into_iter().filter(|(name, _)| wanted(name)).collect();
    for (name, _) in &targets {
        corpus(name)?;
    }
    if args.seeds {
        return Ok(());
    }
    ensure_tool()?;
    let mut failed = Vec::new();
    for (name, longest) in targets {
        let corpus = corpus(name)?;
        if let Err(error) = sh::run(&mut run(name, &corpus, longest, args.seconds)) {
            eprintln!("fuzz: {name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("inputs that break a reader are in fuzz/artifacts: {}", failed.join(", "));
    }
    Ok(())
}

/// What was found so far, with the seeds, below `target/`.
fn corpus(target: &str) -> Result<PathBuf> {
    let folder = repo::target().join("fuzz-corpus").join(target);
    seeds::write(target, &folder)
        .with_context(|| format!("cannot write seeds to {}", folder.display()))?;
    Ok(folder)
}

fn run(target: &str, corpus: &Path, longest: u32, seconds: u32) -> Command {
    let mut command = sh::cargo(["fuzz", "run", "--sanitizer", "address", "--target", TRIPLE]);
    command.arg("--target-dir").arg(repo::target().join("fuzz")).arg(target).arg(corpus).arg("--");
    let bounds = [
        format!("-max_total_time={seconds}"),
        format!("-rss_limit_mb={MEMORY_MB}"),
        format!("-timeout={SECONDS_PER_INPUT}"),
        format!("-max_len={longest}"),
        "-print_final_stats=1".to_owned(),
    ];
    command.args(bounds);
    let dictionary = repo::root().join(format!("fuzz/dictionaries/{target}.dict"));
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    // The sanitizer is behind an unstable option of the compiler.
    command.env("RUSTC_BOOTSTRAP", "1").env("ASAN_OPTIONS", SANITIZER);
    command
}

fn ensure_tool() -> Result<()> {
    let installed = sh::tool("cargo-fuzz").and_then(|path| {
        let version = sh::output(Command::new(path).arg("--version")).ok()?;
        version.split_whitespace().nth(1).map(str::to_owned)
    });
    if installed.as_deref() == Some(VERSION) {
        return Ok(());
    }
    sh::run(&mut sh::cargo(["install", "cargo-fuzz", "--locked", "--version", VERSION]))
}
