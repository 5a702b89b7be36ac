//! `auth_cpu_shift`: the CPU time to a positive verdict leaves its method's baseline.
//!
//! Only first answers that are positive are compared: a failed try costs time of its own, and
//! strangers must teach nothing.

use std::sync::Arc;

use super::streak::Streaks;
use super::timing::{Crossed, Limits, us_seconds};
use super::{Detector, Draft, World};
use crate::baseline::Samples;
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Observation};

/// Series of logins differ by up to 1.65 in CPU with what else the machine does, and more where every
/// core is busy; smaller shifts are seen at the link.
const TOLERANCE_PERCENT: u64 = 250;

/// The detector.
#[derive(Debug, Default)]
pub(super) struct AuthCpuShift {
    runs: Streaks,
}

// === impl AuthCpuShift ===

impl Detector for AuthCpuShift {
    fn id(&self) -> &'static str {
        "auth_cpu_shift"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        let (Body::Verdict(verdict), Some(connection)) = (&seen.body, &seen.connection) else {
            return;
        };
        if !verdict.accepted || verdict.earlier > 0 || connection.partial {
            return;
        }
        let wanted = u64::from(world.learning.observations);
        let samples = world.login.and_then(|login| login.auth.get(&verdict.method));
        let usual = samples.and_then(Samples::summary);
        let Some(usual) = usual.filter(|usual| usual.count >= wanted) else { return };
        let limits = Limits::new(&usual, world.detect.auth_gross_excess, TOLERANCE_PERCENT, 100);
        let us = verdict.cpu_ns / 1000;
        let crossed = limits.crossed(us);
        let object = format!("{} {}", verdict.method, connection.program.subject);
        let run = self.runs.note(&object, crossed != Crossed::Neither).run;
        let (severity, confidence, limit_us) = match crossed {
            Crossed::Gross => (Severity::Medium, 0.9, limits.gross_us),
            _ if run >= world.detect.run_length.max(1) => (Severity::Medium, 0.6, limits.run_us),
            _ => return,
        };
        let (spent, usually) = (us_seconds(us), us_seconds(usual.median_us));
        out.push(Draft {
            detector: self.id(),
            family: Family::Sshd,
            severity,
            confidence,
            title: format!(
                "a login by {} cost {spent} s of CPU, usually {usually} s",
                verdict.method
            ),
            evidence: vec![Evidence::Timing {
                metric: "auth_cpu".to_owned(),
                seconds: spent,
                baseline_seconds: usually,
                limit_seconds: us_seconds(limit_us),
                samples: usual.count,
                module: None,
                module_seconds: None,
            }],
            attack: &["T1556", "T1554"],
            object,
            program: Arc::clone(&connection.program),
            ktime_ns: None,
            explained_by: None,
        });
    }
}
