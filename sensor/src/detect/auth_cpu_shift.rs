//! `auth_cpu_shift`: the CPU time of a login, or of checking its proof, leaves its method's baseline.
//!
//! Only first answers that are positive are compared, bet on and learned: a failed try costs time of
//! its own, and strangers must teach nothing.
//!
//! Two times are measured, both of all the connection's processes (`Verdict`):
//!
//! * The check, from the network child's question for the user (`MONITOR_REQ_PWNAM`) to the verdict:
//!   looking the user up, PAM's start, the key or the password. It is bet on, and a single gross one
//!   alarms, but only where it is comparable: at most one public key was offered, and nothing else was
//!   tried (`host/tries.rs`).
//! * All since accept. Part of that is the client's choice: the key exchange, the cipher, how many keys
//!   it offers. Whoever may log in can make it look costly, and a client that changes its ways changes
//!   it. So nothing is bet on it, and only a gross excess alarms, which the check's own would not tell:
//!   in start-up, linking or the key exchange.
//!
//! What is left to the client of the check: the type of its key, whether it asks before it signs, how
//! many rounds of a dialogue it needs, and what it sends meanwhile for nothing. Of the key exchange the
//! last tick may be counted to the check, as a running process is accounted for by ticks.

use std::collections::BTreeMap;
use std::sync::Arc;

use sensor_stats::Rule;

use super::timing::{
    crept, crept_text, drift_percent, gross_us, is_calm, run_length_text, us_seconds, usual, weigh,
};
use super::{Detector, Draft, Reading, World};
use crate::baseline::{Baseline, Samples, Summary, check_stream};
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
    severity: Severity,
    measure: Measure,
    us: u64,
    confidence: f64,
    limit_us: u64,
    usual: Summary,
    /// The run of logins that has led to it.
    run: Option<String>,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// From accept to the verdict.
    Whole,
    /// From the question for the user to the verdict.
    Check,
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
        let stream = check_stream(verdict.method);
        let mut reading = Reading::new(&connection.program.subject, stream, drift);
        let alarm = world.login.and_then(|login| {
            // While there is a shift, no other login teaches.
            reading.calm = is_calm(login, &reading.stream, world);
            // Gross ones are not bet on. Which are, the time before the check decides, or the check by
            // being long: that leaves out no bet that would have been lost for being short.
            gross_check(login, verdict, &reading.stream, world)
                .or_else(|| gross_whole(login, verdict, world))
                .or_else(|| shifted_check(login, verdict, world, &mut reading))
        });
        self.readings.push(reading);
        alarm
    }
}

/// The time of checking the proof, by itself.
fn gross_check(
    login: &Baseline,
    verdict: &Verdict,
    stream: &str,
    world: &World<'_>,
) -> Option<Alarm> {
    let us = verdict.check_ns? / 1000;
    gross(Measure::Check, us, usual(login, stream, world)?, world)
}

/// The same in its run.
fn shifted_check(
    login: &Baseline,
    verdict: &Verdict,
    world: &World<'_>,
    reading: &mut Reading,
) -> Option<Alarm> {
    let us = verdict.check_ns? / 1000;
    let found = weigh(login, us, &Rule::AUTH, world, reading)?;
    let crept = crept(login, &reading.stream).filter(|_| !found.weighed.alarm);
    if let Some(crept) = crept {
        reading.crept = true;
        return Some(Alarm {
            severity: Severity::Low,
            measure: Measure::Check,
            us: crept.median_us,
            confidence: 0.4,
            limit_us: crept.limit_us,
            usual: found.usual,
            run: Some(crept_text(crept, "logins")),
        });
    }
    found.weighed.alarm.then(|| Alarm {
        severity: Severity::Medium,
        measure: Measure::Check,
        us,
        confidence: 0.6,
        limit_us: found.weighed.levels.small_us,
        usual: found.usual,
        run: Some(run_length_text(world.detect.run_length, "logins")),
    })
}

/// All time since accept, by itself.
fn gross_whole(login: &Baseline, verdict: &Verdict, world: &World<'_>) -> Option<Alarm> {
    let wanted = u64::from(world.learning.observations);
    let usual = login.auth.get(&verdict.method).and_then(Samples::summary)?;
    let usual = Some(usual).filter(|usual| usual.count >= wanted)?;
    gross(Measure::Whole, verdict.cpu_ns / 1000, usual, world)
}

fn gross(measure: Measure, us: u64, usual: Summary, world: &World<'_>) -> Option<Alarm> {
    let limit_us = gross_us(&usual, world.detect.auth_gross_excess);
    let severity = Severity::Medium;
    let alarm = Alarm { severity, measure, us, confidence: 0.9, limit_us, usual, run: None };
    (us > limit_us).then_some(alarm)
}

// === impl Measure ===

impl Measure {
    /// As evidence calls it.
    fn metric(self) -> &'static str {
        match self {
            Self::Whole => "auth_cpu",
            Self::Check => "check_cpu",
        }
    }

    /// What has cost so much, as the beginning of a sentence.
    fn text(self) -> &'static str {
        match self {
            Self::Whole => "a login",
            Self::Check => "checking a login",
        }
    }
}

fn draft(
    detector: &'static str,
    connection: &Connection,
    verdict: &Verdict,
    alarm: Alarm,
) -> Draft {
    let Alarm { severity, measure, us, confidence, limit_us, usual, run } = alarm;
    let (spent, usually) = (us_seconds(us), us_seconds(usual.median_us));
    let mut evidence = vec![Evidence::Timing {
        metric: measure.metric().to_owned(),
        seconds: spent,
        baseline_seconds: usually,
        limit_seconds: us_seconds(limit_us),
        samples: usual.count,
        module: None,
        module_seconds: None,
    }];
    evidence.extend(run.map(|text| Evidence::Note { text }));
    let (what, method) = (measure.text(), verdict.method);
    Draft {
        detector,
        family: Family::Sshd,
        severity,
        confidence,
        title: format!("{what} by {method} cost {spent} s of CPU, usually {usually} s"),
        evidence,
        attack: &["T1556", "T1554"],
        object: format!("{method} {}", connection.program.subject),
        program: Arc::clone(&connection.program),
        ktime_ns: None,
        explained_by: None,
    }
}
