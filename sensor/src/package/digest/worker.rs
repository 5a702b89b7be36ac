//! The thread that hashes: one file at a time, within a budget, replaced when it is stuck.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::source::Admitted;
use super::{Algorithm, Digest, Refusal, Source};
use crate::package::root::Stamp;
use crate::verify::cache::Lru;

/// Attempts at a file that changes while it is read.
const ATTEMPTS: u32 = 3;
/// A file changed this recently may change again without a newer ctime: its digest is not kept.
const SETTLED: Duration = Duration::from_secs(2);
/// Longest that what was read at once holds up what is not urgent.
const DEBT_MAX: Duration = Duration::from_secs(30);
/// Lower than everything that serves anybody.
const NICENESS: i32 = 15;

/// Bounds of a [`Hasher`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Files waiting; more are dropped.
    pub queue: usize,
    /// Larger files are refused.
    pub file_bytes: u64,
    /// Bytes read per second, on average over a file.
    pub bytes_per_second: u64,
    /// Digests remembered.
    pub cache: usize,
    /// Without progress for so long, the worker is stuck.
    pub stuck_after: Duration,
    /// Stuck workers that are left behind and replaced; the next one stays.
    pub left_behind: usize,
}

/// A file to hash.
#[derive(Debug)]
pub struct Job {
    /// The asker's own mark, in the answer again.
    pub tag: u64,
    /// The file.
    pub source: Source,
    /// The kind of digest that is wanted.
    pub algorithm: Algorithm,
    /// A finding waits for it: it is the next one, and is read at once; those behind it wait longer
    /// for that.
    pub urgent: bool,
}

/// What became of a job.
#[derive(Debug)]
pub struct Answer {
    /// The job's.
    pub tag: u64,
    /// The digest or why there is none.
    pub outcome: Outcome,
}

/// The digest of a file or why there is none.
#[derive(Debug)]
pub enum Outcome {
    /// Its digest.
    Digest(Digest),
    /// It is not hashed.
    Refused(Refusal),
    /// It could not be read.
    Failed(io::Error),
    /// Nothing came of it for [`Limits::stuck_after`].
    Stuck,
}

/// How the hasher is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Files waiting.
    pub waiting: usize,
    /// Jobs answered.
    pub answered: u64,
    /// Of these, from memory.
    pub cached: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Jobs not taken because the queue was full.
    pub dropped: u64,
    /// Workers that hang and were replaced.
    pub left_behind: usize,
    /// The worker hangs and is not replaced any more.
    pub stuck: Option<Stuck>,
}

/// A worker that makes no progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The job it is at.
    pub tag: u64,
    /// Since its last progress.
    pub since: Duration,
}

/// Hashes files on a thread of its own. Dropping it ends the thread after the file's next portion.
pub struct Hasher {
    shared: Arc<Shared>,
}

struct Shared {
    limits: Limits,
    answer: Box<dyn Fn(Answer) + Send + Sync>,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    /// With the number of the attempt.
    queue: VecDeque<(Job, u32)>,
    /// The same for those that come first.
    urgent: VecDeque<(Job, u32)>,
    closed: bool,
    /// The worker that counts; others are left behind.
    generation: u64,
    current: Option<Current>,
    cache: Lru<(Stamp, Algorithm), Digest>,
    health: Health,
}

struct Current {
    tag: u64,
    progress: Instant,
}

/// One worker thread.
struct Worker {
    shared: Arc<Shared>,
    generation: u64,
    /// When what was read so far is paid for.
    paid: Instant,
    /// So is the job at hand.
    urgent: bool,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 1024,
            file_bytes: 256 << 20,
            bytes_per_second: 32 << 20,
            cache: 4096,
            stuck_after: Duration::from_secs(30),
            left_behind: 2,
        }
    }
}

// === impl Hasher ===

impl Hasher {
    /// Starts the worker. `answer` is called on its thread, once per job that was taken; it must
    /// not block.
    pub fn start(
        limits: Limits,
        answer: impl Fn(Answer) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let state = State {
            queue: VecDeque::new(),
            urgent: VecDeque::new(),
            closed: false,
            generation: 0,
            current: None,
            cache: Lru::new(limits.cache, limits.cache),
            health: Health::default(),
        };
        let (answer, state) = (Box::new(answer), Mutex::new(state));
        let shared = Arc::new(Shared { limits, answer, state, wake: Condvar::new() });
        Worker::spawn(&shared, 0)?;
        Ok(Self { shared })
    }

    /// Takes a job, or drops and counts it when the queue is full. Never blocks.
    #[must_use = "a job that is not taken is never answered"]
    pub fn submit(&self, job: Job) -> bool {
        let mut state = self.shared.lock();
        if state.waiting() >= self.shared.limits.queue {
            state.health.dropped += 1;
            return false;
        }
        state.line(job.urgent).push_back((job, 1));
        self.shared.wake.notify_all();
        true
    }

    /// How it is doing. Also replaces a stuck worker, so it is to be asked from time to time.
    pub fn health(&self) -> Health {
        let mut state = self.shared.lock();
        let stuck = state.stuck(self.shared.limits.stuck_after);
        state.health.stuck = stuck;
        state.health.waiting = state.waiting();
        let Some(Stuck { tag, .. }) = stuck else { return state.health };
        if state.health.left_behind >= self.shared.limits.left_behind {
            return state.health;
        }
        let generation = state.generation + 1;
        // Starts by waiting for the lock that is held here.
        if Worker::spawn(&self.shared, generation).is_err() {
            return state.health;
        }
        state.generation = generation;
        state.current = None;
        state.health.left_behind += 1;
        state.health.answered += 1;
        state.health.stuck = None;
        let health = state.health;
        drop(state);
        (self.shared.answer)(Answer { tag, outcome: Outcome::Stuck });
        health
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let health = self.shared.lock().health;
        formatter.debug_struct("Hasher").field("health", &health).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    /// A worker that panicked left a state that is whole: nothing is called under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn line(&mut self, urgent: bool) -> &mut VecDeque<(Job, u32)> {
        if urgent { &mut self.urgent } else { &mut self.queue }
    }

