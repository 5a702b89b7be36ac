//! `halfsecond incidents [ID]`: what the sensor has found, from the running sensor or its files; and
//! what people decide about it.

pub mod decide;
mod read;
pub(super) mod show;
mod suppressions;

use std::io::Write;
use std::path::Path;

use clap::Args;

use super::term::Style;
use super::{Exit, Failure, Global, ended};
use crate::config::Config;
use crate::incident::{Incident, Request, Suppression};
use decide::{Action, DecideError, Followed};

pub use read::{ReadStore, StoreError};

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub struct IncidentsArgs {
    /// Show this one: its id, or the beginning of it
    pub id: Option<String>,
    /// Decide about one instead.
    #[command(subcommand)]
    pub action: Option<Action>,
}

/// How the command reaches what is kept.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Every incident, while no sensor runs.
    pub read: ReadStore,
    /// Every suppression, while no sensor runs.
    pub suppressions: fn(&Path) -> Result<Vec<Suppression>, StoreError>,
    /// Has a decision followed, by the sensor that runs or in the store.
    pub decide: fn(&Config, &Request) -> Result<Followed, DecideError>,
}

/// Writes the incidents, newest first, or the one asked for, to `out`.
pub fn incidents(
    global: &Global,
    config: &Config,
    args: &IncidentsArgs,
    access: &Access,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    match (&args.action, &args.id) {
        (None, _) => {}
        (Some(action), None) => return decide::decide(global, config, action, access, out),
        (Some(_), Some(id)) => {
            let text = format!("give the id behind the word: `halfsecond incidents ack {id:?}`");
            return Err(Failure::Usage(text));
        }
    }
    tell(global, &read::incidents(config, access.read)?, args.id.as_deref(), out)
}

/// Writes incidents, or the one with this id.
pub(super) fn tell(
    global: &Global,
    all: &[Incident],
    id: Option<&str>,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let style = Style::stdout();
    if let Some(id) = id {
        let incident = find(all, id)?;
        let written =
            if global.json { line(out, incident) } else { show::one(out, incident, style) };
        return ended(written, Exit::Findings);
    }
    let written = if global.json {
        all.iter().try_for_each(|incident| line(out, incident))
    } else {
        show::list(out, all, style)
    };
    ended(written, if all.is_empty() { Exit::Success } else { Exit::Findings })
}

/// The incident with this id, or the only one whose id begins so.
pub(super) fn one(config: &Config, id: &str, read_store: ReadStore) -> Result<Incident, Failure> {
    find(&read::incidents(config, read_store)?, id).cloned()
}

fn line(out: &mut impl Write, incident: &Incident) -> std::io::Result<()> {
    writeln!(out, "{}", serde_json::to_string(incident)?)
}

fn find<'a>(all: &'a [Incident], id: &str) -> Result<&'a Incident, Failure> {
    if let Some(incident) = all.iter().find(|incident| incident.id == id) {
        return Ok(incident);
    }
    let mut beginning = all.iter().filter(|incident| !id.is_empty() && incident.id.starts_with(id));
    match (beginning.next(), beginning.next()) {
        (Some(incident), None) => Ok(incident),
        (Some(_), Some(_)) => Err(Failure::Usage(format!(
            "more than one incident id begins with {id:?}; give more of it"
        ))),
        (None, _) => Err(Failure::Usage(format!(
            "no incident has the id {id:?}; `halfsecond incidents` lists them"
        ))),
    }
}
