//! The kernel side in the app's hands: loaded once, asked by the stations and by every scrape.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sensor_common::Ring;
use tracing::{debug, warn};

use crate::cli::Failure;
use crate::config::Config;
use crate::decode::DecodeError;
use crate::event::InodeKey;
use crate::host::Directive;
use crate::loader::{self, FunctionSite, LoadError, Loader, Sensor};
use crate::metrics::{KernelReading, Metrics};
use crate::probe::{ProbeReport, loader_config};
use crate::source::{Rings, SourceStats};
use crate::symbol::{find_entry_offset, find_symbol_offset};
use crate::trouble::chain;
use crate::verify::OwnProbes;

/// The loaded kernel side, shared by the source task and the scrapes.
#[derive(Debug)]
pub(super) struct Kernel {
    sensor: Mutex<Sensor>,
    /// Records lost when last looked at.
    lost: AtomicU64,
}

// === impl Kernel ===

impl Kernel {
    /// Loads, tries the offsets out, and hands the rings over. Nothing is attached yet.
    pub(super) fn load(config: &Config) -> Result<(Self, Rings), Failure> {
        let mut sensor = Loader::load(&loader_config(config)).map_err(load_failure)?;
        let Some(rings) = sensor.take_rings() else {
            return Err(Failure::Unsupported("the kernel object has no rings".to_owned()));
        };
        Ok((Self { sensor: Mutex::new(sensor), lost: AtomicU64::new(0) }, rings))
    }

    /// Attaches every probe by the cheapest mechanism that works here.
    pub(super) fn attach(&self) -> Result<Vec<ProbeReport>, Failure> {
        let mut sensor = self.lock();
        sensor.attach().map_err(load_failure)?;
        Ok(sensor.report().iter().map(ProbeReport::from).collect())
    }

    /// Where user-space probes are or were set; goes on being filled.
    pub(super) fn own_probes(&self) -> OwnProbes {
        self.lock().own_probes()
    }

    /// Carries out what the stations ask for. A request that fails costs what it was for; it is
    /// told and never ends the sensor.
    pub(super) fn apply(&self, directives: impl IntoIterator<Item = Directive>) {
        let mut directives = directives.into_iter().peekable();
        if directives.peek().is_none() {
            return;
        }
        let mut sensor = self.lock();
        for directive in directives {
            if let Err(error) = carry_out(&mut sensor, &directive) {
                warn!(?directive, %error, "the kernel side did not do as asked");
            }
        }
    }

    /// True if records were lost since the last call.
    pub(super) fn lost_since_last_look(&self) -> bool {
        let Ok(counters) = self.lock().counters() else { return false };
        let lost = counters.lost(Ring::Bulk) + counters.lost(Ring::Priority);
        self.lost.swap(lost, Ordering::Relaxed) != lost
    }

    /// Has the kernel's own counters read at every scrape.
    pub(super) fn serve_metrics(
        self: &std::sync::Arc<Self>,
        metrics: &Metrics,
    ) -> Result<(), Failure> {
        let kernel = std::sync::Arc::clone(self);
        let memory = kernel.lock().memory();
        let memory = memory.maps + memory.programs;
        metrics
            .set_kernel_source(move || kernel.read(memory))
            .map_err(|error| super::internal("cannot define the kernel's metrics", error))
    }

    fn read(&self, memory_bytes: u64) -> Option<KernelReading> {
        let sensor = self.lock();
        let counters = sensor.counters().ok()?.all();
        Some(KernelReading { counters, memory_bytes, programs: sensor.program_stats() })
    }

