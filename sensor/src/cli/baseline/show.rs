//! `halfsecond baseline show`: all baselines in a table, or one in full.

use std::io::{self, Write};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::find;
use super::package::Owners;
use crate::baseline::{Baseline, Criteria, Standing, State, SubjectName};
use crate::cli::term::{Style, Tone, escape_json};
use crate::cli::{Exit, Failure, Global, ended};
use crate::config::Config;
use crate::host::{ModuleId, seconds};

/// Digits of a build-id that tell builds apart in a table.
const BUILD_DIGITS: usize = 12;

/// `halfsecond baseline show`.
pub(super) fn list(
    global: &Global,
    config: &Config,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let known = find::all(config)?;
    let written = if global.json {
        known.iter().try_for_each(|(subject, baseline)| {
            let criteria = find::criteria(config, subject);
            let line = summary(subject, baseline, &criteria);
            writeln!(out, "{}", escape_json(&line.to_string()))
        })
    } else if known.is_empty() {
        writeln!(out, "No baselines: no sensor has learned anything here.")
    } else {
        let heading = ["STATE", "SEEN", "LIBRARIES", "FIRST SEEN", "LAST SEEN", "SUBJECT", "WHY"];
        let mut rows = vec![heading.map(|text| (Tone::Bold, text.to_owned())).to_vec()];
        for (subject, baseline) in &known {
            let criteria = find::criteria(config, subject);
            rows.push(row(subject, baseline, &baseline.standing(&criteria)));
        }
        Style::stdout().table(out, &rows)
    };
    ended(written, Exit::Success)
}

fn row(subject: &str, baseline: &Baseline, standing: &Standing) -> Vec<(Tone, String)> {
    let plain = |text: String| (Tone::Plain, text);
    vec![
        (tone(standing.state), standing.state.name().to_owned()),
        plain(baseline.starts.to_string()),
        plain(baseline.libraries.len().to_string()),
        plain(time(baseline.first_seen)),
        plain(time(baseline.last_seen)),
        plain(short(subject)),
        plain(standing.reasons.join("; ")),
    ]
}

/// The path and enough of the build to find it by.
fn short(subject: &str) -> String {
    let SubjectName { path, build, home } = SubjectName::of(subject);
    let build: String = build.chars().take(BUILD_DIGITS).collect();
    let home = home.split(':').next().unwrap_or_default();
    [path, &build, home].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{time:.0}"))
}

fn tone(state: State) -> Tone {
    match state {
        State::Learning => Tone::Plain,
        State::Settled => Tone::Good,
        State::Drifting => Tone::Warn,
    }
}

fn summary(subject: &str, baseline: &Baseline, criteria: &Criteria) -> Value {
    let SubjectName { path, build, home } = SubjectName::of(subject);
    let standing = baseline.standing(criteria);
    json!({
        "subject": subject, "program": path, "build": build, "container": home,
        "guarded": criteria.guarded, "unit": criteria.unit,
        "state": standing.state, "reasons": standing.reasons,
        "starts": baseline.starts, "libraries": baseline.libraries.len(),
        "first_seen": baseline.first_seen, "last_seen": baseline.last_seen,
        "approvals": baseline.approvals.len(), "imports": baseline.imports.len(),
    })
}

/// `halfsecond baseline show SUBJECT`.
pub(super) fn one(
    global: &Global,
    config: &Config,
    asked: &str,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let known = find::all(config)?;
    let (subject, baseline) = find::one(&known, asked)?;
    let shown = Shown {
        subject,
        baseline,
        criteria: find::criteria(config, subject),
        style: Style::stdout(),
    };
    let mut owners = Owners::of(subject);
    let written = if global.json {
        writeln!(out, "{}", escape_json(&shown.object(&mut owners).to_string()))
    } else {
        shown.text(&mut owners, out)
    };
    ended(written, Exit::Success)
}

struct Shown<'a> {
    subject: &'a str,
    baseline: &'a Baseline,
    criteria: Criteria,
    style: Style,
}

