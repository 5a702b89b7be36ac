//! `halfsecond baseline diff`: this host's baselines against another's.

use std::io::{self, Write};
use std::path::Path;
use std::slice::from_ref;

use jiff::Timestamp;
use serde_json::json;
use tracing::warn;

use super::exchange::{read, sealed};
use super::find::{self, Known};
use crate::baseline::{Difference, Differs, Seal, differences};
use crate::cli::term::{Style, Tone, escape_json};
use crate::cli::{Exit, Failure, Global, ended};
use crate::config::Config;

/// `halfsecond baseline diff FILE [SUBJECT…]`. Looking needs no signature, but its lack is said.
pub(super) fn diff(
    global: &Global,
    config: &Config,
    file: &Path,
    subjects: &[String],
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let sealed = sealed(file)?;
    match sealed.seal() {
        Seal::Valid(_) => {}
        Seal::Unsigned => warn!(file = %file.display(), "the export is not signed"),
        Seal::Wrong(reason) => {
            warn!(file = %file.display(), reason, "the export is not what was signed");
        }
    }
    let export = read(&sealed, Timestamp::now())?;
    let (mut here, mut there) = (find::all(config)?, export.baselines);
    if !subjects.is_empty() {
        (here, there) = chosen(&here, &there, subjects)?;
    }
    let found = differences(&here, &there);
    let written = if global.json {
        found.iter().try_for_each(|one| {
            let line = json!({
                "host": export.head.host, "subject": one.subject,
                "other_build": one.other_build, "differs": one.differs,
            });
            writeln!(out, "{}", escape_json(&line.to_string()))
        })
    } else {
        text(out, &found, &export.head.host, Style::stdout())
    };
    ended(written, if found.is_empty() { Exit::Success } else { Exit::Findings })
}

/// On either side: a program may be known on one only.
fn chosen(here: &Known, there: &Known, subjects: &[String]) -> Result<(Known, Known), Failure> {
    let (mut ours, mut theirs) = (Known::new(), Known::new());
    for asked in subjects {
        let (own, other) = (find::only(here, from_ref(asked)), find::only(there, from_ref(asked)));
        match (own, other) {
            (Err(failure), Err(_)) => return Err(failure),
            (own, other) => {
                ours.extend(own.unwrap_or_default());
                theirs.extend(other.unwrap_or_default());
            }
        }
    }
    Ok((ours, theirs))
}

fn text(out: &mut impl Write, found: &[Difference], host: &str, style: Style) -> io::Result<()> {
    if found.is_empty() {
        return writeln!(out, "{}", style.paint(Tone::Plain, &format!("As on {host}.")));
    }
    for one in found {
        writeln!(out, "{}", style.paint(Tone::Bold, &one.subject))?;
        for differs in &one.differs {
            writeln!(out, "  {}", style.paint(Tone::Plain, &sentence(differs, host)))?;
        }
    }
    Ok(())
}

fn sentence(differs: &Differs, host: &str) -> String {
    let side = |here: bool| if here { "here".to_owned() } else { format!("on {host}") };
    let builds = |builds: &[String]| {
        if builds.is_empty() { "none".to_owned() } else { builds.join(", ") }
    };
    match differs {
        Differs::Program { here } => format!("only known {}", side(*here)),
        Differs::Build { here, there } => format!("another build: here {here}, on {host} {there}"),
        Differs::Library { soname, here, there } => {
            format!("{soname}: here {}; on {host} {}", builds(here), builds(there))
        }
        Differs::Known { kind, name, here } => {
            format!("{kind} {name}: only {}", side(*here))
        }
        Differs::Times { stream, seconds_here, seconds_there } => format!(
            "{stream}: median {:.2} ms here, {:.2} ms on {host}",
            seconds_here * 1e3,
            seconds_there * 1e3
        ),
    }
}
