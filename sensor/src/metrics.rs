//! Every metric the sensor exports: name, meaning and labels, defined once, here.
//!
//! Labels take their values from fixed sets; nothing is exported per process or path.

mod define;
mod kernel;
mod process;

use prometheus::{Encoder, Registry, TextEncoder};
use prometheus::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};
use sensor_common::Kind;

use crate::event::EventBody;
use crate::finding::Severity;
use crate::host;
use crate::loader::ProbesNow;
use crate::logins::{Guessing, Login, Outcome};
use crate::provenance;
use define::{Build, Definition, define};

pub use kernel::KernelReading;

const LINK_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0];
const AUTH_BUCKETS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0];
const VERIFY_BUCKETS: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0];

/// Powers of two from 2⁻¹⁰ (some 1 ms) to 2⁷ (some 2 min, sshd's `LoginGraceTime`): buckets of a native
/// histogram of schema 0, so that both kinds can be summed.
const LOGIN_BUCKETS: &[f64] = &[
    0.000_976_562_5,
    0.001_953_125,
    0.003_906_25,
    0.007_812_5,
    0.015_625,
    0.031_25,
    0.062_5,
    0.125,
    0.25,
    0.5,
    1.0,
    2.0,
    4.0,
    8.0,
    16.0,
    32.0,
    64.0,
    128.0,
];

/// The label values of [`Severity`].
pub const SEVERITIES: [&str; 5] = ["info", "low", "medium", "high", "critical"];

/// Detector ids of the design's table; an unknown one is exported as `other`.
pub(crate) const DETECTORS: [&str; 22] = [
    "preload_env",
    "loader_config_changed",
    "link_time_shift",
    "audit_unrequested",
    "library_unexpected",
    "library_unowned",
    "library_writable_path",
    "dlopen_unexpected",
    "got_redirected",
    "text_patched",
    "foreign_probe",
    "foreign_caller",
    "relro_reopened",
    "remote_write",
    "module_unlinked",
    "kernel_hook",
    "pam_stack_changed",
    "auth_cpu_shift",
    "auth_wall_shift",
    "preauth_exec",
    "auth_without_method",
    "blinded",
];

/// Authentication methods of RFC 4252 and its extensions; an unknown one is exported as `other`.
const METHODS: [&str; 6] =
    ["publickey", "password", "keyboard-interactive", "hostbased", "gssapi-with-mic", "none"];

/// Programs that log in through libpam; another one is exported as `other`.
const PAM_PROGRAMS: [&str; 8] =
    ["sudo", "su", "login", "doas", "cron", "crond", "polkit-agent-helper-1", "dropbear"];

