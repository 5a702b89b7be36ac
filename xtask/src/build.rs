//! `cargo xtask build` and `cargo xtask run`.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{repo, setup, sh};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Optimised, as it ships.
    #[arg(long)]
    release: bool,
    /// Another target, e.g. `x86_64-unknown-linux-musl` for a static binary.
    #[arg(long)]
    target: Option<String>,
}

#[derive(clap::Args)]
pub(crate) struct RunArgs {
    /// Arguments for `halfsecond run`, after `--`.
    #[arg(last = true)]
    args: Vec<String>,
}

/// Builds the agent; its build script builds the kernel object first.
pub(crate) fn build(args: &Args) -> Result<()> {
    let mut cargo = sh::cargo(["build", "--package", "sensor"]);
    if args.release {
        cargo.arg("--release");
    }
    if let Some(target) = &args.target {
        cargo.args(["--target", target]);
    }
    sh::run(&mut cargo)
}

/// From a bare machine to a running sensor; returns the sensor's own exit code.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    setup::ensure(setup::Scope::Run, false)?;
    build(&Args { release: true, target: None })?;
    greet();
    let status = sh::as_root(repo::target().join("release/halfsecond"))?
        .arg("run")
        .args(&args.args)
        .status()
        .context("cannot start the sensor")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn greet() {
    println!(
        "\n\
         halfsecond is starting. It needs nothing but this terminal; Ctrl-C stops it.\n\
         \n  \
         incidents   one JSON object per line, here on stdout\n  \
         its log     below, on stderr\n  \
         metrics     http://127.0.0.1:9477/metrics\n\
         \n\
         Log in over ssh from another terminal: the first logins teach it what is normal here.\n"
    );
}

/// Runs a cargo command that builds exactly one executable and returns its path.
///
/// # Errors
/// When the build fails or yields no executable.
pub(crate) fn executable(cargo: &mut Command) -> Result<PathBuf> {
    // Diagnostics still go to stderr as text; stdout carries one JSON object per artifact.
    cargo.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let messages = sh::output(sh::announced(cargo))?;
    let paths = messages.lines().filter_map(executable_in).collect::<Vec<_>>();
    paths.into_iter().next_back().context("cargo built no executable")
}

/// The `executable` of a `compiler-artifact` message, or nothing for every other line.
fn executable_in(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    Some(PathBuf::from(message.get("executable")?.as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_artifacts_with_an_executable_name_one() {
        let test =
            r#"{"reason":"compiler-artifact","executable":"/t/deps/kernel-1f","fresh":true}"#;
        let library = r#"{"reason":"compiler-artifact","executable":null}"#;
        assert_eq!(executable_in(test), Some(PathBuf::from("/t/deps/kernel-1f")));
        assert_eq!(executable_in(library), None);
        assert_eq!(executable_in("not json"), None);
    }
}
