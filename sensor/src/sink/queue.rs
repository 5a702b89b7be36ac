//! What waits for one output: bounded; the oldest gives way, and is counted.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::Metrics;

/// A queue of lines for one output.
pub(super) struct Queue {
    name: &'static str,
    bound: usize,
    metrics: Metrics,
    state: Mutex<State>,
    changed: Condvar,
}

/// A line that waits.
#[derive(Clone)]
pub(super) struct Waiting {
    /// Tells this line from one that took its place meanwhile.
    number: u64,
    id: Box<str>,
    pub(super) line: Arc<[u8]>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    next_number: u64,
    /// The line the output is writing just now; it is not replaced by a newer state.
    in_flight: Option<u64>,
    closed: bool,
}

impl Queue {
    pub(super) fn new(name: &'static str, bound: usize, metrics: Metrics) -> Self {
        for counter in [&metrics.sink_written, &metrics.sink_errors, &metrics.sink_dropped] {
            counter.with_label_values(&[name]);
        }
        metrics.sink_failing.with_label_values(&[name]).set(0);
        let queue = Self {
            name,
            bound: bound.max(1),
            metrics,
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        queue.show(0);
        queue
    }

    /// Adds a line; never waits for the output.
    pub(super) fn push(&self, id: &str, line: Arc<[u8]>) {
        let mut state = self.lock();
        let in_flight = state.in_flight;
        let older =
            state.waiting.iter_mut().find(|one| *one.id == *id && Some(one.number) != in_flight);
        if let Some(older) = older {
            older.line = line;
        } else {
            if state.waiting.len() >= self.bound {
                state.waiting.pop_front();
                self.metrics.sink_dropped.with_label_values(&[self.name]).inc();
            }
            let number = state.next_number;
            state.next_number += 1;
            state.waiting.push_back(Waiting { number, id: id.into(), line });
        }
        self.show(state.waiting.len());
        drop(state);
        self.changed.notify_one();
    }

    /// The oldest line, which stays in the queue until it is [written](Self::written); waits for
    /// one. `None` when the queue is closed and empty.
    pub(super) fn next(&self) -> Option<Waiting> {
        let mut state = self.lock();
        loop {
            if let Some(first) = state.waiting.front().cloned() {
                state.in_flight = Some(first.number);
                return Some(first);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Removes a line that the output has taken.
    pub(super) fn written(&self, line: &Waiting) {
        let mut state = self.lock();
        state.in_flight = None;
        if state.waiting.front().is_some_and(|first| first.number == line.number) {
            state.waiting.pop_front();
        }
        self.show(state.waiting.len());
    }

    /// Waits before the next attempt after a failed one; returns at once when the queue is
    /// closed, and tells whether it is.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let deadline = Instant::now() + pause;
        let mut state = self.lock();
        state.in_flight = None;
        while !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// A thread that panicked with the lock held leaves a whole queue: every change is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, waiting: usize) {
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.metrics.sink_pending.with_label_values(&[self.name]).set(waiting);
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("name", &self.name).finish_non_exhaustive()
    }
}