    fn take(&mut self) -> Option<(Job, u32)> {
        self.urgent.pop_front().or_else(|| self.queue.pop_front())
    }

    fn waiting(&self) -> usize {
        self.urgent.len() + self.queue.len()
    }

    fn stuck(&self, after: Duration) -> Option<Stuck> {
        let current = self.current.as_ref()?;
        let since = current.progress.elapsed();
        (since > after).then_some(Stuck { tag: current.tag, since })
    }
}

// === impl Worker ===

impl Worker {
    fn spawn(shared: &Arc<Shared>, generation: u64) -> io::Result<()> {
        let (shared, paid) = (Arc::clone(shared), Instant::now());
        let worker = Self { shared, generation, paid, urgent: false };
        thread::Builder::new().name("digest".to_owned()).spawn(move || worker.run())?;
        Ok(())
    }

    fn run(mut self) {
        // On Linux this is the thread's own. Without it hashing is merely less polite.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
        while let Some((job, attempt)) = self.next() {
            let Job { tag, source, algorithm, urgent } = job;
            self.urgent = urgent;
            let outcome = match self.hash(source, algorithm) {
                Ok(Hashed::Done(digest)) => Outcome::Digest(digest),
                Ok(Hashed::Refused(refusal)) => Outcome::Refused(refusal),
                Ok(Hashed::Changed(_)) if attempt >= ATTEMPTS => {
                    Outcome::Refused(Refusal::Changing)
                }
                Ok(Hashed::Changed(admitted)) => {
                    let source = admitted.into_source();
                    let job = Job { tag, source, algorithm, urgent };
                    self.shared.lock().line(urgent).push_back((job, attempt + 1));
                    continue;
                }
                Ok(Hashed::Ended) => return,
                Err(error) => Outcome::Failed(error),
            };
            if !self.finished() {
                return;
            }
            (self.shared.answer)(Answer { tag, outcome });
        }
    }

    /// Waits for a job; `None` when this worker is to end.
    fn next(&mut self) -> Option<(Job, u32)> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            if state.generation > self.generation || state.closed {
                self.leave(&mut state);
                return None;
            }
            state.current = None;
            if let Some((job, attempt)) = state.take() {
                state.current = Some(Current { tag: job.tag, progress: Instant::now() });
                return Some((job, attempt));
            }
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether this worker still counts; counts its answer.
    fn finished(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if state.generation > self.generation {
            self.leave(&mut state);
            return false;
        }
        state.current = None;
        state.health.answered += 1;
        true
    }

    /// One that was left behind came back.
    fn leave(&self, state: &mut State) {
        if state.generation > self.generation {
            state.health.left_behind = state.health.left_behind.saturating_sub(1);
        }
    }

    fn hash(&mut self, source: Source, algorithm: Algorithm) -> io::Result<Hashed> {
        let admitted = match source.admit(self.shared.limits.file_bytes)? {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(Hashed::Refused(refusal)),
        };
        let key = (admitted.stamp, algorithm);
        {
            let mut state = self.shared.lock();
            if let Some(digest) = state.cache.get(&key) {
                state.health.cached += 1;
                return Ok(Hashed::Done(digest));
            }
        }
        let file = admitted.open()?;
        let limit = self.shared.limits.file_bytes;
        let Some(digest) = Digest::of(algorithm, file, limit, |bytes| self.pace(bytes))? else {
            return Ok(Hashed::Ended);
        };
        if !admitted.is_unchanged()? {
            return Ok(Hashed::Changed(admitted));
        }
        if is_settled(&admitted.stamp) {
            self.shared.lock().cache.insert(key, digest, 1);
        }
        Ok(Hashed::Done(digest))
    }

    /// Tells progress and waits until the bytes read are paid for; false when this worker is to
    /// end.
    fn pace(&mut self, bytes: u64) -> bool {
        let rate = self.shared.limits.bytes_per_second.max(1);
        let cost = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
        let now = Instant::now();
        // What was urgent is paid for by those behind it, but not for ever.
        self.paid = (self.paid.max(now) + cost).min(now + DEBT_MAX);
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        state.health.bytes += bytes;
        loop {
            if state.generation > self.generation || state.closed {
                self.leave(&mut state);
                return false;
            }
            let now = Instant::now();
            if let Some(current) = &mut state.current {
                current.progress = now;
            }
            if self.urgent || !state.urgent.is_empty() {
                return true;
            }
            let Some(left) = self.paid.checked_duration_since(now).filter(|left| !left.is_zero())
            else {
                return true;
            };
            let left = left.min(shared.limits.stuck_after / 2);
            state = shared.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What came of one attempt.
enum Hashed {
    Done(Digest),
    Refused(Refusal),
    Changed(Admitted),
    Ended,
}

/// Whether a later change would be seen in the ctime, whose steps are those of the timer tick.
fn is_settled(stamp: &Stamp) -> bool {
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else { return false };
    let changed = Duration::from_secs(u64::try_from(stamp.ctime.0).unwrap_or(0));
    now.checked_sub(changed).is_some_and(|since| since > SETTLED)
}

#[cfg(test)]
mod tests;
