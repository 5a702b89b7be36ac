//! auditd with one rule for each of the three things.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use super::Arm;
use crate::bench::process::Background;
use crate::sh;

/// exec; mmap with `PROT_EXEC`; mprotect to read-only, which is how ld.so seals RELRO.
const RULES: [&str; 3] = ["-S execve -S execveat", "-S mmap -F a2&4", "-S mprotect -F a2=1"];
/// Written by auditd once it takes events.
const READY: &str = "type=DAEMON_START";

pub(in crate::bench) struct Auditd {
    folder: PathBuf,
    running: Option<Background>,
}

impl Auditd {
    pub(in crate::bench) fn new(folder: &Path) -> Self {
        Self { folder: folder.join("audit"), running: None }
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
        "auditd"
    }

    fn start(&mut self) -> Result<()> {
        let status = auditctl(&["-s"])?;
        ensure!(status.contains("pid 0"), "another audit daemon runs on this machine");
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
        self.running.take().map_or(Ok(()), Background::end)
    }

    fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Background::pid)
    }
}

fn auditctl(args: &[&str]) -> Result<String> {
    sh::output(Command::new("auditctl").args(args))
}
