//! The probes' thread: puts them on files and takes them off again. A file may keep it waiting; the
//! rings go on being read.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::Sender;
use tracing::{debug, warn};

use crate::cli::Failure;
use crate::event::{FileKey, InodeKey};
use crate::host::{Aside, Attached, Clock, Directive, Watch};
use crate::instrument::OwnPrograms;
use crate::loader::{FunctionSite, PerfEvents, ProgramHandles, Released, Sensor};
use crate::metrics::Metrics;
use crate::probe::ProbeReport;
use crate::symbol::{find_entry_offset, find_symbol_offset};
use crate::trouble::chain;
use crate::verify::OwnProbes;

/// The kernel side's programs, with what is wanted of them.
#[derive(Debug)]
pub(in crate::app) struct Probes {
    sensor: Sensor,
    wanted: Receiver<Directive>,
    done: Sender<Attached>,
    /// Opens files and reads their symbols.
    files: Aside<()>,
    metrics: Metrics,
}

/// A file, opened, and where to put probes on it.
type Opened = (File, Vec<FunctionSite>);

// === impl Probes ===

impl Probes {
    pub(super) fn new(
        sensor: Sensor,
        (wanted, done): (Receiver<Directive>, Sender<Attached>),
        metrics: &Metrics,
    ) -> Self {
        let files = Aside::new("probed-files", || ());
        Self { sensor, wanted, done, files, metrics: metrics.clone() }
    }

    /// Attaches every hook by the cheapest mechanism that works here.
    pub(in crate::app) fn attach(&mut self) -> Result<Vec<ProbeReport>, Failure> {
        self.sensor.attach().map_err(super::load_failure)?;
        Ok(self.sensor.report().iter().map(ProbeReport::from).collect())
    }

    /// Where user-space probes are or were set; goes on being filled.
    pub(in crate::app) fn own_probes(&self) -> OwnProbes {
        self.sensor.own_probes()
    }

    /// What perf events of others are asked by; once.
    pub(in crate::app) fn perf_events(&mut self) -> Result<PerfEvents, String> {
        self.sensor.perf_events()
    }

    /// Ids of the programs, once all are loaded.
    pub(in crate::app) fn ids(&self) -> OwnPrograms {
        self.sensor.program_ids()
    }

    /// What the programs are asked by how they do.
    pub(in crate::app) fn programs(&self) -> ProgramHandles {
        self.sensor.program_handles()
    }

    /// Kernel memory in use.
    pub(in crate::app) fn memory(&self) -> crate::loader::BpfMemory {
        self.sensor.memory()
    }

    /// Goes on with what is wanted, on its own thread, until nobody can want anything any more, and
    /// detaches everything then. Wait for its end: threads that end with their process have a fatal
    /// signal pending, at which the kernel gives up taking a breakpoint out ("leaking uprobe",
    /// `uprobe_unregister_nosync`, kernel/events/uprobes.c).
    pub(in crate::app) fn start(mut self) -> io::Result<JoinHandle<()>> {
        let run = move || {
            while let Ok(directive) = self.wanted.recv() {
                self.apply([directive]);
            }
        };
        thread::Builder::new().name("probes".to_owned()).spawn(run)
    }

    /// A request that fails costs what it was for; it is told.
    pub(in crate::app) fn apply(&mut self, directives: impl IntoIterator<Item = Directive>) {
        for directive in directives {
            if let Err(error) = self.carry_out(&directive) {
                warn!(?directive, %error, "the kernel side did not do as asked");
            }
        }
        self.metrics.tell_probes(self.sensor.probes_now());
    }

