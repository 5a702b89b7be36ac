//! The instrumentation station, between its thread and the analysis, the status and the metrics.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tracing::warn;

use super::analysis::Intake;
use crate::config::Config;
use crate::instrument::{OwnPrograms, Told, Watch};
use crate::loader::PerfEvents;
use crate::metrics::Metrics;
use crate::status::Status;

/// The running station. The way into the analysis ends with it, even while the thread waits for a
/// file: the analysis ends when nobody can tell it anything any more.
pub(super) struct Instruments {
    _watch: Watch,
    intake: Arc<Mutex<Option<Intake>>>,
}

impl Drop for Instruments {
    fn drop(&mut self) {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Starts it; nothing else depends on it.
pub(super) fn start(
    config: &Config,
    (perf_events, own): (Result<PerfEvents, String>, OwnPrograms),
    intake: &Intake,
    status: &Arc<Status>,
    metrics: &Metrics,
) -> Option<Instruments> {
    let (status, metrics) = (Arc::clone(status), metrics.clone());
    let intake = Arc::new(Mutex::new(Some(intake.another())));
    let way = Arc::clone(&intake);
    let ask = Box::new(move |file: BorrowedFd<'_>, is_link: bool| match &perf_events {
        Ok(events) => events.ask(file, is_link),
        Err(reason) => Err(reason.clone()),
    });
    let tell = Box::new(move |told| match told {
        Told::Seen(seen) => {
            if let Some(way) = way.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                way.offer(*seen);
            }
        }
        Told::Report(report) => status.tell(report),
        Told::Count(counts) => {
            status.surveyed();
            metrics.instrument_surveyed.set(Timestamp::now().as_second());
            for (kind, count) in counts {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                metrics.instruments_foreign.with_label_values(&[kind]).set(count);
            }
        }
        Told::Unread(sources) => {
            for (source, unread) in sources {
                let unread = i64::from(unread);
                metrics.instrument_sources_unread.with_label_values(&[source]).set(unread);
            }
        }
    });
    let started = Watch::start(&config.guarded, ask, own, tell);
    let started =
        started.inspect_err(|error| warn!(%error, "what instruments this host is not watched"));
    started.ok().map(|watch| Instruments { _watch: watch, intake })
}
