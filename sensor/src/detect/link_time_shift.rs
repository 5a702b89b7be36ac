//! `link_time_shift`: the CPU time of linking a program, or of its libraries' constructors, leaves
//! its baseline.
//!
//! Blind to constructors of programs that are not guarded and, for programs without a baseline, to
//! everything.

mod cold;
mod constructors;

use std::sync::Arc;

use sensor_stats::{Crept, Rule};

use super::streak::Streaks;
use super::timing::{
    blame, busiest, crept, crept_text, drift_percent, gross_us, run_length_text, us_milliseconds,
    us_seconds, weigh,
};
use super::{Detector, Draft, Reading, World, judge};
use crate::baseline::{LINK, Summary};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, LinkTiming, Observation};

/// Starts of an unguarded program above the single limit, among five, before it is more than a
/// remark: a hypervisor that takes the CPU away looks the same once.
const UNGUARDED_RECENT: u32 = 3;

/// The detector.
#[derive(Debug, Default)]
pub(super) struct LinkTimeShift {
    gross: Streaks,
    readings: Vec<Reading>,
}

// === impl LinkTimeShift ===

impl Detector for LinkTimeShift {
    fn id(&self) -> &'static str {
        "link_time_shift"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        match &seen.body {
            Body::Constructed(took) => {
                out.extend(constructors::judge(self.id(), seen, took, world, &mut self.readings));
            }
            Body::Linked(timing) => out.extend(self.linked(seen, timing, world)),
            _ => {}
        }
    }

    fn readings(&mut self) -> Vec<Reading> {
        std::mem::take(&mut self.readings)
    }
}

impl LinkTimeShift {
    fn linked(
        &mut self,
        seen: &Observation,
        timing: &LinkTiming,
        world: &World<'_>,
    ) -> Option<Draft> {
        let wanted = u64::from(world.learning.observations);
        let usual = world.own.link.summary().filter(|usual| usual.count >= wanted);
        let Some(usual) = usual.filter(|_| judge::settled(seen, world)) else {
            return cold::judge(self.id(), seen, timing, world);
        };
        let program = &seen.process.program;
        let drift = drift_percent(world.own, timing);
        let gross_us = gross_us(&usual, world.detect.link_gross_excess);
        let cpu_us = timing.cpu_ns / 1000;
        let gross = self.gross.note(&program.subject, cpu_us > gross_us);
        let case = Case { seen, timing, world, usual, drift: drift.unwrap_or(100).max(100) };
        if cpu_us > gross_us {
            let enough = program.guarded() || gross >= UNGUARDED_RECENT;
            let severity = if enough { Severity::Medium } else { Severity::Info };
            return Some(case.draft(self.id(), severity, 0.9, cpu_us, gross_us, false));
        }
        if let Some(draft) = self.shifted(&case, cpu_us, drift) {
            return Some(draft);
        }
        // Sleep during linking is mostly a cold disk.
        let us = cpu_us.saturating_add(timing.blocked_ns / 1000);
        (us > gross_us).then(|| case.draft(self.id(), Severity::Info, 0.2, us, gross_us, true))
    }

    /// Only of a guarded program is every start seen: bets on those that the kernel side picks out for
    /// being slow would win whatever happens.
    fn shifted(&mut self, case: &Case<'_>, cpu_us: u64, drift: Option<u64>) -> Option<Draft> {
        let program = &case.seen.process.program;
        if !program.guarded() {
            return None;
        }
        let mut reading = Reading::new(&program.subject, LINK.to_owned(), drift);
        let found = weigh(case.world.own, cpu_us, &Rule::LINK, case.world, &mut reading);
        let found = found.filter(|found| found.weighed.alarm);
        let crept = crept(case.world.own, LINK).filter(|_| found.is_none());
        reading.crept = crept.is_some();
        self.readings.push(reading);
        if let Some(crept) = crept {
            return Some(case.crept(self.id(), crept));
        }
        let found = found?;
        let case = Case { usual: found.usual, ..*case };
        let limit_us = found.weighed.levels.small_us;
        let mut told = case.draft(self.id(), Severity::Medium, 0.7, cpu_us, limit_us, false);
        let text = run_length_text(case.world.detect.run_length, "starts");
        told.evidence.push(Evidence::Note { text });
        Some(told)
    }
}

#[derive(Clone, Copy)]
struct Case<'a> {
    seen: &'a Observation,
    timing: &'a LinkTiming,
    world: &'a World<'a>,
    usual: Summary,
    drift: u64,
}

impl Case<'_> {
    /// Slowly enough that no single start stands out.
    fn crept(&self, detector: &'static str, crept: Crept) -> Draft {
        let usual = Summary { median_us: crept.usual_us, ..self.usual };
        let case = Self { usual, ..*self };
        let (now, limit) = (crept.median_us, crept.limit_us);
        let mut told = case.draft(detector, Severity::Low, 0.4, now, limit, false);
        let name = self.seen.process.program.name();
        told.title = format!("{name} takes longer and longer to link");
        told.evidence.push(Evidence::Note { text: crept_text(crept, "starts") });
        told
    }

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
        let build = module.and_then(|module| Some((module, module.build_id()?)));
        evidence.extend(build.map(|(module, id)| Evidence::Library {
            path: module.path.clone(),
            build_id: Some(id.to_owned()),
            inode: String::new(),
        }));
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
