//! `link_time_shift`: the CPU time of linking a program, or of its libraries' constructors, leaves
//! its baseline.
//!
//! Blind to constructors of programs that are not guarded and, for programs without a baseline, to
//! everything.

mod constructors;

use std::sync::Arc;

use super::streak::Streaks;
use super::timing::{Crossed, Limits, blame, busiest, drift_percent, us_milliseconds, us_seconds};
use super::{Detector, Draft, World, judge};
use crate::baseline::Summary;
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, LinkTiming, Observation};

/// Drift of a whole series is up to 1.76; one half above that and its own drift is no drift.
const TOLERANCE_PERCENT: u64 = 150;
/// The same where the modules' shares cannot tell drift.
const TOLERANCE_BLIND_PERCENT: u64 = 250;
/// Starts of an unguarded program above the single limit, among five, before it is more than a
/// remark: a hypervisor that takes the CPU away looks the same once.
const UNGUARDED_RECENT: u32 = 3;

/// The detector.
#[derive(Debug, Default)]
pub(super) struct LinkTimeShift {
    runs: Streaks,
    gross: Streaks,
    constructors: Streaks,
}

// === impl LinkTimeShift ===

impl Detector for LinkTimeShift {
    fn id(&self) -> &'static str {
        "link_time_shift"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        if let Body::Constructed(took) = &seen.body {
            out.extend(constructors::judge(self.id(), seen, took, world, &mut self.constructors));
        }
        let Body::Linked(timing) = &seen.body else { return };
        let wanted = u64::from(world.learning.observations);
        let Some(usual) = world.own.link.summary().filter(|usual| usual.count >= wanted) else {
            return;
        };
        if !judge::settled(seen, world) {
            return;
        }
        let drift = drift_percent(world.own, timing);
        let tolerance = if drift.is_some() { TOLERANCE_PERCENT } else { TOLERANCE_BLIND_PERCENT };
        let drift = drift.unwrap_or(100).max(100);
        let limits = Limits::new(&usual, world.detect.link_gross_excess, tolerance, drift);
        let cpu_us = timing.cpu_ns / 1000;
        let crossed = limits.crossed(cpu_us);
        let subject = &seen.process.program.subject;
        let run = self.runs.note(subject, crossed != Crossed::Neither).run;
        let gross = self.gross.note(subject, crossed == Crossed::Gross).recent;
        let case = Case { seen, timing, world, usual, drift };
        if crossed == Crossed::Gross {
            let enough = seen.process.program.guarded() || gross >= UNGUARDED_RECENT;
            let severity = if enough { Severity::Medium } else { Severity::Info };
            out.push(case.draft(self.id(), severity, 0.9, cpu_us, limits.gross_us, false));
        } else if run >= world.detect.run_length.max(1) {
            let guarded = seen.process.program.guarded();
            let severity = if guarded { Severity::Medium } else { Severity::Info };
            out.push(case.draft(self.id(), severity, 0.7, cpu_us, limits.run_us, false));
        } else if limits.crossed(cpu_us.saturating_add(timing.blocked_ns / 1000)) == Crossed::Gross
        {
            // Sleep during linking is mostly a cold disk.
            let us = cpu_us.saturating_add(timing.blocked_ns / 1000);
            out.push(case.draft(self.id(), Severity::Info, 0.2, us, limits.gross_us, true));
        }
    }
}

struct Case<'a> {
    seen: &'a Observation,
    timing: &'a LinkTiming,
    world: &'a World<'a>,
    usual: Summary,
    drift: u64,
}

impl Case<'_> {
    fn draft(
        &self,
        detector: &'static str,
        severity: Severity,
        confidence: f64,
        us: u64,
        limit_us: u64,
        asleep: bool,
    ) -> Draft {
        let program = &self.seen.process.program;
        let blamed = blame(self.world.own, self.timing, self.drift, asleep);
        let module = blamed.as_ref().and_then(|blame| blame.module.as_ref());
        let spent = us_seconds(us);
        let usual = us_seconds(self.usual.median_us);
        let title = match module {
            Some(module) => {
                format!("{} took {spent} s to link, {} most of it", program.name(), module.name())
            }
            None => format!("{} took {spent} s to link, usually {usual} s", program.name()),
        };
        let mut evidence = vec![Evidence::Timing {
            metric: if asleep { "link_wall" } else { "link_cpu" }.to_owned(),
            seconds: spent,
            baseline_seconds: usual,
            limit_seconds: us_seconds(limit_us),
            samples: self.usual.count,
            module: module.map(|module| module.path.clone()),
            module_seconds: blamed.as_ref().map(|blame| us_seconds(blame.share_us)),
        }];
        let all: u32 = self.timing.busy.iter().map(|(_, count)| *count).sum();
        if let Some(module) = busiest(self.timing).filter(|one| module == Some(*one)) {
            let text = format!("{} was found at work in most of {all} samples", module.name());
            evidence.push(Evidence::Note { text });
        } else if let (Some(module), Some(blame)) = (module, &blamed) {
            let usually = blame.usual_us.map_or_else(
                || "was not linked while learning".to_owned(),
                |us| format!("usually takes {} ms", us_milliseconds(us)),
            );
            let name = module.name();
            evidence.push(Evidence::Note { text: format!("A file of the name {name} {usually}") });
        }
        Draft {
            detector,
            family: Family::Linker,
            severity,
            confidence,
            title,
            evidence,
            attack: &["T1574.006", "T1195.002"],
            object: module.map(|module| module.path.clone()).unwrap_or_default(),
            program: Arc::clone(program),
            ktime_ns: None,
            explained_by: None,
        }
    }
}
