//! One output's thread: writes what waits, keeps it and tries again when the output fails.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info};

use super::Sink;
use super::queue::Queue;
use crate::metrics::Metrics;

/// How long to wait after the first failed attempt, and at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) first: Duration,
    pub(super) most: Duration,
}

pub(super) struct Worker {
    sink: Box<dyn Sink>,
    queue: Arc<Queue>,
    backoff: Backoff,
    metrics: Metrics,
    /// What the output last failed with; `None` while it works.
    failing: Option<String>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), most: Duration::from_secs(15) }
    }
}

impl Worker {
    pub(super) fn new(
        sink: Box<dyn Sink>,
        queue: Arc<Queue>,
        backoff: Backoff,
        metrics: Metrics,
    ) -> Self {
        Self { sink, queue, backoff, metrics, failing: None }
    }

    /// Until the queue is closed and empty, or closed and the output fails.
    pub(super) fn run(mut self) {
        let mut pause = self.backoff.first;
        while let Some(waiting) = self.queue.next() {
            let closed_before = self.queue.is_closed();
            match self.sink.write(&waiting.line) {
                Ok(()) => {
                    // Told first: an incident that no longer waits has been counted.
                    self.succeeded();
                    self.queue.written(&waiting);
                    pause = self.backoff.first;
                }
                Err(error) => {
                    self.failed(&error.to_string());
                    // Closing while it pauses earns one more attempt.
                    if self.queue.pause(pause) && closed_before {
                        return;
                    }
                    pause = (pause * 2).min(self.backoff.most);
                }
            }
        }
    }

    fn succeeded(&mut self) {
        let sink = self.sink.name();
        self.metrics.sink_written.with_label_values(&[sink]).inc();
        if self.failing.take().is_some() {
            self.metrics.sink_failing.with_label_values(&[sink]).set(0);
            info!(sink, "the output works again");
        }
    }

    /// Logs once per change of state: an output that fails the same way again says nothing new.
    fn failed(&mut self, reason: &str) {
        let sink = self.sink.name();
        self.metrics.sink_errors.with_label_values(&[sink]).inc();
        if self.failing.as_deref() != Some(reason) {
            self.metrics.sink_failing.with_label_values(&[sink]).set(1);
            error!(
                sink,
                reason,
                pending = self.queue.len(),
                "the output fails; incidents are kept"
            );
            self.failing = Some(reason.to_owned());
        }
    }
}
