//! Running other programs: announced, checked, and as root where that is needed.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

use anyhow::{Context as _, Result, bail};

/// Directories searched besides `PATH`: root's own are missing from a user's `PATH` on Debian.
const SYSTEM_DIRS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// A cargo command in the workspace root, with the programs that cargo installs on its `PATH`.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("cargo");
    command.args(args).current_dir(crate::repo::root());
    let path = env::var_os("PATH").unwrap_or_default();
    // A distribution's rustup package leaves this folder off the PATH.
    let folders = env::split_paths(&path).chain(cargo_bin());
    if let Ok(path) = env::join_paths(folders) {
        command.env("PATH", path);
    }
    command
}

/// Runs `command` with the terminal's own streams.
///
/// # Errors
/// When it cannot be started or does not exit with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status =
        announced(command).status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs `command` silently and returns what it wrote to stdout.
///
/// # Errors
/// When it cannot be started or does not exit with 0; the error carries its stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}", shown(command), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command`, shows its stdout as it comes and hands every line to `see`.
///
/// Returns whether it exited with 0.
///
/// # Errors
/// When it cannot be started or its output cannot be read.
pub(crate) fn watch(command: &mut Command, mut see: impl FnMut(&str)) -> Result<bool> {
    let mut child = announced(command)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        while stdout.read_until(b'\n', &mut line)? != 0 {
            io::stdout().write_all(&line)?;
            see(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
    }
    Ok(child.wait()?.success())
}

/// `program` as root: as it is for root, behind `sudo` for everybody else.
///
/// # Errors
/// When we are not root and there is no sudo.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root()? {
        return Ok(Command::new(program));
    }
    if which("sudo").is_none() {
        bail!(
            "{} needs root: run this as root, or install sudo and allow yourself to use it",
            program.as_ref().display()
        );
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    Ok(command)
}

/// Whether our effective user is root.
///
/// # Errors
/// When /proc/self/status has no `Uid:` line.
pub(crate) fn is_root() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read our own /proc")?;
    // "Uid: real effective saved filesystem", proc_pid_status(5).
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let effective = uids.and_then(|uids| uids.split_whitespace().nth(1));
    Ok(effective.context("/proc/self/status has no Uid line")? == "0")
}

/// The path of an executable called `name`, looked up as root would.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_DIRS.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

/// Like [`which`], but also where `cargo install` puts programs.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let installed = cargo_bin().map(|folder| folder.join(name));
    which(name).or_else(|| installed.filter(|path| is_executable(path)))
}

/// The folder of programs installed by cargo.
fn cargo_bin() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    home.map(|home| home.join("bin"))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Prints the command about to run, so that a reader can repeat it by hand.
pub(crate) fn announced(command: &mut Command) -> &mut Command {
    println!("\x1b[2m$ {}\x1b[0m", shown(command));
    command
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(name).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
