//! The constructors' part: the time from the last seal to the program's entry, and who was found at
//! work in it.

use std::sync::Arc;

use sensor_stats::Rule;

use super::super::timing::{SAMPLES_MIN, gross_us, run_length_text, us_seconds, weigh};
use super::super::{Draft, Reading, World, judge};
use crate::baseline::{CONSTRUCTOR, CONSTRUCTORS, Summary};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Constructed, ModuleId, Observation};

/// Why a time alarms.
struct Alarm {
    confidence: f64,
    limit_us: u64,
    usual: Summary,
    /// The run of starts that has led to it.
    run: Option<String>,
}

/// A finding where the constructors took too long once, or for a run of starts.
pub(super) fn judge(
    detector: &'static str,
    seen: &Observation,
    took: &Constructed,
    world: &World<'_>,
    readings: &mut Vec<Reading>,
) -> Option<Draft> {
    let wanted = u64::from(world.learning.observations);
    let samples = world.own.shares.get(CONSTRUCTORS)?;
    let usual = samples.summary().filter(|usual| usual.count >= wanted)?;
    if took.blocked || !judge::settled(seen, world) {
        return None;
    }
    let alarm = alarm(seen, took, world, usual, readings)?;
    Some(draft(detector, seen, took, &alarm))
}

fn alarm(
    seen: &Observation,
    took: &Constructed,
    world: &World<'_>,
    usual: Summary,
    readings: &mut Vec<Reading>,
) -> Option<Alarm> {
    let us = took.cpu_ns / 1000;
    let limit_us = gross_us(&usual, world.detect.link_gross_excess);
    if us > limit_us {
        return Some(Alarm { confidence: 0.9, limit_us, usual, run: None });
    }
    let subject = &seen.process.program.subject;
    let mut reading = Reading::new(subject, CONSTRUCTOR.to_owned(), None);
    let found = weigh(world.own, us, &Rule::LINK, world, &mut reading);
    readings.push(reading);
    let found = found.filter(|found| found.weighed.alarm)?;
    Some(Alarm {
        confidence: 0.7,
        limit_us: found.weighed.levels.small_us,
        usual: found.usual,
        run: Some(run_length_text(world.detect.run_length, "starts")),
    })
}

fn draft(detector: &'static str, seen: &Observation, took: &Constructed, alarm: &Alarm) -> Draft {
    let program = &seen.process.program;
    let busiest = busiest(took);
    let spent = us_seconds(took.cpu_ns / 1000);
    let title = match busiest {
        Some((module, _)) => {
            format!(
                "Constructors in {} took {spent} s, {} most of it",
                program.name(),
                module.name()
            )
        }
        None => format!("Constructors in {} took {spent} s", program.name()),
    };
    let mut evidence = vec![Evidence::Timing {
        metric: "constructor_cpu".to_owned(),
        seconds: spent,
        baseline_seconds: us_seconds(alarm.usual.median_us),
        limit_seconds: us_seconds(alarm.limit_us),
        samples: alarm.usual.count,
        module: busiest.map(|(module, _)| module.path.clone()),
        module_seconds: busiest.map(|(_, share)| spent * share),
    }];
    evidence.push(Evidence::Note { text: note(took) });
    evidence.extend(alarm.run.clone().map(|text| Evidence::Note { text }));
    Draft {
        detector,
        family: Family::Linker,
        severity: Severity::Medium,
        confidence: alarm.confidence,
        title,
        evidence,
        attack: &["T1574.006", "T1195.002"],
        object: busiest.map(|(module, _)| module.path.clone()).unwrap_or_default(),
        program: Arc::clone(program),
        ktime_ns: None,
        explained_by: None,
    }
}

/// The module most samples lie in, and which part of them, 0 to 1. The loader itself calls the
/// constructors and is found at work by chance only.
fn busiest(took: &Constructed) -> Option<(&ModuleId, f64)> {
    let all: u32 = took.modules.iter().map(|(_, count)| *count).sum();
    let (module, count) = took.modules.first().filter(|(_, count)| *count >= SAMPLES_MIN)?;
    Some((module, f64::from(*count) / f64::from(all.max(1))))
}

fn note(took: &Constructed) -> String {
    let all: u32 = took.modules.iter().map(|(_, count)| *count).sum();
    match took.modules.as_slice() {
        [] => {
            "Nothing was found at work meanwhile: it was over before it could be sampled".to_owned()
        }
        [(first, count), ..] => {
            format!("{count} of {all} samples, a millisecond apart, were in {}", first.name())
        }
    }
}
