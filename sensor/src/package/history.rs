//! What package managers tell of their own changes: which package, when, from which version to which.
//!
//! dpkg keeps a log, which is rotated and may be missing; apk of version 3 keeps one, too; rpm only
//! keeps when each package came. What root wrote into them is believed, and what cannot be read is said.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::lines::Budget;
use super::root::Root;
use super::{MANAGERS, Manager, PackageError, apk, database, describe, dpkg, rpm};

/// What one history may cost for each manager.
const READ_BYTES: u64 = 256 << 20;
/// Reasons kept why something is missing.
const GAPS_MAX: usize = 16;

/// What was done to a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It came, and none of it was there before.
    Installed,
    /// It came in place of another version, newer or older.
    Replaced,
    /// The same version was installed again: its files may be others.
    Reinstalled,
    /// It went.
    Removed,
    /// It came; whether another version was there before is not recorded.
    Recorded,
}

/// One change of one package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageChange {
    /// When it began (dpkg, apk), or was over (rpm).
    pub time: Timestamp,
    /// By whom.
    pub manager: Manager,
    /// Name of the package.
    pub package: String,
    /// Its architecture; `None` where that is not recorded (apk).
    pub arch: Option<String>,
    /// What was done.
    pub action: Action,
    /// The version before, with rpm's epoch; `None` where there was none, or none is recorded.
    pub old: Option<String>,
    /// The version after; `None` where there is none.
    pub new: Option<String>,
}

/// The latest changes below one root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Newest first.
    pub changes: Vec<PackageChange>,
    /// There are older ones in the time asked for.
    pub more: bool,
    /// What could not be read, and why.
    pub gaps: Vec<String>,
    /// What a package manager never records. The changes are told all the same.
    pub limits: Vec<String>,
}

/// Reads the changes since `since`, the newest `most` of them. May wait for a disk; takes at most
/// `patience` for each manager beyond that, and what is missing then is a gap.
///
/// # Errors
/// Where there is no database of packages, or none that can be read; what is missing of one that can
/// is in [`History::gaps`].
pub fn read(
    root: &Root,
    since: Timestamp,
    most: usize,
    patience: Duration,
) -> Result<History, PackageError> {
    let mut found = Collector::new(since, most);
    let (mut known, mut refused) = (false, None);
    for manager in MANAGERS {
        match database::stamps(manager, root) {
            Ok(None) => continue,
            Ok(Some(_)) => known = true,
            Err(error) => {
                found.gap(describe(&error));
                refused = Some(error);
                continue;
            }
        }
        let budget = Budget::new(READ_BYTES, patience);
        let read = match manager {
            Manager::Dpkg => dpkg::changes(root, &mut found, &budget),
            Manager::Apk => apk::changes(root, &mut found, &budget),
            Manager::Rpm => rpm::changes(root, &mut found, &budget),
        };
        if let Err(error) = read {
            found.gap(describe(&error));
        }
    }
    if known { Ok(found.finish()) } else { Err(refused.unwrap_or(PackageError::NoDatabase)) }
}

/// Takes changes in whatever order they are read in and keeps the newest.
#[derive(Debug)]
pub(super) struct Collector {
    since: Timestamp,
    most: usize,
    kept: Vec<PackageChange>,
    more: bool,
    gaps: Vec<String>,
    limits: Vec<String>,
}

// === impl Collector ===

impl Collector {
    pub(super) fn new(since: Timestamp, most: usize) -> Self {
        let (kept, gaps, limits) = (Vec::new(), Vec::new(), Vec::new());
        Self { since, most, kept, more: false, gaps, limits }
    }

    /// The beginning of the time asked for.
    pub(super) fn since(&self) -> Timestamp {
        self.since
    }

    /// Of changes of one second those that come later are newer.
    pub(super) fn add(&mut self, change: PackageChange) {
        if change.time < self.since {
            return;
        }
        self.kept.push(change);
        if self.kept.len() >= self.most.saturating_mul(2).max(64) {
            self.shrink();
        }
    }

    /// Something is missing.
    pub(super) fn gap(&mut self, reason: String) {
        if self.gaps.len() < GAPS_MAX {
            self.gaps.push(reason);
        }
    }

    /// Something is never recorded.
    pub(super) fn limit(&mut self, what: &str) {
        self.limits.push(what.to_owned());
    }

    /// Older ones than those that were read may be missing.
    pub(super) fn cut(&mut self) {
        self.more = true;
    }

    fn shrink(&mut self) {
        self.kept.sort_by_key(|change| change.time);
        let over = self.kept.len().saturating_sub(self.most);
        self.more |= over > 0;
        self.kept.drain(..over);
    }

    pub(super) fn finish(mut self) -> History {
        self.shrink();
        self.kept.reverse();
        let Self { kept: changes, more, gaps, limits, .. } = self;
        History { changes, more, gaps, limits }
    }
}

// === impl PackageChange ===

impl PackageChange {
    /// Whether it is one of the package with this name and architecture. A package may change from
    /// one that is for all architectures, or to one.
    pub(crate) fn is_of(&self, package: &str, arch: &str) -> bool {
        let all = |arch: &str| matches!(arch, "all" | "noarch");
        let same = |own: &str| own == arch || all(own) || all(arch);
        self.package == package && self.arch.as_deref().is_none_or(same)
    }

    /// What happened, as a clause: `openssh-server 1:9.2p1-2+deb12u5 was replaced by
    /// 1:9.2p1-2+deb12u6`. `word` makes a name or version fit for where the clause is to stand.
    #[must_use]
    pub fn clause(&self, word: impl Fn(&str) -> String) -> String {
        let package = word(&self.package);
        let version = |version: &Option<String>| version.as_deref().map_or("?".to_owned(), &word);
        let (old, new) = (version(&self.old), version(&self.new));
        match self.action {
            Action::Installed | Action::Recorded => format!("{package} {new} was installed"),
            Action::Replaced => format!("{package} {old} was replaced by {new}"),
            Action::Reinstalled => format!("{package} {new} was installed again"),
            Action::Removed => format!("{package} {old} was removed"),
        }
    }
}

// === impl Action ===

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Installed | Self::Recorded => "installed",
            Self::Replaced => "replaced",
            Self::Reinstalled => "reinstalled",
            Self::Removed => "removed",
        })
    }
}
