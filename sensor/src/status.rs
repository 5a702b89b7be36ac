//! How the running sensor is doing: one place that the stations tell and that HTTP and systemd are
//! told from.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::{error, info, warn};

use crate::http::Backend;
use crate::instrument;
use crate::logins::{Kept, Page, Query};
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::probe::ProbeReport;

/// A look at what instruments the host that is not over by then hangs: one follows every 30 seconds.
const SURVEY_LATE: Duration = Duration::from_mins(5);

/// Where the pages find incidents; reading may wait for the disk.
pub trait IncidentSource: Send + Sync + 'static {
    /// The latest, newest first, at most `most`.
    fn latest(&self, most: usize) -> Result<Vec<Value>, String>;

    /// One of them.
    fn one(&self, id: &str) -> Result<Option<Value>, String>;

    /// What is suppressed.
    fn suppressions(&self) -> Result<Vec<Value>, String>;
}

/// The state of the running sensor.
pub struct Status {
    started: Instant,
    metrics: Metrics,
    notifier: Notifier,
    state: Mutex<State>,
    incidents: OnceLock<Box<dyn IncidentSource>>,
    logins: OnceLock<Arc<Kept>>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    probes: Vec<ProbeReport>,
    /// When what instruments the host was looked at last.
    surveyed: Option<Instant>,
    /// The first station that ended while it should not, and why.
    failed: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Arming,
    Armed,
    Stopping,
}

// === impl Status ===

impl Status {
    /// A sensor that began to start at `started`.
    #[must_use]
    pub fn new(started: Instant, metrics: Metrics, notifier: Notifier) -> Self {
        let (state, incidents, logins) = (Mutex::default(), OnceLock::new(), OnceLock::new());
        Self { started, metrics, notifier, state, incidents, logins }
    }

    /// Says where incidents are read from; the first call counts.
    pub fn set_incidents(&self, source: impl IncidentSource) {
        if self.incidents.set(Box::new(source)).is_err() {
            warn!("the source of incidents was set twice; the first stays");
        }
    }

    /// Says where logins are kept; the first call counts.
    pub fn set_logins(&self, kept: Arc<Kept>) {
        if self.logins.set(kept).is_err() {
            warn!("the source of logins was set twice; the first stays");
        }
    }

    /// Every probe that could be attached is. Ready, unless a required one is missing.
    pub fn armed(&self, probes: Vec<ProbeReport>) {
        for probe in &probes {
            self.show(probe);
        }
        let attached = probes.iter().filter(|probe| probe.mechanism.is_some()).count();
        let seconds = self.started.elapsed().as_secs_f64();
        let missing = missing_required(&probes);
        let text = format!("armed: {attached} of {} probes attached", probes.len());
        {
            let mut state = self.lock();
            state.probes = probes;
            state.phase = Phase::Armed;
        }
        if let Some(missing) = missing {
            error!(%missing, "not armed");
            self.notifier.status(&missing);
            return;
        }
        self.metrics.start_to_armed_seconds.set(seconds);
        info!(attached, seconds, "armed");
        self.notifier.ready(&text);
    }

    /// One probe stands differently than it did.
    pub fn tell(&self, report: ProbeReport) {
        if let Some(reason) = &report.reason {
            warn!(probe = report.probe, %reason, "not everything is seen");
        }
        self.show(&report);
        let mut state = self.lock();
        match state.probes.iter_mut().find(|known| known.probe == report.probe) {
            Some(known) => *known = report,
            None => state.probes.push(report),
        }
    }

    /// What instruments the host was looked at.
    pub fn surveyed(&self) {
        self.lock().surveyed = Some(Instant::now());
    }

    fn show(&self, probe: &ProbeReport) {
        let mechanism = probe.mechanism.as_deref();
        let labels = [probe.probe.as_str(), mechanism.unwrap_or("none")];
        let attached = self.metrics.probe_attached.with_label_values(&labels);
        attached.set(i64::from(mechanism.is_some()));
    }

    /// A station ended while it should not.
    pub fn failed(&self, station: &str, reason: &str) {
        error!(station, reason, "a station of the sensor has stopped");
        let text = format!("{station} has stopped: {reason}");
        self.notifier.status(&text);
        self.lock().failed.get_or_insert(text);
    }

    /// The sensor is ending as it was told to.
    pub fn stopping(&self) {
        self.lock().phase = Phase::Stopping;
        self.notifier.stopping();
    }

    /// A thread that panicked with the lock held leaves a whole state: every change is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Status {
    fn alive(&self) -> Result<(), String> {
        self.lock().failed.clone().map_or(Ok(()), Err)
    }

    fn ready(&self) -> Result<(), String> {
        let state = self.lock();
        if let Some(failed) = &state.failed {
            return Err(failed.clone());
        }
        match state.phase {
            Phase::Arming => Err("the probes are being attached".to_owned()),
            Phase::Stopping => Err("the sensor is ending".to_owned()),
            Phase::Armed => missing_required(&state.probes).map_or(Ok(()), Err),
        }
    }

