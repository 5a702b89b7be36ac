//! Writing a recording, on a thread of its own: whoever is recorded never waits.

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::error;

use super::format::{FrameWriter, PLAIN_MAX};
use super::redact::Redactor;
use super::step::{Header, Step};

/// Steps that may wait for the disk: seconds of a busy host.
const WAITING_MAX: usize = 8192;
/// Text after which a frame is written.
const FRAME: usize = 256 << 10;
/// A frame is written after this time, however short: whoever is killed loses no more.
const LONGEST: Duration = Duration::from_secs(1);

/// How often it is looked whether all is written.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a recording is written to.
pub trait Target: Write + Send {
    /// Nothing more follows: makes what was written durable. After a failure only the first
    /// `whole` bytes are to stay.
    fn end(&mut self, whole: u64, failed: bool) -> io::Result<()>;
}

/// The way into a recording: never waits. Where the disk does not keep up the recording ends, as
/// one with a hole would replay to something else.
#[derive(Clone, Debug)]
pub struct Recorder {
    steps: SyncSender<Step>,
    shared: Arc<Shared>,
}

/// A recording that is being made.
#[derive(Debug)]
pub struct Recording {
    thread: JoinHandle<()>,
    shared: Arc<Shared>,
}

/// How far a recording is.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// Observations in it.
    pub observations: u64,
    /// All steps.
    pub steps: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Why it ended before it was told to.
    pub failure: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    observations: AtomicU64,
    steps: AtomicU64,
    bytes: AtomicU64,
    failure: Mutex<Option<String>>,
}

struct Work {
    frames: FrameWriter<Box<dyn Target>>,
    redactor: Option<Redactor>,
    text: Vec<u8>,
    /// When the latest frame was written.
    flushed: Instant,
    shared: Arc<Shared>,
}

// === impl Recorder ===

impl Recorder {
    /// Begins a recording, with its header on the disk when this returns. It ends when the last copy
    /// of the recorder is dropped. `redactor` is asked about every step.
    pub fn start(
        target: Box<dyn Target>,
        header: &Header,
        redactor: Option<Redactor>,
    ) -> io::Result<(Self, Recording)> {
        Self::start_with(target, header, redactor, WAITING_MAX)
    }

    /// The same with so many steps that may wait.
    pub(super) fn start_with(
        target: Box<dyn Target>,
        header: &Header,
        redactor: Option<Redactor>,
        waiting: usize,
    ) -> io::Result<(Self, Recording)> {
        let mut frames = FrameWriter::begin(target)?;
        let mut text = serde_json::to_vec(header)?;
        text.push(b'\n');
        frames.frame(&text)?;
        let shared = Arc::new(Shared::default());
        shared.bytes.store(frames.written(), Ordering::Relaxed);
        let (steps, todo) = sync_channel(waiting);
        let (text, flushed) = (Vec::new(), Instant::now());
        let work = Work { frames, redactor, text, flushed, shared: Arc::clone(&shared) };
        let thread =
            thread::Builder::new().name("record".to_owned()).spawn(move || work.run(&todo))?;
        let recorder = Self { steps, shared: Arc::clone(&shared) };
        Ok((recorder, Recording { thread, shared }))
    }

    /// Records one step, which is only made where there is still a recording.
    pub fn tell(&self, step: impl FnOnce() -> Step) {
        if self.shared.over.load(Ordering::Relaxed) {
            return;
        }
        match self.steps.try_send(step()) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                let reason = "its file could not be written as fast as the sensor saw things; \
                              record to a faster disk";
                self.shared.fail(reason.to_owned());
            }
            Err(TrySendError::Disconnected(_)) => {
                self.shared.fail("its thread has ended".to_owned());
            }
        }
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.shared.progress()
    }
}

// === impl Recording ===

impl Recording {
    /// Waits until all is written, which is soon after the last [`Recorder`] was dropped, but not
    /// longer than this.
    #[must_use]
    pub fn wait(self, patience: Duration) -> Progress {
        let deadline = Instant::now() + patience;
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                self.shared.fail("its file could not be written in time".to_owned());
                return self.shared.progress();
            }
            thread::sleep(LOOK_EVERY);
        }
        if self.thread.join().is_err() {
            self.shared.fail("its thread has panicked".to_owned());
        }
        self.shared.progress()
    }

    /// Looks on from elsewhere.
    pub fn watch(&self) -> impl Fn() -> Progress + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.progress()
    }
}

// === impl Shared ===

impl Shared {
    /// The recording is over; the first reason counts.
    fn fail(&self, reason: String) {
        self.over.store(true, Ordering::Relaxed);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() {
            error!(reason, "the recording ends early; what is in it is whole");
            *failure = Some(reason);
        }
    }

    fn failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn progress(&self) -> Progress {
        Progress {
            observations: self.observations.load(Ordering::Relaxed),
            steps: self.steps.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            failure: self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

// === impl Work ===

impl Work {
    fn run(mut self, todo: &Receiver<Step>) {
        if let Err(error) = self.take_all(todo).and_then(|()| self.finish()) {
            self.shared.fail(error.to_string());
        }
        let (whole, failed) = (self.frames.written(), self.shared.failed());
        if let Err(error) = self.frames.out().end(whole, failed) {
            self.shared.fail(error.to_string());
        }
    }

    fn take_all(&mut self, todo: &Receiver<Step>) -> io::Result<()> {
        loop {
            match todo.recv_timeout(LONGEST) {
                Ok(step) => self.take(step)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if self.flushed.elapsed() >= LONGEST {
                self.flush()?;
            }
        }
    }

    fn take(&mut self, step: Step) -> io::Result<()> {
        let step = match &self.redactor {
            Some(redactor) => redactor.apply(step),
            None => step,
        };
        let line = serde_json::to_vec(&step)?;
        if line.len() >= PLAIN_MAX {
            return Err(io::Error::other("something was seen that is too large for a recording"));
        }
        if self.text.len() + line.len() >= FRAME {
            self.flush()?;
        }
        self.text.extend_from_slice(&line);
        self.text.push(b'\n');
        self.shared.steps.fetch_add(1, Ordering::Relaxed);
        if matches!(step, Step::Seen(_)) {
            self.shared.observations.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Nothing more will come.
    fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        if self.shared.failed() {
            return Ok(());
        }
        let steps = self.shared.steps.load(Ordering::Relaxed);
        self.text = serde_json::to_vec(&Step::End { steps })?;
        self.text.push(b'\n');
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushed = Instant::now();
        if self.text.is_empty() {
            return Ok(());
        }
        self.frames.frame(&self.text)?;
        self.text.clear();
        self.shared.bytes.store(self.frames.written(), Ordering::Relaxed);
        Ok(())
    }
}

// === impl Target ===

impl Target for File {
    fn end(&mut self, whole: u64, failed: bool) -> io::Result<()> {
        if failed {
            self.set_len(whole)?;
        }
        self.sync_all()
    }
}
