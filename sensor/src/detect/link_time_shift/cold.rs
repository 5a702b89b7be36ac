//! Before anything is known of a program: one library against all others of the same start.
//!
//! A machine that is slow, or emulated, slows all of them alike, and relocating is little work: the
//! largest libraries take a few times as much as all small ones together. One that takes a hundred
//! milliseconds, and ten times what everything else takes, computes something.

use std::sync::Arc;

use super::super::timing::{busiest, us_seconds};
use super::super::{Draft, World};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{LinkTiming, Observation};

/// Of what all other modules took together.
const TIMES: u64 = 10;
/// Modules needed beside it.
const OTHERS_MIN: usize = 4;

/// A finding where one library took nearly all of a start of a guarded program.
pub(super) fn judge(
    detector: &'static str,
    seen: &Observation,
    timing: &LinkTiming,
    world: &World<'_>,
) -> Option<Draft> {
    let program = &seen.process.program;
    let awake = timing.shares.iter().enumerate().filter(|(_, share)| !share.blocked);
    // The first stretch is nobody's alone.
    let (at, longest) = awake.max_by_key(|(_, share)| share.cpu_ns)?;
    let module = busiest(timing).or(longest.module.as_ref())?;
    let others_ns = timing.cpu_ns.saturating_sub(longest.cpu_ns);
    let least = u64::try_from(world.detect.link_gross_excess.as_nanos()).unwrap_or(u64::MAX);
    let limit_ns = least.max(others_ns.saturating_mul(TIMES));
    if !program.guarded()
        || at == 0
        || timing.shares.len() <= OTHERS_MIN
        || longest.cpu_ns <= limit_ns
    {
        return None;
    }
    let (took, others) = (us_seconds(timing.cpu_ns / 1000), us_seconds(others_ns / 1000));
    let text = format!(
        "Too little is known of {} to say what is usual: {} is compared with all other modules of the \
         same start, which took {others} s together",
        program.name(),
        module.name()
    );
    Some(Draft {
        detector,
        family: Family::Linker,
        severity: Severity::Medium,
        confidence: 0.6,
        title: format!("{} took {took} s to link, {} most of it", program.name(), module.name()),
        evidence: vec![
            Evidence::Timing {
                metric: "link_cpu".to_owned(),
                seconds: took,
                baseline_seconds: others,
                limit_seconds: us_seconds(limit_ns / 1000),
                samples: 0,
                module: Some(module.path.clone()),
                module_seconds: Some(us_seconds(longest.cpu_ns / 1000)),
            },
            Evidence::Note { text },
        ],
        attack: &["T1574.006", "T1195.002"],
        object: module.path.clone(),
        program: Arc::clone(program),
        ktime_ns: None,
        explained_by: None,
    })
}
