//! Root file systems of Debian's releases, for the OpenSSH of each. Made once and kept, where the
//! end-to-end tests keep theirs and in the same form: what one has made, the other uses.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::cell::USER;
use crate::{debian, repo, sh};

/// In a tree that is whole; `sensor/tests/lab/trixie.rs` writes the same.
const MARKER: &str = ".halfsecond-complete";
/// Comment of the test user, which tells it from a person's; `sensor/tests/lab/machine.rs` has the same.
const USERS_MARK: &str = "halfsecond laboratory";
const PACKAGE: &str = "openssh-server";

/// A release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Release {
    Bullseye,
    Bookworm,
    Trixie,
    Sid,
}

/// A release's root file system and its OpenSSH.
pub(crate) struct Root {
    pub(crate) folder: PathBuf,
    pub(crate) version: Version,
}

/// Of Debian's package: major and minor of OpenSSH, and all of it as Debian writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(super) number: (u32, u32),
    pub(crate) text: String,
}

// === impl Release ===

impl Release {
    pub(super) const ALL: [Self; 4] = [Self::Bullseye, Self::Bookworm, Self::Trixie, Self::Sid];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }

    /// Its root, made if need be (some hundred MB, a few minutes); `anew`: made in any case.
    pub(crate) fn root(self, anew: bool) -> Result<Root> {
        let folder = repo::target().join("e2e").join(self.name());
        if anew || !folder.join(MARKER).is_file() {
            self.build(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let folder = folder.canonicalize()?;
        let status = fs::read_to_string(folder.join("var/lib/dpkg/status"))?;
        let version = Version::of_package(&status)
            .with_context(|| format!("{} has no {PACKAGE}", folder.display()))?;
        Ok(Root { folder, version })
    }

    fn build(self, folder: &Path) -> Result<()> {
        let part = folder.with_extension("partial");
        remove(&part)?;
        fs::create_dir_all(folder.parent().context("no folder for it")?)?;
        debian::bootstrap(self.name(), &[PACKAGE], &part)?;
        fs::write(part.join(MARKER), "")?;
        remove(folder)?;
        Ok(fs::rename(&part, folder)?)
    }
}

/// Never what is mounted there.
fn remove(tree: &Path) -> Result<()> {
    if tree.exists() {
        sh::output(Command::new("rm").args(["-rf", "--one-file-system"]).arg(tree))?;
    }
    Ok(())
}

// === impl Root ===

impl Root {
    /// Makes the test user with this password, or gives it to the one that is there.
    pub(crate) fn add_user(&self, password: &str) -> Result<()> {
        let users = fs::read_to_string(self.folder.join("etc/passwd"))?;
        match users.lines().find(|line| line.starts_with(&format!("{USER}:"))) {
            Some(line) if line.contains(USERS_MARK) => {}
            Some(_) => bail!("{} has a user {USER} of somebody else", self.folder.display()),
            None => {
                let mut add = self.command("useradd");
                add.args(["--no-create-home", "--home-dir", "/", "--shell", "/bin/sh"]);
                sh::output(add.args(["--comment", USERS_MARK, USER]))?;
            }
        }
        let mut change = self.command("chpasswd").stdin(Stdio::piped()).spawn()?;
        let mut input = change.stdin.take().context("chpasswd without an input")?;
        input.write_all(format!("{USER}:{password}\n").as_bytes())?;
        drop(input);
        ensure!(change.wait()?.success(), "chpasswd in {} fails", self.folder.display());
        Ok(())
    }

    /// `program` of the root; Debian's chroot keeps the caller's PATH, which need not hold sbin.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.folder).arg(program);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }
}

// === impl Version ===

impl Version {
    /// From dpkg's database: stanzas of `Name: value` lines (deb-control(5)).
    fn of_package(status: &str) -> Option<Self> {
        let mut stanzas = status.split("\n\n");
        let wanted = format!("Package: {PACKAGE}");
        let stanza = stanzas.find(|stanza| stanza.lines().any(|line| line == wanted))?;
        let text = stanza.lines().find_map(|line| line.strip_prefix("Version: "))?;
        let upstream = text.split_once(':').map_or(text, |(_, upstream)| upstream);
        let (major, rest) = upstream.split_once('.')?;
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let minor = rest.get(..digits)?.parse().ok()?;
        Some(Self { number: (major.parse().ok()?, minor), text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_servers_own() {
        let status = "Package: openssh-client\nVersion: 1:9.9p9-9\n\n\
                      Package: openssh-server\nStatus: install ok installed\n\
                      Version: 1:10.0p1-7+deb13u4\n\nPackage: x\nVersion: 1\n";
        let version = Version::of_package(status).unwrap();
        assert_eq!((version.number, version.text.as_str()), ((10, 0), "1:10.0p1-7+deb13u4"));
        let old = Version::of_package("Package: openssh-server\nVersion: 1:8.4p1-5\n").unwrap();
        assert!(old.number < (8, 7));
        assert_eq!(Version::of_package("Package: openssh-server\nVersion: new\n"), None);
    }
}
