//! `halfsecond incidents ack|close|reopen|suppress ID`: what a person decides about an incident.

use std::env;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{Access, find, read};
use crate::cli::term::escape_json;
use crate::cli::{Exit, Failure, Global, ended};
use crate::config::Config;
use crate::config::units::parse_duration;
use crate::incident::{Decision, Refusal, Request, State, Verb};

/// A suppression is looked at again at the latest after so long.
const LONGEST: Duration = Duration::from_hours(24 * 366);

/// What to do with incidents besides listing them.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Say that somebody sees to an incident: it does not close by itself, and is open again if it
    /// becomes worse
    Ack(Said),
    /// Say that an incident is over: what comes next is another one
    Close(Said),
    /// Say that an incident goes on; ends a suppression of it
    Reopen(Said),
    /// Say that what an incident consists of is to be expected for a time
    Suppress(Suppress),
    /// List the rules and decisions that suppress findings, with what each has matched
    Suppressions,
}

/// About which incident, and who says so.
#[derive(Args, Clone, Debug)]
pub struct Said {
    /// The incident: its id, or the beginning of it
    pub id: String,
    /// Who decides [default: who called sudo, else the user]
    #[arg(long, value_name = "NAME")]
    pub who: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
}

/// The same, with an end.
#[derive(Args, Clone, Debug)]
pub struct Suppress {
    /// The incident: its id, or the beginning of it
    pub id: String,
    /// For how long: a number with s, min, h or d, at most 366d
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    pub how_long: Duration,
    /// Who decides
    #[arg(long, value_name = "NAME")]
    pub who: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub why: String,
}

/// How a decision was followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// The running sensor has written it.
    BySensor(State),
    /// No sensor runs: it was written to the store.
    InStore(State),
    /// A sensor has the store and has not answered within the time.
    NotYet {
        /// For how long it was waited.
        patience: Duration,
        /// Where the request lies.
        request: PathBuf,
    },
}

/// Why a decision was not followed.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// It cannot be.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The sensor has refused it.
    #[error("{0}")]
    RefusedBySensor(String),
    /// The state directory is another user's.
    #[error("{0} may not be written by this user; run as root")]
    Denied(String),
    /// There is no store.
    #[error("{0}")]
    Absent(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Follows what `action` says; writes what came of it to `out`.
pub(super) fn decide(
    global: &Global,
    config: &Config,
    action: &Action,
    access: &Access,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let now = Timestamp::now();
    let (id, verb, who, why, how_long) = match action {
        Action::Ack(Said { id, who, why }) => {
            (id, Verb::Acknowledge, who.clone(), why.clone(), None)
        }
        Action::Close(Said { id, who, why }) => (id, Verb::Close, who.clone(), why.clone(), None),
        Action::Reopen(Said { id, who, why }) => (id, Verb::Reopen, who.clone(), why.clone(), None),
        Action::Suppress(Suppress { id, how_long, who, why }) => {
            (id, Verb::Suppress, Some(who.clone()), Some(why.clone()), Some(*how_long))
        }
        Action::Suppressions => return super::suppressions::list(global, config, access, out),
    };
    let until = how_long.and_then(|span| SignedDuration::try_from(span).ok());
    let decision = Decision {
        verb,
        time: now,
        who: who.unwrap_or_else(somebody),
        why: why.unwrap_or_default(),
        uid: rustix::process::getuid().as_raw(),
        until: until.and_then(|span| now.checked_add(span).ok()),
    };
    decision.check().map_err(|refusal| Failure::Usage(refusal.to_string()))?;
    let all = read::incidents(config, access.read)?;
    let request = Request { id: find(&all, id)?.id.clone(), decision };
    let followed = (access.decide)(config, &request).map_err(failure)?;
    let written = if global.json {
        writeln!(out, "{}", escape_json(&object(&request, &followed).to_string()))
    } else {
        text(out, &request, &followed)
    };
    let exit = match followed {
        Followed::NotYet { .. } => Exit::Internal,
        Followed::BySensor(_) | Followed::InStore(_) => Exit::Success,
    };
    ended(written, exit)
}

fn failure(error: DecideError) -> Failure {
    match error {
        DecideError::Refused(_) | DecideError::RefusedBySensor(_) | DecideError::Absent(_) => {
            Failure::Usage(error.to_string())
        }
        DecideError::Denied(_) => Failure::Unsupported(error.to_string()),
        DecideError::Other(_) => Failure::Internal {
            what: "the decision could not be written".to_owned(),
            source: Box::new(error),
        },
    }
}

fn text(out: &mut impl Write, request: &Request, followed: &Followed) -> io::Result<()> {
    let Request { id, decision } = request;
    let until = decision.until.map(|until| format!(" until {until:.0}")).unwrap_or_default();
    let done = |by: &dyn Display| format!("Incident {id} is {}{until}: {by}.", decision.verb);
    match followed {
        Followed::BySensor(_) => writeln!(out, "{}", done(&"the running sensor has taken it up")),
        Followed::InStore(_) => {
            writeln!(out, "{}", done(&"no sensor runs, and it stands in the store"))
        }
        Followed::NotYet { patience, request } => writeln!(
            out,
            "Not in effect yet: a sensor runs and has not answered within {} s. It follows the request \
             when it next keeps house or starts, unless {} is removed before.",
            patience.as_secs(),
            request.display()
        ),
    }
}

fn object(request: &Request, followed: &Followed) -> serde_json::Value {
    let (state, effective, by) = match followed {
        Followed::BySensor(state) => (Some(state), true, "sensor"),
        Followed::InStore(state) => (Some(state), true, "store"),
        Followed::NotYet { .. } => (None, false, "request"),
    };
    json!({
        "id": request.id, "decision": request.decision, "state": state, "effective": effective,
        "by": by,
    })
}

/// Who is at the keyboard, as far as the environment says.
fn somebody() -> String {
    let named = ["SUDO_USER", "LOGNAME", "USER"].into_iter().filter_map(|key| env::var(key).ok());
    let named = named.map(|name| name.trim().to_owned()).find(|name| !name.is_empty());
    named.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

fn span(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|span| !span.is_zero() && *span <= LONGEST)
        .ok_or_else(|| "write a number with s, min, h or d, at most 366d, like 30d".to_owned())
}
