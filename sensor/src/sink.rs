//! Where incidents go: one bounded queue and one thread per output, so that an output that hangs
//! or fails holds up nothing but itself.

mod file;
mod queue;
mod stdout;
mod worker;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::Output;
use crate::metrics::Metrics;
use queue::Queue;
use worker::{Backoff, Worker};

pub use file::FileSink;
pub use stdout::LineSink;

/// Lines of a journal that wait while its file cannot be written.
const JOURNAL_PENDING: usize = 1024;

/// One output.
pub trait Sink: Send + 'static {
    /// Label of the metrics and of the log.
    fn name(&self) -> &'static str;

    /// Writes one line (it ends with a line feed) so that it is still there after a crash, as far
    /// as the output can promise that. After an error the same line is given again.
    fn write(&mut self, line: &[u8]) -> io::Result<()>;
}

/// Why an output could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Standard output cannot be used.
    #[error("standard output is closed; open it, or set `output.stdout` = false")]
    Stdout(#[source] io::Error),
    /// No thread for an output.
    #[error("cannot start the thread of output {sink}")]
    Thread {
        /// Its name.
        sink: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Hands incidents to every output; cheap to clone.
#[derive(Clone, Debug)]
pub struct Incidents {
    queues: Arc<[Arc<Queue>]>,
}

/// The outputs at work.
#[derive(Debug)]
pub struct Outputs {
    incidents: Incidents,
    /// Each yields when its output's thread has ended.
    ended: Vec<Receiver<()>>,
}

// === impl Incidents ===

impl Incidents {
    /// Queues an incident, or its newer state, for every output; never waits for one. A state
    /// that is still waiting is replaced by a newer one of the same `id`.
    ///
    /// # Errors
    /// The incident cannot be serialised.
    pub fn send(&self, id: &str, incident: &impl Serialize) -> Result<(), serde_json::Error> {
        let mut line = serde_json::to_vec(incident)?;
        line.push(b'\n');
        let line: Arc<[u8]> = line.into();
        for queue in &*self.queues {
            queue.push(id, Arc::clone(&line));
        }
        Ok(())
    }

    /// Incidents that some output has not taken yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.queues.iter().map(|queue| queue.len()).max().unwrap_or_default()
    }
}

// === impl Outputs ===

impl Outputs {
    /// Starts the outputs the configuration asks for.
    pub fn start(config: &Output, metrics: &Metrics) -> Result<Self, StartError> {
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        if config.stdout {
            sinks.push(Box::new(LineSink::stdout().map_err(StartError::Stdout)?));
        }
        if let Some(path) = &config.file {
            sinks.push(Box::new(FileSink::new(path.clone(), config.max_bytes, config.keep)));
        }
        Self::with_sinks(sinks, config.pending, Backoff::default(), metrics)
    }

    /// One file beside the incidents: `keep` rotated ones of `max_bytes`, written without waiting
    /// for the disk.
    pub fn journal(
        name: &'static str,
        path: PathBuf,
        max_bytes: u64,
        keep: u32,
        metrics: &Metrics,
    ) -> Result<Self, StartError> {
        let sink = FileSink::unsynced(name, path, max_bytes, keep);
        Self::with_sinks(vec![Box::new(sink)], JOURNAL_PENDING, Backoff::default(), metrics)
    }

    fn with_sinks(
        sinks: Vec<Box<dyn Sink>>,
        pending: usize,
        backoff: Backoff,
        metrics: &Metrics,
    ) -> Result<Self, StartError> {
        let mut queues = Vec::new();
        let mut ended = Vec::new();
        for sink in sinks {
            let name = sink.name();
            let queue = Arc::new(Queue::new(name, pending, metrics.clone()));
            let worker = Worker::new(sink, Arc::clone(&queue), backoff, metrics.clone());
            let (end, at_end) = channel();
            thread::Builder::new()
                .name(format!("sink-{name}"))
                .spawn(move || {
                    worker.run();
                    // The receiver is gone where nobody waits for the end.
                    let _ = end.send(());
                })
                .map_err(|source| StartError::Thread { sink: name, source })?;
            queues.push(queue);
            ended.push(at_end);
        }
        Ok(Self { incidents: Incidents { queues: queues.into() }, ended })
    }

    /// The handle the incident station sends to.
    #[must_use]
    pub fn incidents(&self) -> Incidents {
        self.incidents.clone()
    }

    /// Lets every output write what it still has, for at most `within`; returns how many incidents
    /// (counted per output) remain unwritten.
    pub fn close(self, within: Duration) -> usize {
        let deadline = Instant::now() + within;
        for queue in &*self.incidents.queues {
            queue.close();
        }
        for end in self.ended {
            // Both an end in time and a deadline that passes are told by what is left.
            let _ = end.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        self.incidents.queues.iter().map(|queue| queue.len()).sum()
    }
}

#[cfg(test)]
mod tests;
