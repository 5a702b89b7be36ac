//! Keeps services of freshly installed packages from starting.
//!
//! A developer who wants to run our tests did not ask for an sshd, an auditd or a prometheus on
//! the machine. Maintainer scripts ask `/usr/sbin/policy-rc.d` before they start a service
//! (invoke-rc.d(8)); exit code 101 forbids it.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use crate::sh;

const POLICY: &str = "/usr/sbin/policy-rc.d";
const MARK: &str = "written by halfsecond's cargo xtask setup";

/// Services stay stopped until this is released.
#[must_use = "release() restores the machine's own policy"]
pub(super) struct KeepStopped {
    ours: bool,
}

// === impl KeepStopped ===

impl KeepStopped {
    /// Puts the policy in place, unless the machine has one of its own, which stays as it is.
    pub(super) fn engage() -> Result<Self> {
        // One that carries our mark was left behind by a setup that was killed: adopt it.
        let existing = fs::read_to_string(POLICY).ok();
        if existing.is_some_and(|text| !text.contains(MARK)) || Path::new(POLICY).is_symlink() {
            return Ok(Self { ours: false });
        }
        let mut child = sh::as_root("install")?
            .args(["-m", "755", "/dev/stdin", POLICY])
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start install(1)")?;
        let text = format!("#!/bin/sh\n# {MARK}; removed when it is done\nexit 101\n");
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes())?;
        }
        ensure!(child.wait()?.success(), "cannot write {POLICY}");
        Ok(Self { ours: true })
    }

    /// Takes our policy away again.
    pub(super) fn release(self) -> Result<()> {
        if self.ours {
            sh::output(sh::as_root("rm")?.args(["-f", POLICY])).with_context(|| {
                format!("remove {POLICY} by hand: it keeps services from starting")
            })?;
        }
        Ok(())
    }
}
