//! Where Debian's archive is for this host, and root file systems made from it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::sh;

/// What a host that is no Debian uses.
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";

/// Addresses of Debian's archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirrors {
    pub(crate) main: String,
    pub(crate) security: String,
}

/// The host's own mirrors where it has any.
pub(crate) fn mirrors() -> Mirrors {
    let format = "$(ORIGIN)|$(RELEASE)|$(REPO_URI)";
    let mut query = Command::new("apt-get");
    query.args(["indextargets", "--format", format, "Created-By: Packages"]);
    let targets = sh::output(&mut query).unwrap_or_default();
    let main = mirror(&targets, |suite| !suite.contains('-')).unwrap_or(DEFAULT_MIRROR);
    let security = mirror(&targets, |suite| suite.ends_with("-security"));
    let security = security.map_or_else(|| format!("{DEFAULT_MIRROR}-security"), str::to_owned);
    Mirrors { main: main.to_owned(), security }
}

/// Makes the minimal system of `release`, with `packages`, in the folder `root`, which is not there
/// yet. In a mount namespace of its own: what debootstrap mounts in it ends with it, however it ends.
pub(crate) fn bootstrap(release: &str, packages: &[&str], root: &Path) -> Result<()> {
    let mut debootstrap = Command::new("unshare");
    debootstrap.args(["--mount", "--propagation", "private", "debootstrap", "--variant=minbase"]);
    if !packages.is_empty() {
        debootstrap.arg(format!("--include={}", packages.join(",")));
    }
    debootstrap.arg(release).arg(root).arg(mirrors().main);
    sh::run(&mut debootstrap)
        .with_context(|| format!("its log is {}/debootstrap/debootstrap.log", root.display()))
}

/// The host's settings of apt for proxies and the like, as lines of apt.conf.
pub(crate) fn network() -> String {
    let host = sh::output(Command::new("apt-config").arg("dump")).unwrap_or_default();
    let network = ["http", "https", "Retries", "ForceIPv", "Check-"];
    let inherited = host
        .lines()
        .filter(|line| network.iter().any(|kind| line.starts_with(&format!("Acquire::{kind}"))));
    inherited.collect::<Vec<_>>().join("\n")
}

/// The first repository of Debian's own with a suite that `wanted` accepts.
fn mirror(targets: &str, wanted: impl Fn(&str) -> bool) -> Option<&str> {
    targets.lines().find_map(|target| {
        let mut fields = target.split('|');
        let (origin, suite, uri) = (fields.next()?, fields.next()?, fields.next()?);
        (origin == "Debian" && wanted(suite)).then_some(uri)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_debian_mirror_is_preferred_to_other_repositories() {
        let targets = "Google|cloud-sdk|https://a.example/apt/\n\
                       Debian|bookworm-security|http://m.example/debian-security/\n\
                       Debian|bookworm|http://m.example/debian/\n";
        let main = mirror(targets, |suite| !suite.contains('-'));
        assert_eq!(main, Some("http://m.example/debian/"));
        assert_eq!(mirror("Ubuntu|noble|http://u.example/\n", |_| true), None);
    }
}
