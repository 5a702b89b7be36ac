//! Provenance: which package a mapped library belongs to, asked for once per file.
//!
//! A station of its own beside the line: records of packages and files are read on its threads, so
//! that neither a large database nor a hung mount holds up the ring. What it finds goes to the
//! analysis as an observation that follows the mapping's own.

mod place;
mod worker;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::host::{Body, Observation};
use worker::{Message, Worker};

/// Libraries waiting to be asked about; more are not, and are counted.
const WAITING_MAX: u64 = 4096;

/// Takes what is found. Must not block.
pub type Found = Box<dyn FnMut(Observation) + Send>;

/// The way in. Dropped, the station ends.
#[derive(Debug)]
pub struct Provenance {
    messages: Mutex<Sender<Message>>,
    counts: Arc<Counts>,
}

/// How the station does.
#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicU64,
    dropped: AtomicU64,
    answered: AtomicU64,
}

/// The same at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Libraries not asked about, because too many were waiting.
    pub dropped: u64,
    /// Libraries told of.
    pub answered: u64,
}

// === impl Provenance ===

impl Provenance {
    /// Starts its threads.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(found: Found) -> io::Result<Self> {
        let (messages, inbox) = channel();
        let counts = Arc::new(Counts::default());
        Worker::start(messages.clone(), inbox, Arc::clone(&counts), found)?;
        Ok(Self { messages: Mutex::new(messages), counts })
    }

    /// Asks where a library came from, if `seen` is one. Never blocks.
    pub fn look(&self, seen: &Observation) {
        if !matches!(seen.body, Body::Library(_)) {
            return;
        }
        if self.counts.waiting.load(Ordering::Relaxed) >= WAITING_MAX {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.send(Message::Ask(Box::new(seen.clone()))).is_ok() {
            self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts of this moment.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally {
            dropped: self.counts.dropped.load(Ordering::Relaxed),
            answered: self.counts.answered.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Provenance {
    fn drop(&mut self) {
        // The worker holds a sender of its own, for the answers of the hasher.
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = messages.send(Message::End);
    }
}

#[cfg(test)]
mod tests;
