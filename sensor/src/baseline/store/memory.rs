//! Stores beside the file: what a replay knows, and who is told what was read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A subject and its baseline as JSON.
type Change = (String, Vec<u8>);

/// Bytes of all entries: a thousand programs with two hundred libraries each are a tenth of it.
const BYTES_MAX: usize = 256 << 20;

/// Baselines by subject as stored, shared by a replay and its store.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    entries: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

/// Takes a subject and its entry.
type Told = dyn Fn(&str, &[u8]) + Send;

/// Somebody who is told of each entry that is read.
pub(super) struct Tap(Box<Told>);

// === impl Memory ===

impl Memory {
    /// What a store answered once; what is known of the subject already stays. False where there is
    /// no room.
    pub(crate) fn recall(&self, subject: &str, stored: &str) -> bool {
        let mut held = self.held();
        held.entries.contains_key(subject) || held.put(subject, stored.as_bytes())
    }

    pub(super) fn read(&self, subject: &str) -> Option<Vec<u8>> {
        self.held().entries.get(subject).cloned()
    }

    /// False where there is no room for all.
    pub(super) fn write(&self, changes: &[Change]) -> bool {
        let mut held = self.held();
        changes.iter().all(|(subject, stored)| held.put(subject, stored))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Held ===

impl Held {
    fn put(&mut self, subject: &str, stored: &[u8]) -> bool {
        let former = self.entries.get(subject).map_or(0, |former| subject.len() + former.len());
        let bytes = self.bytes - former + subject.len() + stored.len();
        if bytes > BYTES_MAX {
            return false;
        }
        self.bytes = bytes;
        self.entries.insert(subject.to_owned(), stored.to_vec());
        true
    }
}

// === impl Tap ===

impl Tap {
    pub(super) fn new(tap: impl Fn(&str, &[u8]) + Send + 'static) -> Self {
        Self(Box::new(tap))
    }

    pub(super) fn tell(&self, subject: &str, stored: &[u8]) {
        (self.0)(subject, stored);
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_stays_and_room_is_bounded() {
        let memory = Memory::default();
        assert!(memory.recall("a", "first") && memory.recall("a", "again"));
        assert_eq!(memory.read("a").as_deref(), Some(&b"first"[..]));
        assert!(memory.write(&[("a".to_owned(), b"learned".to_vec())]));
        assert!(memory.recall("a", "first"));
        assert_eq!(memory.read("a").as_deref(), Some(&b"learned"[..]));
        assert!(!memory.write(&[("b".to_owned(), vec![0; BYTES_MAX])]));
        assert_eq!((memory.read("b"), memory.held().bytes), (None, 8));
    }
}
