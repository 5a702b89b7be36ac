//! How the survey stands, as `doctor` tells it.

use super::Source;
use crate::probe::ProbeReport;

/// Its name among the probes.
pub(crate) const PROBE: &str = "instrumentation";
const UNSEEN: &str = "foreign uprobes and BPF programs in guarded programs and their libraries \
                      (foreign_probe); new BPF programs, kprobes, ftrace hooks and kernel modules \
                      (kernel_hook); in any case, what is there for less than two seconds, a perf event \
                      without a BPF program that is held by its mapping alone, its descriptor closed, \
                      and what hides itself in the kernel";
/// Without it there is nothing to tell.
const NEEDED: &str = "BPF programs";

pub(super) fn report(sources: &[Source]) -> ProbeReport {
    let reasons: Vec<String> = sources
        .iter()
        .filter_map(|source| Some(format!("{}: {}", source.name, source.reason.as_ref()?)))
        .collect();
    let works = sources.iter().any(|source| source.name == NEEDED && source.reason.is_none());
    ProbeReport {
        probe: PROBE.to_owned(),
        mechanism: works.then(|| "listing".to_owned()),
        price: works.then(|| "a look every 2 s, at all descriptors every 30 s".to_owned()),
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        unseen: UNSEEN.to_owned(),
        required: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_that_cannot_be_read_is_named() {
        let source =
            |name, reason: Option<&str>| Source { name, reason: reason.map(str::to_owned) };
        let told = report(&[source(NEEDED, None), source("kprobes", Some("not permitted"))]);
        assert_eq!(told.mechanism.as_deref(), Some("listing"));
        assert_eq!(told.reason.as_deref(), Some("kprobes: not permitted"));
        assert_eq!(report(&[source(NEEDED, Some("EPERM"))]).mechanism, None);
    }
}
