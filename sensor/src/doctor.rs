//! What this host supports of what the sensor needs, what is missing, and what is not seen then.

mod ask;
mod guarded;
mod kernel;
mod limit;
mod place;
mod privilege;
mod suppress;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::config::{Config, LoadError};
use crate::probe::ProbeReport;

pub use ask::{Live, LiveState};
pub use limit::{LIMITS, Limit};
pub(crate) use privilege::missing_capabilities;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// As it should be.
    Ok,
    /// The sensor runs and sees less.
    Degraded,
    /// The sensor does not run like this.
    Missing,
    /// It cannot be told from here, mostly for want of privilege.
    Unknown,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: `kernel`, `btf`, …
    pub check: &'static str,
    /// How it came out.
    pub state: CheckState,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// What is not seen as it stands.
    pub unseen: Option<String>,
}

/// Everything `doctor` found.
#[derive(Debug)]
pub struct Diagnosis {
    /// The checks of the host.
    pub checks: Vec<Check>,
    /// The running sensor, or why none was asked.
    pub live: Live,
    /// The probes: the running sensor's, or those tried out just now; empty where neither was
    /// possible.
    pub probes: Vec<ProbeReport>,
}

/// The host to look at.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    release: String,
    machine: String,
}

// === impl Diagnosis ===

impl Diagnosis {
    /// Looks at the host, asks the sensor that runs, and where none does, tries the probes with
    /// `try_probes`.
    pub fn make(
        host: &Host,
        config_path: &Path,
        config: &Result<Config, LoadError>,
        try_probes: impl FnOnce(&Config) -> Vec<ProbeReport>,
    ) -> Self {
        let mut checks = vec![host.kernel(), host.btf(), host.capabilities(), host.pid_namespace()];
        checks.extend([host.lockdown(), host.ptrace_scope(), host.tracepoints()]);
        checks.extend([host.uprobes(), host.kprobes(), host.cgroup()]);
        checks.push(place::configuration(config_path, config));
        let Ok(config) = config else {
            let live = Live::NotAsked("the configuration is wrong".to_owned());
            return Self { checks, live, probes: Vec::new() };
        };
        checks.push(place::state_dir(&config.state_dir));
        checks.push(host.guarded(&config.guarded));
        let live = Live::ask(config.http.listen);
        let suppressed = match &live {
            Live::Answered(_) => suppress::ask(config.http.listen),
            Live::NotRunning(_) | Live::NotAsked(_) | Live::Foreign(_) => None,
        };
        checks.push(suppress::check(&config.suppress, suppressed, Timestamp::now()));
        let probes = match &live {
            Live::Answered(state) => state.probes.clone(),
            Live::NotRunning(_) | Live::NotAsked(_) | Live::Foreign(_) => try_probes(config),
        };
        Self { checks, live, probes }
    }

    /// Whether nothing required is missing. A sensor that runs proves more than what this user
    /// may find out.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let required_probe_missing =
            self.probes.iter().any(|probe| probe.required && probe.mechanism.is_none());
        match &self.live {
            Live::Answered(state) => state.ready && !required_probe_missing,
            _ => {
                !required_probe_missing
                    && self.checks.iter().all(|check| check.state != CheckState::Missing)
            }
        }
    }
}

// === impl Host ===

impl Host {
    /// The host this runs on.
    #[must_use]
    pub fn this() -> Self {
        let name = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        Self {
            root: PathBuf::from("/"),
            release: text(name.release()),
            machine: text(name.machine()),
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn read(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(self.at(path)).map(|text| text.trim().to_owned())
    }
}

// === impl Check ===

impl Check {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: CheckState::Ok, found: found.into(), remedy: None, unseen: None }
    }

    fn degraded(check: &'static str, found: impl Into<String>) -> Self {
        Self { state: CheckState::Degraded, ..Self::ok(check, found) }
    }

    fn missing(check: &'static str, found: impl Into<String>) -> Self {
        Self { state: CheckState::Missing, ..Self::ok(check, found) }
    }

    fn unknown(check: &'static str, found: impl Into<String>) -> Self {
        Self { state: CheckState::Unknown, ..Self::ok(check, found) }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    fn unseen(self, unseen: impl Into<String>) -> Self {
        Self { unseen: Some(unseen.into()), ..self }
    }
}

#[cfg(test)]
mod tests;
