//! Where logins come from: the running sensor, else what it has written.

use std::collections::BTreeSet;
use std::io;

use serde_json::Value;
use tracing::{debug, warn};

use super::series::Split;
use crate::cli::Failure;
use crate::config::Config;
use crate::finding::Finding;
use crate::http::client::{self, AskError, encoded};
use crate::incident::Incident;
use crate::logins::{ANSWER_MAX, Login, Query, read};

/// Detectors of incidents that a distribution is split at.
const TIMING: [&str; 2] = ["link_time_shift", "auth_cpu_shift"];

/// An answer.
#[derive(Debug)]
pub(super) struct Found {
    /// Newest first.
    pub(super) logins: Vec<Login>,
    /// There are older ones.
    pub(super) more: bool,
}

pub(super) fn logins(config: &Config, query: &Query) -> Result<Found, Failure> {
    match from_sensor(config, query)? {
        Some(found) => Ok(found),
        None => from_file(config, query),
    }
}

/// `None` where no sensor answers.
fn from_sensor(config: &Config, query: &Query) -> Result<Option<Found>, Failure> {
    let Some(listen) = config.http.listen else { return Ok(None) };
    let answer = match client::get(listen, &address(query)) {
        Ok(answer) => answer,
        Err(error @ AskError::NotRunning { .. }) => {
            debug!(%error, "reading the file instead");
            return Ok(None);
        }
        Err(error) => {
            warn!(%error, "reading the file instead");
            return Ok(None);
        }
    };
    let mut json = answer.json();
    if answer.status != 200 {
        let reason = json.and_then(|json| Some(json.get("error")?.as_str()?.to_owned()));
        return Err(Failure::Internal {
            what: format!("the sensor on {listen} cannot list its logins; is it an older one?"),
            source: reason.unwrap_or_else(|| answer.text()).into(),
        });
    }
    let more = json.as_ref().and_then(|json| json.get("more")?.as_bool()).unwrap_or_default();
    let logins = json.as_mut().and_then(|json| json.get_mut("logins").map(Value::take));
    let logins = logins.and_then(|logins| serde_json::from_value(logins).ok());
    if logins.is_none() {
        warn!(%listen, "the program there does not answer as a sensor; reading the file instead");
    }
    Ok(logins.map(|logins| Found { logins, more }))
}

fn address(query: &Query) -> String {
    let mut address = format!("/api/v1/logins?limit={}", query.limit);
    if let Some(since) = query.since {
        address.push_str("&since=");
        address.push_str(&encoded(&since.to_string()));
    }
    if let Some(user) = &query.user {
        address.push_str("&user=");
        address.push_str(&encoded(user));
    }
    address
}

fn from_file(config: &Config, query: &Query) -> Result<Found, Failure> {
    let folder = config.state_dir.display();
    let wanted = |login: &Login| query.matches(login);
    let past =
        read(&config.state_dir, ANSWER_MAX, wanted).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Failure::Usage(format!(
                "{}, and none has written logins to {folder}; start one, for example by \
                 `systemctl start halfsecond` or `halfsecond run`",
                silent(config)
            )),
            io::ErrorKind::PermissionDenied => Failure::Unsupported(format!(
                "{}, and the logins in {folder} may not be read by this user; start one, or run \
                 as root",
                silent(config)
            )),
            _ => Failure::Internal {
                what: format!("cannot read the logins in {folder}"),
                source: Box::new(source),
            },
        })?;
    warn!("{}: telling what was written to {folder}", silent(config));
    if past.unreadable > 0 {
        warn!(unreadable = past.unreadable, "lines that are no logins");
    }
    let mut logins = Vec::from(past.logins);
    logins.sort_by(|a, b| b.start.cmp(&a.start).then_with(|| b.pid.cmp(&a.pid)));
    let more = past.cut || logins.len() > query.limit;
    logins.truncate(query.limit);
    Ok(Found { logins, more })
}

fn silent(config: &Config) -> String {
    match config.http.listen {
        Some(listen) => format!("no sensor answers on {listen}"),
        None => "no sensor is asked (`http.listen` = \"off\")".to_owned(),
    }
}

/// Where the latest incident about the times of these logins' programs begins; `None` where there is
/// none, or nobody to ask, which is said.
pub(super) fn split(config: &Config, logins: &[Login]) -> Option<Split> {
    let Some(incidents) = incidents(config) else {
        warn!(
            "{}: when an incident about times began is not known, and nothing is divided into \
             before and after; --since gives a moment",
            silent(config)
        );
        return None;
    };
    let subjects: BTreeSet<&str> = logins.iter().map(|login| &*login.subject).collect();
    let began = |incident: &Incident| {
        let timed = |finding: &&Finding| {
            TIMING.contains(&finding.detector.as_str())
                && subjects.contains(finding.subject.as_str())
        };
        incident.findings.iter().filter(timed).map(|finding| finding.time).min()
    };
    let all = incidents.iter().filter_map(|incident| Some((began(incident)?, &incident.id)));
    let (at, id) = all.max()?;
    Some(Split { at, incident: Some(id.clone()) })
}

/// `None` where no sensor tells.
fn incidents(config: &Config) -> Option<Vec<Incident>> {
    let answer = client::get(config.http.listen?, "/api/v1/incidents").ok()?;
    let incidents = answer.json()?.get_mut("incidents")?.take();
    serde_json::from_value(incidents).ok()
}
