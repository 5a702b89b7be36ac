//! A root file system with Debian 13, for its OpenSSH 10. Built once and kept.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{
    machine::{QUICK, require},
    process::{finish, must},
};

/// Where the laboratory's directory appears in there.
pub(crate) const LAB_DIR: &str = "/mnt";
/// In the tree, written last: a tree without it was not finished.
const MARKER: &str = ".halfsecond-complete";
/// Debian's own service, used where apt does not name a mirror.
const MIRROR: &str = "http://deb.debian.org/debian";

/// The root file system, built if need be (some hundred MB, a few minutes).
/// `HALFSECOND_TRIXIE_ROOT` names another place than `target/e2e/trixie`.
///
/// The caller holds the machine, so nobody else builds it meanwhile.
pub(crate) fn root() -> Result<PathBuf> {
    let named = env::var_os("HALFSECOND_TRIXIE_ROOT").map(PathBuf::from);
    let own = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("e2e").join("trixie");
    let root = named.clone().unwrap_or(own);
    if root.join(MARKER).is_file() {
        return Ok(root);
    }
    if root.exists() {
        if named.is_some() {
            bail!("{} is no finished root: remove it, or name another place", root.display());
        }
        remove(&root)?;
    }
    build(&root).with_context(|| format!("building {}", root.display()))?;
    Ok(root)
}

fn build(root: &Path) -> Result<()> {
    require(&["debootstrap"])?;
    let parent = root.parent().context("the file system's own root")?;
    fs::create_dir_all(parent)?;
    let mut partial = root.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    // A build that was killed left it; the machine is held, so nobody is building it now.
    remove(&partial)?;
    eprintln!("building {} with debootstrap: this takes a few minutes, once", root.display());
    // In a mount namespace of its own, so that its mounts end with it even if it is killed.
    let mut debootstrap = Command::new("unshare");
    debootstrap.args(["--mount", "--propagation", "private", "debootstrap", "--variant=minbase"]);
    debootstrap.args(["--include=openssh-server", "trixie"]).arg(&partial).arg(mirror()?);
    let built = must(&mut debootstrap, "", Duration::from_mins(30));
    if built.is_err() {
        remove(&partial)?;
    }
    built?;
    check(&partial)?;
    fs::write(partial.join(MARKER), "")?;
    fs::rename(&partial, root)?;
    Ok(())
}

fn check(root: &Path) -> Result<()> {
    for file in ["usr/sbin/sshd", "usr/lib/openssh/sshd-session", "usr/lib/openssh/sshd-auth"] {
        if !root.join(file).is_file() {
            bail!("{file} is missing: not OpenSSH 10");
        }
    }
    Ok(())
}

/// The mirror this machine's apt uses, so that what works for apt works here.
fn mirror() -> Result<String> {
    if let Ok(mirror) = env::var("HALFSECOND_DEBIAN_MIRROR") {
        return Ok(mirror);
    }
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)"]);
    targets.arg("Created-By: Packages");
    let listed = finish(&mut targets, "", QUICK)?;
    let mirror = listed.stdout.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let debian = fields.next() == Some("Debian");
        let main = fields.next().is_some_and(|codename| !codename.contains('-'));
        fields.next().filter(|_| debian && main)
    });
    Ok(mirror.unwrap_or(MIRROR).to_owned())
}

/// Removes a tree; refuses to cross into another file system that is still mounted there.
fn remove(tree: &Path) -> Result<()> {
    if tree.exists() {
        must(Command::new("rm").args(["-rf", "--one-file-system"]).arg(tree), "", QUICK * 10)?;
    }
    Ok(())
}
