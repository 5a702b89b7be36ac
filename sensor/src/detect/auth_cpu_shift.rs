//! `auth_cpu_shift`: the CPU time to a positive verdict leaves its method's baseline.
//!
//! Only first answers that are positive are compared, bet on and learned: a failed try costs time of
//! its own, and strangers must teach nothing.
//!
//! The time is all since accept, and part of it is the client's choice: the key exchange, the cipher,
//! and how many keys it offers before the one that fits, each of which sshd looks up and refuses without
//! an answer of a method. Whoever may log in can therefore make a login look costly, and while few are
//! learned make costly ones usual; a client that changes its ways may look like a shift. No try that
//! fails is bet on.

use std::collections::BTreeMap;
use std::sync::Arc;

use sensor_stats::Rule;

use super::timing::{drift_percent, gross_us, run_length_text, us_seconds, weigh};
use super::{Detector, Draft, Reading, World};
use crate::baseline::{Samples, Summary, auth_stream};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Connection, ConnectionId, Observation, Verdict};

/// Connections of which the machine's speed is remembered at once.
const CONNECTIONS_MAX: usize = 4096;

/// The detector.
#[derive(Debug, Default)]
pub(super) struct AuthCpuShift {
    /// How slow the machine was when the connection's monitor was linked, percent.
    drifts: BTreeMap<ConnectionId, u64>,
    readings: Vec<Reading>,
}

/// Why a login alarms.
struct Alarm {
    confidence: f64,
    limit_us: u64,
    usual: Summary,
    /// The run of logins that has led to it.
    run: Option<String>,
}

// === impl AuthCpuShift ===

impl Detector for AuthCpuShift {
    fn id(&self) -> &'static str {
        "auth_cpu_shift"
    }

    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>) {
        let Some(connection) = &seen.connection else { return };
        match &seen.body {
            Body::Linked(timing) if seen.process.program.subject == connection.program.subject => {
                if let Some(drift) = drift_percent(world.own, timing) {
                    self.note_drift(connection.id, drift);
                }
            }
            Body::Closed => {
                self.drifts.remove(&connection.id);
            }
            Body::Verdict(verdict) if verdict.accepted && verdict.earlier == 0 => {
                if !connection.partial
                    && let Some(alarm) = self.judge(connection, verdict, world)
                {
                    out.push(draft(self.id(), connection, verdict, alarm));
                }
            }
            _ => {}
        }
    }

    fn readings(&mut self) -> Vec<Reading> {
        std::mem::take(&mut self.readings)
    }
}

impl AuthCpuShift {
    fn note_drift(&mut self, connection: ConnectionId, drift: u64) {
        if self.drifts.len() >= CONNECTIONS_MAX {
            self.drifts.pop_first();
        }
        self.drifts.insert(connection, drift);
    }

    fn judge(
        &mut self,
        connection: &Connection,
        verdict: &Verdict,
        world: &World<'_>,
    ) -> Option<Alarm> {
        let drift = self.drifts.get(&connection.id).copied();
        let stream = auth_stream(verdict.method);
        let mut reading = Reading::new(&connection.program.subject, stream, drift);
        let alarm = world.login.and_then(|login| {
            let wanted = u64::from(world.learning.observations);
            let usual = login.auth.get(&verdict.method).and_then(Samples::summary)?;
            let usual = Some(usual).filter(|usual| usual.count >= wanted)?;
            let us = verdict.cpu_ns / 1000;
            let limit_us = gross_us(&usual, world.detect.auth_gross_excess);
            if us > limit_us {
                return Some(Alarm { confidence: 0.9, limit_us, usual, run: None });
            }
            let found = weigh(login, us, &Rule::AUTH, world, &mut reading)?;
            found.weighed.alarm.then(|| Alarm {
                confidence: 0.6,
                limit_us: found.weighed.levels.small_us,
                usual: found.usual,
                run: Some(run_length_text(world.detect.run_length, "logins")),
            })
        });
        self.readings.push(reading);
        alarm
    }
}

fn draft(
    detector: &'static str,
    connection: &Connection,
    verdict: &Verdict,
    alarm: Alarm,
) -> Draft {
    let (spent, usually) = (us_seconds(verdict.cpu_ns / 1000), us_seconds(alarm.usual.median_us));
    let mut evidence = vec![Evidence::Timing {
        metric: "auth_cpu".to_owned(),
        seconds: spent,
        baseline_seconds: usually,
        limit_seconds: us_seconds(alarm.limit_us),
        samples: alarm.usual.count,
        module: None,
        module_seconds: None,
    }];
    evidence.extend(alarm.run.map(|text| Evidence::Note { text }));
    Draft {
        detector,
        family: Family::Sshd,
        severity: Severity::Medium,
        confidence: alarm.confidence,
        title: format!("a login by {} cost {spent} s of CPU, usually {usually} s", verdict.method),
        evidence,
        attack: &["T1556", "T1554"],
        object: format!("{} {}", verdict.method, connection.program.subject),
        program: Arc::clone(&connection.program),
        ktime_ns: None,
        explained_by: None,
    }
}
