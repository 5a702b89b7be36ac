//! The watch over the loader's files, between its thread and the task of the host station.

use tokio::sync::mpsc;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::probe::ProbeReport;
use crate::watch::{Told, Watch};

/// The watch, if it can be had here.
#[derive(Debug)]
pub(super) struct LoaderFiles {
    told: Option<mpsc::Receiver<Told>>,
    _watch: Option<Watch>,
}

// === impl LoaderFiles ===

impl LoaderFiles {
    /// Looks at every root there is; blocks for about a millisecond each.
    pub(super) fn start(config: &Config, metrics: &Metrics) -> (Self, Option<ProbeReport>) {
        match Watch::start(config.watch, &config.state_dir, metrics) {
            Ok((watch, told)) => (Self { told: Some(told), _watch: Some(watch) }, None),
            Err(report) => (Self { told: None, _watch: None }, Some(*report)),
        }
    }

    /// What it tells next; never, once it has ended.
    pub(super) async fn next(&mut self) -> Told {
        if let Some(told) = &mut self.told {
            if let Some(told) = told.recv().await {
                return told;
            }
            self.told = None;
        }
        std::future::pending().await
    }
}
