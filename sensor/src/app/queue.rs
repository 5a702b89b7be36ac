//! The bounded queue in front of the analysis. It is filled and emptied by the batch: waking a thread
//! costs more than most of what it is woken for.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The way in; the queue ends when the last one is gone.
pub(super) struct Sender<T>(Arc<Shared<T>>);

/// The way out.
pub(super) struct Receiver<T>(Arc<Shared<T>>);

/// Why there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    Timeout,
    /// Nothing waits, and nothing will come.
    Ended,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    /// What may wait at once.
    room: usize,
}

struct State<T> {
    waiting: VecDeque<T>,
    senders: usize,
    /// The receiver is gone: nothing is kept for it.
    closed: bool,
}

/// A queue with room for so many.
pub(super) fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { waiting: VecDeque::new(), senders: 1, closed: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), filled: Condvar::new(), room });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

// === impl Sender ===

impl<T> Sender<T> {
    /// Moves as much of the batch into the queue as it has room for, from the front, and wakes the
    /// receiver once. Never waits for it: the rest is left in the batch.
    pub(super) fn offer(&self, batch: &mut Vec<T>) {
        if batch.is_empty() {
            return;
        }
        let mut state = self.0.lock();
        let left = if state.closed { 0 } else { self.0.room.saturating_sub(state.waiting.len()) };
        let taken = left.min(batch.len());
        state.waiting.extend(batch.drain(..taken));
        drop(state);
        if taken > 0 {
            self.0.filled.notify_one();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        let is_last = state.senders == 0;
        drop(state);
        if is_last {
            self.0.filled.notify_one();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("room", &self.0.room).finish_non_exhaustive()
    }
}

// === impl Receiver ===

impl<T> Receiver<T> {
    /// Everything that waits, once something does.
    ///
    /// # Errors
    /// When nothing came within `limit`, or nothing will come any more.
    pub(super) fn take(&self, limit: Duration) -> Result<VecDeque<T>, Idle> {
        let until = Instant::now() + limit;
        let mut state = self.0.lock();
        loop {
            if !state.waiting.is_empty() {
                return Ok(std::mem::take(&mut state.waiting));
            }
            if state.senders == 0 {
                return Err(Idle::Ended);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Idle::Timeout);
            }
            let woken = self.0.filled.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.waiting.clear();
    }
}

// === impl Shared ===

impl<T> Shared<T> {
    /// Nothing in here panics half way through a change.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    const NONE: [u64; 0] = [];

    /// What found no room.
    fn offered(sender: &Sender<u64>, batch: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut batch = batch.into_iter().collect();
        sender.offer(&mut batch);
        batch
    }

    #[test]
    fn a_batch_arrives_whole_and_in_order() {
        let (sender, receiver) = bounded(8);
        assert_eq!(offered(&sender, [1, 2, 3]), NONE);
        assert_eq!(offered(&sender, [4]), NONE);
        assert_eq!(receiver.take(LONG).unwrap(), [1, 2, 3, 4]);
        assert_eq!(receiver.take(Duration::ZERO), Err(Idle::Timeout));
    }

    #[test]
    fn what_finds_no_room_is_left_and_what_came_first_is_kept() {
        let (sender, receiver) = bounded(4);
        assert_eq!(offered(&sender, 0..3), NONE);
        assert_eq!(offered(&sender, 3..9), [4, 5, 6, 7, 8]);
        assert_eq!(receiver.take(LONG).unwrap(), [0, 1, 2, 3]);
        assert_eq!(offered(&sender, [9]), NONE);
    }

    #[test]
    fn what_was_offered_before_the_last_sender_went_is_still_taken() {
        let (sender, receiver) = bounded(4);
        let other = sender.clone();
        drop(sender);
        assert_eq!(offered(&other, [1]), NONE);
        drop(other);
        assert_eq!(receiver.take(LONG).unwrap(), [1]);
        assert_eq!(receiver.take(LONG), Err(Idle::Ended));
    }

    #[test]
    fn without_a_receiver_there_is_no_room() {
        let (sender, receiver) = bounded(4);
        drop(receiver);
        assert_eq!(offered(&sender, [1, 2]), [1, 2]);
    }

    #[test]
    fn a_receiver_that_waits_is_woken_by_a_batch_and_by_the_end() {
        let (sender, receiver) = bounded(100_000);
        let reader = thread::spawn(move || {
            let mut sum = 0_u64;
            while let Ok(batch) = receiver.take(LONG) {
                sum += batch.into_iter().sum::<u64>();
            }
            sum
        });
        for start in 0..1000 {
            assert_eq!(offered(&sender, start * 50..(start + 1) * 50), NONE);
        }
        drop(sender);
        assert_eq!(reader.join().unwrap(), (0..50_000).sum::<u64>());
    }
}
