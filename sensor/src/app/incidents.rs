//! Kept incidents as the pages and the command line read them.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tracing::warn;

use crate::cli::incidents::StoreError as ReadError;
use crate::incident::{
    Incident, IncidentReader, IncidentStore, StoreError, StoreLimits, Suppression,
};
use crate::status::IncidentSource;

/// Most incidents read for the command line.
const MOST: usize = 10_000;

/// The running sensor's store, for its pages.
#[derive(Debug)]
pub(super) struct Kept(pub(super) Arc<IncidentStore>);

impl IncidentSource for Kept {
    fn latest(&self, most: usize) -> Result<Vec<Value>, String> {
        let listed = self.0.list(most).map_err(|error| error.to_string())?;
        listed.incidents.iter().map(value).collect()
    }

    fn one(&self, id: &str) -> Result<Option<Value>, String> {
        let found = self.0.get(id).map_err(|error| error.to_string())?;
        found.as_ref().map(value).transpose()
    }

    fn suppressions(&self) -> Result<Vec<Value>, String> {
        let all = self.0.suppressions().map_err(|error| error.to_string())?;
        all.iter().map(|one| serde_json::to_value(one).map_err(|error| error.to_string())).collect()
    }
}

fn value(incident: &Incident) -> Result<Value, String> {
    serde_json::to_value(incident).map_err(|error| error.to_string())
}

/// Opens the store; tells of a damaged one.
pub(super) fn open_store(state_dir: &Path) -> Result<Arc<IncidentStore>, StoreError> {
    let opened = IncidentStore::open(state_dir, StoreLimits::default())?;
    if let Some((moved_to, reason)) = opened.set_aside {
        warn!(moved_to = %moved_to.display(), %reason, "the incidents could not be read");
    }
    Ok(Arc::new(opened.store))
}

/// Every kept incident, newest first, for a command while no sensor runs.
pub fn read_store(state_dir: &Path) -> Result<Vec<Incident>, ReadError> {
    let listed = IncidentReader::open(state_dir)
        .and_then(|store| store.list(MOST))
        .map_err(|error| told(error, state_dir))?;
    if listed.unreadable > 0 {
        warn!(unreadable = listed.unreadable, "entries of the store that are no incidents");
    }
    Ok(listed.incidents)
}

/// Every kept suppression, for a command while no sensor runs.
pub(super) fn read_suppressions(state_dir: &Path) -> Result<Vec<Suppression>, ReadError> {
    IncidentReader::open(state_dir)
        .and_then(|store| store.suppressions())
        .map_err(|error| told(error, state_dir))
}

fn told(error: StoreError, state_dir: &Path) -> ReadError {
    match error {
        StoreError::InUse { .. } => ReadError::InUse,
        StoreError::Missing { .. } => ReadError::Absent(state_dir.to_owned()),
        StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            ReadError::Denied(state_dir.to_owned())
        }
        other => ReadError::Other(other.to_string()),
    }
}
