//! Debian's archive through a private apt: other releases and architectures than the host's, with
//! apt's own signature checks, and nothing of it visible to the host's apt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{debian, repo, sh};

/// Suites of the main archive with kernels we test, and the security archive's where the release
/// is only updated there.
const SUITES: [&str; 6] =
    ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid"];
const SECURITY_SUITES: [&str; 1] = ["bullseye-security"];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt with its own sources, lists and cache, all below `target/vm`.
pub(super) struct Archive {
    /// `target/vm/apt`.
    folder: PathBuf,
    /// `target/vm/debs`.
    debs: PathBuf,
}

/// One package in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// Debian's name of the architecture.
    pub(super) arch: &'static str,
}

// === impl Archive ===

impl Archive {
    /// Writes the configuration; nothing is downloaded before it is needed.
    pub(super) fn open() -> Result<Self> {
        let folder = repo::target().join("vm/apt");
        let debs = repo::target().join("vm/debs");
        for part in ["etc/apt.conf.d", "etc/preferences.d", "lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::create_dir_all(&debs)?;
        // apt wants absolute names.
        let folder = folder.canonicalize()?;
        fs::write(folder.join("status"), "")?;
        fs::write(folder.join("etc/sources.list"), sources())?;
        fs::write(folder.join("apt.conf"), configuration(&folder))?;
        Ok(Self { folder, debs })
    }

    /// Drops the lists and every kernel and guest made from them.
    pub(super) fn forget(&mut self) -> Result<()> {
        for stale in ["vm/apt/lists", "vm/kernels", "vm/guests"] {
            let path = repo::target().join(stale);
            if path.exists() {
                fs::remove_dir_all(path)?;
            }
        }
        *self = Self::open()?;
        Ok(())
    }

    /// Every version of `name` on offer, newest first.
    pub(super) fn versions(&mut self, name: &str, arch: &'static str) -> Result<Vec<Package>> {
        self.ensure_lists()?;
        let listed = sh::output(self.apt("apt-cache").args(["madison", &qualified(name, arch)]))?;
        let mut versions: Vec<_> = listed.lines().filter_map(madison_version).collect();
        versions.dedup();
        let package =
            |version: &str| Package { name: name.to_owned(), version: version.to_owned(), arch };
        // apt-cache lists the newest first, whatever suite it is from.
        Ok(versions.into_iter().map(package).collect())
    }

    /// Each of `names` as `suite` has it. One question for all: apt reads its lists for each anew.
    pub(super) fn in_suite(
        &mut self,
        names: &[&str],
        arch: &'static str,
        suite: &str,
    ) -> Result<Vec<Package>> {
        self.ensure_lists()?;
        let asked = names.iter().map(|name| qualified(name, arch));
        let listed = sh::output(self.apt("apt-cache").arg("madison").args(asked))?;
        let found = |name: &&str| {
            let version = version_in(&listed, name, suite);
            let version =
                version.with_context(|| format!("Debian {suite} has no {name} for {arch}"))?;
            Ok(Package { name: (*name).to_owned(), version: version.to_owned(), arch })
        };
        names.iter().map(found).collect()
    }

    /// The packages that `package` depends on in exactly one version.
    pub(super) fn pinned_dependencies(&mut self, package: &Package) -> Result<Vec<Package>> {
        self.ensure_lists()?;
        let stanza = sh::output(self.apt("apt-cache").args(["show", &package.selector()]))?;
        let depends = stanza.lines().find_map(|line| line.strip_prefix("Depends: "));
        let pinned = depends.unwrap_or_default().split(", ").filter_map(pinned);
        Ok(pinned
            .map(|(name, version)| Package {
                name: name.to_owned(),
                version: version.to_owned(),
                arch: package.arch,
            })
            .collect())
    }

    /// Downloads the packages and unpacks them over `folder`.
    pub(super) fn unpack(&mut self, packages: &[Package], folder: &Path) -> Result<()> {
        self.download(packages)?;
        for deb in packages.iter().map(|package| self.deb(package)) {
            if !deb.is_file() {
                bail!("apt downloaded no {}", deb.display());
            }
            sh::output(Command::new("dpkg-deb").arg("-x").arg(deb).arg(folder))?;
        }
        Ok(())
    }

    /// Those that are not here.
    fn download(&mut self, packages: &[Package]) -> Result<()> {
        self.ensure_lists()?;
        let missing: Vec<_> =
            packages.iter().filter(|package| !self.deb(package).is_file()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        for Package { name, version, arch } in &missing {
            println!("fetching {name} {version} ({arch})");
        }
        let mut get = self.apt("apt-get");
        get.current_dir(&self.debs).args(["-qq", "download"]);
        get.args(missing.iter().map(|package| package.selector()));
        sh::output(&mut get).context(
            "a package list may be older than the archive: cargo xtask vm fetch --refresh",
        )?;
        Ok(())
    }

    /// Where apt puts its file.
    fn deb(&self, package: &Package) -> PathBuf {
        // What a colon in a version becomes in a file name is apt's business.
        let encoded = package.version.replace(':', "%3a");
        self.debs.join(format!("{}_{encoded}_{}.deb", package.name, package.arch))
    }

    fn ensure_lists(&self) -> Result<()> {
        let complete = self.folder.join("lists/complete");
        if complete.exists() {
            return Ok(());
        }
        println!("fetching package lists of Debian {}", SUITES.join(", "));
        sh::output(self.apt("apt-get").args(["-qq", "update"]))
            .context("the lists of Debian's archive cannot be had; is there a network?")?;
        fs::write(complete, "")?;
        Ok(())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C");
        command
    }
}

// === impl Package ===

impl Package {
    fn selector(&self) -> String {
        format!("{}={}", qualified(&self.name, self.arch), self.version)
    }
}

fn qualified(name: &str, arch: &str) -> String {
    format!("{name}:{arch}")
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    let inherited = debian::network();
    // A mirror may lag behind, or be a snapshot, by more than the ten days that unstable's lists
    // are valid; they are signed all the same, and what is fetched only runs in the guests.
    format!(
        "Dir::Etc \"{folder}/etc\";\n\
         Dir::State \"{folder}\";\n\
         Dir::State::lists \"{folder}/lists\";\n\
         Dir::State::status \"{folder}/status\";\n\
         Dir::Cache \"{folder}\";\n\
         APT::Architectures {{ \"amd64\"; \"arm64\"; }};\n\
         APT::Architecture \"amd64\";\n\
         APT::Sandbox::User \"\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Check-Valid-Until \"false\";\n\
         Acquire::GzipIndexes \"true\";\n\
         {inherited}\n"
    )
}

fn sources() -> String {
    let debian::Mirrors { main, security } = debian::mirrors();
    let line = |uri: &str, suite: &str| format!("deb [signed-by={KEYRING}] {uri} {suite} main\n");
    let main = SUITES.iter().map(|suite| line(&main, suite));
    let security = SECURITY_SUITES.iter().map(|suite| line(&security, suite));
    main.chain(security).collect()
}

/// The second column of `apt-cache madison`.
fn madison_version(line: &str) -> Option<&str> {
    line.split('|').nth(1).map(str::trim)
}

/// The version of the package that `suite` has, of `apt-cache madison` for several; one of another
/// architecture than the host's is listed as `NAME:ARCH`.
fn version_in<'a>(listed: &'a str, name: &str, suite: &str) -> Option<&'a str> {
    let column = format!(" {suite}/main ");
    let of = |line: &&str| line.split(['|', ':']).next().is_some_and(|first| first.trim() == name);
    listed.lines().filter(of).find(|line| line.contains(&column)).and_then(madison_version)
}

