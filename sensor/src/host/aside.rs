//! Questions that may never be answered, because a disk, another machine or another program is
//! asked: put on a thread of their own, and waited for only so long.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for one answer. A disk under load answers within it.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longest wait for a while after one that was in vain: whoever makes the sensor wait again and
/// again takes a tenth of its time at most.
const HURRIED: Duration = Duration::from_millis(10);
/// How long that while is.
const HURRIED_FOR: Duration = Duration::from_secs(5);
/// Threads that hang and are left to themselves; beyond, nothing is asked until one comes back.
const LEFT_BEHIND_MAX: usize = 8;
/// Questions waiting that nobody waits for.
const LATER_MAX: u64 = 64;

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A thread with its tools, replaced when it hangs.
pub struct Aside<T> {
    name: &'static str,
    make: Box<dyn Fn() -> T + Send>,
    worker: Option<Worker<T>>,
    left_behind: Arc<AtomicUsize>,
    hurried_until: Option<Instant>,
    patience: Duration,
    given_up: u64,
}

struct Worker<T> {
    jobs: Sender<Job<T>>,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Copy)]
struct State {
    /// Jobs it was given, and of these, those that are done.
    given: u64,
    done: u64,
    /// When the last one was done, or came where none was.
    moved: Instant,
    left: bool,
}

impl State {
    fn open(&self) -> u64 {
        self.given.saturating_sub(self.done)
    }
}

// === impl Aside ===

impl<T: 'static> Aside<T> {
    /// `make` gives each thread its tools. Nothing is started yet.
    pub fn new(name: &'static str, make: impl Fn() -> T + Send + 'static) -> Self {
        Self {
            name,
            make: Box::new(make),
            worker: None,
            left_behind: Arc::default(),
            hurried_until: None,
            patience: PATIENCE,
            given_up: 0,
        }
    }

    /// Waits longer for an answer: where nobody waits behind the one who asks.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The answer, unless it does not come in time: then the thread is left behind with it.
    pub fn ask<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Option<R>
    where
        T: Send,
    {
        let hurried = self.hurried_until.is_some_and(|until| Instant::now() < until);
        let (answer, answered) = sync_channel(1);
        let job: Job<T> = Box::new(move |tools| {
            // Nobody waits any more: what the work left behind elsewhere is all that counts.
            let _ = answer.try_send(work(tools));
        });
        if !self.give(job, Duration::ZERO, 1) {
            self.given_up += 1;
            return None;
        }
        match answered.recv_timeout(if hurried { HURRIED } else { self.patience }) {
            Ok(answer) => {
                // The worker itself may not have come to say so.
                self.worker.iter().for_each(Worker::answered);
                Some(answer)
            }
            Err(RecvTimeoutError::Timeout) => {
                self.given_up += 1;
                self.hurried_until = Some(Instant::now() + HURRIED_FOR);
                None
            }
            // The work has panicked.
            Err(RecvTimeoutError::Disconnected) => {
                self.worker = None;
                None
            }
        }
    }

    /// Has it done without waiting; false if there is too much of that already.
    pub fn later(&mut self, work: impl FnOnce(&mut T) + Send + 'static) -> bool
    where
        T: Send,
    {
        let given = self.give(Box::new(work), PATIENCE, LATER_MAX);
        self.given_up += u64::from(!given);
        given
    }

    /// Questions that were given up, or not even asked.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// To the present worker if it has moved since `still` ago and has room; else to a new one.
    fn give(&mut self, job: Job<T>, still: Duration, room: u64) -> bool
    where
        T: Send,
    {
        let state = self.worker.as_ref().map(Worker::look);
        let stuck = state.is_some_and(|state| state.open() > 0 && state.moved.elapsed() > still);
        if state.is_some_and(|state| !stuck && state.open() >= room) {
            return false;
        }
        if stuck {
            if self.left_behind.load(Ordering::Relaxed) >= LEFT_BEHIND_MAX {
                return false;
            }
            if let Some(worker) = self.worker.take() {
                worker.leave(&self.left_behind);
            }
        }
        if self.worker.is_none() {
            self.worker = Worker::start(self.name, (self.make)(), Arc::clone(&self.left_behind));
        }
        self.worker.as_ref().is_some_and(|worker| worker.take(job))
    }
}

impl<T> fmt::Debug for Aside<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aside").field("name", &self.name).finish_non_exhaustive()
    }
}

// === impl Worker ===

