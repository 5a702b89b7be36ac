//! Following people's decisions: in the running sensor, and in the store while none runs.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;

use crate::cli::incidents::Access;
use crate::cli::incidents::decide::{DecideError, Followed};
use crate::config::{Config, host_name};
use crate::host::Clock;
use crate::incident::{
    Answer, Entry, Incident, IncidentStore, IncidentUpdate, Incidents, Refusal, Request, Standing,
    StoreError, Suppressions, Verb, submit,
};
use crate::record::Recorded;
use crate::spool::{Came, SpoolError};
use crate::trouble::chain;

use super::incidents::{read_store, read_suppressions};

/// The sensor keeps house every `learning.flush_every`, which is 2 s unless it is configured.
const PATIENCE: Duration = Duration::from_secs(15);

/// How commands reach the incidents.
pub const ACCESS: Access =
    Access { read: read_store, suppressions: read_suppressions, decide: follow };

/// Why a request was not followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// For good.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store could not be written: it is tried again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Follows `request` in the sensor that runs, and writes what it changes. What a failed write leaves is
/// tried again with the same request, which changes nothing that is changed already.
pub(super) fn settle_live(
    request: &Request,
    analysis: &mut Recorded,
    store: &IncidentStore,
) -> Result<IncidentUpdate, Failed> {
    let Request { id, decision } = request;
    let update = analysis.decide(id, store.entry(id)?, decision, Clock::ktime_ns())?;
    keep(analysis.incidents(), store)?;
    Ok(update)
}

/// The same where no sensor runs.
fn settle(
    request: &Request,
    incidents: &mut Incidents,
    store: &IncidentStore,
) -> Result<Incident, Failed> {
    let Request { id, decision } = request;
    let incident = incidents.decide(id, store.entry(id)?, decision, Clock::ktime_ns())?;
    keep(incidents, store)?;
    Ok(incident)
}

fn keep(incidents: &mut Incidents, store: &IncidentStore) -> Result<(), StoreError> {
    incidents.save(|entries| store.put(entries).map(|_| ()))?;
    incidents.suppressions().save(|all| store.put_suppressions(all))
}

/// What the store and the configuration say is to be expected; tells what does nothing.
pub(super) fn suppressions(config: &Config, store: &IncidentStore) -> Suppressions {
    let kept = store.suppressions().unwrap_or_else(|error| {
        warn!(%error, "what was suppressed cannot be read: only the configuration's rules hold");
        Vec::new()
    });
    let now = Timestamp::now();
    let all = Suppressions::new(&config.suppress, kept, now);
    for one in all.iter() {
        if one.standing(now) == Standing::Expired {
            warn!(
                suppression = one.label(),
                until = %one.until,
                "a suppression has expired: remove it, or set another end"
            );
        } else if one.idle(now) {
            warn!(
                suppression = one.label(),
                since = %one.since,
                "a suppression has never matched anything"
            );
        }
    }
    all
}

/// For the command line: by the sensor that runs, else in the store.
fn follow(config: &Config, request: &Request) -> Result<Followed, DecideError> {
    let state_dir = config.state_dir.as_path();
    let store = match IncidentStore::open_existing(state_dir) {
        Ok(store) => store,
        Err(StoreError::InUse { .. }) => return ask(state_dir, request),
        Err(error) => return Err(of_store(error)),
    };
    if request.decision.verb == Verb::Reopen {
        let other = replaced_by(&request.id, &store).map_err(of_store)?;
        other.map_or(Ok(()), |other| Err(Refusal::Replaced(other)))?;
    }
    let mut incidents = Incidents::new(config.detect.incident_window, host_name());
    let kept = store.suppressions().map_err(of_store)?;
    incidents.set_suppressions(Suppressions::new(&config.suppress, kept, Timestamp::now()));
    match settle(request, &mut incidents, &store) {
        Ok(incident) => Ok(Followed::InStore(incident.state)),
        Err(Failed::Refused(refusal)) => Err(refusal.into()),
        Err(Failed::Store(error)) => Err(of_store(error)),
    }
}

/// Another incident of the same program that a sensor will go on with when it starts.
fn replaced_by(id: &str, store: &IncidentStore) -> Result<Option<String>, StoreError> {
    let Some(entry) = store.entry(id)? else { return Ok(None) };
    let same = |one: &Entry| one.lineage == entry.lineage && one.incident.id != entry.incident.id;
    Ok(store.open_entries()?.into_iter().find(same).map(|one| one.incident.id))
}

fn ask(state_dir: &Path, request: &Request) -> Result<Followed, DecideError> {
    let left = submit(state_dir, request).map_err(|error| of_spool(&error))?;
    match left.wait(PATIENCE).map_err(|error| of_spool(&error))? {
        Came::Answered(Answer::Done(state)) => Ok(Followed::BySensor(state)),
        Came::Answered(Answer::Refused(reason)) => Err(DecideError::RefusedBySensor(reason)),
        Came::Waits(path) | Came::Taken(path) => {
            Ok(Followed::NotYet { patience: PATIENCE, request: path })
        }
        Came::Unanswered => Err(DecideError::Other(
            "the sensor could not say what came of the request: its log does, and `halfsecond \
             incidents ID`"
                .to_owned(),
        )),
    }
}

fn of_spool(error: &SpoolError) -> DecideError {
    error.denied().map_or_else(
        || DecideError::Other(chain(error)),
        |path| DecideError::Denied(path.display().to_string()),
    )
}

fn of_store(error: StoreError) -> DecideError {
    match error {
        StoreError::Missing { .. } => DecideError::Absent(error.to_string()),
        StoreError::Io { ref source, ref path, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            DecideError::Denied(path.display().to_string())
        }
        other => DecideError::Other(chain(&other)),
    }
}

#[cfg(test)]
mod tests;
