//! `halfsecond logins`: who logged in over ssh or through libpam, how, with what outcome, and what it
//! cost.

mod around;
mod ask;
mod bins;
mod plot;
mod series;
mod show;
mod svg;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use jiff::{SignedDuration, Timestamp};

use super::save::save;
use super::term::{Style, escape_json};
use super::{Exit, Failure, Global, ended};
use crate::config::units::parse_duration;
use crate::config::{Config, host_name};
use crate::logins::{ANSWER_MAX, Login, Query};
use series::Split;

pub(super) use around::Around;

/// Rows of a table where nobody asks for more.
const ROWS: usize = 100;

/// Arguments of the command.
#[derive(Args, Clone, Debug, Default)]
pub struct LoginsArgs {
    /// Only those that began then or later: how long ago, like 2h or 7d, or a time of RFC 3339
    #[arg(long, value_name = "DURATION|TIME", value_parser = since)]
    pub since: Option<Since>,
    /// Only those of this user, by the exact name
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// At most so many, the newest [default: 100 in a table, else 20000]
    #[arg(
        long,
        value_name = "N",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=ANSWER_MAX as u64),
    )]
    pub limit: Option<usize>,
    /// Draw how the CPU times to the verdict and of linking are distributed, before and after
    /// --since or the latest incident about them
    #[arg(long, conflicts_with = "json")]
    pub plot: bool,
    /// Write the same as a picture to FILE
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub svg: Option<PathBuf>,
}

/// A moment as a person gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So long ago.
    Ago(Duration),
    /// Then.
    At(Timestamp),
}

/// Writes the logins, newest first, or their distributions, to `out`.
pub fn logins(
    global: &Global,
    config: &Config,
    args: &LoginsArgs,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let since = args.since.map(|since| since.before(Timestamp::now()));
    if args.plot || args.svg.is_some() {
        return draw(config, args, since, out);
    }
    let most = if global.json { ANSWER_MAX } else { ROWS };
    let limit = args.limit.unwrap_or(most);
    let found = ask::logins(config, &Query { since, user: args.user.clone(), limit })?;
    let written = if global.json {
        if found.more {
            tracing::warn!("there are older ones: see --limit, --since and --user");
        }
        found.logins.iter().try_for_each(|login| line(out, login))
    } else {
        show::list(out, &found, Style::stdout())
    };
    ended(written, Exit::Success)
}

fn draw(
    config: &Config,
    args: &LoginsArgs,
    since: Option<Timestamp>,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let limit = args.limit.unwrap_or(ANSWER_MAX);
    // What was before is half of the picture.
    let found = ask::logins(config, &Query { since: None, user: args.user.clone(), limit })?;
    let split = match since {
        Some(at) => Some(Split { at, incident: None }),
        None => ask::split(config, &found.logins),
    };
    let series = series::of(&found.logins, split.as_ref());
    if let Some(file) = &args.svg {
        let picture = svg::picture(&series, &title(args), split.as_ref());
        save(file, &picture).map_err(|source| Failure::Internal {
            what: format!("cannot write {}", file.display()),
            source: Box::new(source),
        })?;
    }
    if !args.plot {
        return Ok(Exit::Success);
    }
    let marks = plot::Marks::of_locale(&|name| std::env::var(name).ok());
    ended(plot::text(out, &series, split.as_ref(), marks, Style::stdout()), Exit::Success)
}

fn title(args: &LoginsArgs) -> String {
    let of = args.user.as_ref().map(|user| format!(" of {user}")).unwrap_or_default();
    format!("ssh logins{of} on {}", host_name())
}

/// One JSON object; what steers a terminal is escaped, which JSON itself asks for only below U+0020.
fn line(out: &mut impl Write, login: &Login) -> io::Result<()> {
    writeln!(out, "{}", escape_json(&serde_json::to_string(login)?))
}

/// Reads `2h` or `2026-11-21T10:00:00Z`.
pub(super) fn since(text: &str) -> Result<Since, String> {
    let ago = parse_duration(text).map(Since::Ago);
    ago.or_else(|| text.parse().ok().map(Since::At)).ok_or_else(|| {
        "write how long ago with its unit (ns, us, ms, s, min, h or d), like 2h, or a time, like \
         2026-11-21T10:00:00Z"
            .to_owned()
    })
}

// === impl Since ===

impl Since {
    /// The moment, at `now`.
    pub(super) fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => {
                let ago = SignedDuration::try_from(ago).unwrap_or(SignedDuration::MAX);
                now.checked_sub(ago).unwrap_or(Timestamp::MIN)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_duration_or_a_time() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-11-21T12:00:00Z");
        for (text, expected) in [
            ("2h", "2026-11-21T10:00:00Z"),
            ("1d", "2026-11-20T12:00:00Z"),
            ("2026-11-21T10:00:00+01:00", "2026-11-21T09:00:00Z"),
        ] {
            assert_eq!(since(text).unwrap().before(now), at(expected), "{text}");
        }
        assert_eq!(since("200000d").unwrap().before(now), at("1479-04-23T12:00:00Z"));
        for text in ["", "yesterday", "2", "-1h"] {
            assert!(since(text).unwrap_err().contains("like 2h"), "{text}");
        }
    }
}
