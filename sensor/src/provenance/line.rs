//! The order in which questions are answered: first those whose answer is soon not to be had.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use super::worker::Message;
use crate::host::Body;

/// Messages that have come and are not answered yet.
pub(super) struct Line {
    inbox: Receiver<Message>,
    urgent: VecDeque<Message>,
    others: VecDeque<Message>,
}

// === impl Line ===

impl Line {
    pub(super) fn new(inbox: Receiver<Message>) -> Self {
        Self { inbox, urgent: VecDeque::new(), others: VecDeque::new() }
    }

    /// The next one; waits for it no longer than `patience`.
    pub(super) fn next(&mut self, patience: Duration) -> Result<Message, RecvTimeoutError> {
        let open = self.gather();
        let waiting = self.urgent.pop_front().or_else(|| self.others.pop_front());
        match waiting {
            Some(message) => Ok(message),
            None if open => self.inbox.recv_timeout(patience),
            None => Err(RecvTimeoutError::Disconnected),
        }
    }

    /// Takes in what has come. False once nobody can send any more.
    fn gather(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(message) if is_urgent(&message) => self.urgent.push_back(message),
                Ok(message) => self.others.push_back(message),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }
}

/// A debugger may be gone in a moment, and with it the root in which its file is found; what it has
/// mapped itself, dozens of libraries, is asked about just before. The same is true of a process whose
/// times have shifted, and its finding waits.
fn is_urgent(message: &Message) -> bool {
    match message {
        Message::Ask(seen) => matches!(seen.body, Body::Written(_) | Body::Dated(_)),
        Message::Hashed(_) => true,
        Message::End => false,
    }
}
