//! What instruments this host: BPF programs and links, uprobes and kprobes of perf and tracefs,
//! ftrace, kernel modules, with who holds them; listed from user space and compared now and then.
//!
//! Nothing tells when one is added, so this looks: cheaply every two seconds (ids of BPF programs
//! and links, tracefs, modules), at every process's descriptors when that differs and every thirty
//! seconds. What lives for less than that is not seen. What lives in the kernel can hide from all of
//! it.
//!
//! The sensor's own is what its loader has loaded, by the ids of its programs, and what this process
//! holds of it: no name, no path and no executable makes anything its own. Another process that runs
//! the same program is told like any other; that the code it has loaded is the sensor's code as well
//! lowers the severity and explains nothing.

mod account;
mod fdinfo;
mod fprobe;
mod ftrace;
mod holders;
mod modules;
mod mounted;
mod objects;
mod owner;
mod protect;
mod report;
mod survey;
mod text;
mod tracefs;
mod work;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use report::PROBE;

pub use owner::Owner;
pub use protect::{Class, Site};
pub use survey::{OwnPrograms, Survey, Surveyor};
pub use work::{Seen, Told, UNANSWERED, Watch};

use crate::event::FileKey;
use crate::loader::PerfSite;
use crate::probe::ProbeReport;
use crate::serial::Word;

/// Labels of [`Instrument::label`].
pub const KINDS: [&str; 6] = ["bpf_program", "uprobe", "kprobe", "ftrace", "tracer", "module"];

/// Names of [`Source`]s, as labels of metrics.
pub const SOURCES: [&str; 16] = [
    "BPF programs",
    "BPF program targets",
    "BPF links",
    "BPF ids",
    "uprobe_events",
    "kprobe_events",
    "dynamic_events",
    "enabled_functions",
    "current_tracer",
    "instances",
    "tracefs",
    "kprobes",
    "modules",
    "own descriptors",
    "descriptors",
    "perf events",
];

/// Reads what a perf event of another process is, through a copy of its descriptor (`true`: of a
/// BPF link to it). The error says why it cannot be told.
pub type AskPerf =
    dyn FnMut(BorrowedFd<'_>, bool) -> Result<Option<PerfSite>, String> + Send + 'static;

/// One thing that instruments the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instrument {
    /// Tells it from any other for as long as it lives: never the same for two.
    pub id: String,
    /// What it is.
    pub what: What,
    /// Processes that hold it open, lowest id first; none for what lives by itself.
    pub holders: Vec<u32>,
}

/// What instruments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A BPF program.
    Program(Program),
    /// A breakpoint in a file that processes map.
    Uprobe(Uprobe),
    /// A breakpoint in the kernel.
    Kprobe {
        /// Function or address, as the kernel tells it.
        place: String,
        /// By which interface: `tracefs`, `fprobe`, `fprobe on return`, `perf`, `bpf link`; `kernel`
        /// where only the kernel's list of all kprobes has it, `ftrace` where only that of hooked
        /// functions does.
        #[serde(with = "crate::serial::one")]
        by: Word,
    },
    /// A kernel function whose entry calls somebody.
    Ftrace {
        /// The function.
        function: String,
        /// What the kernel says of it, e.g. `(1) R I`.
        flags: String,
    },
    /// A tracer other than `nop` is switched on.
    Tracer(String),
    /// A kernel module.
    Module(Module),
}

/// See [`What::Program`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Kind as bpftool(8) names it: `kprobe`, `cgroup_skb`, …
    pub kind: String,
    /// Its name; 15 bytes at most.
    pub name: String,
    /// Digest of its instructions.
    pub tag: u64,
    /// When it was loaded.
    pub loaded: Option<Timestamp>,
    /// By which user.
    pub uid: Option<u32>,
    /// What it is attached to, as far as can be told: `raw_tracepoint sched_process_exec`, …
    pub places: Vec<String>,
    /// Kernel functions whose entry calls it, where the kernel lists them; no part of its form, as the
    /// list can be out of reach at times.
    pub functions: Vec<String>,
}

