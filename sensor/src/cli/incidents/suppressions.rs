//! `halfsecond incidents suppressions`: what is suppressed, by whose word, and what that has done.

use std::io::{self, Write};

use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::{Access, StoreError};
use crate::cli::term::{Style, Tone, escape_json};
use crate::cli::{Exit, Failure, Global, ended};
use crate::config::Config;
use crate::http::client;
use crate::incident::{Origin, Standing, Suppression};

/// What is known of one.
struct Row {
    suppression: Suppression,
    /// The sensor, or the store, has it.
    known: bool,
}

/// Writes all of them to `out`.
pub(super) fn list(
    global: &Global,
    config: &Config,
    access: &Access,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let now = Timestamp::now();
    let rows = merged(config, known(config, access)?, now);
    let written = if global.json {
        let line = |row: &Row| escape_json(&object(row, now).to_string());
        rows.iter().try_for_each(|row| writeln!(out, "{}", line(row)))
    } else {
        text(out, &rows, now, Style::stdout())
    };
    ended(written, Exit::Success)
}

/// What the running sensor says, else what the store has.
fn known(config: &Config, access: &Access) -> Result<Vec<Suppression>, Failure> {
    if let Some(listen) = config.http.listen {
        match client::get(listen, "/api/v1/suppressions") {
            Ok(answer) if answer.status == 200 => {
                let found =
                    answer.json().and_then(|mut json| Some(json.get_mut("suppressions")?.take()));
                if let Some(all) = found.and_then(|found| serde_json::from_value(found).ok()) {
                    return Ok(all);
                }
                warn!(%listen, "the program there does not answer as a sensor; reading the store");
            }
            Ok(answer) => {
                warn!(status = answer.status, "the sensor cannot list them; reading the store");
            }
            Err(error) => debug!(%error, "reading the store instead"),
        }
    }
    match (access.suppressions)(&config.state_dir) {
        Ok(all) => Ok(all),
        Err(StoreError::Absent(_)) => Ok(Vec::new()),
        Err(error @ (StoreError::Denied(_) | StoreError::InUse)) => {
            Err(Failure::Unsupported(format!("{error}; run as root, with `http.listen` set")))
        }
        Err(error) => Err(Failure::Internal {
            what: format!("cannot read the store in {}", config.state_dir.display()),
            source: Box::new(error),
        }),
    }
}

/// The configuration's rules first. One that the sensor has not met yet suppresses nothing; one that it
/// still has and that the file no longer says ends with its next start.
fn merged(config: &Config, known: Vec<Suppression>, now: Timestamp) -> Vec<Row> {
    let mut rows: Vec<Row> = config
        .suppress
        .iter()
        .map(|rule| {
            let rule = Suppression::of_rule(rule, now);
            match known.iter().find(|one| one.asks_the_same(&rule)) {
                // Its end, author and reason are the file's.
                Some(one) if one.until == rule.until => {
                    Row { suppression: one.clone(), known: true }
                }
                _ => Row { suppression: rule, known: false },
            }
        })
        .collect();
    let others = known.into_iter().filter(|one| one.origin == Origin::Incident);
    rows.extend(others.map(|suppression| Row { suppression, known: true }));
    rows
}

fn object(row: &Row, now: Timestamp) -> Value {
    let mut value = json!(row.suppression);
    if let Some(object) = value.as_object_mut() {
        object.remove("keys");
        object.insert("standing".to_owned(), json!(row.suppression.standing(now)));
        object.insert("in_effect".to_owned(), json!(row.known));
    }
    value
}

fn text(out: &mut impl Write, rows: &[Row], now: Timestamp, style: Style) -> io::Result<()> {
    if rows.is_empty() {
        return writeln!(out, "Nothing is suppressed.");
    }
    let heading = ["NAME", "STANDING", "MATCHES", "LATEST", "UNTIL", "WHAT", "WHO", "WHY"];
    let mut table = vec![heading.map(|text| (Tone::Bold, text.to_owned())).to_vec()];
    table.extend(rows.iter().map(|row| {
        let one = &row.suppression;
        let (tone, standing) = standing(row, now);
        let latest = one.last_match.map_or_else(|| "-".to_owned(), |time| format!("{time:.0}"));
        vec![
            (Tone::Plain, one.name.clone()),
            (tone, standing),
            (Tone::Plain, one.matches.to_string()),
            (Tone::Plain, latest),
            (Tone::Plain, format!("{:.0}", one.until)),
            (Tone::Plain, what(one)),
            (Tone::Plain, one.who.clone()),
            (Tone::Plain, one.why.clone()),
        ]
    }));
    style.table(out, &table)
}

fn standing(row: &Row, now: Timestamp) -> (Tone, String) {
    let one = &row.suppression;
    match one.standing(now) {
        Standing::Expired => (Tone::Warn, "expired".to_owned()),
        _ if !row.known => (Tone::Warn, "not yet: restart the sensor".to_owned()),
        Standing::Unmatched => (Tone::Warn, format!("never matched since {:.0}", one.since)),
        Standing::Active => (Tone::Good, "active".to_owned()),
    }
}

/// What it goes by, in the words of the configuration.
fn what(one: &Suppression) -> String {
    let keys = [
        ("detector", &one.detector),
        ("subject", &one.subject),
        ("package", &one.package),
        ("build_id", &one.build_id),
        ("sha256", &one.sha256),
    ];
    let parts: Vec<String> =
        keys.iter().filter_map(|(key, value)| Some(format!("{key} {}", value.as_ref()?))).collect();
    match one.origin {
        Origin::Rule => parts.join(", "),
        Origin::Incident => format!("{} findings of that incident", one.keys.len()),
    }
}