define! {
    /// Always 1; the label says which version runs.
    build_info: IntGaugeVec = "halfsecond_build_info" ["version"];
    /// Seconds from the start of the process until every probe was attached; 0 before that.
    start_to_armed_seconds: Gauge = "halfsecond_start_to_armed_seconds";
    /// 1 where a probe is attached by this mechanism, 0 where it is not attached at all (mechanism
    /// is then `none`).
    probe_attached: IntGaugeVec = "halfsecond_probe_attached" ["probe", "mechanism"];
    /// Records taken out of a ring.
    records_consumed: IntCounterVec = "halfsecond_records_consumed_total" ["ring"];
    /// Records that could not be decoded.
    decode_failures: IntCounterVec = "halfsecond_decode_failures_total" ["reason"];
    /// Events decoded, by kind.
    events: IntCounterVec = "halfsecond_events_total" ["kind"];
    /// Items a full queue between two stations of the sensor refused.
    queue_dropped: IntCounterVec = "halfsecond_queue_dropped_total" ["queue"];
    /// Libraries whose origin was told.
    libraries_traced: IntCounter = "halfsecond_libraries_traced_total";
    /// Processes in the process table.
    processes: IntGauge = "halfsecond_processes";
    /// Files that carry probes: libraries with guarded functions, guarded programs.
    probed_files: IntGauge = "halfsecond_probed_files";
    /// Probes on functions of libraries and on entries of programs.
    function_probes: IntGauge = "halfsecond_function_probes";
    /// Such probes attached since the start.
    function_probes_attached: IntCounter = "halfsecond_function_probes_attached_total";
    /// Such probes released again, because no process needed them any more.
    function_probes_released: IntCounter = "halfsecond_function_probes_released_total";
    /// Times a file was given no probes, because there are too many or because it may hang.
    files_unprobed: IntCounter = "halfsecond_files_unprobed_total";
    /// Questions to files and processes that were given up because no answer came in time.
    reads_given_up: IntCounter = "halfsecond_reads_given_up_total";
    /// Baselines in memory, by their state; those of programs not seen lately are on the disk alone.
    baselines: IntGaugeVec = "halfsecond_baselines" ["state"];
    /// Those of them whose times or libraries have begun to move: `halfsecond baseline show` says which.
    drifting_baselines: IntGauge = "halfsecond_drifting_baselines";
    /// Baselines forgotten, by reason: evicted (there are too many), unwritten (the disk took none for
    /// long), unreadable (not what was written).
    baselines_forgotten: IntCounterVec = "halfsecond_baselines_forgotten_total" ["reason"];
    /// Failed attempts to write the state, by store operation.
    store_failures: IntCounterVec = "halfsecond_store_failures_total" ["operation"];
    /// Verdicts of the detectors.
    findings: IntCounterVec = "halfsecond_findings_total" ["detector", "severity"];
    /// Incidents opened, by the severity they had then.
    incidents: IntCounterVec = "halfsecond_incidents_total" ["severity"];
    /// Findings that were suppressed, by the rule's name (`[[suppress]]`), or `incident` for those of
    /// `halfsecond incidents suppress`; they are among the verdicts.
    findings_suppressed: IntCounterVec = "halfsecond_findings_suppressed_total" ["rule"];
    /// Incidents that nobody has seen to and that findings can still join, by severity.
    incidents_open: IntGaugeVec = "halfsecond_incidents_open" ["severity"];
    /// Incidents (or later states of one) an output has taken; logins where the output is `logins`.
    sink_written: IntCounterVec = "halfsecond_sink_written_total" ["sink"];
    /// Attempts to write to an output that failed; the incident is kept and tried again.
    sink_errors: IntCounterVec = "halfsecond_sink_errors_total" ["sink"];
    /// Incidents given up because an output failed for too long.
    sink_dropped: IntCounterVec = "halfsecond_sink_dropped_total" ["sink"];
    /// Incidents waiting for an output.
    sink_pending: IntGaugeVec = "halfsecond_sink_pending" ["sink"];
    /// 1 while the last attempt to write to an output failed.
    sink_failing: IntGaugeVec = "halfsecond_sink_failing" ["sink"];
    /// Checks of a process's slots, by how they ended.
    verify_checks: IntCounterVec = "halfsecond_verify_checks_total" ["outcome"];
    /// Slots compared with what the loader would have chosen, by verdict.
    verify_slots: IntCounterVec = "halfsecond_verify_slots_total" ["verdict"];
    /// Seconds one check of a process took.
    verify_duration: Histogram = "halfsecond_verify_duration_seconds" => VERIFY_BUCKETS;
    /// Sessions of sshd of which nobody can say whether somebody authenticated, by why: the connection
    /// is older than the sensor, records were lost, no frame or no answer of it was seen, or it has
    /// too many processes.
    sessions_not_known: IntCounterVec = "halfsecond_sessions_not_known_total" ["reason"];
    /// Positive answers of sshd compared with what its own libpam was asked, by result: `agreed`,
    /// `disagreed`, or why nobody can say.
    verdicts_compared: IntCounterVec = "halfsecond_verdicts_compared_total" ["result"];
    /// Rounds of checks over everything that were begun because checks had been dropped.
    verify_sweeps: IntCounter = "halfsecond_verify_sweeps_total";
    /// CPU seconds from exec to the end of linking, by class of program (guarded or other).
    link_cpu: HistogramVec = "halfsecond_link_cpu_seconds" ["class"] => LINK_BUCKETS;
    /// CPU seconds an sshd spent up to the verdict on an authentication attempt.
    auth_cpu: HistogramVec = "halfsecond_auth_cpu_seconds" ["method", "verdict"] => AUTH_BUCKETS;
    /// Connections to sshd, by the method that was accepted (else the last one begun, or none) and by
    /// outcome: `accepted`, `refused`, `aborted`, `timed_out`, `unknown`. Counted once, when the session's
    /// first program starts or else at the end.
    logins: IntCounterVec = "halfsecond_logins_total" ["method", "outcome"];
    /// Wall seconds that each phase of a connection to sshd took: `link`, `key_exchange`, `auth`, `pam`,
    /// `session`. All but `link` contain the client and the network.
    login_phase: HistogramVec =
        "halfsecond_login_phase_seconds" ["phase", "method", "outcome"] => LOGIN_BUCKETS;
    /// CPU seconds that each phase took, of the monitor while it links, else of all the connection's
    /// processes.
    login_phase_cpu: HistogramVec =
        "halfsecond_login_phase_cpu_seconds" ["phase", "method", "outcome"] => LOGIN_BUCKETS;
    /// Logins through libpam by guarded programs other than sshd's, by program and outcome: those of
    /// `halfsecond_logins_total`, of which `timed_out` is never told. Counted once, when the session begins
    /// or else at the end, also where nobody had to authenticate (cron's jobs, sudo without a password).
    pam_logins: IntCounterVec = "halfsecond_pam_logins_total" ["program", "outcome"];
    /// CPU seconds from `pam_authenticate` to the program's next call into libpam, for each attempt, by
    /// verdict: `accepted`, `refused`, `undecided`.
    pam_auth_cpu: HistogramVec =
        "halfsecond_pam_auth_cpu_seconds" ["program", "verdict"] => AUTH_BUCKETS;
    /// Connections from peers that guess: many attempts refused or broken off (`brute_force`) or many
    /// user names (`user_enumeration`) within ten minutes; by outcome, since one may be let in. Counted
    /// when the session begins, or at the end where the peer was found to guess only meanwhile.
    login_guessing: IntCounterVec = "halfsecond_login_guessing_total" ["kind", "outcome"];
    /// Events of the watch over the loader's and PAM's files: `matched` one, `noise` (another name in
    /// the same directory), `unknown`, or events lost (`overflow`, `malformed`).
    watch_events: IntCounterVec = "halfsecond_watch_events_total" ["outcome"];
    /// Roots (of the host, containers, chroots) whose loader's and PAM's files are watched, `compared`
    /// only, or left out (`over_limit`, `failed`).
    watch_roots: IntGaugeVec = "halfsecond_watch_roots" ["state"];
    /// What instruments this host beside the sensor, by kind, at the latest survey.
    instruments_foreign: IntGaugeVec = "halfsecond_instruments_foreign" ["kind"];
    /// 1 where a source of that list could not be read, or not wholly, at the latest survey: tracefs or
    /// debugfs that is not mounted, a list that was cut, files and processes that do not answer.
    instrument_sources_unread: IntGaugeVec = "halfsecond_instrument_sources_unread" ["source"];
    /// When that survey ended, in seconds since 1970; 0 before the first. One follows after 30 seconds at
    /// the latest, and a little later on a busy host.
    instrument_surveyed: IntGauge = "halfsecond_instrument_survey_timestamp_seconds";
    /// Requests answered over HTTP, by status code.
    http_requests: IntCounterVec = "halfsecond_http_requests_total" ["code"];
    /// Times the page at /metrics could not be written.
    render_failures: IntCounter = "halfsecond_render_failures_total";
}

