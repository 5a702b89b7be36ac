//! What there is to say against a module, from its file and its package.

use crate::finding::Severity;
use crate::package::{Content, Owner};
use crate::watch::Preloaded;

/// Directories that everyone can write to, or that are somebody's own.
const COMMON: [&str; 5] = ["/tmp/", "/var/tmp/", "/dev/shm/", "/run/user/", "/home/"];
const OTHERS_WRITE: u32 = 0o002;

/// The worst that is known of one module; a later one is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    Missing,
    Unowned,
    Differs,
    Common,
    Foreign,
    Writable,
}

/// A module with what is to be said against it, ordered by how much that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Doubt<'a> {
    why: Why,
    module: &'a str,
}

// === impl Doubt ===

impl<'a> Doubt<'a> {
    /// `None` where nothing is to be said, or nothing is known.
    pub(super) fn of(module: &'a Preloaded) -> Option<Self> {
        let doubt = |why| Some(Self { why, module: &module.path });
        let origin = module.origin.as_deref();
        if module.file.is_none() {
            return doubt(Why::Missing);
        }
        if module.mode & OTHERS_WRITE != 0 {
            return doubt(Why::Writable);
        }
        if module.uid != 0 {
            return doubt(Why::Foreign);
        }
        if COMMON.iter().any(|place| module.path.starts_with(place)) {
            return doubt(Why::Common);
        }
        match origin {
            Some(origin) if matches!(origin.content, Content::Differs { .. }) => {
                doubt(Why::Differs)
            }
            Some(origin) if origin.owner == Owner::Nobody => doubt(Why::Unowned),
            _ => None,
        }
    }

    pub(super) fn severity(self) -> Severity {
        match self.why {
            Why::Missing => Severity::Low,
            Why::Unowned | Why::Differs => Severity::High,
            Why::Common | Why::Foreign | Why::Writable => Severity::Critical,
        }
    }

    pub(super) fn confidence(self) -> f64 {
        match self.why {
            Why::Missing => 0.3,
            Why::Unowned => 0.7,
            Why::Differs => 0.85,
            Why::Common | Why::Foreign | Why::Writable => 0.9,
        }
    }

    pub(super) fn module(self) -> &'a str {
        self.module
    }

    /// Ends "PAM loads MODULE, …".
    pub(super) fn clause(self) -> &'static str {
        match self.why {
            Why::Missing => "of which there is no file",
            Why::Unowned => "which no package owns",
            Why::Differs => "which is not what its package brought",
            Why::Common => "from a directory in which others than root put files",
            Why::Foreign => "which belongs to another user than root",
            Why::Writable => "which every user can write to",
        }
    }
}

/// It is what a package brought.
pub(super) fn is_packages(module: &Preloaded) -> bool {
    module
        .origin
        .as_ref()
        .is_some_and(|origin| origin.package().is_some() && origin.content == Content::Matches)
}
