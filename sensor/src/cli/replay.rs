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
use crate::record::{
    Change, Counts, Ended, Header, Reader, Replayed, Settings, diff, replay_with_rules,
};

pub(super) const HELP: &str = "\
Examples:
  halfsecond replay host.rec                      the incidents of the recording
  halfsecond replay host.rec 7f3a9c21             one of them
  halfsecond replay host.rec --diff strict.toml   what another configuration changes
  halfsecond replay host.rec --json > before.jsonl
  halfsecond replay host.rec --diff before.jsonl  what another build has changed

Runs the same detectors by the clock of the recording, with the settings that stand in it, or
those of --config ([detect], [learning], [patrol], [[suppress]], `provenance`). What people decided
about incidents while it was recorded is followed again. Needs no privilege, no agent and no kernel
feature, and keeps nothing.

--diff lists incidents that were added, removed or changed: from the recording's settings to
OTHER, or from the incidents in OTHER to those of this build. So `--diff rules.toml` shows what
other [[suppress]] rules hide, and what they hide no more.
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
    let config = match &global.config {
        Some(path) => Some(Config::load(Some(path))?),
        None => None,
    };
    let Some(other) = &args.diff else {
        let (header, replayed) = play(&args.file, config.as_ref())?;
        if !global.json && args.id.is_none() {
            let written = about(out, &header, &replayed);
            if written.is_err() {
                return ended(written, Exit::Findings);
            }
        }
        return incidents::tell(global, &replayed.incidents, args.id.as_deref(), out);
    };
    let (_, here) = play(&args.file, config.as_ref())?;
    let changes = if other.extension().is_some_and(|extension| extension == "toml") {
        let other = Config::load(Some(other))?;
        diff(&here.incidents, &play(&args.file, Some(&other))?.1.incidents)
    } else {
        diff(&saved(other)?, &here.incidents)
    };
    let written =
        if global.json { write_json(out, &changes) } else { write(out, &changes, Style::stdout()) };
    ended(written, if changes.is_empty() { Exit::Success } else { Exit::Findings })
}

/// With the settings and rules of `config`, or else those of the recording.
fn play(path: &Path, config: Option<&Config>) -> Result<(Header, Replayed), Failure> {
    let told = |text: String| Failure::Usage(format!("{}: {text}", path.display()));
    let file = File::open(path).map_err(|error| told(error.to_string()))?;
    let mut reader = Reader::open(BufReader::new(file)).map_err(|error| told(error.to_string()))?;
    let header = reader.header().clone();
    let settings = config.map_or(header.settings, Settings::of);
    let rules = config.map(|config| config.suppress.as_slice());
    // Nobody has checked what the observations of a file somebody made up say.
    let played = catch_unwind(AssertUnwindSafe(|| {
        replay_with_rules(&mut reader, &settings, rules, &mut |_| {})
    }));
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
    if counts.unfollowed > 0 {
        tracing::warn!(
            %path,
            decisions = counts.unfollowed,
            "people decided about incidents that are not told here, or stand otherwise: not followed"
        );
    }
    if counts.omitted > 0 {
        tracing::warn!(%path, omitted = counts.omitted, "there were more incidents than are kept");
    }
}

fn about(out: &mut impl Write, header: &Header, replayed: &Replayed) -> io::Result<()> {
    let Header { host, agent, begun, redacted, .. } = header;
    let Counts { observations, decisions, suppressed, .. } = replayed.counts;
    let what = [
        Some(format!("{observations} observations")),
        (decisions > 0).then(|| counted(decisions, "decision")),
        (suppressed > 0).then(|| format!("{} suppressed", counted(suppressed, "finding"))),
        redacted.then(|| "without arguments".to_owned()),
    ];
    let what: Vec<String> = what.into_iter().flatten().collect();
    writeln!(
        out,
        "Recording of {}, begun {begun:.0} by halfsecond {}: {}.\n",
        clean(host),
        clean(agent),
        what.join(", "),
    )
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
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
