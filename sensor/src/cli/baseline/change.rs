//! Changes to the store: by the sensor that runs, else by this command, and when they took effect.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tracing::warn;

use super::find;
use crate::baseline::{
    Act, Answer, Baselines, Done, Measure, Opened, OrderError, Placed, Sent, Store, WriterLock,
};
use crate::cli::term::{Style, Tone, escape_json};
use crate::cli::{Exit, Failure, Global, ended};
use crate::config::Config;

/// How long another command may be at work.
const COMMAND: Duration = Duration::from_secs(1);
/// What a sensor may take for a change, beside the time until its next flush.
const SENSOR: Duration = Duration::from_secs(20);

/// Who made a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Sensor,
    Command,
}

/// A change that is on the disk.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    pub(super) by: By,
    pub(super) time: Timestamp,
    pub(super) done: Done,
}

// === impl By ===

impl By {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sensor => "sensor",
            Self::Command => "command",
        }
    }
}

// === impl Changed ===

impl Changed {
    /// When it took effect, and by whose hand.
    pub(super) fn when(&self) -> String {
        let by = match self.by {
            By::Sensor => "the running sensor has it",
            By::Command => "no sensor runs; the next one will have it",
        };
        format!("in effect since {:.0}: {by}", self.time)
    }
}

/// `halfsecond baseline forget`.
pub(super) fn forget(
    global: &Global,
    config: &Config,
    asked: &str,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let known = find::all(config)?;
    let (subject, _) = find::one(&known, asked)?;
    let changed = change_one(config, Act::Forget { subject: subject.clone() })?;
    let written = if global.json {
        let line = json!({
            "subject": subject, "forgotten": true, "time": changed.time, "by": changed.by.name(),
        });
        writeln!(out, "{}", escape_json(&line.to_string()))
    } else {
        let style = Style::stdout();
        let text = format!("forgot {subject}: it is learned anew; {}", changed.when());
        writeln!(out, "{}", style.paint(Tone::Plain, &text))
    };
    ended(written, Exit::Success)
}

/// One change.
pub(super) fn change_one(config: &Config, act: Act) -> Result<Changed, Failure> {
    let mut changed = change(config, vec![act])?;
    changed.pop().ok_or_else(|| Failure::Internal {
        what: "the change has no answer".to_owned(),
        source: "none was given".into(),
    })
}

/// Several, in order. Where one fails, those before it are in effect, which the error says.
pub(super) fn change(config: &Config, acts: Vec<Act>) -> Result<Vec<Changed>, Failure> {
    let dir = &config.state_dir;
    make(dir).map_err(|source| state_dir(dir, source))?;
    match WriterLock::take(dir, COMMAND).map_err(|source| state_dir(dir, source))? {
        Some(lock) => write(config, &acts, &lock),
        None => send(config, acts),
    }
}

/// For a host whose sensor has yet to run.
fn make(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn state_dir(path: &Path, source: io::Error) -> Failure {
    if source.kind() == io::ErrorKind::PermissionDenied {
        return Failure::Unsupported(format!("{}: {source}; run as root", path.display()));
    }
    Failure::StateDir { path: path.to_owned(), source }
}

/// Nobody else has the store, for as long as the lock is held.
fn write(config: &Config, acts: &[Act], _lock: &WriterLock) -> Result<Vec<Changed>, Failure> {
    let (store, opened) = Store::open(&config.state_dir);
    match opened {
        Opened::Ready => {}
        Opened::SetAside { moved_to, reason } => {
            warn!(moved_to = %moved_to.display(), reason, "the store was damaged: it starts anew");
        }
        Opened::InMemory { reason } => return Err(unwritten(reason)),
    }
    let (mut baselines, measure) = (Baselines::new(store), Measure::new(config));
    let mut all = Vec::new();
    for act in acts {
        let done = baselines.obey(act, &measure).map_err(Failure::Usage)?;
        baselines.flush(true);
        if let Some(reason) = baselines.failure() {
            return Err(unwritten(reason.to_owned()));
        }
        all.push(Changed { by: By::Command, time: Timestamp::now(), done });
    }
    Ok(all)
}

fn unwritten(reason: String) -> Failure {
    let what = "the baselines cannot be written; is a sensor of an earlier version running?";
    Failure::Internal { what: what.to_owned(), source: reason.into() }
}

/// To the sensor that has the store.
fn send(config: &Config, acts: Vec<Act>) -> Result<Vec<Changed>, Failure> {
    let failed = |error: OrderError| Failure::Internal {
        what: "the sensor was not reached".to_owned(),
        source: Box::new(error),
    };
    let all = acts.len();
    let left = acts.into_iter().map(|act| Placed::leave(&config.state_dir, act));
    let left: Vec<Placed> = left.collect::<Result<_, _>>().map_err(failed)?;
    let mut patience = config.learning.flush_every.saturating_mul(2).saturating_add(SENSOR);
    let (mut changed, mut problem) = (Vec::new(), None);
    for placed in left {
        match placed.wait(patience).map_err(failed).and_then(answered) {
            Ok(one) => changed.push(one),
            Err(failure) => {
                // Those behind it are withdrawn, unless they were taken as well.
                patience = Duration::ZERO;
                problem.get_or_insert(failure);
            }
        }
    }
    let Some(failure) = problem else { return Ok(changed) };
    if all > 1 {
        warn!("{} of {all} parts are in effect", changed.len());
    }
    Err(failure)
}

fn answered(sent: Sent) -> Result<Changed, Failure> {
    let Sent::Answered(Answer { time, done, refused }) = sent else {
        return Err(Failure::Internal {
            what: "the sensor has the order and could not write it yet".to_owned(),
            source: "it is carried out as soon as the store can be written, see the sensor's log"
                .into(),
        });
    };
    match done {
        Some(done) => Ok(Changed { by: By::Sensor, time, done }),
        None => Err(Failure::Usage(refused.unwrap_or_else(|| "the sensor refused".to_owned()))),
    }
}