    fn carry_out(&mut self, directive: &Directive) -> Result<(), String> {
        match directive {
            Directive::SampleProcess { tgid } => self.sensor.sample_process(*tgid),
            Directive::StopSampling { tgid } => self.sensor.stop_sampling(*tgid),
            Directive::Attach { tgid, path, exe, file, what } => {
                self.put_on(*tgid, path, (*exe, *file), what)
            }
            Directive::Release { inode, heirs } => {
                self.release(*inode, heirs);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn put_on(
        &mut self,
        tgid: u32,
        path: &Path,
        (exe, file): (FileKey, FileKey),
        what: &Watch,
    ) -> Result<(), String> {
        let (opened, wanted) = (path.to_owned(), what.clone());
        let open = move |(): &mut ()| -> Result<Option<Opened>, String> {
            let Some(library) = open_library(tgid, &opened, file.ino) else { return Ok(None) };
            let sites = find_sites(&library, &wanted)?;
            Ok(Some((library, sites)))
        };
        let Some((library, sites)) = self.files.ask(open).transpose()?.flatten() else {
            // The next process that maps it is told.
            debug!(path = %path.display(), "not to be had any more, or not in time");
            return self.sensor.forget_mapping(exe, file).map_err(|error| chain(&error));
        };
        let watched =
            self.sensor.attach_functions(&library, &sites).map_err(|error| chain(&error))?;
        let mut functions = Vec::new();
        for function in watched {
            match function {
                Ok(function) => {
                    debug!(library = %path.display(), symbol = function.symbol, price = ?function.price, "watched");
                    functions.push(function.symbol);
                }
                Err(error) => warn!(library = %path.display(), %error, "not watched"),
            }
        }
        let file = InodeKey { ino: file.ino, dev: file.dev, reserved: 0 };
        // Where there is no room for it, no comparison rests on these probes.
        let _ = self.done.try_send(Attached { file, functions, ktime_ns: Clock::ktime_ns() });
        Ok(())
    }

    fn release(&mut self, inode: InodeKey, heirs: &[(u32, PathBuf, InodeKey)]) {
        let Self { sensor, files, .. } = self;
        let open = |(tgid, path, inode): &(u32, PathBuf, InodeKey)| {
            let (tgid, path, ino) = (*tgid, path.clone(), inode.ino);
            files.ask(move |(): &mut ()| open_library(tgid, &path, ino)).flatten()
        };
        match sensor.release_functions(inode, heirs.iter().filter_map(open)) {
            Released::All { orphans } if orphans > 0 => {
                warn!(orphans, "a library that other containers have mapped is not watched there");
            }
            released => debug!(?inode, ?released, "released"),
        }
    }
}

/// Those of the wanted places that the file has.
fn find_sites(file: &File, what: &Watch) -> Result<Vec<FunctionSite>, String> {
    let symbols = match what {
        Watch::Entry => {
            let entry = find_entry_offset(file).map_err(|error| error.to_string())?;
            let site = |offset: crate::symbol::FileOffset| FunctionSite {
                symbol: "(entry)".to_owned(),
                offset: offset.0,
            };
            return Ok(entry.map(site).into_iter().collect());
        }
        Watch::Functions(symbols) => symbols,
    };
    let mut sites = Vec::new();
    for symbol in symbols {
        if let Some(offset) = find_symbol_offset(file, symbol).map_err(|error| error.to_string())? {
            sites.push(FunctionSite { symbol: symbol.clone(), offset: offset.0 });
        }
    }
    Ok(sites)
}

/// The library a process has mapped: never by a path alone, which the process may have chosen.
fn open_library(tgid: u32, path: &Path, ino: u64) -> Option<File> {
    let inside =
        PathBuf::from(format!("/proc/{tgid}/root")).join(path.strip_prefix("/").unwrap_or(path));
    [path.to_owned(), inside].into_iter().chain(mapped(tgid, ino)).find_map(|candidate| {
        let metadata = std::fs::metadata(&candidate).ok()?;
        if !metadata.is_file() || metadata.ino() != ino {
            return None;
        }
        let file = File::open(candidate).ok()?;
        (file.metadata().ok()?.ino() == ino).then_some(file)
    })
}

/// Where `/proc/TGID/map_files` has it.
fn mapped(tgid: u32, ino: u64) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{tgid}/maps")).ok()?;
    let wanted = ino.to_string();
    let line = text.lines().find(|line| line.split_whitespace().nth(4) == Some(&wanted))?;
    let range = line.split_whitespace().next()?;
    Some(PathBuf::from(format!("/proc/{tgid}/map_files/{range}")))
}
