//! `cargo xtask fuzz`: runs the fuzz targets of `fuzz/` under the address sanitizer.

mod seeds;

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};

use crate::{repo, sh};

/// The release everybody uses.
const VERSION: &str = "0.13.2";
/// Every target, and the longest input it is given, bytes. Inputs of real size would only be slow:
/// what counts is how the parts fit together.
const TARGETS: [(&str, u32); 10] = [
    ("elf", 65_536),
    ("eh_frame", 4096),
    ("link_map", 4096),
    ("maps", 8192),
    ("btf", 16_384),
    ("records", 2048),
    ("cache", 16_384),
    ("baselines", 8192),
    ("orders", 8192),
    ("recording", 65_536),
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

/// What came of one target.
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    /// Why it failed.
    pub(crate) failed: Option<String>,
}

/// A target at work.
struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// Builds the targets and runs them.
///
/// # Errors
/// When one finds an input that panics, takes too long or too much memory: it is in
/// `fuzz/artifacts`.
pub(crate) fn fuzz(args: &Args) -> Result<()> {
    let wanted = |name: &str| args.targets.is_empty() || args.targets.iter().any(|one| one == name);
    let targets: Vec<_> = TARGETS.into_iter().filter(|(name, _)| wanted(name)).collect();
    if args.seeds {
        return targets.iter().try_for_each(|(name, _)| corpus(name).map(|_| ()));
    }
    ensure_usable()?;
    let outcomes = run(&targets, args.seconds)?;
    let failed: Vec<_> =
        outcomes.iter().filter(|one| one.failed.is_some()).map(|one| one.name).collect();
    if !failed.is_empty() {
        bail!("inputs that break a reader are in fuzz/artifacts: {}", failed.join(", "));
    }
    Ok(())
}

/// Every target for so many seconds.
///
/// # Errors
/// When they cannot be built or started.
pub(crate) fn all(seconds: u32) -> Result<Vec<Outcome>> {
    run(&TARGETS, seconds)
}

/// How many targets there are.
pub(crate) const COUNT: usize = TARGETS.len();

/// Installs what is missing.
///
/// # Errors
/// Why targets can be neither built nor run on this machine.
pub(crate) fn ensure_usable() -> Result<()> {
    if sh::which("c++").is_none() {
        bail!("libFuzzer needs a C++ compiler, and there is no c++ here (apt-get install g++)");
    }
    let installed = sh::tool("cargo-fuzz").and_then(|path| {
        let version = sh::output(Command::new(path).arg("--version")).ok()?;
        version.split_whitespace().nth(1).map(str::to_owned)
    });
    if installed.as_deref() == Some(VERSION) {
        return Ok(());
    }
    sh::run(&mut sh::cargo(["install", "cargo-fuzz", "--locked", "--version", VERSION]))
        .context("cargo-fuzz cannot be installed")
}

/// Builds every target.
///
/// # Errors
/// When one does not build.
pub(crate) fn prepare() -> Result<()> {
    build(&TARGETS)
}