/// See [`What::Uprobe`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uprobe {
    /// The file as the kernel identifies it, where it was asked.
    #[serde(with = "crate::serial::option")]
    pub file: Option<FileKey>,
    /// Its path as it was given; hostile, and shown by [`Instrument::name`] only.
    #[serde(with = "crate::serial::one")]
    pub path: PathBuf,
    /// Where in it, bytes.
    pub offset: u64,
    /// It fires on the return.
    pub is_return: bool,
    /// It has a semaphore: a USDT probe.
    pub is_usdt: bool,
    /// By which interface: `tracefs`, `perf`, `bpf link`.
    #[serde(with = "crate::serial::one")]
    pub by: Word,
    /// BPF program that it runs, and its name where it has one.
    pub program: Option<(u32, String)>,
}

/// See [`What::Module`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Bytes of core memory.
    pub size: u64,
    /// What the kernel holds against it, e.g. `OE` (out of tree, unsigned); empty for nothing.
    pub taint: String,
    /// Where it was loaded; 0 where the kernel does not say.
    pub address: u64,
}

/// Whether one source could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: &'static str,
    /// Why it could not be read, or not wholly.
    pub reason: Option<String>,
}

// === impl Instrument ===

impl Instrument {
    /// Its kind in a word or two.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.what {
            What::Program(_) => "BPF program",
            What::Uprobe(uprobe) if uprobe.is_usdt => "USDT probe",
            What::Uprobe(uprobe) if uprobe.is_return => "uretprobe",
            What::Uprobe(_) => "uprobe",
            What::Kprobe { .. } => "kprobe",
            What::Ftrace { .. } => "ftrace hook",
            What::Tracer(_) => "kernel tracer",
            What::Module(_) => "kernel module",
        }
    }

    /// Its kind as a label of metrics, one of [`KINDS`].
    #[must_use]
    pub fn label(&self) -> &'static str {
        match &self.what {
            What::Program(_) => "bpf_program",
            What::Uprobe(_) => "uprobe",
            What::Kprobe { .. } => "kprobe",
            What::Ftrace { .. } => "ftrace",
            What::Tracer(_) => "tracer",
            What::Module(_) => "module",
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.what {
            What::Program(program) if program.name.is_empty() => "(unnamed)".to_owned(),
            What::Program(program) => program.name.clone(),
            What::Uprobe(uprobe) => format!("{}+{:#x}", uprobe.shown(), uprobe.offset),
            What::Kprobe { place, .. } => place.clone(),
            What::Ftrace { function, .. } => function.clone(),
            What::Tracer(name) => name.clone(),
            What::Module(module) => module.name.clone(),
        }
    }

    /// What a baseline remembers it by: what it is and where it sits, without ids, addresses and
    /// offsets, which differ from start to start and from build to build.
    #[must_use]
    pub fn form(&self) -> String {
        match &self.what {
            What::Program(program) => {
                let mut places: Vec<_> = program.places.iter().map(String::as_str).collect();
                places.sort_unstable();
                places.dedup();
                format!("BPF {} {} at [{}]", program.kind, self.name(), places.join(", "))
            }
            What::Uprobe(uprobe) => {
                format!("{} in {} by {}", self.kind(), uprobe.shown(), uprobe.by)
            }
            What::Kprobe { place, by } => format!("kprobe {place} by {by}"),
            What::Ftrace { function, .. } => format!("ftrace {function}"),
            What::Tracer(name) => format!("tracer {name}"),
            What::Module(module) => format!("module {} [{}]", module.name, module.taint),
        }
    }
}

// === impl Uprobe ===

impl Uprobe {
    /// Its path as output has it: without control characters, a long one with a digest of all of it.
    #[must_use]
    pub fn shown(&self) -> String {
        text::shown_path(&self.path)
    }
}

/// What can be listed here, tried out once; without the kernel side, so without the places of perf
/// events.
#[must_use]
pub fn try_out() -> ProbeReport {
    let ask = |_: BorrowedFd<'_>, _: bool| Err("the sensor does not run".to_owned());
    report::report(&Surveyor::new(Box::new(ask), OwnPrograms::default()).survey().sources)
}
