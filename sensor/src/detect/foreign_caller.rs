//! `foreign_caller`: a guarded function is called from a module outside its callers' baseline.
//!
//! Where the function's own library calls it, whoever called into that library counts, as far as its
//! frames can be unwound. The finding tells the whole stack, as far.
//!
//! Blind to a wrapper that jumps to the function: the return address then looks right, and only
//! the slot (`got_redirected`) tells.

use std::sync::Arc;

use super::judge::{self, Judged};
use super::{Detector, Draft, World, upgrade};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Called, Located, Observation};

/// Calls behind a function's known callers from which a new one is beyond doubt.
const CALLS_SURE: u64 = 5;

/// The detector.
#[derive(Debug)]
pub(super) struct ForeignCaller;

// === impl ForeignCaller ===

impl Detector for ForeignCaller {
    fn id(&self) -> &'static str {
        "foreign_caller"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        let Body::Called(call) = &seen.body else { return };
        let Some(caller) = call.by() else { return };
        if judge::caller(seen, call, caller, world) != Judged::Unexpected {
            return;
        }
        let program = &seen.process.program;
        let known = world.own.callers.get(&call.function);
        let names: Vec<String> = known
            .map(|callers| callers.modules.iter().map(|module| module.path.clone()).collect())
            .unwrap_or_default();
        let (severity, confidence) = severity(seen, caller, world, known.map_or(0, |c| c.calls));
        let title = title(program.name(), call, caller, &names);
        let mut evidence = vec![Evidence::Caller {
            function: call.function.clone(),
            caller_module: caller.module.path.clone(),
            caller: describe(caller),
            known: names,
            stack: call.frames.iter().map(describe).collect(),
        }];
        // Which build it is: its path alone does not tell.
        evidence.extend(caller.module.build_id().map(|id| Evidence::Library {
            path: caller.module.path.clone(),
            build_id: Some(id.to_owned()),
            inode: String::new(),
        }));
        if let Some(inner) = call.caller.as_ref().filter(|_| call.behind().is_some()) {
            let text = format!("The call came through {}", describe(inner));
            evidence.push(Evidence::Note { text });
        }
        out.push(Draft {
            detector: self.id(),
            family: Family::Hook,
            severity,
            confidence,
            title,
            evidence,
            attack: &["T1556", "T1574", "T1055"],
            object: format!("{} {}", call.function, caller.module.path),
            program: Arc::clone(program),
            ktime_ns: None,
            explained_by: None,
        });
    }
}

fn title(program: &str, call: &Called, caller: &Located, known: &[String]) -> String {
    let usual = known.first().and_then(|path| path.rsplit('/').next());
    match usual {
        Some(usual) => format!(
            "{program}: {} is called by {}, so far only by {usual}",
            call.function,
            caller.module.name()
        ),
        None => format!("{program}: {} is called by {}", call.function, caller.module.name()),
    }
}

fn severity(seen: &Observation, from: &Located, world: &World<'_>, calls: u64) -> (Severity, f64) {
    if !seen.process.program.guarded() {
        return (Severity::Medium, 0.5);
    }
    let stranger = !judge::is_file(&from.module)
        || !world.own.has_library(&from.module)
        || upgrade::has_followed(&from.module, world.own)
        || world.packages.foreign(&from.module.path);
    match (stranger, calls >= CALLS_SURE) {
        (true, _) => (Severity::Critical, 0.95),
        (false, true) => (Severity::Critical, 0.8),
        (false, false) => (Severity::Medium, 0.5),
    }
}

/// `liblzma.so.5+0x120f (wrapper+0x1f)`
fn describe(located: &Located) -> String {
    let place = format!("{}+{:#x}", located.module.name(), located.offset);
    match &located.symbol {
        Some((symbol, distance)) => format!("{place} ({symbol}+{distance:#x})"),
        None => place,
    }
}
