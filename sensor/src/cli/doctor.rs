//! `halfsecond doctor`: the diagnosis, for people or as JSON lines.

use std::io::{self, Write};

use serde_json::json;

use super::term::{Style, Tone};
use super::{Exit, Failure, Global, ended};
use crate::config::{Config, LoadError};
use crate::doctor::{Check, CheckState, Diagnosis, Host, LIMITS, Live};
use crate::probe::ProbeReport;

/// Looks, and writes what was found to `out`. `try_probes` loads the probes for a moment, where
/// privilege allows and no sensor runs.
pub fn doctor(
    global: &Global,
    config: &Result<Config, LoadError>,
    try_probes: impl FnOnce(&Config) -> Vec<ProbeReport>,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let diagnosis = Diagnosis::make(&Host::this(), global.config_path(), config, try_probes);
    let exit = match config {
        Err(_) => Exit::Usage,
        Ok(_) if diagnosis.is_sound() => Exit::Success,
        Ok(_) => Exit::Unsupported,
    };
    let written = if global.json {
        write_json(out, &diagnosis)
    } else {
        write_text(out, &diagnosis, Style::stdout())
    };
    ended(written, exit)
}

/// One object per check (`kind` check), per probe (`kind` probe), per limit of every host (`kind`
/// limit), and for the sensor and the whole.
fn write_json(out: &mut impl Write, diagnosis: &Diagnosis) -> io::Result<()> {
    for check in &diagnosis.checks {
        writeln!(out, "{}", tagged("check", json!(check)))?;
    }
    for probe in &diagnosis.probes {
        writeln!(out, "{}", tagged("probe", json!(probe)))?;
    }
    for limit in LIMITS {
        writeln!(out, "{}", tagged("limit", json!(limit)))?;
    }
    let live = &diagnosis.live;
    writeln!(out, "{}", json!({"kind": "sensor", "state": live.word(), "reason": live.reason()}))?;
    writeln!(out, "{}", json!({"kind": "summary", "sound": diagnosis.is_sound()}))
}

fn tagged(kind: &str, mut value: serde_json::Value) -> serde_json::Value {
    if let Some(object) = value.as_object_mut() {
        object.insert("kind".to_owned(), json!(kind));
    }
    value
}

fn write_text(out: &mut impl Write, diagnosis: &Diagnosis, style: Style) -> io::Result<()> {
    writeln!(out, "{}", style.paint(Tone::Bold, "Host"))?;
    let rows: Vec<_> = diagnosis.checks.iter().map(check_row).collect();
    style.table(out, &rows)?;
    writeln!(out, "\n{}", style.paint(Tone::Bold, "Sensor"))?;
    writeln!(out, "{}", style.paint(Tone::Plain, &sensor_line(&diagnosis.live)))?;
    writeln!(out, "\n{}", style.paint(Tone::Bold, "Probes"))?;
    match &diagnosis.live {
        _ if !diagnosis.probes.is_empty() => {}
        Live::Answered(_) => writeln!(out, "Not known yet: the sensor is attaching them.")?,
        _ => writeln!(out, "Not tried: the configuration is wrong.")?,
    }
    write_probes(out, &diagnosis.probes, style)?;
    write_blind_spots(out, diagnosis, style)
}

/// Where all are missing for one reason, it is said once.
fn write_probes(out: &mut impl Write, probes: &[ProbeReport], style: Style) -> io::Result<()> {
    let mut reasons = probes.iter().map(|probe| probe.reason.as_deref());
    let common = reasons.next().flatten().filter(|first| {
        reasons.all(|reason| reason == Some(first))
            && probes.iter().all(|probe| probe.mechanism.is_none())
    });
    if let Some(reason) = common {
        writeln!(out, "{}", style.paint(Tone::Bad, &format!("None can be attached: {reason}")))?;
    }
    let rows: Vec<_> = probes.iter().map(|probe| probe_row(probe, common.is_none())).collect();
    style.table(out, &rows)
}

fn write_blind_spots(out: &mut impl Write, diagnosis: &Diagnosis, style: Style) -> io::Result<()> {
    let of_checks = diagnosis.checks.iter().filter(|check| check.state != CheckState::Ok);
    let mut lines: Vec<_> = of_checks
        .filter_map(|check| Some(format!("- {} ({})", check.unseen.as_ref()?, check.check)))
        .collect();
    let of_probes = diagnosis.probes.iter().filter(|probe| probe.mechanism.is_none());
    lines.extend(of_probes.map(|probe| format!("- {} (probe {})", probe.unseen, probe.probe)));
    let remedies = diagnosis
        .checks
        .iter()
        .filter(|check| check.state != CheckState::Ok)
        .filter_map(|check| Some(format!("- {}: {}", check.check, check.remedy.as_ref()?)));
    let limits = LIMITS.iter().map(|limit| format!("- {} ({})", limit.unseen, limit.limit));
    let sections = [
        ("Not seen", lines),
        ("What to do", remedies.collect()),
        ("Not seen on any host", limits.collect()),
    ];
    for (heading, lines) in sections {
        if lines.is_empty() {
            continue;
        }
        writeln!(out, "\n{}", style.paint(Tone::Bold, heading))?;
        for line in lines {
            writeln!(out, "{}", style.paint(Tone::Plain, &line))?;
        }
    }
    Ok(())
}

fn check_row(check: &Check) -> Vec<(Tone, String)> {
    let (tone, word) = match check.state {
        CheckState::Ok => (Tone::Good, "ok"),
        CheckState::Degraded => (Tone::Warn, "degraded"),
        CheckState::Missing => (Tone::Bad, "missing"),
        CheckState::Unknown => (Tone::Warn, "unknown"),
    };
    vec![
        (Tone::Plain, check.check.to_owned()),
        (tone, word.to_owned()),
        (Tone::Plain, check.found.replace('\n', " | ")),
    ]
}

fn probe_row(probe: &ProbeReport, with_reason: bool) -> Vec<(Tone, String)> {
    let (tone, state) = match (&probe.mechanism, probe.required) {
        (Some(mechanism), _) => (Tone::Good, mechanism.clone()),
        (None, true) => (Tone::Bad, "not attached".to_owned()),
        (None, false) => (Tone::Warn, "not attached".to_owned()),
    };
    let reason = probe.reason.as_ref().filter(|_| with_reason);
    let note: Vec<_> = probe.price.as_ref().into_iter().chain(reason).cloned().collect();
    vec![(Tone::Plain, probe.probe.clone()), (tone, state), (Tone::Plain, note.join("; "))]
}

fn sensor_line(live: &Live) -> String {
    match live {
        Live::Answered(state) if state.ready => "Runs, and is armed.".to_owned(),
        Live::Answered(state) => {
            format!(
                "Runs, and is not armed: {}",
                state.reason.as_deref().unwrap_or("no reason given")
            )
        }
        Live::NotRunning(text) => format!("Does not run: {text}."),
        Live::Foreign(text) => format!("Does not answer: {text}."),
        Live::NotAsked(text) => format!("Was not asked: {text}."),
    }
}
