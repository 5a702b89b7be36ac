//! `halfsecond replay FILE`: the incidents of a recording, and how others compare with them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use clap::Args;

use super::term::{Style, Tone, clean, severity_tone};
use super::{Exit, Failure, Global, ended, incidents};
use crate::config::Config;
use crate::incident::Incident;
use crate::metrics::severity_label;
use crate::record::{Change, Ended, Header, Reader, Replayed, Settings, diff, replay};

pub(super) const HELP: &str = "\
Examples:
  halfsecond replay host.rec                      the incidents of the recording
  halfsecond replay host.rec 7f3a9c21             one of them
  halfsecond replay host.rec --diff strict.toml   what another configuration changes
  halfsecond replay host.rec --json > before.jsonl
  halfsecond replay host.rec --diff before.jsonl  what another build has changed

Runs the same detectors by the clock of the recording, with the settings that stand in it, or
those of --config ([detect], [learning], [patrol], `provenance`). Needs no privilege, no agent and
no kernel feature, and keeps nothing.

--diff lists incidents that were added, removed or changed: from the recording's settings to
OTHER, or from the incidents in OTHER to those of this build.
Exits with 1 if there are incidents, with --diff if any differ; with 2 if FILE cannot be read.";

/// Longer than any incident we write.
const LINE_MAX: u64 = 8 << 20;

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The recording
    pub file: PathBuf,
    /// Show this incident: its id, or the beginning of it
    #[arg(conflicts_with = "diff")]
    pub id: Option<String>,
    /// Compare: with the incidents under another configuration (a file named *.toml), or with
    /// incidents that were written by another build or by the sensor itself (JSON lines)
    #[arg(long, value_name = "OTHER")]
    pub diff: Option<PathBuf>,
}

/// Replays a recording, and writes its incidents or how others differ to `out`.
pub fn replayed(global: &Global, args: &ReplayArgs, out: &mut impl Write) -> Result<Exit, Failure> {
    let settings = match &global.config {
        Some(path) => Some(Settings::of(&Config::load(Some(path))?)),
        None => None,
    };
    let Some(other) = &args.diff else {
        let (header, replayed) = play(&args.file, settings)?;
        if !global.json && args.id.is_none() {
            let written = about(out, &header, &replayed);
            if written.is_err() {
                return ended(written, Exit::Findings);
            }
        }
        return incidents::tell(global, &replayed.incidents, args.id.as_deref(), out);
    };
    let (_, here) = play(&args.file, settings)?;
    let changes = if other.extension().is_some_and(|extension| extension == "toml") {
        let others = Settings::of(&Config::load(Some(other))?);
        diff(&here.incidents, &play(&args.file, Some(others))?.1.incidents)
    } else {
        diff(&saved(other)?, &here.incidents)
    };
    let written =
        if global.json { write_json(out, &changes) } else { write(out, &changes, Style::stdout()) };
    ended(written, if changes.is_empty() { Exit::Success } else { Exit::Findings })
}

fn play(path: &Path, settings: Option<Settings>) -> Result<(Header, Replayed), Failure> {
    let told = |text: String| Failure::Usage(format!("{}: {text}", path.display()));
    let file = File::open(path).map_err(|error| told(error.to_string()))?;
    let mut reader = Reader::open(BufReader::new(file)).map_err(|error| told(error.to_string()))?;
    let header = reader.header().clone();
    let settings = settings.unwrap_or(header.settings);
    // Nobody has checked what the observations of a file somebody made up say.
    let played = catch_unwind(AssertUnwindSafe(|| replay(&mut reader, &settings, &mut |_| {})));
    let played =
        played.map_err(|_| told("it cannot be replayed: no sensor saw such things".into()))?;
    let replayed = played.map_err(|error| told(crate::trouble::chain(&error)))?;
    warn(path, &replayed);
    Ok((header, replayed))
}

/// What keeps the incidents from being those that were told live.
fn warn(path: &Path, replayed: &Replayed) {
    let path = path.display();
    if let Ended::Cut { offset } = replayed.ended {
        tracing::warn!(%path, offset, "the recording was cut after this byte: replayed up to there");
    }
    let counts = &replayed.counts;
    if counts.unanswered > 0 || counts.unasked > 0 {
        let (unanswered, unasked) = (counts.unanswered, counts.unasked);
        tracing::warn!(
            %path,
            unanswered,
            unasked,
            "other slot checks were asked for than when it was recorded; the processes of those \
             that are not in it count as ended"
        );
    }
    if counts.omitted > 0 {
        tracing::warn!(%path, omitted = counts.omitted, "there were more incidents than are kept");
    }
}

fn about(out: &mut impl Write, header: &Header, replayed: &Replayed) -> io::Result<()> {
    let Header { host, agent, begun, redacted, .. } = header;
    writeln!(
        out,
        "Recording of {}, begun {begun:.0} by halfsecond {}: {} observations{}.\n",
        clean(host),
        clean(agent),
        replayed.counts.observations,
        if *redacted { ", without arguments" } else { "" },
    )
}

/// The last state of every incident in a file.
fn saved(path: &Path) -> Result<Vec<Incident>, Failure> {
    let told = |text: String| Failure::Usage(format!("{}{text}", path.display()));
    let file = File::open(path).map_err(|error| told(format!(": {error}")))?;
    let mut reader = BufReader::new(file);
    let mut last = HashMap::new();
    for number in 1_u64.. {
        let mut line = Vec::new();
        let read = reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
        if read.map_err(|error| told(format!(": {error}")))? == 0 {
            break;
        }
        let incident: Incident = serde_json::from_slice(&line).map_err(|error| {
            told(format!(
                ":{number}: no incident: {error}; give what `halfsecond replay FILE --json` or \
                 `halfsecond incidents --json` wrote, or a configuration (*.toml)"
            ))
        })?;
        last.insert(incident.id.clone(), incident);
    }
    let mut all: Vec<_> = last.into_values().collect();
    all.sort_by(|a, b| b.opened.cmp(&a.opened).then_with(|| b.id.cmp(&a.id)));
    Ok(all)
}

fn write_json(out: &mut impl Write, changes: &[Change]) -> io::Result<()> {
    changes.iter().try_for_each(|change| writeln!(out, "{}", serde_json::to_string(change)?))
}

fn write(out: &mut impl Write, changes: &[Change], style: Style) -> io::Result<()> {
    if changes.is_empty() {
        return writeln!(out, "The incidents are the same.");
    }
    for change in changes {
        let (sign, tone, differs): (_, _, &[String]) = match change {
            Change::Added { .. } => ("added", Tone::Warn, &[]),
            Change::Removed { .. } => ("removed", Tone::Warn, &[]),
            Change::Changed { differs, .. } => ("changed", Tone::Bold, differs),
        };
        let incident = change.incident();
        let severity = severity_label(incident.severity);
        writeln!(
            out,
            "{} {} {} {:.0} {}",
            style.paint(tone, &format!("{sign:8}")),
            incident.id,
            style.paint(severity_tone(incident.severity), severity),
            incident.opened,
            clean(&incident.title)
        )?;
        for clause in differs {
            writeln!(out, "         {}", clean(clause))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
