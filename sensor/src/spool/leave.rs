//! The command's side: an order is left, waited for and withdrawn.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{process, thread};

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::folder::{ANSWER, Folder, TAKEN, Unread, WITHDRAWN, name_of};
use super::{Kind, SpoolError, WAITING_MAX};

/// How often a command looks for its answer.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Distinguishes orders of one process.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// An order that was left.
#[derive(Debug)]
pub(crate) struct Left {
    folder: Folder,
    id: String,
}

/// What has come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Came<A> {
    /// The sensor's answer, which can be had once.
    Answered(A),
    /// No sensor has taken it; it lies here.
    Waits(PathBuf),
    /// The sensor has it and has not carried it out yet; it lies here.
    Taken(PathBuf),
    /// It is over, and the sensor could not say how.
    Unanswered,
}

// === impl Left ===

impl Left {
    /// Leaves `order` for the sensor with this state directory.
    ///
    /// # Errors
    /// Where it cannot be written, is too long, or too many wait: then nothing is left.
    pub(crate) fn leave(
        state_dir: &Path,
        kind: &'static Kind,
        order: &impl Serialize,
    ) -> Result<Self, SpoolError> {
        let bytes = serde_json::to_vec(order)?;
        if bytes.len() > kind.length_max {
            return Err(SpoolError::Large { length: bytes.len(), length_max: kind.length_max });
        }
        let folder = Folder::make(state_dir, kind)?;
        let listed = folder.list()?;
        if listed.waiting.len() + listed.taken.len() >= WAITING_MAX {
            return Err(SpoolError::Full { path: folder.path });
        }
        // In order of time, and of their making.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let now = Timestamp::now().as_nanosecond();
        let id = format!("{now:020}-{}-{number:04}", process::id());
        if let Err(error) = folder.write(&id, kind.extension, &bytes) {
            // It may be in its place, and not on the disk.
            let _ = folder.remove(&name_of(&id, kind.extension));
            return Err(error);
        }
        Ok(Self { folder, id })
    }

    /// What has come of it by now, or comes within `patience`.
    ///
    /// # Errors
    /// Where the answer is none, or cannot be read.
    pub(crate) fn wait<A: DeserializeOwned>(
        &self,
        patience: Duration,
    ) -> Result<Came<A>, SpoolError> {
        let until = Instant::now() + patience;
        loop {
            if let Some(answer) = self.answer()? {
                return Ok(Came::Answered(answer));
            }
            if Instant::now() >= until {
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
        let lies = |extension| {
            let name = name_of(&self.id, extension);
            self.folder.exists(&name).then(|| self.folder.path.join(name))
        };
        // In this order: it is never in no place between two looks.
        if let Some(path) = lies(self.folder.kind.extension) {
            return Ok(Came::Waits(path));
        }
        if let Some(path) = lies(TAKEN) {
            return Ok(Came::Taken(path));
        }
        Ok(self.answer()?.map_or(Came::Unanswered, Came::Answered))
    }

    /// Takes the order back; false where a sensor has taken it.
    pub(crate) fn withdraw(&self) -> bool {
        let (order, gone) = (name_of(&self.id, self.folder.kind.extension), self.name(WITHDRAWN));
        let withdrawn = self.folder.rename(order.as_bytes(), &gone).unwrap_or(false);
        if withdrawn {
            // Whoever clears up later takes what is left.
            let _ = self.folder.remove(&gone);
        }
        withdrawn
    }

    fn answer<A: DeserializeOwned>(&self) -> Result<Option<A>, SpoolError> {
        let name = self.name(ANSWER);
        let none = |reason| {
            let path = self.folder.path.join(&name);
            Err(SpoolError::Answer { path, reason })
        };
        let bytes = match self.folder.read(&name) {
            Ok(bytes) => bytes,
            Err(Unread::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(unread) => return none(unread.to_string()),
        };
        // It stays where nobody may remove it, and is cleared up in time.
        let _ = self.folder.remove(&name);
        match serde_json::from_slice(&bytes) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => none(format!("is none: {error}")),
        }
    }

    fn name(&self, extension: &str) -> String {
        name_of(&self.id, extension)
    }
}