    fn probes(&self) -> Vec<ProbeReport> {
        let state = self.lock();
        let mut probes = state.probes.clone();
        let age = state.surveyed.map(|surveyed| surveyed.elapsed());
        if let Some(age) = age.filter(|age| *age > SURVEY_LATE) {
            let surveys = probes.iter_mut().filter(|one| one.probe == instrument::PROBE);
            surveys.for_each(|one| one.reason = Some(late(one.reason.take(), age)));
        }
        probes
    }

    fn incidents(&self, most: usize) -> Result<Vec<Value>, String> {
        self.incidents.get().map_or_else(|| Ok(Vec::new()), |source| source.latest(most))
    }

    fn incident(&self, id: &str) -> Result<Option<Value>, String> {
        self.incidents.get().map_or(Ok(None), |source| source.one(id))
    }

    fn suppressions(&self) -> Result<Vec<Value>, String> {
        self.incidents.get().map_or_else(|| Ok(Vec::new()), |source| source.suppressions())
    }

    fn logins(&self, query: &Query) -> Page {
        let none = || Page { logins: Vec::new(), more: false };
        self.logins.get().map_or_else(none, |kept| kept.find(query))
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status").field("phase", &self.lock().phase).finish_non_exhaustive()
    }
}

/// Why nothing new is told, before what was told last.
fn late(reason: Option<String>, age: Duration) -> String {
    let late = format!(
        "the last look ended {} s ago: something that it reads does not answer",
        age.as_secs()
    );
    reason.map_or(late.clone(), |reason| format!("{late}; {reason}"))
}

fn missing_required(probes: &[ProbeReport]) -> Option<String> {
    let missing = probes.iter().find(|probe| probe.required && probe.mechanism.is_none())?;
    let reason = missing.reason.as_deref().unwrap_or("no reason given");
    Some(format!("required probe {} is not attached: {reason}", missing.probe))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(mechanism: Option<&str>, required: bool) -> ProbeReport {
        ProbeReport {
            probe: "exec".to_owned(),
            mechanism: mechanism.map(str::to_owned),
            price: None,
            reason: mechanism.is_none().then(|| "refused".to_owned()),
            unseen: "programs that start".to_owned(),
            required,
        }
    }

    fn status() -> (Status, Metrics) {
        let metrics = Metrics::new().unwrap();
        (Status::new(Instant::now(), metrics.clone(), Notifier::default()), metrics)
    }

    #[test]
    fn a_look_at_instruments_that_hangs_is_told_with_its_age() {
        let (status, _) = status();
        let survey = ProbeReport { probe: instrument::PROBE.to_owned(), ..probe(None, false) };
        status.armed(vec![survey, probe(Some("tracepoint"), true)]);
        status.surveyed();
        let reasons = |status: &Status| -> Vec<_> {
            status.probes().into_iter().map(|probe| probe.reason).collect()
        };
        assert_eq!(reasons(&status), [Some("refused".to_owned()), None]);
        let Some(before) = Instant::now().checked_sub(SURVEY_LATE * 2) else {
            return println!("left out: this machine runs for less than {SURVEY_LATE:?}");
        };
        status.lock().surveyed = Some(before);
        let told = reasons(&status);
        let [Some(late), None] = &told[..] else { panic!("{told:?}") };
        assert!(late.contains("600 s ago") && late.ends_with("; refused"), "{late}");
    }

    #[test]
    fn a_sensor_is_ready_between_arming_and_ending() {
        let (status, metrics) = status();
        assert_eq!(status.ready().unwrap_err(), "the probes are being attached");
        status.armed(vec![probe(Some("tracepoint"), true), probe(None, false)]);
        assert_eq!(status.ready(), Ok(()));
        assert!(metrics.start_to_armed_seconds.get() > 0.0);
        assert_eq!(metrics.probe_attached.with_label_values(&["exec", "tracepoint"]).get(), 1);
        status.stopping();
        assert!(status.ready().is_err());
        assert_eq!(status.alive(), Ok(()));
    }

    #[test]
    fn a_required_probe_that_is_missing_is_the_reason() {
        let (status, metrics) = status();
        status.armed(vec![probe(None, true)]);
        assert_eq!(status.ready().unwrap_err(), "required probe exec is not attached: refused");
        assert_eq!(metrics.probe_attached.with_label_values(&["exec", "none"]).get(), 0);
        assert!(metrics.start_to_armed_seconds.get() == 0.0);
    }

    #[test]
    fn the_first_station_that_stopped_is_told() {
        let (status, _) = status();
        status.armed(vec![probe(Some("tracepoint"), true)]);
        status.failed("source", "ring gone");
        status.failed("host", "channel closed");
        assert_eq!(status.alive().unwrap_err(), "source has stopped: ring gone");
        assert_eq!(status.ready(), status.alive());
    }
}
