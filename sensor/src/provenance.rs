//! Provenance: which package a mapped or preloaded library belongs to, asked for once per file, and
//! why the loader found it where it did.
//!
//! A station of its own beside the line: records of packages and files are read on its threads, so
//! that neither a large database nor a hung mount holds up the ring. What it finds goes to the
//! analysis as an observation that follows the mapping's own.

mod dates;
mod line;
mod place;
mod variables;
mod worker;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::detect::remote_write::asks_whose;
use crate::host::{Body, Observation, Owners};
use worker::{Message, Worker};

/// Questions that wait; more do not, and are counted.
const WAITING_MAX: u64 = 4096;

/// Takes what is found. Must not block.
pub type Found = Box<dyn FnMut(Observation) + Send>;

/// The way in. Dropped, the station ends.
#[derive(Debug)]
pub struct Provenance {
    messages: Mutex<Sender<Message>>,
    counts: Arc<Counts>,
}

/// Another way in, which does not keep the station from ending.
#[derive(Clone, Debug)]
pub struct Asker {
    messages: Sender<Message>,
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
    /// Questions not asked, because too many were waiting.
    pub dropped: u64,
    /// Questions answered.
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

    /// Asks where a library came from, if `seen` is one, or whose those are that a variable or a service
    /// of PAM names, and notes in it that the answer follows. Never blocks.
    pub fn look(&self, seen: &mut Observation) {
        if !is_question(seen) {
            return;
        }
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if send(&messages, &self.counts, Box::new(seen.clone())) {
            match &mut seen.body {
                Body::Library(library) => library.asked = true,
                Body::Environment(variable) => variable.owners = Owners::Asked,
                Body::LoaderConfig(change) => change.owners = Owners::Asked,
                Body::Written(written) => written.owners = Owners::Asked,
                _ => {}
            }
        }
    }

    /// Another way in.
    #[must_use]
    pub fn asker(&self) -> Asker {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        Asker { messages: messages.clone(), counts: Arc::clone(&self.counts) }
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

// === impl Asker ===

impl Asker {
    /// Asks what changed before a shift ([`Body::Dated`]). Never blocks; false if nobody answers.
    pub fn ask(&self, question: Observation) -> bool {
        is_question(&question) && send(&self.messages, &self.counts, Box::new(question))
    }
}

/// False where too many wait, or the station has ended.
fn send(messages: &Sender<Message>, counts: &Counts, question: Box<Observation>) -> bool {
    if counts.waiting.load(Ordering::Relaxed) >= WAITING_MAX {
        counts.dropped.fetch_add(1, Ordering::Relaxed);
        return false;
    }
    // Before it is sent: the answer takes it off.
    counts.waiting.fetch_add(1, Ordering::Relaxed);
    let sent = messages.send(Message::Ask(question)).is_ok();
    if !sent {
        counts.waiting.fetch_sub(1, Ordering::Relaxed);
    }
    sent
}

/// Who preloads something into a guarded program is told of at once, whoever owns it.
fn is_question(seen: &Observation) -> bool {
    match &seen.body {
        Body::Library(_) => true,
        Body::Environment(variable) => {
            let found = variable.libraries.iter().any(|library| library.file.is_some());
            found && !seen.process.program.guarded()
        }
        // A package manager writes its records after the files: it would be answered wrongly now,
        // and for long.
        Body::LoaderConfig(change) => {
            let packages = change.tool.as_ref().is_some_and(|tool| tool.packages);
            let found = change.libraries.iter().any(|module| module.file.is_some());
            change.role.is_pam() && found && !packages && change.owners == Owners::NotAsked
        }
        Body::Written(written) => asks_whose(&written.writer),
        Body::Dated(dated) => dated.answer.is_none(),
        _ => false,
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
