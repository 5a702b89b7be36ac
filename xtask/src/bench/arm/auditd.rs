//! auditd with one rule for each of the three things.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use super::Arm;
use crate::background::Background;
use crate::sh;

pub(in crate::bench) const NAME: &str = "auditd";

/// Undoes what audit leaves behind.
///
/// Once audit was on, every process created since goes through its system call hook, audit on or
/// off, until the next boot: `audit_alloc`, kernel/auditsc.c at v6.12. A rule against tasks as such
/// keeps it away from those created under it.
pub(in crate::bench) struct Silence(());

/// exec; mmap with `PROT_EXEC`; mprotect to read-only, which is how ld.so seals RELRO.
const RULES: [&str; 3] = ["-S execve -S execveat", "-S mmap -F a2&4", "-S mprotect -F a2=1"];
/// Written by auditd once it takes events.
const READY: &str = "type=DAEMON_START";

/// Keeps the kernel's audit hook off new processes.
const NO_TASKS: [&str; 2] = ["-a", "task,never"];

pub(in crate::bench) struct Auditd {
    folder: PathBuf,
    /// Held while the arm is stopped, if at all.
    silence: Option<Silence>,
    silent_between: bool,
    running: Option<Background>,
}

impl Auditd {
    /// With `silent_between` other arms do not pay for audit having been on; see [`Silence`].
    pub(in crate::bench) fn new(folder: &Path, silent_between: bool) -> Self {
        Self { folder: folder.join("audit"), silence: None, silent_between, running: None }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    /// Its packaged settings, less the limits that would make it stop on a small disk.
    fn configure(&self) -> Result<()> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)?;
        }
        fs::create_dir_all(self.folder.join("plugins.d"))?;
        let text = format!(
            "local_events = yes\nwrite_logs = yes\nlog_file = {}\nlog_format = RAW\n\
             flush = INCREMENTAL_ASYNC\nfreq = 50\nmax_log_file = 64\nnum_logs = 2\n\
             max_log_file_action = ROTATE\nspace_left = 75\nspace_left_action = IGNORE\n\
             admin_space_left = 50\nadmin_space_left_action = IGNORE\n\
             disk_full_action = IGNORE\ndisk_error_action = IGNORE\nplugin_dir = {}\n",
            self.log().display(),
            self.folder.join("plugins.d").display()
        );
        fs::write(self.folder.join("auditd.conf"), text)?;
        Ok(())
    }
}

impl Arm for Auditd {
    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&mut self) -> Result<()> {
        let status = auditctl(&["-s"])?;
        ensure!(status.contains("pid 0"), "another audit daemon runs on this machine");
        self.silence = None;
        self.configure()?;
        let mut command = Command::new("auditd");
        command.args(["-n", "-s", "enable", "-c"]).arg(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Background::start(&mut command)?;
        running.wait_until(|| crate::bench::process::contains(&self.log(), READY))?;
        self.running = Some(running);
        for rule in RULES {
            let words = ["-a", "always,exit", "-F", "arch=b64"].into_iter();
            auditctl(&words.chain(rule.split(' ')).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        for rule in RULES {
            let words = ["-d", "always,exit", "-F", "arch=b64"].into_iter();
            auditctl(&words.chain(rule.split(' ')).collect::<Vec<_>>())?;
        }
        auditctl(&["-e", "0"])?;
        self.running.take().map_or(Ok(()), Background::end)?;
        if self.silent_between {
            self.silence = Some(Silence::impose()?);
        }
        Ok(())
    }

    fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Background::pid)
    }
}

// === impl Silence ===

impl Silence {
    pub(in crate::bench) fn impose() -> Result<Self> {
        auditctl(&NO_TASKS)?;
        Ok(Self(()))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Err(error) = auditctl(&["-d", NO_TASKS[1]]) {
            eprintln!("a rule stays behind that keeps audit from working: {error:#}");
        }
    }
}

fn auditctl(args: &[&str]) -> Result<String> {
    sh::output(Command::new("auditctl").args(args))
}
