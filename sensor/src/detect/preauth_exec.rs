//! `preauth_exec`: a program was executed under sshd before authentication succeeded.
//!
//! Blind where the monitor's frames are not seen on this host: then no verdict can be missed.

use std::sync::Arc;

use super::{Detector, Draft, World};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, ModuleId, Observation};

/// Directories in which only a system's administrator puts programs.
const SYSTEM: [&str; 8] = [
    "/bin/",
    "/sbin/",
    "/usr/bin/",
    "/usr/sbin/",
    "/usr/lib/",
    "/usr/libexec/",
    "/lib/",
    "/lib64/",
];
/// PAM's own helpers, and what they are for is to be run before a verdict.
const HELPERS: [&str; 6] = [
    "unix_chkpwd",
    "unix_update",
    "pam_extrausers_chkpwd",
    "krb5_child",
    "p11_child",
    "oidc_child",
];

/// The detector.
#[derive(Debug)]
pub(super) struct PreauthExec;

// === impl PreauthExec ===

impl Detector for PreauthExec {
    fn id(&self) -> &'static str {
        "preauth_exec"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        let (Body::Started, Some(connection)) = (&seen.body, &seen.connection) else { return };
        let program = &seen.process.program;
        if connection.authenticated
            || program.sshd()
            || is_helper(&program.module, &connection.program.module)
        {
            return;
        }
        let Some(login) = world.login else { return };
        let settled = login.settled(world.learning.observations, true);
        if !settled || login.helpers.contains(&program.module.path) {
            return;
        }
        // Without frames, or past a verdict that was not seen, this may be an ordinary session.
        let sure = connection.watched && !connection.finished_unseen && !connection.partial;
        let root = seen.process.euid == 0;
        let (severity, confidence) = match (sure, root) {
            (true, true) => (Severity::Critical, 0.9),
            (true, false) => (Severity::High, 0.8),
            (false, _) => (Severity::Info, 0.2),
        };
        out.push(Draft {
            detector: self.id(),
            family: Family::Sshd,
            severity,
            confidence,
            title: format!(
                "{} ran under {} before anyone had authenticated",
                program.name(),
                connection.program.name()
            ),
            evidence: vec![Evidence::Exec {
                path: program.module.path.clone(),
                cmdline: seen.process.shown.cmdline.clone(),
            }],
            attack: &["T1190", "T1556", "T1554"],
            object: program.module.path.clone(),
            program: Arc::clone(&connection.program),
            ktime_ns: None,
            explained_by: None,
        });
    }
}

/// By name, but only where nobody else can put a file of that name: in a system directory below the
/// root that the monitor's own program has.
fn is_helper(module: &ModuleId, monitor: &ModuleId) -> bool {
    let root = monitor.path.find("/usr/").and_then(|at| monitor.path.get(..at)).unwrap_or("");
    let Some(below) = module.path.strip_prefix(root) else { return false };
    HELPERS.contains(&module.name()) && SYSTEM.iter().any(|dir| below.starts_with(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str) -> ModuleId {
        ModuleId { path: path.to_owned(), build: String::new() }
    }

    #[test]
    fn helpers_are_trusted_by_name_only_in_system_directories() {
        let host = module("/usr/sbin/sshd");
        let chroot = module("/srv/trixie/usr/lib/openssh/sshd-session");
        assert!(is_helper(&module("/usr/sbin/unix_chkpwd"), &host));
        assert!(is_helper(&module("/srv/trixie/usr/sbin/unix_chkpwd"), &chroot));
        assert!(!is_helper(&module("/tmp/unix_chkpwd"), &host));
        assert!(!is_helper(&module("/tmp/usr/sbin/unix_chkpwd"), &host));
        assert!(!is_helper(&module("/usr/bin/sh"), &host));
    }
}