impl Metrics {
    /// All metrics at their start values, in a registry of their own, with those of the process.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let metrics = Self::build(registry)?;
        metrics.registry.register(Box::new(process::ProcessCollector::new()?))?;
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.show_known_labels();
        Ok(metrics)
    }

    /// Adds the kernel side's counters; `read` is called at every scrape and gives `None` while
    /// they cannot be read.
    pub fn set_kernel_source(
        &self,
        read: impl Fn() -> Option<KernelReading> + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(kernel::KernelCollector::new(read)?))
    }

    /// The page at /metrics, in Prometheus' text format 0.0.4.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut page = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut page)
            .inspect_err(|_| self.render_failures.inc())?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    }

    /// Counts a finding.
    pub fn count_finding(&self, detector: &str, severity: Severity) {
        let detector = among(&DETECTORS, detector);
        self.findings.with_label_values(&[detector, severity_label(severity)]).inc();
    }

    /// Counts an incident as it opens.
    pub fn count_incident(&self, severity: Severity) {
        self.incidents.with_label_values(&[severity_label(severity)]).inc();
    }

    /// Counts a decoded event.
    pub fn count_event(&self, body: &EventBody) {
        self.events.with_label_values(&[kind_label(body.kind())]).inc();
    }

    /// Takes over the counts of the provenance station.
    pub fn tell_provenance(&self, now: provenance::Tally) {
        let dropped = self.queue_dropped.with_label_values(&["provenance"]);
        dropped.inc_by(now.dropped.saturating_sub(dropped.get()));
        let traced = self.libraries_traced.get();
        self.libraries_traced.inc_by(now.answered.saturating_sub(traced));
    }

    /// Takes over what the host station counts of itself.
    pub fn tell_host(&self, now: host::Tally) {
        self.processes.set(i64::try_from(now.processes).unwrap_or(0));
        raise(&self.files_unprobed, now.unwatched);
        raise(&self.reads_given_up, now.given_up);
        raise(&self.verify_sweeps, now.sweeps);
        for (doubt, count) in host::Doubt::ALL.into_iter().zip(now.not_known) {
            raise(&self.sessions_not_known.with_label_values(&[doubt.name()]), count);
        }
        for (result, count) in host::Compared::ALL.into_iter().zip(now.comparisons) {
            raise(&self.verdicts_compared.with_label_values(&[result.name()]), count);
        }
    }

    /// Takes over how many probes there are.
    pub fn tell_probes(&self, now: ProbesNow) {
        self.probed_files.set(i64::try_from(now.files).unwrap_or(0));
        self.function_probes.set(i64::try_from(now.probes).unwrap_or(0));
        raise(&self.function_probes_attached, now.attached);
        raise(&self.function_probes_released, now.released);
    }

    /// Records the CPU time to a verdict; an unknown method becomes `other`.
    pub fn observe_auth(&self, method: &str, accepted: bool, cpu_seconds: f64) {
        let verdict = if accepted { "accepted" } else { "denied" };
        self.auth_cpu.with_label_values(&[among(&METHODS, method), verdict]).observe(cpu_seconds);
    }

    /// Records a login, once.
    pub fn observe_login(&self, login: &Login) {
        if login.is_pams() {
            return self.observe_pam(login);
        }
        let method = among(&METHODS, login.method.map_or("none", host::Method::name));
        let outcome = login.outcome.name();
        self.logins.with_label_values(&[method, outcome]).inc();
        for (name, phase) in login.phases.named() {
            // Where records are missing, sums do not hold.
            let Some(phase) = phase.filter(|_| !login.partial) else { continue };
            let labels = [name, method, outcome];
            self.login_phase.with_label_values(&labels).observe(phase.wall_seconds);
            if let Some(cpu) = phase.cpu_seconds {
                self.login_phase_cpu.with_label_values(&labels).observe(cpu);
            }
        }
        self.observe_guessing(login);
    }

    fn observe_pam(&self, login: &Login) {
        let program = among(&PAM_PROGRAMS, &login.program);
        self.pam_logins.with_label_values(&[program, login.outcome.name()]).inc();
        for attempt in login.attempts.iter().filter(|_| !login.partial) {
            if let Some(cpu) = attempt.cpu_seconds {
                let labels = [program, attempt.verdict.name()];
                self.pam_auth_cpu.with_label_values(&labels).observe(cpu);
            }
        }
    }

    /// Records a connection of a peer that guesses, once; no other counts.
    pub fn observe_guessing(&self, login: &Login) {
        if let Some(kind) = login.guessing {
            self.login_guessing.with_label_values(&[kind.name(), login.outcome.name()]).inc();
        }
    }

    /// Records the CPU time of a link.
    pub fn observe_link(&self, guarded: bool, cpu_seconds: f64) {
        let class = if guarded { "guarded" } else { "other" };
        self.link_cpu.with_label_values(&[class]).observe(cpu_seconds);
    }

    /// Every metric: name, meaning and labels, in the order of definition.
    pub fn definitions() -> impl Iterator<Item = &'static Definition> {
        Self::OWN.iter().chain(&kernel::DEFINITIONS).chain(&process::DEFINITIONS)
    }

    /// A series that appears only with its first event hides that event from `rate()`.
    fn show_known_labels(&self) {
        for ring in ["bulk", "priority"] {
            self.records_consumed.with_label_values(&[ring]);
        }
        for kind in Kind::ALL {
            self.events.with_label_values(&[kind_label(kind)]);
        }
        for doubt in host::Doubt::ALL {
            self.sessions_not_known.with_label_values(&[doubt.name()]);
        }
        for result in host::Compared::ALL {
            self.verdicts_compared.with_label_values(&[result.name()]);
        }
        for outcome in ["matched", "noise", "unknown", "overflow", "malformed"] {
            self.watch_events.with_label_values(&[outcome]);
        }
        for kind in crate::instrument::KINDS {
            self.instruments_foreign.with_label_values(&[kind]);
        }
        for source in crate::instrument::SOURCES.into_iter().chain([crate::instrument::UNANSWERED])
        {
            self.instrument_sources_unread.with_label_values(&[source]);
        }
        for method in METHODS {
            for outcome in [Outcome::Accepted, Outcome::Refused] {
                self.logins.with_label_values(&[method, outcome.name()]);
            }
        }
        for outcome in [Outcome::Aborted, Outcome::TimedOut, Outcome::Unknown] {
            self.logins.with_label_values(&["none", outcome.name()]);
        }
        for program in ["sudo", "su", "login"] {
            for outcome in [Outcome::Accepted, Outcome::Refused] {
                self.pam_logins.with_label_values(&[program, outcome.name()]);
            }
        }
        for kind in [Guessing::BruteForce, Guessing::UserEnumeration] {
            for outcome in [Outcome::Accepted, Outcome::Refused] {
                self.login_guessing.with_label_values(&[kind.name(), outcome.name()]);
            }
        }
        for severity in SEVERITIES {
            self.incidents.with_label_values(&[severity]);
            self.incidents_open.with_label_values(&[severity]);
        }
    }
}

/// The label of a severity.
#[must_use]
pub const fn severity_label(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Low => "low",
        Severity::Medium => "medium",
        Severity::High => "high",
        Severity::Critical => "critical",
    }
}

/// The label of a record's kind.
#[must_use]
pub const fn kind_label(kind: Kind) -> &'static str {
    match kind {
        Kind::Fork => "fork",
        Kind::Exec => "exec",
        Kind::Exit => "exit",
        Kind::Map => "map",
        Kind::Link => "link",
        Kind::Seal => "seal",
        Kind::Frame => "frame",
        Kind::Caller => "caller",
        Kind::Env => "env",
        Kind::Sample => "sample",
        Kind::Opened => "opened",
        Kind::Modules => "modules",
        Kind::Write => "write",
    }
}

/// A counter that is counted elsewhere.
fn raise(counter: &IntCounter, now: u64) {
    counter.inc_by(now.saturating_sub(counter.get()));
}

fn among<const N: usize>(known: &[&'static str; N], label: &str) -> &'static str {
    known.iter().copied().find(|known| *known == label).unwrap_or("other")
}

#[cfg(test)]
mod tests;
