//! Debian packages: which are there, and installing those that are not.

use std::process::Command;

use anyhow::{Result, bail};

use super::report;
use super::services::KeepStopped;
use crate::sh;

/// Another package manager may be at work; wait for it rather than fail.
const LOCK: [&str; 2] = ["-o", "DPkg::Lock::Timeout=600"];

/// Something a Debian package provides.
#[derive(Clone, Copy)]
pub(super) struct Need {
    what: &'static str,
    is_tool: bool,
    /// Package names that provide it, best first; distributions name some differently.
    packages: &'static [&'static str],
}

// === impl Need ===

impl Need {
    /// An executable: present when it is found where root would find it.
    pub(super) const fn tool(what: &'static str, packages: &'static [&'static str]) -> Self {
        Self { what, is_tool: true, packages }
    }

    /// Anything else: present when one of its packages is installed.
    pub(super) const fn library(what: &'static str, packages: &'static [&'static str]) -> Self {
        Self { what, is_tool: false, packages }
    }

    fn is_met(&self) -> bool {
        (self.is_tool && sh::which(self.what).is_some())
            || self.packages.iter().any(|package| installed(package))
    }
}

/// Installs the packages behind every need that is not met.
pub(super) fn ensure(needs: &[Need], verbose: bool) -> Result<()> {
    let mut missing = Vec::new();
    for need in needs {
        let have = need.is_met();
        report(verbose, have, need.what);
        if !have {
            missing.push(need);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|need| need.what).collect();
    update(&names.join(", "))?;
    let mut packages = Vec::new();
    for need in missing {
        let Some(package) = need.packages.iter().find(|package| available(package)) else {
            bail!(
                "no package for {} in this system's package sources (tried: {}); enable the \
                 distribution's main archive, or install {} yourself, then run this again",
                need.what,
                need.packages.join(", "),
                need.what
            );
        };
        packages.push((*package).to_owned());
    }
    install(&packages)
}

/// Refreshes the package lists because `what` is missing.
///
/// # Errors
/// When this is no Debian-like system, or the lists cannot be had.
pub(super) fn update(what: &str) -> Result<()> {
    if sh::which("apt-get").is_none() {
        bail!(
            "{what}: not on this machine, and there is no apt-get to install it with; use your \
             own package manager, then run this again"
        );
    }
    sh::run(sh::as_root("apt-get")?.args(LOCK).args(["-qq", "update"])).map_err(|cause| {
        cause.context("the package lists cannot be refreshed; is there a network?")
    })
}

/// Installs `packages`, asking nothing and starting no service.
pub(super) fn install(packages: &[String]) -> Result<()> {
    let guard = KeepStopped::engage()?;
    let done = sh::run(
        sh::as_root("env")?
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
            .args(LOCK)
            .args(["install", "-qq", "--yes", "--no-install-recommends"])
            .args(packages),
    );
    guard.release()?;
    done
}

/// Whether dpkg has `package` installed, whatever its architecture.
pub(super) fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Abbrev}\n", package]);
    // An unknown package makes dpkg-query fail, which means "not installed" here.
    sh::output(&mut query).is_ok_and(|states| states.lines().any(|state| state.starts_with("ii")))
}

/// Whether the package sources offer `package`.
pub(super) fn available(package: &str) -> bool {
    let mut policy = Command::new("apt-cache");
    policy.env("LC_ALL", "C").args(["policy", package]);
    sh::output(&mut policy).is_ok_and(|policy| offers_candidate(&policy))
}

fn offers_candidate(policy: &str) -> bool {
    policy
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate:"))
        .any(|candidate| candidate.trim() != "(none)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_candidate_is_not_on_offer() {
        assert!(offers_candidate("gcc:\n  Installed: (none)\n  Candidate: 4:12.2.0-3\n"));
        assert!(!offers_candidate("gcc:\n  Installed: (none)\n  Candidate: (none)\n"));
        // What apt-cache prints for a name it has never heard of.
        assert!(!offers_candidate(""));
    }
}
