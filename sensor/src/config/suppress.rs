//! `[[suppress]]`: findings that are to be expected, by where the file they blame comes from.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use toml::de::DeValue;

use super::reader::{Section, Wrong};
use crate::metrics::DETECTORS;

/// Rules of a configuration; each has a label of a metric.
pub const RULES_MAX: usize = 64;
const NAME_MAX: usize = 40;
const TEXT_MAX: usize = 1000;

/// A rule: which findings are to be expected until when, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppress {
    /// Unique; label of its metric.
    pub name: String,
    /// Detector id.
    pub detector: Option<String>,
    /// Path of the program of this host, or a whole subject.
    pub subject: Option<String>,
    /// Package that has brought the blamed file as it is: its name, or name and version.
    pub package: Option<String>,
    /// Build-id of the blamed file, hex.
    pub build_id: Option<String>,
    /// SHA-256 of the blamed file, hex.
    pub sha256: Option<String>,
    /// The last instant at which it holds.
    pub until: Timestamp,
    /// Who answers for it.
    pub who: String,
    /// Why.
    pub why: String,
}

/// The rules of the file; one that would match anything of a name is refused.
pub(super) fn rules(top: &mut Section<'_, '_>) -> Vec<Suppress> {
    let mut rules: Vec<Suppress> = Vec::new();
    for mut entry in top.sections("suppress", RULES_MAX).unwrap_or_default() {
        let name = entry.require("name", "\"edr-agent\"", name);
        if let Some(name) = &name
            && rules.iter().any(|rule| rule.name == *name)
        {
            let what = format!("two rules of `suppress` have the name {name:?}");
            entry.refuse(what, "give each a name of its own");
        }
        if let Some(rule) = rule(&mut entry, name) {
            rules.push(rule);
        }
        entry.finish();
    }
    rules
}

fn rule(entry: &mut Section<'_, '_>, name: Option<String>) -> Option<Suppress> {
    let detector = entry.get("detector", None, |value| detector(value).map(Some));
    let subject = entry.get("subject", None, |value| subject(value).map(Some));
    let package = entry.get("package", None, |value| package(value).map(Some));
    let build_id = entry.get("build_id", None, |value| hex(value, 8..=128).map(Some));
    let sha256 = entry.get("sha256", None, |value| hex(value, 64..=64).map(Some));
    let until = entry.require("until", "\"2027-01-31\"", until);
    let who = entry.require("who", "\"alice\"", said);
    let why = entry.require("why", "\"the tracer of ticket 4711\"", said);
    let named = ["subject", "package", "build_id", "sha256"];
    if !named.into_iter().any(|key| entry.has(key)) {
        entry.refuse(
            "a rule of `suppress` says neither whose finding it is nor which file is blamed",
            "add `subject`, `package`, `build_id` or `sha256`: the name of a process is everybody's",
        );
    }
    Some(Suppress {
        name: name?,
        detector,
        subject,
        package,
        build_id,
        sha256,
        until: until?,
        who: who?,
        why: why?,
    })
}

/// Fit for a label.
fn name(value: &DeValue<'_>) -> Result<String, Wrong> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    text(value, NAME_MAX, fits)
        .ok_or_else(|| wrong("is no name of a rule", "write up to 40 of a-z, 0-9, -, _ and ."))
}

fn detector(value: &DeValue<'_>) -> Result<String, Wrong> {
    let known = value.as_str().filter(|text| DETECTORS.contains(text));
    known
        .map(str::to_owned)
        .ok_or_else(|| wrong("is no detector", format!("write one of {}", DETECTORS.join(", "))))
}

fn subject(value: &DeValue<'_>) -> Result<String, Wrong> {
    text(value, 4096, |c| !c.is_control()).filter(|text| text.starts_with('/')).ok_or_else(|| {
        wrong(
            "is no program's path",
            "write a path that begins with /, alone or with the rest of a finding's `subject`",
        )
    })
}

fn package(value: &DeValue<'_>) -> Result<String, Wrong> {
    let named = text(value, 255, |c| c.is_ascii_graphic() || c == ' ');
    named.filter(|text| text.split(' ').count() <= 2 && !text.starts_with(' ')).ok_or_else(|| {
        wrong("is no package", "write its name, or name and version: \"libedr1 2.4-1\"")
    })
}

fn hex(value: &DeValue<'_>, lengths: std::ops::RangeInclusive<usize>) -> Result<String, Wrong> {
    let (least, most) = (lengths.start(), lengths.end());
    let count = if least == most { format!("{most}") } else { format!("{least} to {most}") };
    let remedy = format!("write {count} hexadecimal digits");
    text(value, *lengths.end(), |c| c.is_ascii_hexdigit())
        .filter(|text| lengths.contains(&text.len()))
        .map(|text| text.to_ascii_lowercase())
        .ok_or_else(|| wrong("is no such number", remedy))
}

fn said(value: &DeValue<'_>) -> Result<String, Wrong> {
    text(value, TEXT_MAX, |c| !c.is_control())
        .filter(|text| !text.trim().is_empty())
        .ok_or_else(|| wrong("says nothing", "write who or why in some words"))
}

/// A day, to its end in UTC, or an instant; as TOML's own or as a text.
fn until(value: &DeValue<'_>) -> Result<Timestamp, Wrong> {
    let own = value.as_datetime().map(ToString::to_string);
    let text = own.as_deref().or_else(|| value.as_str()).unwrap_or_default();
    let instant = || text.parse::<Timestamp>().ok();
    let day = text.parse::<Date>().ok().filter(|_| text.len() == "2027-01-31".len());
    day.and_then(end_of).or_else(instant).ok_or_else(|| {
        wrong(
            "is no time",
            "write a day or a time of RFC 3339: \"2027-01-31\", \"2027-01-31T18:00:00Z\"",
        )
    })
}

fn end_of(day: Date) -> Option<Timestamp> {
    let next = day.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
    next.checked_sub(SignedDuration::from_nanos(1)).ok()
}

fn text(value: &DeValue<'_>, most: usize, fits: impl Fn(char) -> bool) -> Option<String> {
    let text = value.as_str()?;
    let short = !text.is_empty() && text.len() <= most;
    (short && text.chars().all(fits)).then(|| text.to_owned())
}

fn wrong(what: &str, remedy: impl Into<String>) -> Wrong {
    Wrong { what: what.to_owned(), remedy: remedy.into() }
}