    /// A thread that panicked with the lock held leaves maps that are as good as before.
    fn lock(&self) -> MutexGuard<'_, Sensor> {
        self.sensor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kernel that cannot be used is the host's, not the user's, fault: exit code 3.
#[expect(clippy::needless_pass_by_value, reason = "used as `map_err(load_failure)`")]
pub(super) fn load_failure(error: LoadError) -> Failure {
    Failure::Unsupported(chain(&error))
}

fn carry_out(sensor: &mut Sensor, directive: &Directive) -> Result<(), String> {
    let told = |error: loader::MapWriteError| chain(&error);
    match directive {
        Directive::Guard { inode, role } => sensor.guard_inode(*inode, *role).map_err(told),
        Directive::SetRole { tgid, role } => sensor.set_process_role(*tgid, *role).map_err(told),
        Directive::ForgetMapping { exe, file } => sensor.forget_mapping(*exe, *file).map_err(told),
        Directive::LinkLimit { exe, limit_ns } => {
            let inode = InodeKey { ino: exe.ino, dev: exe.dev, reserved: 0 };
            sensor.set_link_limit(inode, Some(*limit_ns)).map_err(told)
        }
        Directive::SampleProcess { tgid } => sensor.sample_process(*tgid),
        Directive::StopSampling { tgid } => sensor.stop_sampling(*tgid),
        Directive::AttachEntry { tgid, path, inode } => {
            let program = open_library(*tgid, path, *inode)
                .ok_or_else(|| format!("{} is not to be had any more", path.display()))?;
            let offset = find_entry_offset(&program).map_err(|error| error.to_string())?;
            let Some(offset) = offset else { return Ok(()) };
            let site = FunctionSite { symbol: "(entry)".to_owned(), offset: offset.0 };
            attach_sites(sensor, &program, path, &[site])
        }
        Directive::AttachFunctions { tgid, path, inode, symbols } => {
            let library = open_library(*tgid, path, *inode)
                .ok_or_else(|| format!("{} is not to be had any more", path.display()))?;
            watch(sensor, &library, path, symbols)?;
            Ok(())
        }
    }
}

/// Watches those of `symbols` that the library exports.
fn watch(
    sensor: &mut Sensor,
    library: &File,
    shown: &Path,
    symbols: &[String],
) -> Result<(), String> {
    let mut sites = Vec::new();
    for symbol in symbols {
        if let Some(offset) =
            find_symbol_offset(library, symbol).map_err(|error| error.to_string())?
        {
            sites.push(FunctionSite { symbol: symbol.clone(), offset: offset.0 });
        }
    }
    attach_sites(sensor, library, shown, &sites)
}

fn attach_sites(
    sensor: &mut Sensor,
    library: &File,
    shown: &Path,
    sites: &[FunctionSite],
) -> Result<(), String> {
    let watched = sensor.attach_functions(library, sites).map_err(|error| chain(&error))?;
    for function in watched {
        match function {
            Ok(function) => {
                debug!(library = %shown.display(), symbol = function.symbol, price = ?function.price, "watched");
            }
            Err(error) => warn!(library = %shown.display(), %error, "not watched"),
        }
    }
    Ok(())
}

/// The library a process has mapped: never by a path alone, which the process may have chosen.
fn open_library(tgid: u32, path: &Path, inode: InodeKey) -> Option<File> {
    let inside =
        PathBuf::from(format!("/proc/{tgid}/root")).join(path.strip_prefix("/").unwrap_or(path));
    [path.to_owned(), inside].into_iter().chain(mapped(tgid, inode)).find_map(|candidate| {
        let metadata = std::fs::metadata(&candidate).ok()?;
        if !metadata.is_file() || metadata.ino() != inode.ino {
            return None;
        }
        let file = File::open(candidate).ok()?;
        (file.metadata().ok()?.ino() == inode.ino).then_some(file)
    })
}

/// Where `/proc/TGID/map_files` has it.
fn mapped(tgid: u32, inode: InodeKey) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{tgid}/maps")).ok()?;
    let wanted = inode.ino.to_string();
    let line = text.lines().find(|line| line.split_whitespace().nth(4) == Some(&wanted))?;
    let range = line.split_whitespace().next()?;
    Some(PathBuf::from(format!("/proc/{tgid}/map_files/{range}")))
}

/// Adds what the source has read since it was last told of.
pub(super) fn count_source(metrics: &Metrics, before: &SourceStats, now: &SourceStats) {
    for (ring, label) in [(Ring::Bulk, "bulk"), (Ring::Priority, "priority")] {
        let new = now.consumed(ring).saturating_sub(before.consumed(ring));
        metrics.records_consumed.with_label_values(&[label]).inc_by(new);
    }
    let failures = DecodeError::REASONS.iter().zip(now.undecodable).zip(before.undecodable);
    for ((reason, now), before) in failures {
        if now > before {
            metrics.decode_failures.with_label_values(&[*reason]).inc_by(now - before);
        }
    }
}