/// Heading and lines of one part.
type Part = (&'static str, Vec<Vec<(Tone, String)>>);

// === impl Shown ===

impl Shown<'_> {
    fn object(&self, owners: &mut Owners) -> Value {
        let mut object = summary(self.subject, self.baseline, &self.criteria);
        let packages: serde_json::Map<String, Value> = self
            .baseline
            .libraries
            .iter()
            .filter_map(|(one, _)| Some((one.path.clone(), owners.package(&one.path)?.into())))
            .collect();
        let streams: Vec<Value> = self
            .baseline
            .shifts
            .iter()
            .map(|(stream, shift)| {
                let known = shift.yardstick();
                let at = |us: u64| seconds(us.saturating_mul(1000));
                json!({
                    "stream": stream, "samples": shift.reference().count(),
                    "median_seconds": known.map(|known| at(known.median_us)),
                    "mad_seconds": known.map(|known| at(known.mad_us)),
                    "evidence": shift.wealth().lasting(),
                    "drifts_from": self.criteria.drifts_from(),
                    "alarm_at": self.criteria.run_length,
                    "usual_at": self.baseline.usual_at.get(stream),
                })
            })
            .collect();
        if let Some(object) = object.as_object_mut() {
            object.insert("packages".to_owned(), packages.into());
            object.insert("streams".to_owned(), streams.into());
            object.insert("baseline".to_owned(), json!(self.baseline));
        }
        object
    }

    fn text(&self, owners: &mut Owners, out: &mut impl Write) -> io::Result<()> {
        let Self { baseline, criteria, style, .. } = self;
        let Standing { state, reasons } = baseline.standing(criteria);
        writeln!(out, "{}", style.paint(Tone::Bold, self.subject))?;
        let state = style.paint(tone(state), state.name());
        writeln!(out, "{state}: {}", style.paint(Tone::Plain, &reasons.join("; ")))?;
        writeln!(
            out,
            "{} {}, first {}, last {}",
            baseline.starts,
            criteria.unit,
            time(baseline.first_seen),
            time(baseline.last_seen)
        )?;
        for (heading, rows) in self.parts(owners) {
            if !rows.is_empty() {
                writeln!(out, "\n{}", style.paint(Tone::Bold, heading))?;
                style.table(out, &rows)?;
            }
        }
        Ok(())
    }

    fn parts(&self, owners: &mut Owners) -> Vec<Part> {
        let baseline = self.baseline;
        let lines = |names: &mut dyn Iterator<Item = String>| -> Vec<Vec<(Tone, String)>> {
            names.map(|name| cells([name])).collect()
        };
        vec![
            ("Approved by a person", self.approvals()),
            ("Imported", self.imports()),
            ("Libraries: build, package now, first seen", self.libraries(owners)),
            ("Callers of guarded functions", self.callers()),
            ("Opened after the start, and by whom", self.askers()),
            ("Loader variables", lines(&mut baseline.environment.iter().cloned())),
            ("Runs below sshd before the login", lines(&mut baseline.helpers.iter().cloned())),
            ("Instruments the host", lines(&mut baseline.instruments.iter().cloned())),
            ("Logins by method", self.methods()),
            ("CPU times: median, spread, samples, evidence of a shift", self.streams()),
        ]
    }

    fn approvals(&self) -> Vec<Vec<(Tone, String)>> {
        let each = self.baseline.approvals.iter();
        each.map(|one| {
            cells([
                format!("{:.0}", one.time),
                one.who.clone(),
                format!("{}: {}", one.object.shown(), one.why),
            ])
        })
        .collect()
    }

    fn imports(&self) -> Vec<Vec<(Tone, String)>> {
        let each = self.baseline.imports.iter();
        each.map(|one| {
            let signed = match (&one.signer, one.forced) {
                (Some(key), _) => (Tone::Plain, format!("signed by {key}")),
                (None, _) => (Tone::Warn, "by force: nobody vouches for it".to_owned()),
            };
            let mut row = cells([format!("{:.0}", one.time), format!("from {}", one.host)]);
            row.push(signed);
            row
        })
        .collect()
    }

    fn libraries(&self, owners: &mut Owners) -> Vec<Vec<(Tone, String)>> {
        let each = self.baseline.libraries.iter();
        each.map(|(module, seen)| {
            let package = owners.package(&module.path).unwrap_or_else(|| "-".to_owned());
            let first = format!("{:.0}", seen.first);
            cells([module.path.clone(), module.build.clone(), package, first])
        })
        .collect()
    }

    fn callers(&self) -> Vec<Vec<(Tone, String)>> {
        let mut rows = Vec::new();
        for (function, callers) in &self.baseline.callers {
            let calls = format!("{} calls", callers.calls);
            rows.extend(by(function, &calls, callers.modules.iter()));
        }
        rows
    }

    fn askers(&self) -> Vec<Vec<(Tone, String)>> {
        let mut rows = Vec::new();
        for (library, askers) in &self.baseline.openings.askers {
            rows.extend(by(library, "", askers.iter()));
        }
        for library in self.baseline.openings.unasked.keys() {
            rows.push(cells([library.clone(), "by".to_owned(), "(not seen)".to_owned()]));
        }
        rows
    }

    fn methods(&self) -> Vec<Vec<(Tone, String)>> {
        let each = self.baseline.methods.iter();
        each.map(|(method, logins)| cells([method.to_string(), logins.to_string()])).collect()
    }

    fn streams(&self) -> Vec<Vec<(Tone, String)>> {
        let ms = |us: u64| format!("{:.2} ms", seconds(us.saturating_mul(1000)) * 1e3);
        let (from, alarm) = (self.criteria.drifts_from(), self.criteria.run_length);
        let each = self.baseline.shifts.iter();
        each.map(|(stream, shift)| {
            let (median, spread) = shift.yardstick().map_or_else(
                || ("-".to_owned(), "-".to_owned()),
                |known| (ms(known.median_us), format!("± {}", ms(known.mad_us))),
            );
            let held = shift.wealth().lasting();
            let tone = if held >= from { Tone::Warn } else { Tone::Plain };
            let samples =
                format!("{} of {}", shift.reference().count(), sensor_stats::REFERENCE_MAX);
            let mut row = cells([stream.clone(), median, spread, samples]);
            row.push((tone, format!("{held} of {alarm}")));
            row
        })
        .collect()
    }
}

fn cells<const N: usize>(texts: [String; N]) -> Vec<(Tone, String)> {
    texts.map(|text| (Tone::Plain, text)).to_vec()
}

/// `NAME by PATH BUILD NOTE`.
fn by<'a>(
    name: &str,
    note: &str,
    modules: impl Iterator<Item = &'a ModuleId>,
) -> Vec<Vec<(Tone, String)>> {
    modules
        .map(|one| {
            let place = format!("{} {}", one.path, one.build);
            cells([name.to_owned(), "by".to_owned(), place, note.to_owned()])
        })
        .collect()
}
