//! What became of each probe, as `doctor`, the API and the metrics tell it.

use std::error::Error;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::loader::probes::{Hook, Need, PROBES};
use crate::loader::{self, LoadError, Loader, LoaderConfig, ProbeState};

/// One probe of the sensor on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Name, e.g. `exec`.
    pub probe: String,
    /// Rung of its ladder that is in use, e.g. `raw tracepoint`; `None` where it is not attached.
    pub mechanism: Option<String>,
    /// What that rung costs, e.g. `about 1 us per new process`.
    pub price: Option<String>,
    /// Why it is not attached, or why a cheaper rung is not in use.
    pub reason: Option<String>,
    /// What nobody sees without it.
    pub unseen: String,
    /// The sensor does not start without it.
    pub required: bool,
}

// === impl ProbeReport ===

impl From<&loader::ProbeReport> for ProbeReport {
    fn from(report: &loader::ProbeReport) -> Self {
        let refused = report.refused.iter().map(|one| format!("{}: {}", one.mechanism, one.reason));
        let unavailable = match &report.state {
            ProbeState::Attached => None,
            ProbeState::Unavailable { reason } => Some(reason.clone()),
        };
        let reason = unavailable.unwrap_or_else(|| refused.collect::<Vec<_>>().join("; "));
        let attached = report.state == ProbeState::Attached;
        Self {
            mechanism: report.mechanism.filter(|_| attached).map(|rung| rung.to_string()),
            price: attached.then(|| report.price.to_owned()),
            reason: (!reason.is_empty()).then_some(reason),
            ..Self::missing(report.hook)
        }
    }
}

impl ProbeReport {
    /// A hook that nothing serves.
    fn missing(hook: Hook) -> Self {
        let probe = PROBES.iter().find(|probe| probe.hook == hook);
        Self {
            probe: hook.to_string(),
            mechanism: None,
            price: None,
            reason: None,
            unseen: probe.map(|probe| probe.unseen).unwrap_or_default().to_owned(),
            required: probe.is_some_and(|probe| probe.need == Need::Required),
        }
    }
}

/// What the kernel side is told of the configuration.
#[must_use]
pub fn loader_config(config: &Config) -> LoaderConfig {
    LoaderConfig {
        bulk_ring_bytes: config.limits.bulk_ring_bytes,
        priority_ring_bytes: config.limits.priority_ring_bytes,
        bulk_wakeup_bytes: config.limits.bulk_ring_bytes / 4,
        syscall_tracepoints: config.probes.syscall_tracepoints,
        ..LoaderConfig::default()
    }
}

/// Attaches every probe for a moment, to tell which can be had.
#[must_use]
pub fn try_out(config: &Config) -> Vec<ProbeReport> {
    let mut probes = try_kernel_side(config);
    probes.push(crate::watch::try_out());
    probes.push(crate::instrument::try_out());
    probes
}

fn try_kernel_side(config: &Config) -> Vec<ProbeReport> {
    match Loader::load(&loader_config(config)) {
        Err(error) => none_because(&error),
        Ok(mut sensor) => match sensor.attach() {
            Err(error) if sensor.report().is_empty() => none_because(&error),
            _ => sensor.report().iter().map(ProbeReport::from).collect(),
        },
    }
}

/// Every probe, none of them attached for the same reason.
fn none_because(error: &LoadError) -> Vec<ProbeReport> {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reason = format!("{reason}: {error}");
        cause = error.source();
    }
    let missing = PROBES.iter().map(|probe| ProbeReport::missing(probe.hook));
    missing.map(|report| ProbeReport { reason: Some(reason.clone()), ..report }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::Refusal;
    use crate::loader::probes::Mechanism;

    #[test]
    fn a_probe_on_a_dearer_rung_says_why() {
        let report = loader::ProbeReport {
            hook: Hook::Memory,
            mechanism: Some(Mechanism::RawTracepoint),
            state: ProbeState::Attached,
            price: "some ns",
            unseen: "",
            refused: vec![Refusal { mechanism: Mechanism::Fentry, reason: "EPERM".to_owned() }],
        };
        let told = ProbeReport::from(&report);
        assert_eq!(told.mechanism.as_deref(), Some("raw tracepoint"));
        assert_eq!(told.reason.as_deref(), Some("fentry: EPERM"));
        assert!(!told.required);
    }

    #[test]
    fn a_host_without_btf_has_no_probe_and_every_one_says_why() {
        let error =
            Loader::load(&LoaderConfig { btf: "/nowhere/btf".into(), ..LoaderConfig::default() });
        let probes = none_because(&error.unwrap_err());
        assert_eq!(probes.len(), PROBES.len());
        for probe in &probes {
            assert!(probe.mechanism.is_none() && !probe.unseen.is_empty(), "{probe:?}");
            assert!(probe.reason.as_deref().unwrap().contains("BTF"), "{probe:?}");
        }
    }
}