fn build(targets: &[(&'static str, u32)]) -> Result<()> {
    let mut build = sh::cargo(["fuzz", "build", "--sanitizer", "address", "--target", TRIPLE]);
    // The sanitizer is behind an unstable option of the compiler.
    build.arg("--target-dir").arg(folder()).env("RUSTC_BOOTSTRAP", "1");
    if let [(one, _)] = targets {
        build.arg(one);
    }
    sh::run(&mut build)
}

/// As many at once as there are processors: each has one thread.
fn run(targets: &[(&'static str, u32)], seconds: u32) -> Result<Vec<Outcome>> {
    build(targets)?;
    let mut outcomes = Vec::new();
    for group in targets.chunks(thread::available_parallelism().map_or(1, NonZeroUsize::get)) {
        let running: Result<Vec<_>> =
            group.iter().map(|&(name, longest)| start(name, longest, seconds)).collect();
        for running in running? {
            outcomes.push(running.end()?);
        }
    }
    Ok(outcomes)
}

fn start(name: &'static str, longest: u32, seconds: u32) -> Result<Running> {
    let (corpus, log) = (corpus(name)?, folder().join(format!("{name}.log")));
    let mut command = binary(name)?;
    command.arg(corpus).arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-max_len={longest}")).arg("-print_final_stats=1");
    let dictionary = repo::root().join(format!("fuzz/dictionaries/{name}.dict"));
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let child = sh::announced(&mut command).spawn()?;
    Ok(Running { name, child, log })
}

/// A target as it was built, with its bounds, and where it puts inputs that break it.
fn binary(name: &str) -> Result<Command> {
    let artifacts = repo::root().join("fuzz/artifacts").join(name);
    fs::create_dir_all(&artifacts)?;
    let mut command = Command::new(folder().join(TRIPLE).join("release").join(name));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(format!("-rss_limit_mb={MEMORY_MB}")).arg(format!("-timeout={SECONDS_PER_INPUT}"));
    command.env("ASAN_OPTIONS", SANITIZER);
    Ok(command)
}

fn folder() -> PathBuf {
    repo::target().join("fuzz")
}

/// What was found so far, with the seeds, below `target/`.
fn corpus(target: &str) -> Result<PathBuf> {
    let folder = repo::target().join("fuzz-corpus").join(target);
    seeds::write(target, &folder)
        .with_context(|| format!("cannot write seeds to {}", folder.display()))?;
    Ok(folder)
}

// === impl Running ===

impl Running {
    fn end(mut self) -> Result<Outcome> {
        let status = self.child.wait()?;
        let log = String::from_utf8_lossy(&fs::read(&self.log)?).into_owned();
        let name = self.name;
        let failed = if status.success() {
            println!("{name}: {}", summary(&log));
            None
        } else if again(name, &log)? {
            println!("{name}: an input that took over a second did not when it was tried again");
            None
        } else {
            let end: Vec<&str> = log.lines().rev().take(60).collect();
            end.iter().rev().for_each(|line| println!("{line}"));
            Some(format!("{name} ended with {status}"))
        };
        Ok(Outcome { name, failed })
    }
}

/// Whether the run ended for an input that only took long because others had the processor.
fn again(name: &str, log: &str) -> Result<bool> {
    let Some(input) = artifact(log).filter(|path| path.contains("/timeout-")) else {
        return Ok(false);
    };
    let mut command = binary(name)?;
    let status = command.arg(input).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() {
        fs::remove_file(Path::new(input))?;
    }
    Ok(status.success())
}

/// "Test unit written to PATH".
fn artifact(log: &str) -> Option<&str> {
    let line = log.lines().rev().find(|line| line.contains("Test unit written to "))?;
    line.split_once("written to ").map(|(_, path)| path.trim())
}

/// Of libFuzzer's closing figures, those that are asked for.
fn summary(log: &str) -> String {
    let figure = |name: &str| {
        let line = log.lines().rev().find(|line| line.starts_with(&format!("stat::{name}:")));
        line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or("?").to_owned()
    };
    format!(
        "{} inputs, {} new, {} MB",
        figure("number_of_executed_units"),
        figure("new_units_added"),
        figure("peak_rss_mb")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
#2 INITED cov: 3
artifact_prefix='/a/'; Test unit written to /a/timeout-0123
stat::number_of_executed_units: 129824
stat::average_exec_per_sec:     606
stat::new_units_added:          298
stat::peak_rss_mb:              76
";

    #[test]
    fn the_closing_figures_and_the_input_are_read() {
        assert_eq!(summary(LOG), "129824 inputs, 298 new, 76 MB");
        assert_eq!(artifact(LOG), Some("/a/timeout-0123"));
        assert_eq!(artifact("Done 3 runs"), None);
    }

    #[test]
    fn every_target_is_in_the_manifest() {
        let manifest = fs::read_to_string(repo::root().join("fuzz/Cargo.toml")).unwrap();
        let listed = manifest.lines().filter(|line| line.starts_with("path = \"fuzz_targets/"));
        assert_eq!(listed.count(), COUNT);
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        }
    }
}
