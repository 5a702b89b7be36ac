//! `cargo xtask vm logins`: real logins to a real OpenSSH on another kernel, with the sensor attached
//! and while it comes and goes. What kills a login there is a probe that the kernel has made into a
//! system call which sshd's sandbox does not know (`uretprobe` from 6.11, `uprobe` from 6.18).

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::kernel::{Arch, Spec};
use super::{Limits, Payload, Program, Tree, Verdict, qemu};
use crate::logins::{Release, USER};
use crate::{build, repo, setup, sh};

/// Run in the guest by its PID 1; its arguments are how often to log in, and the user.
const SCRIPT: &str = include_str!("logins.sh");
/// The target whose programs run in any guest.
const TARGET: &str = "x86_64-unknown-linux-musl";
/// Of a root file system: what nothing that runs there reads.
const LEFT_OUT: [&str; 9] = [
    "proc",
    "sys",
    "usr/lib/locale",
    "usr/share/bash-completion",
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "var/cache",
    "var/lib/apt",
];
/// Whose client logs in: sid's server comes without one.
const CLIENT: Release = Release::Trixie;
/// And of its root, where only the client runs.
const CLIENT_LEFT_OUT: [&str; 6] = ["opt", "proc", "sys", "usr/sbin", "usr/share", "var"];
/// Seconds that one login takes at most when emulated, with another beside it.
const EACH: u64 = 12;
/// Until the first: the boot, the copy of the root, the sensor's start.
const BEFORE: Duration = Duration::from_mins(10);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// As for `fetch`, but of `x86_64`.
    #[arg(default_value = "newest")]
    kernel: String,
    /// Logins with the sensor attached; a fifth as many follow while it comes and goes.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(50..=100_000))]
    logins: u64,
    /// Whose OpenSSH.
    #[arg(long, value_enum, default_value_t = Release::Sid)]
    release: Release,
}

/// Boots the kernel and logs in; what the guest tells is shown as it comes.
///
/// # Errors
/// When a login fails, the sensor has not told each of them, or the guest cannot be made.
pub(super) fn logins(args: &Args) -> Result<()> {
    ensure!(sh::is_root()?, "vm logins needs root: sudo env \"PATH=$PATH\" cargo xtask vm logins");
    let spec: Spec = args.kernel.parse()?;
    ensure!(spec.arch == Arch::X86_64, "{spec}: only kernels for x86_64, as the OpenSSH is");
    setup::ensure(setup::Scope::Test, false)?;
    let limit = BEFORE + Duration::from_secs(EACH * args.logins * 6 / 5);
    let outcomes =
        super::run(std::slice::from_ref(&args.kernel), Limits::of(limit), |_| payload(args))?;
    let Some(outcome) = outcomes.first() else { bail!("no guest was run") };
    println!("\n{outcome}");
    match &outcome.verdict {
        Verdict::Passed => Ok(()),
        _ => bail!("not every login went well; the console is in {}", qemu::logs().display()),
    }
}

fn payload(args: &Args) -> Result<Payload> {
    let root = args.release.root(false)?;
    root.add_user(&format!("{USER}-password"))?;
    let client = CLIENT.root(false)?;
    println!("-- OpenSSH {}, client {}", root.version.text, client.version.text);
    let mut cargo = sh::cargo(["build", "--release", "--package", "sensor", "--target", TARGET]);
    let agent = build::executable(&mut cargo, "bin", "halfsecond")?;
    let script = repo::target().join("vm/logins.sh");
    fs::write(&script, SCRIPT).with_context(|| script.display().to_string())?;
    let agents = repo::target().join("vm/agent");
    fs::create_dir_all(&agents)?;
    sh::output(Command::new("cp").arg(agent).arg(agents.join("halfsecond")))?;
    let tree = |from: PathBuf, to: &str, without: &[&'static str]| Tree {
        from,
        to: to.to_owned(),
        without: without.to_vec(),
    };
    let arguments = vec![args.logins.to_string(), USER.to_owned()];
    Ok(Payload {
        programs: vec![Program { name: "logins".to_owned(), binary: script, args: arguments }],
        trees: vec![
            tree(root.folder, "openssh", &LEFT_OUT),
            tree(client.folder, "client", &CLIENT_LEFT_OUT),
            tree(agents, "agent", &[]),
        ],
        ..Payload::default()
    })
}
