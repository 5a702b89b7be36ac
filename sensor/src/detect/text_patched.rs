//! `text_patched`: code in memory is not what its file says.
//!
//! Needs no baseline. Our own probes are left out; other probes and breakpoints are told as what
//! they are. Blind to a file that is changed in place: the process then runs what the file says.

use std::sync::Arc;

use super::check::{CheckReport, CodeChange, WhyChanged};
use super::{Detector, Draft, Place, World, instruments};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, ModuleId, Observation};

/// Changes told one by one; the rest is counted.
const CHANGES_TOLD: usize = 16;

/// The detector.
#[derive(Debug)]
pub(super) struct TextPatched;

// === impl TextPatched ===

impl Detector for TextPatched {
    fn id(&self) -> &'static str {
        "text_patched"
    }

    fn observe(&mut self, seen: &Observation, _world: &World<'_>, out: &mut Vec<Draft>) {
        let Body::Checked(report) = &seen.body else { return };
        let of = |wanted: fn(&WhyChanged) -> bool| {
            report.changes.iter().filter(|change| wanted(&change.why)).collect::<Vec<_>>()
        };
        let unknown = of(|why| *why == WhyChanged::Unknown);
        let changed = of(|why| *why == WhyChanged::FileChanged);
        let tools = of(|why| matches!(why, WhyChanged::Tool(_)));
        let guarded = seen.process.program.guarded();
        if !unknown.is_empty() {
            let severity = if guarded { Severity::Critical } else { Severity::High };
            let confidence = if report.settled { 0.97 } else { 0.8 };
            out.extend(self.draft(seen, report, &unknown, severity, confidence));
        } else if !changed.is_empty() {
            out.extend(self.draft(seen, report, &changed, Severity::Low, 0.3));
        }
        if !tools.is_empty() {
            out.extend(self.draft(seen, report, &tools, Severity::Info, 0.9));
        }
        if guarded && unknown.is_empty() && !report.restored.is_empty() {
            out.push(self.restored(seen, report));
        }
    }
}

impl TextPatched {
    fn draft(
        &self,
        seen: &Observation,
        report: &CheckReport,
        changes: &[&CodeChange],
        severity: Severity,
        confidence: f64,
    ) -> Option<Draft> {
        let first = changes.first()?;
        let mut evidence: Vec<Evidence> =
            changes.iter().take(CHANGES_TOLD).map(|change| code(change)).collect();
        if changes.len() > CHANGES_TOLD {
            let text = format!("{} more places of its code differ", changes.len() - CHANGES_TOLD);
            evidence.push(Evidence::Note { text });
        }
        evidence.extend(instruments::named(report));
        Some(Draft {
            detector: self.id(),
            family: Family::Hook,
            severity,
            confidence,
            title: title(seen, first, changes.len()),
            evidence,
            attack: &["T1574", "T1556", "T1055"],
            object: object(changes),
            program: Arc::clone(&seen.process.program),
            ktime_ns: report.taken_ktime_ns,
            explained_by: tool(first),
        })
    }

    /// Hooks that were removed leave this behind, and debuggers and profilers that have gone.
    fn restored(&self, seen: &Observation, report: &CheckReport) -> Draft {
        let mut owners: Vec<String> = report.restored.iter().map(Place::owner).collect();
        owners.sort_unstable();
        owners.dedup();
        owners.truncate(CHANGES_TOLD);
        let program = seen.process.program.name();
        let owners = owners.join(", ");
        let title = format!("{program}: code of {owners} was written to and is as it was again");
        let places = report.restored.iter().take(CHANGES_TOLD).map(Place::shown);
        let text = format!("Pages written to: {}", places.collect::<Vec<_>>().join(", "));
        Draft {
            detector: self.id(),
            family: Family::Hook,
            severity: Severity::Info,
            confidence: 0.5,
            title,
            evidence: vec![Evidence::Note { text }],
            attack: &[],
            object: format!("restored {owners}"),
            program: Arc::clone(&seen.process.program),
            ktime_ns: report.taken_ktime_ns,
            explained_by: None,
        }
    }
}

fn tool(change: &CodeChange) -> Option<String> {
    match &change.why {
        WhyChanged::Tool(tool) => Some(tool.clone()),
        WhyChanged::Unknown | WhyChanged::FileChanged => None,
    }
}

fn function(change: &CodeChange) -> &str {
    change.place.symbol.as_ref().map_or("", |(name, _)| name)
}

fn title(seen: &Observation, first: &CodeChange, changes: usize) -> String {
    let program = seen.process.program.name();
    let module = first.place.owner();
    let what = match function(first) {
        "" => format!("{module}'s code"),
        function => format!("{module}'s {function}"),
    };
    let more = match changes {
        1 => String::new(),
        n => format!(" and {} more places", n - 1),
    };
    match (&first.why, &first.leads_to) {
        (WhyChanged::FileChanged, _) => {
            format!("{program}: a library's file changed under it, {what}{more} unclear")
        }
        (WhyChanged::Tool(tool), _) => format!("{program}: {what}{more} has {tool}"),
        (WhyChanged::Unknown, Some(target)) => {
            format!("{program}: {what}{more} was patched to lead into {}", target.owner())
        }
        (WhyChanged::Unknown, None) => format!("{program}: {what}{more} was patched"),
    }
}

fn code(change: &CodeChange) -> Evidence {
    let place = match &change.place.symbol {
        Some((name, distance)) => format!("{} ({name}+{distance:#x})", change.place.shown()),
        None => change.place.shown(),
    };
    let target = change.leads_to.as_ref();
    Evidence::Code {
        module: change.place.owner_path(),
        build_id: build_id(&change.place).map(str::to_owned),
        place,
        function: function(change).to_owned(),
        length: change.length,
        expected: change.expected.clone(),
        actual: change.actual.clone(),
        expected_code: change.expected_code.clone(),
        actual_code: change.actual_code.clone(),
        leads_to: target.map(Place::shown).unwrap_or_default(),
        leads_to_module: target.map(Place::owner_path).unwrap_or_default(),
        leads_to_build_id: target.and_then(build_id).map(str::to_owned),
        explained_by: tool(change),
    }
}

fn build_id(place: &Place) -> Option<&str> {
    place.module.as_ref().and_then(ModuleId::build_id)
}

/// The same change of the same function is the same object, in whichever process.
fn object(changes: &[&CodeChange]) -> String {
    let name = |change: &&CodeChange| {
        let target = change.leads_to.as_ref().map(Place::owner_path).unwrap_or_default();
        let place = &change.place;
        let offset = place.offset.unwrap_or_default();
        let build = build_id(place).unwrap_or_default();
        format!("{}{build}+{offset:x}>{target}", place.owner_path())
    };
    let mut names: Vec<String> = changes.iter().map(name).collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(CHANGES_TOLD);
    names.join(" ")
}
