//! The constructors' part: the time from the last seal to the program's entry, and who was found at
//! work in it.

use std::sync::Arc;

use super::super::streak::Streaks;
use super::super::timing::{Crossed, Limits, SAMPLES_MIN, us_seconds};
use super::super::{Draft, World, judge};
use super::TOLERANCE_BLIND_PERCENT;
use crate::baseline::CONSTRUCTORS;
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Constructed, ModuleId, Observation};

/// A finding where the constructors took too long once, or for a run of starts.
pub(super) fn judge(
    detector: &'static str,
    seen: &Observation,
    took: &Constructed,
    world: &World<'_>,
    streaks: &mut Streaks,
) -> Option<Draft> {
    let wanted = u64::from(world.learning.observations);
    let samples = world.own.shares.get(CONSTRUCTORS)?;
    let usual = samples.summary().filter(|usual| usual.count >= wanted)?;
    if took.blocked || !judge::settled(seen, world) {
        return None;
    }
    let excess = world.detect.link_gross_excess;
    let limits = Limits::new(&usual, excess, TOLERANCE_BLIND_PERCENT, 100);
    let crossed = limits.crossed(took.cpu_ns / 1000);
    let subject = &seen.process.program.subject;
    let run = streaks.note(subject, crossed != Crossed::Neither).run;
    let (confidence, limit_us) = match crossed {
        Crossed::Gross => (0.9, limits.gross_us),
        Crossed::Run if run >= world.detect.run_length.max(1) => (0.7, limits.run_us),
        Crossed::Run | Crossed::Neither => return None,
    };
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
        baseline_seconds: us_seconds(usual.median_us),
        limit_seconds: us_seconds(limit_us),
        samples: usual.count,
        module: busiest.map(|(module, _)| module.path.clone()),
        module_seconds: busiest.map(|(_, share)| spent * share),
    }];
    evidence.push(Evidence::Note { text: note(took) });
    Some(Draft {
        detector,
        family: Family::Linker,
        severity: Severity::Medium,
        confidence,
        title,
        evidence,
        attack: &["T1574.006", "T1195.002"],
        object: busiest.map(|(module, _)| module.path.clone()).unwrap_or_default(),
        program: Arc::clone(program),
        ktime_ns: None,
        explained_by: None,
    })
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
