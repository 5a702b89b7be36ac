//! `cargo xtask build` and `cargo xtask run`.

use std::path::{Path, PathBuf};
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

/// Builds the agent as it ships.
pub(crate) fn release() -> Result<()> {
    build(&Args { release: true, target: None })
}

/// The agent that was named, or one built now as it ships, with what its tests need installed.
pub(crate) fn agent(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return path.canonicalize().with_context(|| format!("no agent at {}", path.display()));
    }
    setup::ensure(setup::Scope::Test, false)?;
    release()?;
    Ok(repo::target().join("release/halfsecond").canonicalize()?)
}

/// From a bare machine to a running sensor; returns the sensor's own exit code.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    setup::ensure(setup::Scope::Run, false)?;
    release()?;
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

/// Runs a cargo command that builds the target `name` of `kind` ("bin" or "test"), and returns
/// the path of its executable; what it is built with may have executables of its own.
///
/// # Errors
/// When the build fails or yields no such executable.
pub(crate) fn executable(cargo: &mut Command, kind: &str, name: &str) -> Result<PathBuf> {
    // Diagnostics still go to stderr as text; stdout carries one JSON object per artifact.
    cargo.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let messages = sh::output(sh::announced(cargo))?;
    let path = messages.lines().find_map(|message| executable_in(message, kind, name));
    path.with_context(|| format!("cargo built no {kind} called {name}"))
}

/// Runs a cargo command that builds several targets, and returns the executable of each with its
/// kind and name; a library's is that of its own tests.
///
/// # Errors
/// When the build fails.
pub(crate) fn executables(cargo: &mut Command) -> Result<Vec<(String, String, PathBuf)>> {
    cargo.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let messages = sh::output(sh::announced(cargo))?;
    Ok(messages.lines().filter_map(any_executable_in).collect())
}

fn any_executable_in(message: &str) -> Option<(String, String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let target = message.get("target")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kind = text(target.get("kind")?.as_array()?.first()?)?;
    let path = message.get("executable")?.as_str()?;
    Some((kind, text(target.get("name")?)?, PathBuf::from(path)))
}

/// The `executable` of the wanted `compiler-artifact` message, or nothing for any other line.
fn executable_in(message: &str, kind: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let target = message.get("target")?;
    let wanted = target.get("name")?.as_str()? == name
        && target.get("kind")?.as_array()?.iter().any(|of| of.as_str() == Some(kind));
    // Null where the target was only checked, or built as something else.
    let path = message.get("executable")?.as_str()?;
    wanted.then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wanted_executable_is_told_from_those_built_with_it() {
        let test = r#"{"target":{"kind":["test"],"name":"kernel"},"executable":"/t/kernel-1f"}"#;
        let tool = r#"{"target":{"kind":["bin"],"name":"kernel"},"executable":"/t/kernel"}"#;
        let library = r#"{"target":{"kind":["lib"],"name":"kernel"},"executable":null}"#;
        let path = |message| executable_in(message, "test", "kernel");
        assert_eq!(path(test), Some(PathBuf::from("/t/kernel-1f")));
        assert_eq!(path(tool), None);
        assert_eq!(path(library), None);
        assert_eq!(path("not json"), None);
    }
}
