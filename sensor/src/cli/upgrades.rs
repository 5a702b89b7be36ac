//! `halfsecond upgrades`: which packages changed lately, and what each changed in behaviour.

mod behaviour;
mod show;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use jiff::Timestamp;
use serde::Serialize;
use tracing::warn;

use super::logins::{Since, since};
use super::term::{Style, escape_json};
use super::{Exit, Failure, Global, ended};
use crate::config::Config;
use crate::package::history::{self, PackageChange};
use crate::package::{PackageError, Root};
use crate::trouble::chain;
use behaviour::{Behaviour, Known};

/// Rows of a table where nobody asks for more, and changes that are listed at most.
const ROWS: usize = 50;
const CHANGES_MAX: usize = 20_000;
/// What reading may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of the command.
#[derive(Args, Clone, Debug, Default)]
pub struct UpgradesArgs {
    /// Only changes of then or later: how long ago, like 2h or 7d, or a time of RFC 3339
    #[arg(long, value_name = "DURATION|TIME", value_parser = since)]
    pub since: Option<Since>,
    /// At most so many, the newest [default: 50 in a table, else 20000]
    #[arg(
        long,
        value_name = "N",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=CHANGES_MAX as u64),
    )]
    pub limit: Option<usize>,
    /// The packages of the system below DIR instead of this one's
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

/// A change and what it changed.
#[derive(Debug, Serialize)]
struct Upgrade {
    #[serde(flatten)]
    change: PackageChange,
    /// By program; `None` where no baselines tell.
    behaviour: Option<Vec<Behaviour>>,
}

/// Writes the changes, newest first, to `out`.
pub fn upgrades(
    global: &Global,
    config: &Config,
    args: &UpgradesArgs,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let root = root(args)?;
    let since = args.since.map_or(Timestamp::MIN, |since| since.before(Timestamp::now()));
    let limit = args.limit.unwrap_or(if global.json { CHANGES_MAX } else { ROWS });
    let mut history =
        history::read(&root, since, limit, PATIENCE).map_err(|error| unread(&error))?;
    for reason in history.gaps.iter().chain(&history.limits) {
        warn!(reason, "not everything is told");
    }
    // The baselines are those of this host's programs.
    let known = if args.root.is_some() { None } else { known(config) };
    let upgrades = upgrades_of(std::mem::take(&mut history.changes), known, &root);
    let written = if global.json {
        if history.more {
            warn!("there are older ones: see --limit and --since");
        }
        upgrades.iter().try_for_each(|upgrade| line(out, upgrade))
    } else {
        show::list(out, &upgrades, &history, Style::stdout())
    };
    ended(written, Exit::Success)
}

/// `None` where none can be read, which is said.
fn known(config: &Config) -> Option<Known> {
    Known::read(&config.state_dir)
        .inspect_err(|error| {
            let reason = chain(error);
            warn!(reason, "no baselines are read: what a change changed in behaviour is not told");
        })
        .ok()
}

fn upgrades_of(changes: Vec<PackageChange>, mut known: Option<Known>, root: &Root) -> Vec<Upgrade> {
    let mut later: HashMap<(String, Option<String>), Timestamp> = HashMap::new();
    let each = changes.into_iter().map(|change| {
        let next = later.insert((change.package.clone(), change.arch.clone()), change.time);
        let behaviour = known.as_mut().map(|known| known.behaviour(root, &change, next));
        Upgrade { change, behaviour }
    });
    each.collect()
}

fn root(args: &UpgradesArgs) -> Result<Root, Failure> {
    let Some(folder) = &args.root else {
        return Root::host().map_err(|source| Failure::Internal {
            what: "cannot open /".to_owned(),
            source: Box::new(source),
        });
    };
    let opened = File::open(folder).and_then(|folder| Root::from_fd(OwnedFd::from(folder)));
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Failure::Unsupported(format!("{}: {error}; run as root", folder.display()))
        }
        _ => Failure::Usage(format!("{}: {error}; name a directory", folder.display())),
    })
}

/// Where there is nothing to read, or it is of a kind that is not read, this host has not what is needed.
fn unread(error: &PackageError) -> Failure {
    Failure::Unsupported(chain(error))
}

/// One JSON object; what steers a terminal is escaped, which JSON itself asks for only below U+0020.
fn line(out: &mut impl Write, upgrade: &Upgrade) -> io::Result<()> {
    writeln!(out, "{}", escape_json(&serde_json::to_string(upgrade)?))
}
