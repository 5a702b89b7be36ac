//! The watch over the files that tell the loader what to load and PAM whom to let in, in every root
//! of the host.
//!
//! fanotify marks on the files and on the directories their names stand in tell who does something
//! to them, at once and however it is done: by a relative path, a descriptor, a link, a
//! mapping, `io_uring`. It needs no probe and costs nothing while nothing happens. What no mark shows (a mount
//! over the name, a file system without handles, events lost) is found by comparison, without who.

mod actor;
pub(crate) mod cache;
mod change;
mod describe;
mod examine;
mod keep;
mod pam;
mod parse;
mod pending;
mod prober;
mod report;
mod roots;
mod spot;
mod state;
mod sys;
pub(crate) mod text;
mod views;
mod walk;
mod work;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc as blocking;
use std::thread;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::mpsc;
use tracing::{error, warn};

use crate::config::Watch as Settings;
use crate::metrics::Metrics;
use crate::probe::ProbeReport;

pub use change::{Action, Actor, Change, LoaderConfig, PamEffect, Preloaded, Root, Tool, Touch};
pub use spot::Role;

/// Changes on their way.
const QUEUE: usize = 256;
/// What the thread gets to end: it may wait for a file system.
const ENDING: Duration = Duration::from_secs(1);

/// What the watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Something has changed.
    Change(Box<Change>),
    /// It stands differently than it did.
    Report(ProbeReport),
}

/// The running watch; ends when dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Option<OwnedFd>,
    ended: blocking::Receiver<()>,
}

// === impl Watch ===

impl Watch {
    /// Starts it: when this returns, every root of the host has been looked at and marked, which
    /// takes about a millisecond each, some more with modules of PAM. Where it cannot be had, the report says why.
    pub fn start(
        settings: Settings,
        state_dir: &Path,
        metrics: &Metrics,
    ) -> Result<(Self, mpsc::Receiver<Told>), Box<ProbeReport>> {
        let failed = |error: std::io::Error| Box::new(report::missing(reason(&error)));
        let group = sys::Group::open().map_err(failed)?;
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (stopped, stop) = pipe_with(flags).map_err(|error| failed(error.into()))?;
        let (out, told) = mpsc::channel(QUEUE);
        let keep = keep::Keep::in_dir(state_dir);
        let mut work = work::Work::new(settings, group, stopped, out, metrics.clone(), keep);
        work.begin();
        let (end, ended) = blocking::channel::<()>();
        let run = move || {
            if let Err(error) = work.run() {
                error!(%error, "the watch over the loader's files has ended");
            }
            // Dropped at the very end, a panic's included.
            drop(end);
        };
        thread::Builder::new().name("watch".to_owned()).spawn(run).map_err(failed)?;
        Ok((Self { stop: Some(stop), ended }, told))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.take();
        if self.ended.recv_timeout(ENDING) == Err(blocking::RecvTimeoutError::Timeout) {
            warn!("the watch over the loader's files waits for a file system; ending without it");
        }
    }
}

/// Whether this host has what the watch needs.
#[must_use]
pub fn try_out() -> ProbeReport {
    match sys::Group::open() {
        Ok(_) => report::Standing::default().report(),
        Err(error) => report::missing(reason(&error)),
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "fanotify needs CAP_SYS_ADMIN".to_owned(),
        std::io::ErrorKind::InvalidInput => "fanotify tells no names before Linux 5.9".to_owned(),
        _ => format!("fanotify: {error}"),
    }
}
