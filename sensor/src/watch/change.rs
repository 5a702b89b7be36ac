//! What the watch tells: one change of one file that the loader reads.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::spot::Role;
use super::state::Identity;
use crate::event::FileKey;
use crate::host::Owners;
use crate::package::Origin;

/// What was done to a watched name or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// A file, link or directory of this name was made.
    Created,
    /// Another name of an existing file.
    Linked,
    /// A symbolic link.
    Symlinked,
    /// Something was renamed to this name.
    RenamedInto,
    /// What had this name has another one now.
    RenamedAway,
    /// The name was removed.
    Removed,
    /// The file was written, truncated or mapped and stored into.
    Written,
    /// Its owner, mode or number of names changed.
    Attributes,
    /// Something was mounted over the name, or unmounted.
    Mounted,
}

/// Who, caught while it happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// Thread group id.
    pub tgid: u32,
    /// Start since boot in units of 10 ms; `None` where the process was gone already.
    pub start_ticks: Option<u64>,
    /// Its executable, as `/proc` has it.
    pub exe: Option<PathBuf>,
    /// Arguments.
    pub cmdline: Vec<String>,
    /// The text of `/proc/PID/cgroup`.
    pub cgroup: Option<String>,
}

/// An actor and what it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Who.
    pub actor: Actor,
    /// `CLOCK_MONOTONIC` of its first sign, ns.
    pub ktime_ns: u64,
    /// What, without order.
    pub actions: Vec<Action>,
}

/// Where the change was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The host's own.
    pub host: bool,
    /// Path of the root as the host sees it: `/` in a mount namespace of its own as well.
    pub path: String,
    /// A process that has this root.
    pub tgid: u32,
    /// Further mount namespaces that see the same file.
    pub others: usize,
}

/// A library that `/etc/ld.so.preload` has gained, or a module that a service of PAM has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preloaded {
    /// As it is written.
    pub path: String,
    /// Its file; `None` where there is none, or where the loader searches for it by name.
    #[serde(with = "crate::serial::option")]
    pub file: Option<FileKey>,
    /// GNU build-id, hex.
    pub build_id: Option<String>,
    /// Owner.
    pub uid: u32,
    /// Permissions.
    pub mode: u32,
    /// Whose it is; `None` where the provenance station was not asked, or has not answered.
    pub origin: Option<Arc<Origin>>,
}

/// What a change of PAM's files comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PamEffect {
    /// Services that have these lines by themselves or by an include; the file's own first.
    pub services: Vec<String>,
    /// Those of them that let everybody in now and did not before: authentication succeeds though
    /// every module that wants proof refuses it.
    pub opened: Vec<String>,
}

/// A change of a file that the loader or PAM reads, with its effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderConfig {
    /// What the file is to the loader or PAM.
    pub role: Role,
    /// Its path below the root.
    pub path: String,
    /// Whose root.
    pub root: Root,
    /// What was done, by everyone together; empty where only the difference was found.
    pub actions: Vec<Action>,
    /// The state before, in a few words.
    pub before: String,
    /// The state after.
    pub after: String,
    /// Entries it has gained: libraries, directories, `name => path` of a cache.
    pub added: Vec<String>,
    /// Entries it has lost, as far as they are known.
    pub removed: Vec<String>,
    /// Entries in effect now.
    pub now: Vec<String>,
    /// Entries that were in effect for a moment only.
    pub meanwhile: Vec<String>,
    /// The libraries among `added` and `meanwhile`; the modules that such lines name; the module
    /// itself, where that is what has changed.
    pub libraries: Vec<Preloaded>,
    /// What it comes to, for services of PAM.
    pub pam: PamEffect,
    /// How far the question is whose `libraries` are.
    pub owners: Owners,
    /// The loader reads the same as before.
    pub same: bool,
    /// Others than its owner may write to it now, and could not before, or its owner is not root.
    pub exposed: bool,
    /// Changed while the sensor was not running.
    pub while_away: bool,
    /// Executables of further processes that had a hand in it; filled in by the host station.
    pub further: Vec<String>,
    /// A package manager or ldconfig whose work it is, as far as ancestry tells; filled in by the
    /// host station.
    pub tool: Option<Tool>,
}

#[cfg(test)]
impl LoaderConfig {
    /// A file of the host that was written, with nothing known of what that changed.
    pub(crate) fn written(role: Role, path: &str) -> Self {
        Self {
            role,
            path: path.to_owned(),
            root: Root { host: true, path: "/".to_owned(), tgid: 1, others: 0 },
            actions: vec![Action::Written],
            before: String::new(),
            after: String::new(),
            added: Vec::new(),
            removed: Vec::new(),
            now: Vec::new(),
            meanwhile: Vec::new(),
            libraries: Vec::new(),
            pam: PamEffect::default(),
            owners: Owners::NotAsked,
            same: false,
            exposed: false,
            while_away: false,
            further: Vec::new(),
            tool: None,
        }
    }
}

/// A program whose work a change may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its path, as a program in that root sees it.
    pub path: String,
    /// It installs packages; otherwise it is ldconfig, or what writes PAM's services, on its own.
    pub packages: bool,
}

/// A change before it is known who its actors are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `CLOCK_MONOTONIC` of the first sign, ns.
    pub ktime_ns: u64,
    /// Who; empty where only the difference was found.
    pub touches: Vec<Touch>,
    /// There were more of them than find room.
    pub crowded: bool,
    /// What.
    pub config: LoaderConfig,
}

// === impl Preloaded ===

impl Preloaded {
    /// A file by its numbers.
    pub(super) fn of(path: &str, identity: &Identity) -> Self {
        let device = u32::try_from(identity.dev >> 32).unwrap_or(0) << 20
            | u32::try_from(identity.dev & 0xf_ffff).unwrap_or(0);
        let file = FileKey {
            ino: identity.ino,
            dev: device,
            generation: 0,
            ctime_s: u64::try_from(identity.ctime_ns / 1_000_000_000).unwrap_or(0),
            size: identity.size,
        };
        let (uid, mode) = (identity.uid, identity.mode);
        Self { path: path.to_owned(), file: Some(file), uid, mode, ..Self::default() }
    }
}

// === impl Action ===

impl Action {
    /// A word for output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Linked => "linked",
            Self::Symlinked => "symlinked",
            Self::RenamedInto => "renamed_into_place",
            Self::RenamedAway => "renamed_away",
            Self::Removed => "removed",
            Self::Written => "written",
            Self::Attributes => "attributes",
            Self::Mounted => "mounted_over",
        }
    }

    /// The actions of an event's mask.
    pub(super) fn of(mask: u64) -> Vec<Self> {
        [
            (libc::FAN_CREATE, Self::Created),
            (libc::FAN_MOVED_TO, Self::RenamedInto),
            (libc::FAN_MOVED_FROM, Self::RenamedAway),
            (libc::FAN_DELETE, Self::Removed),
            (libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE, Self::Written),
            (libc::FAN_ATTRIB, Self::Attributes),
        ]
        .into_iter()
        .filter(|(bits, _)| mask & bits != 0)
        .map(|(_, action)| action)
        .collect()
    }
}
