//! `blinded`: what the sensor cannot see any more, and would see otherwise.
//!
//! Here: a guarded program or a root daemon that refuses to be checked. The verifier waits for a
//! loader at work, and one word in the memory of a process says that it is. And processes that could
//! be read and cannot be any more. Needs no baseline.
//! Blind to a process that refuses only now and then: one check that succeeds ends a row.

use std::sync::Arc;

use super::check::{CheckReport, Refused};
use super::{Detector, Draft, World};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Observation};

/// Gaps told.
const GAPS_TOLD: usize = 4;

/// The detector.
#[derive(Debug)]
pub(super) struct Blinded;

// === impl Blinded ===

impl Detector for Blinded {
    fn id(&self) -> &'static str {
        "blinded"
    }

    fn observe(&mut self, seen: &Observation, _world: &World<'_>, out: &mut Vec<Draft>) {
        let Body::Checked(report) = &seen.body else { return };
        let Some(refused) = &report.refused else { return };
        let refusal = &refused.refusal;
        let inherited = is_inherited(refused, report);
        // Held by somebody, it may be in its loader indeed; and a machine may be too slow for it.
        let confidence = match (refusal.is_passing(), refusal.held.is_empty()) {
            _ if refused.everybody => 0.7,
            (true, true) if inherited => 0.4,
            (true, true) => 0.85,
            (false, true) => 0.5,
            (_, false) => 0.4,
        };
        out.push(Draft {
            detector: self.id(),
            family: Family::Sensor,
            severity: severity(seen, refused, inherited),
            confidence,
            title: title(seen, refused),
            evidence: evidence(refused, report),
            attack: &["T1562", "T1574"],
            object: refusal.why.clone(),
            program: Arc::clone(&seen.process.program),
            ktime_ns: report.taken_ktime_ns,
            explained_by: None,
        });
    }
}

/// A child that was forked while another thread of its parent loaded a library has inherited a loader
/// at work. One that hides something has inherited nothing else.
fn is_inherited(refused: &Refused, report: &CheckReport) -> bool {
    let refusal = &refused.refusal;
    let clean = report.mismatches.is_empty()
        && report.changes.is_empty()
        && report.strays.iter().all(|stray| stray.usual);
    refusal.forked && refusal.is_passing() && report.slots_checked > 0 && clean
}

/// A list that contradicts itself for minutes is nothing that a loader leaves behind.
fn severity(seen: &Observation, refused: &Refused, inherited: bool) -> Severity {
    if refused.everybody {
        return Severity::High;
    }
    let refusal = &refused.refusal;
    let sure = refusal.is_passing() && refusal.held.is_empty() && !inherited;
    match (seen.process.program.guarded(), sure) {
        (true, true) => Severity::High,
        (true, false) | (false, true) => Severity::Medium,
        (false, false) => Severity::Low,
    }
}

fn title(seen: &Observation, refused: &Refused) -> String {
    let (name, why) = (seen.process.program.name(), &refused.refusal.why);
    if refused.everybody {
        return format!("no process could be read for {}: {why}", span(refused.seconds));
    }
    format!("{name}: {}: {why}", unchecked(refused))
}

fn unchecked(refused: &Refused) -> String {
    match refused.processes {
        0 | 1 => format!("could not be checked for {}", span(refused.seconds)),
        n => format!("none of {n} processes in {} could be checked", span(refused.seconds)),
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

fn evidence(refused: &Refused, report: &CheckReport) -> Vec<Evidence> {
    let Refused { refusal, times, since, .. } = refused;
    let mut notes = vec![
        format!("{times} checks in a row were refused, the first at {since:.0}: {}", refusal.why),
        meaning(refused, report),
    ];
    if is_inherited(refused, report) {
        notes.push(
            "It was forked and has executed no program since: if a thread of its parent was loading \
             a library at that moment, it has inherited that state for good, and nothing that was \
             compared is odd"
                .to_owned(),
        );
    }
    if !refusal.held.is_empty() {
        notes.push(format!("At the latest check: {}", refusal.held));
    }
    notes.extend(report.gaps.iter().take(GAPS_TOLD).cloned());
    notes.into_iter().map(|text| Evidence::Note { text }).collect()
}

fn meaning(refused: &Refused, report: &CheckReport) -> String {
    if refused.everybody {
        let processes = refused.processes;
        return format!(
            "{processes} processes were checked before and cannot be read any more, and no other \
             could be since: a right was taken from the sensor, or kernel.yama.ptrace_scope set to 3"
        );
    }
    let usual = if refused.refusal.is_passing() {
        "A loader is through with it in a moment"
    } else {
        "Ordinary programs are not like that"
    };
    let compared = match report.slots_checked {
        _ if !refused.compared => "nothing of it could be compared".to_owned(),
        0 => "only its code was compared with its files".to_owned(),
        slots => format!("{slots} slots were compared all the same, as far as its list goes"),
    };
    format!(
        "{usual}; while it lasts, silence about where its calls lead and which code it has loaded \
         means little: {compared}"
    )
}
