//! What a person asks of a sensor that runs: files in a folder of the state directory, for root and the
//! sensor's own user alone. No port is opened and no word is taken for who somebody is: whoever may write
//! there may change the sensor's stores themselves.
//!
//! ```text
//! ID.EXTENSION   left by a command, whole from the first moment and on the disk (renamed into place)
//! ID.taken       the sensor has it: what it says happens, now or after a crash
//! ID.answer      it is on the disk, or was refused and why; the command takes it away
//! ID.refused     what was no order, set aside for a person to look at
//! ```
//!
//! The sensor answers once what is asked for is on its disk, and only then is the order over: whenever the
//! sensor is killed, what it had taken is carried out by the next one. So an order must change nothing
//! more when it is carried out again. Until it is taken a command can withdraw its order: both rename it,
//! and one wins.
//!
//! The folder is opened once for each turn and everything is reached from there, never through a link.
//! The sensor may be another user than root, who gives commands: what root leaves is given to whoever
//! has the state directory.

mod folder;
mod leave;
mod take;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use leave::{Came, Left};
#[cfg(test)]
pub(crate) use take::Taken;
pub(crate) use take::{Slip, Spool};

/// Files that lie in a folder at most, of whatever kind: with more nothing is taken.
const FILES_MAX: usize = 4096;
/// Orders that wait at most: with more none is left.
const WAITING_MAX: usize = 1024;

/// One kind of order.
#[derive(Debug)]
pub(crate) struct Kind {
    /// As texts call it.
    pub(crate) name: &'static str,
    /// The folder below the state directory.
    pub(crate) folder: &'static str,
    /// Of files that wait to be taken.
    pub(crate) extension: &'static str,
    /// The longest order or answer, bytes.
    pub(crate) length_max: usize,
}

/// Why an order could not be left, taken or answered.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file system.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could have written there.
    #[error(
        "{} belongs to another user than root and the sensor's, or others can write to it: look at what \
         lies there, and remove it", path.display()
    )]
    Untrusted {
        /// The folder.
        path: PathBuf,
    },
    /// What lies there was not left by commands.
    #[error("{} holds more than {FILES_MAX} files: remove what is not needed", path.display())]
    Crowded {
        /// The folder.
        path: PathBuf,
    },
    /// No sensor takes them.
    #[error(
        "{} holds {WAITING_MAX} orders that wait for a sensor: does it run, and what does its log say?",
        path.display()
    )]
    Full {
        /// The folder.
        path: PathBuf,
    },
    /// The order is too long.
    #[error("an order of {length} bytes is more than the {length_max} that a sensor takes")]
    Large {
        /// Its bytes.
        length: usize,
        /// What is taken.
        length_max: usize,
    },
    /// An answer is none.
    #[error("the answer {} {reason}", path.display())]
    Answer {
        /// Where it lies.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What is to be written is no JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

// === impl SpoolError ===

impl SpoolError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// The file or directory that this user may not touch.
    pub(crate) fn denied(&self) -> Option<&Path> {
        match self {
            Self::Io { path, source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(path)
            }
            _ => None,
        }
    }
}

/// Any bytes as the names in a folder, for the fuzzer; how many are of orders.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_names(kind: &Kind, data: &[u8]) -> usize {
    let mut listed = folder::Listed::default();
    for name in data.split(|byte| *byte == 0) {
        listed.add(name, kind);
    }
    for id in listed.waiting.iter().chain(&listed.taken) {
        assert!(!id.is_empty() && !id.contains(['/', '.']), "an id that is a path: {id:?}");
    }
    listed.waiting.len() + listed.taken.len()
}

#[cfg(test)]
mod tests;
