//! Why the store could not do what it was asked.

use std::io;
use std::path::PathBuf;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file or its directory cannot be used; a full disk is this one.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The store.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it open for writing.
    #[error("{} is in use: a sensor is running; ask it over HTTP", path.display())]
    InUse {
        /// The store.
        path: PathBuf,
    },
    /// No such file, or nothing in it: no incident was ever stored.
    #[error(
        "there are no incidents in {}: no sensor has run here with this state directory",
        path.display()
    )]
    Missing {
        /// The store.
        path: PathBuf,
    },
    /// It holds something else than this store wrote. A sensor that starts sets it aside.
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt {
        /// The store.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
    /// Written by another version.
    #[error(
        "{} has schema {found}, this version writes {supported}; run the version that wrote it, \
         or move the file away", path.display()
    )]
    Schema {
        /// The store.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// Ours.
        supported: u64,
    },
    /// An incident cannot be written as JSON.
    #[error("cannot serialise incident {id}")]
    Serialise {
        /// Which.
        id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}
