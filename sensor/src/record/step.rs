//! What a recording consists of.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Detect, Learning, Patrol, host_name};
use crate::detect::{Anyway, CheckFailed, CheckReport};
use crate::host::{CheckReason, Clock, Observation, ProcessId};
use crate::incident::{Decision, Entry, Suppression};

/// Longer than any time that a configuration may have.
const LONGEST: Duration = Duration::from_hours(24 * 3660);

/// What stands at the beginning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the agent.
    pub agent: String,
    /// The host's name in findings.
    pub host: String,
    /// The kernel's release, version and machine, as uname(2) has them.
    pub kernel: String,
    /// When it was begun.
    pub begun: Timestamp,
    /// `CLOCK_REALTIME` - `CLOCK_MONOTONIC` then, ns.
    pub wall_minus_monotonic_ns: i64,
    /// `CLOCK_BOOTTIME` - `CLOCK_MONOTONIC` then, ns.
    pub boot_minus_monotonic_ns: i64,
    /// Arguments, values and names were left out.
    pub redacted: bool,
    /// What the analysis was told to do.
    pub settings: Settings,
}

/// The part of the configuration that detectors see.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Limits of the detectors.
    pub detect: Detect,
    /// When a baseline is settled.
    pub learning: Learning,
    /// The rounds of checks.
    pub patrol: Patrol,
    /// Package databases are asked.
    pub provenance: bool,
}

/// One thing that the analysis was told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// An incident that the store had as open.
    Restored(Box<Entry>),
    /// All those restored since the last such step are taken in.
    Restore {
        /// When.
        now: Timestamp,
        /// The same instant, `CLOCK_MONOTONIC` ns.
        ktime_ns: u64,
    },
    /// A rule, or the suppression of an incident, with what it has matched so far.
    Suppression(Box<Suppression>),
    /// All those told since the last such step are to be expected from now on, and nothing else.
    Suppressions,
    /// What a person has decided about an incident.
    Decided(Box<Decided>),
    /// From now on somebody answers what changed before a shift; or nobody does.
    AskDates(bool),
    /// An observation.
    Seen(Box<Observation>),
    /// Observations are missing here.
    Loss,
    /// The time, `CLOCK_MONOTONIC` ns.
    Tick(u64),
    /// No more observations will come.
    Finish,
    /// What the store had of a subject; asked for by the step before, which is none of this kind.
    Known {
        /// The subject.
        subject: String,
        /// Its baseline as stored.
        stored: String,
    },
    /// A baseline as a person's order has left it.
    Changed {
        /// The subject.
        subject: String,
        /// Its baseline, JSON.
        baseline: String,
    },
    /// A slot check that the step before asked for.
    Answer(Box<Answer>),
    /// The end.
    End {
        /// Steps before this one.
        steps: u64,
    },
}

/// See [`Step::Answer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Which process was to be checked.
    pub process: ProcessId,
    /// What was asked.
    pub question: Question,
    /// What came of it.
    pub outcome: Result<CheckReport, CheckFailed>,
}

/// See [`Step::Decided`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Decided {
    /// The incident's id.
    pub id: String,
    /// What was decided.
    pub decision: Decision,
    /// When it was followed, `CLOCK_MONOTONIC` ns.
    pub ktime_ns: u64,
    /// The incident as it was stored, where nothing could join it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub past: Option<Entry>,
}

/// A method of [`SlotCheck`](crate::detect::SlotCheck).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// `check`.
    Check(CheckReason),
    /// `check_anyway`.
    Anyway(Anyway),
}

// === impl Header ===

impl Header {
    /// For a recording that begins now, on this host.
    #[must_use]
    pub fn now(config: &Config, redacted: bool) -> Self {
        let clock = Clock::now();
        let system = rustix::system::uname();
        let kernel = [system.release(), system.version(), system.machine()];
        Self {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            host: host_name(),
            kernel: kernel.map(|text| text.to_string_lossy().into_owned()).join(" "),
            begun: Timestamp::now(),
            wall_minus_monotonic_ns: clock.wall_minus_monotonic_ns,
            boot_minus_monotonic_ns: clock.boot_minus_monotonic_ns,
            redacted,
            settings: Settings::of(config),
        }
    }
}

// === impl Settings ===

impl Settings {
    /// Of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            detect: config.detect,
            learning: config.learning,
            patrol: config.patrol,
            provenance: config.provenance,
        }
    }

    /// A configuration that has them.
    #[must_use]
    pub fn config(&self) -> Config {
        let Self { detect, learning, patrol, provenance } = *self;
        Config { learning, detect, provenance, patrol, ..Config::default() }
    }

    /// Why no sensor can have had them, as a clause; a configuration file's are checked by its
    /// reader.
    pub(super) fn wrong(&self) -> Option<&'static str> {
        let Self { detect, learning, patrol, .. } = self;
        let times = [
            detect.link_gross_excess,
            detect.auth_gross_excess,
            detect.settle,
            detect.incident_window,
            learning.flush_every,
            patrol.every.unwrap_or_default(),
            patrol.cpu_per_second,
        ];
        if times.iter().any(|time| *time > LONGEST) {
            return Some("a time in them is longer than a sensor runs");
        }
        if !sensor_stats::RUN_LENGTHS.contains(&self.detect.run_length) {
            return Some("its run length is none that there is");
        }
        (self.learning.observations == 0).then_some("it needs no observation to learn from")
    }
}

// === impl Step ===

impl Step {
    /// It belongs to the step before it, which asked.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Known { .. } | Self::Answer(_))
    }
}