impl<T: Send + 'static> Worker<T> {
    fn start(name: &str, mut tools: T, left_behind: Arc<AtomicUsize>) -> Option<Self> {
        let (jobs, inbox) = channel::<Job<T>>();
        let state = State { given: 0, done: 0, moved: Instant::now(), left: false };
        let state = Arc::new(Mutex::new(state));
        let own = Arc::clone(&state);
        let run = move || {
            for (job, done) in inbox.into_iter().zip(1..) {
                job(&mut tools);
                let mut state = lock(&own);
                state.done = state.done.max(done);
                state.moved = Instant::now();
                if state.left {
                    left_behind.fetch_sub(1, Ordering::Relaxed);
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        if let Err(error) = &thread {
            tracing::warn!(name, %error, "no thread for questions that may hang");
        }
        thread.ok().map(|_| Self { jobs, state })
    }
}

impl<T> Worker<T> {
    fn look(&self) -> State {
        *lock(&self.state)
    }

    fn take(&self, job: Job<T>) -> bool {
        {
            let mut state = lock(&self.state);
            if state.open() == 0 {
                state.moved = Instant::now();
            }
            state.given += 1;
        }
        self.jobs.send(job).is_ok()
    }

    /// Nobody waits for one job while others are open: all that it was given is done.
    fn answered(&self) {
        let mut state = lock(&self.state);
        (state.done, state.moved) = (state.given, Instant::now());
    }

    /// Hangs: it ends when it comes back, and what it was given besides goes with it.
    fn leave(self, left_behind: &AtomicUsize) {
        let mut state = lock(&self.state);
        if state.open() > 0 {
            state.left = true;
            left_behind.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Nothing is done under the lock that could panic.
fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender};

    use super::*;

    /// A question that is answered once the sender is dropped or used.
    fn hanging() -> (SyncSender<()>, impl FnOnce(&mut u32) -> u32 + Send + 'static) {
        let (release, held): (SyncSender<()>, Receiver<()>) = sync_channel(1);
        let work = move |count: &mut u32| {
            let _ = held.recv();
            *count
        };
        (release, work)
    }

    #[test]
    fn tools_are_kept_from_one_question_to_the_next() {
        let mut aside = Aside::new("test", || 0_u32);
        let next = |count: &mut u32| {
            *count += 1;
            *count
        };
        assert_eq!((aside.ask(next), aside.ask(next)), (Some(1), Some(2)));
        assert_eq!(aside.given_up(), 0);
    }

    #[test]
    fn one_that_hangs_is_left_behind_and_the_next_is_answered() {
        let mut aside = Aside::new("test", || 7_u32);
        let (release, work) = hanging();
        assert_eq!(aside.ask(work), None);
        aside.hurried_until = None;
        assert_eq!(aside.ask(|count| *count), Some(7));
        assert_eq!(aside.left_behind.load(Ordering::Relaxed), 1);
        assert_eq!(aside.given_up(), 1);
        drop(release);
    }

    #[test]
    fn when_all_hang_nothing_waits_until_one_comes_back() {
        let mut aside = Aside::new("test", || 7_u32);
        let mut held = Vec::new();
        for _ in 0..=LEFT_BEHIND_MAX {
            let (release, work) = hanging();
            assert_eq!(aside.ask(work), None);
            held.push(release);
        }
        assert_eq!(aside.left_behind.load(Ordering::Relaxed), LEFT_BEHIND_MAX);
        assert_eq!(aside.ask(|count| *count), None, "there is nobody to ask");
        assert_eq!(aside.worker.as_ref().unwrap().look().open(), 1);
        held.clear();
        let deadline = Instant::now() + Duration::from_secs(20);
        aside.hurried_until = None;
        while aside.ask(|count| *count).is_none() {
            assert!(Instant::now() < deadline, "none came back");
            thread::yield_now();
            aside.hurried_until = None;
        }
    }

    #[test]
    fn what_nobody_waits_for_is_bounded() {
        let mut aside = Aside::new("test", || 7_u32);
        let (release, work) = hanging();
        assert!(aside.later(move |count| {
            work(count);
        }));
        let refused = (0..20 * LATER_MAX).any(|_| !aside.later(|_| {}));
        assert!(refused, "more and more waits");
        drop(release);
    }

    #[test]
    fn work_that_panics_costs_its_answer_only() {
        let mut aside = Aside::new("test", || 7_u32);
        assert_eq!(aside.ask(|_| -> u32 { panic!("on purpose") }), None);
        assert_eq!(aside.ask(|count| *count), Some(7));
    }
}