/// A dependency in one exact version: `linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)`.
fn pinned(dependency: &str) -> Option<(&str, &str)> {
    let (name, version) = dependency.split_once(" (= ")?;
    Some((name, version.strip_suffix(')')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_dependencies_are_pinned() {
        assert_eq!(
            pinned("linux-image-6.1.0-50 (= 6.1.176-1)"),
            Some(("linux-image-6.1.0-50", "6.1.176-1"))
        );
        assert_eq!(pinned("initramfs-tools (>= 0.120+deb8u2)"), None);
        assert_eq!(pinned("kmod"), None);
    }

    #[test]
    fn each_package_has_its_own_version_in_a_suite() {
        let listed = "       mount | 2.41-5 | http://m.example trixie/main amd64 Packages\n\
                      \u{20}      mount | 2.38.1-5 | http://m.example bookworm/main amd64 Packages\n\
                      \u{20}   libmount1 | 2.38.1-6 | http://m.example bookworm/main amd64 Packages\n";
        assert_eq!(version_in(listed, "mount", "bookworm"), Some("2.38.1-5"));
        assert_eq!(version_in(listed, "libmount1", "bookworm"), Some("2.38.1-6"));
        assert_eq!(version_in(listed, "libmount1", "trixie"), None);
        let foreign = "mount:arm64 | 2.38.1-5 | http://m.example bookworm/main arm64 Packages\n";
        assert_eq!(version_in(foreign, "mount", "bookworm"), Some("2.38.1-5"));
    }

    #[test]
    fn versions_are_read_from_madison() {
        let line = "linux-image-cloud-amd64 | 7.3.4-1~bpo13+1 | http://m.example sid/main amd64";
        assert_eq!(madison_version(line), Some("7.3.4-1~bpo13+1"));
    }
}
