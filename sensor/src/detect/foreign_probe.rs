//! `foreign_probe`: somebody else's uprobe, uretprobe or USDT probe sits in a guarded program, in
//! PAM, libcrypto, the C library or its loader, where it reads what passes through.
//!
//! Needs no baseline; one that the baseline has (a tracing agent that was there while learning) is
//! told as such.

use std::sync::Arc;

use super::kernel_hook::{evidence, explanation, is_known};
use super::{Detector, Draft, World};
use crate::finding::{Family, Severity};
use crate::host::{Body, Observation};
use crate::instrument::{Class, Owner, Seen, Site};

/// The detector.
#[derive(Debug)]
pub(super) struct ForeignProbe;

// === impl ForeignProbe ===

impl Detector for ForeignProbe {
    fn id(&self) -> &'static str {
        "foreign_probe"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        let Body::Instrument(found) = &seen.body else { return };
        let Some(site) = &found.site else { return };
        let settled = world.own.settled(world.learning.observations, false);
        let is_usual = settled && is_known(found, world);
        let (severity, confidence) = judge(site, found.owner.as_ref(), is_usual);
        out.push(Draft {
            detector: self.id(),
            family: Family::Hook,
            severity,
            confidence,
            title: title(found, site),
            evidence: evidence(found),
            attack: &["T1056", "T1556.003", "T1014"],
            object: format!("{} {:?}", found.key(), site.symbol),
            program: Arc::clone(&seen.process.program),
            ktime_ns: None,
            explained_by: explanation(found.owner.as_ref()),
        });
    }
}

fn judge(site: &Site, owner: Option<&Owner>, is_usual: bool) -> (Severity, f64) {
    let is_tool = owner.is_some_and(|owner| owner.is_tool);
    let is_vouched = owner.is_some_and(Owner::is_vouched);
    match (site.class, is_tool, is_vouched) {
        _ if is_usual => (Severity::Info, 0.2),
        (Class::Guarded, false, false) => (Severity::High, 0.8),
        // A tool reads passwords as well as anything else does, on somebody's behalf.
        (Class::Guarded, ..) => (Severity::Medium, 0.5),
        (Class::Base, true, _) => (Severity::Low, 0.2),
        (Class::Base, false, true) => (Severity::Low, 0.3),
        (Class::Base, false, false) => (Severity::Medium, 0.6),
    }
}

fn title(found: &Seen, site: &Site) -> String {
    let file = site.path.rsplit('/').next().unwrap_or(&site.path);
    let place = site.symbol.as_ref().map(|(name, _)| format!("{name} in {file}"));
    let place = place.unwrap_or_else(|| file.to_owned());
    let kind = found.instrument.kind();
    match &found.owner {
        Some(owner) => format!("{} has a {kind} at {place}", owner.shown.exe),
        None => format!("somebody has a {kind} at {place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(class: Class) -> Site {
        let symbol = Some(("pam_authenticate".to_owned(), 0));
        Site { path: "/lib/libpam.so.0".to_owned(), class, symbol }
    }

    #[test]
    fn a_tool_lowers_the_severity_and_an_unknown_owner_does_not() {
        let package = Some("bpftrace 0.17".to_owned());
        let tool = Owner { package, is_tool: true, ..Owner::default() };
        let severity = |class, owner: Option<&Owner>| judge(&site(class), owner, false).0;
        assert_eq!(severity(Class::Guarded, None), Severity::High);
        assert_eq!(severity(Class::Guarded, Some(&Owner::default())), Severity::High);
        assert_eq!(severity(Class::Guarded, Some(&tool)), Severity::Medium);
        assert_eq!(severity(Class::Base, Some(&tool)), Severity::Low);
        assert_eq!(severity(Class::Base, None), Severity::Medium);
        assert_eq!(judge(&site(Class::Guarded), None, true).0, Severity::Info);
        // Another process with this sensor's code reads what this sensor reads, for somebody else.
        let twin = Owner { is_twin: true, ..Owner::default() };
        assert_eq!(severity(Class::Guarded, Some(&twin)), Severity::Medium);
        assert_eq!(severity(Class::Base, Some(&twin)), Severity::Low);
    }
}
