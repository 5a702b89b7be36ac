//! The sensor's side: orders are taken in order, answered, and set aside where they are none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::folder::{ANSWER, Folder, Listed, REFUSED, TAKEN, name_of};
use super::{Kind, SpoolError};

/// Answers that nobody fetched, and what commands that were killed have left.
const STALE: Duration = Duration::from_hours(1);
/// What is set aside and kept: the newest.
const REFUSED_MAX: usize = 32;
/// Characters of a hostile name that are told.
const SHOWN: usize = 80;

/// Where orders of one kind are taken from.
#[derive(Debug)]
pub(crate) struct Spool {
    state_dir: PathBuf,
    kind: &'static Kind,
}

/// Of an order that was taken. It is over once it is answered; else it is taken again with the next turn.
#[derive(Debug)]
pub(crate) struct Slip {
    folder: Arc<Folder>,
    /// None of what is set aside already.
    id: Option<String>,
    /// It is an order.
    readable: bool,
}

/// One that was taken: what is asked for, or why that cannot be told.
pub(crate) type Taken<T> = (Slip, Result<T, String>);

// === impl Spool ===

impl Spool {
    pub(crate) fn new(state_dir: &Path, kind: &'static Kind) -> Self {
        Self { state_dir: state_dir.to_owned(), kind }
    }

    /// Takes all that wait, so that none is withdrawn any more, and reads the `most` oldest: what is asked
    /// for, or why that cannot be told. Removes what nobody waits for.
    ///
    /// # Errors
    /// Where the folder cannot be used, or somebody else could have written there: nothing is taken.
    pub(crate) fn take<T>(
        &self,
        most: usize,
        parse: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<Vec<Taken<T>>, SpoolError> {
        let Some(folder) = Folder::open(&self.state_dir, self.kind)? else { return Ok(Vec::new()) };
        let folder = Arc::new(folder);
        let mut listed = folder.list()?;
        clear_up(&folder, &listed);
        let odd = std::mem::take(&mut listed.odd);
        let mut all = Vec::new();
        for (number, name) in odd.into_iter().take(most).enumerate() {
            let reason = set_aside_name(&folder, &name, number)?;
            let slip = Slip { folder: Arc::clone(&folder), id: None, readable: false };
            all.push((slip, Err(reason)));
        }
        let left = most.saturating_sub(all.len());
        for id in claim(&folder, listed)?.into_iter().take(left) {
            let read = folder.read(&name_of(&id, TAKEN)).map_err(|unread| {
                let name = self.kind.name;
                format!("the {name} {unread}")
            });
            let asked = read.and_then(|bytes| parse(&bytes)).map_err(|reason| {
                let folder = self.kind.folder;
                format!("{reason} (it is set aside as {folder}/{})", name_of(&id, REFUSED))
            });
            let readable = asked.is_ok();
            all.push((Slip { folder: Arc::clone(&folder), id: Some(id), readable }, asked));
        }
        Ok(all)
    }
}

/// Renames what waits; all that is taken then, in order.
fn claim(folder: &Folder, listed: Listed) -> Result<Vec<String>, SpoolError> {
    let Listed { waiting, mut taken, .. } = listed;
    for id in waiting {
        // One of the same name would be lost; the next turn finds it again.
        if taken.contains(&id) {
            continue;
        }
        let order = name_of(&id, folder.kind.extension);
        // One that was withdrawn in this moment is gone.
        if folder.rename(order.as_bytes(), &name_of(&id, TAKEN))? {
            taken.insert(id);
        }
    }
    Ok(taken.into_iter().collect())
}

fn clear_up(folder: &Folder, listed: &Listed) {
    for name in &listed.fleeting {
        if folder.age(name).is_ok_and(|age| age > STALE) {
            let _ = folder.remove(name);
        }
    }
    let surplus = listed.refused.len().saturating_sub(REFUSED_MAX);
    for id in listed.refused.iter().take(surplus) {
        let _ = folder.remove(&name_of(id, REFUSED));
    }
}

/// Renames a file whose own name must not be used; says so.
fn set_aside_name(folder: &Folder, name: &[u8], number: usize) -> Result<String, SpoolError> {
    let new = name_of(&other_id(number), REFUSED);
    folder.rename(name, &new)?;
    let shown: String = String::from_utf8_lossy(name).escape_debug().take(SHOWN).collect();
    let Kind { name, folder, .. } = folder.kind;
    Ok(format!(
        "the {name} has a name that no command gives, {shown} (set aside as {folder}/{new})"
    ))
}

fn other_id(number: usize) -> String {
    format!("{:020}-other-{number:04}", Timestamp::now().as_nanosecond())
}

// === impl Slip ===

impl Slip {
    /// Says what became of it: it is on the disk. The order is over, also where that cannot be said: the
    /// command tells that it does not know.
    ///
    /// # Errors
    /// Where it could not be said, or the order stays where it is.
    pub(crate) fn answer(&self, answer: &impl Serialize) -> Result<(), SpoolError> {
        let Some(id) = &self.id else { return Ok(()) };
        let told = serde_json::to_vec(answer).map_err(SpoolError::from);
        let told = told.and_then(|bytes| self.folder.write(id, ANSWER, &bytes));
        let taken = name_of(id, TAKEN);
        let over = if self.readable {
            self.folder
                .remove(&taken)
                .map_err(SpoolError::io("remove", &self.folder.path.join(&taken)))
        } else {
            self.set_aside(id, &taken)
        };
        told.and(over)
    }

    fn set_aside(&self, id: &str, taken: &str) -> Result<(), SpoolError> {
        let renamed = self.folder.rename(taken.as_bytes(), &name_of(id, REFUSED));
        if renamed.is_ok() {
            return renamed.map(drop);
        }
        // Something else has that name, a directory for instance.
        self.folder.rename(taken.as_bytes(), &name_of(&other_id(0), REFUSED)).map(drop)
    }
}
