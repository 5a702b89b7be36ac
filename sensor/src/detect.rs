//! Detectors: each judges observations against the baseline and drafts findings.
//!
//! A detector sees one observation at a time with the baseline as it was before it, keeps only
//! small bounded state of its own, and knows no clock but the observation's.

mod audit_unrequested;
mod auth_cpu_shift;
mod auth_without_method;
mod blinded;
mod check;
mod dlopen_unexpected;
mod foreign_caller;
mod foreign_probe;
mod got_redirected;
mod instruments;
pub(crate) mod judge;
mod kernel_hook;
mod library_unexpected;
mod library_unowned;
mod library_writable_path;
mod link_time_shift;
mod loader_config_changed;
mod module_unlinked;
mod pam_stack_changed;
mod preauth_exec;
mod preload_env;
pub(crate) mod relro_reopened;
pub(crate) mod remote_write;
mod streak;
mod text_patched;
pub(crate) mod timing;
pub(crate) mod upgrade;

pub use check::{
    Anyway, Category, CheckFailed, CheckReport, CodeChange, Mismatch, Namespace, Nature, NoCheck,
    Place, Refusal, Refused, SlotCheck, StrayCode, UnrequestedAudit, WhyChanged,
};

use std::sync::Arc;

use sensor_stats::Wealth;

use crate::baseline::Baseline;
use crate::config::{Detect, Learning};
use crate::event::FileKey;
use crate::finding::{Evidence, Family, Severity};
use crate::host::{ModuleId, Observation, Program};
use crate::package::Owned;

/// What a detector may look at besides the observation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World<'a> {
    /// Baseline of the process's own program.
    pub(crate) own: &'a Baseline,
    /// Baseline of the connection's monitor, on an sshd connection.
    pub(crate) login: Option<&'a Baseline>,
    /// Limits.
    pub(crate) detect: &'a Detect,
    /// When a baseline is settled.
    pub(crate) learning: &'a Learning,
    /// Where files come from.
    pub(crate) packages: &'a dyn Brought,
}

/// What is known of where files come from.
pub(crate) trait Brought: std::fmt::Debug {
    /// The package that has brought the file at `path` as it is now, in words; `None` where none
    /// has, the file is not what it brought, or nobody knows yet.
    fn brought(&self, path: &str) -> Option<String>;

    /// It is known that no package has brought the file at `path` as it is now.
    fn foreign(&self, path: &str) -> bool;

    /// The package that has brought this very file, on the host itself; `None` where none has, the file
    /// is not what it brought, it is another file than `file`, or nobody knows yet.
    fn vouched(&self, module: &ModuleId, file: Option<&FileKey>) -> Option<&Owned>;
}

/// A verdict before it has a time, a host and an id.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) detector: &'static str,
    pub(crate) family: Family,
    pub(crate) severity: Severity,
    /// 0–1: how often such a sign is what it seems, as far as is known.
    pub(crate) confidence: f64,
    pub(crate) title: String,
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) attack: &'static [&'static str],
    /// What it is about: one finding per detector and object in an incident, repeats are counted.
    pub(crate) object: String,
    /// Whose baseline it is measured by.
    pub(crate) program: Arc<Program>,
    /// When the evidence was taken, if later than the observation.
    pub(crate) ktime_ns: Option<u64>,
    /// What accounts for it: a known tool, a package manager.
    pub(crate) explained_by: Option<String>,
}

/// A time that a detector has compared with its stream's reference.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// Whose baseline holds the stream.
    pub(crate) subject: String,
    /// Which of its streams.
    pub(crate) stream: String,
    /// How slow the machine was, 100 as usual; `None` where that is not known.
    pub(crate) drift_percent: Option<u64>,
    /// How the evidence for a shift stands now; `None` where the time was no evidence.
    pub(crate) wealth: Option<Wealth>,
    /// The time may be learned.
    pub(crate) calm: bool,
    /// The time was no longer than the usual one.
    pub(crate) usual: bool,
    /// It is told that the stream's times have crept away from the usual one.
    pub(crate) crept: bool,
}

// === impl Reading ===

impl Reading {
    /// Before it is compared with anything.
    pub(crate) fn new(subject: &str, stream: String, drift_percent: Option<u64>) -> Self {
        Self {
            subject: subject.to_owned(),
            stream,
            drift_percent,
            wealth: None,
            calm: true,
            usual: false,
            crept: false,
        }
    }
}

/// One line of the design's table.
pub(crate) trait Detector: Send {
    /// Its id.
    fn id(&self) -> &'static str;
    /// Looks at one observation.
    fn observe(&mut self, seen: &Observation, world: &World<'_>, out: &mut Vec<Draft>);
    /// What it has read off the observation; asked once after each.
    fn readings(&mut self) -> Vec<Reading> {
        Vec::new()
    }
}

/// Every detector there is.
pub(crate) fn all() -> Vec<Box<dyn Detector>> {
    vec![
        Box::new(preload_env::PreloadEnv),
        Box::new(loader_config_changed::LoaderConfigChanged),
        Box::new(pam_stack_changed::PamStackChanged),
        Box::new(library_unexpected::LibraryUnexpected),
        Box::new(library_unowned::LibraryUnowned),
        Box::new(library_writable_path::LibraryWritablePath),
        Box::new(dlopen_unexpected::DlopenUnexpected::default()),
        Box::new(link_time_shift::LinkTimeShift::default()),
        Box::new(audit_unrequested::AuditUnrequested),
        Box::new(got_redirected::GotRedirected),
        Box::new(text_patched::TextPatched),
        Box::new(module_unlinked::ModuleUnlinked),
        Box::new(blinded::Blinded),
        Box::new(remote_write::RemoteWrite),
        Box::new(relro_reopened::RelroReopened),
        Box::new(foreign_caller::ForeignCaller),
        Box::new(foreign_probe::ForeignProbe),
        Box::new(kernel_hook::KernelHook),
        Box::new(preauth_exec::PreauthExec),
        Box::new(auth_without_method::AuthWithoutMethod),
        Box::new(auth_cpu_shift::AuthCpuShift::default()),
    ]
}
