//! Taking over what another host has learned: what is the same everywhere, beside what was learned here.
//!
//! Paths, build-ids, callers, askers, variables and helpers are the same on every host with the same
//! packages. Files without a build-id are known by their inode, which is another elsewhere: they stay
//! behind. Times depend on the machine and are taken only where somebody asks for them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::samples::Samples;
use super::subject::{ASKERS_MAX, Baseline, LIBRARIES_MAX, NAMES_MAX};
use crate::host::ModuleId;

/// Imports remembered of one subject; beyond, the oldest is forgotten.
pub(super) const IMPORTS_MAX: usize = 16;

/// By whose word something was imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// When.
    pub time: Timestamp,
    /// The host that had learned it, as the export says.
    pub host: String,
    /// The public key whose signature was right, hex; `None` where there was none that is trusted.
    pub signer: Option<String>,
    /// Nobody vouches for it: it was imported by force.
    #[serde(default)]
    pub forced: bool,
}

/// What a merge did to one subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// It was not known here at all.
    pub new: bool,
    /// It has settled here, so nothing was added.
    pub kept: bool,
    /// Entries that were added to what was learned here.
    pub added: u64,
    /// Entries that stayed behind: known by an inode, memory, or there was no room.
    pub left: u64,
}

/// How to merge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Add to baselines that have settled here, too.
    pub settled_too: bool,
    /// Take times of programs that have none here.
    pub times: bool,
}

// === impl Baseline ===

impl Baseline {
    /// Nothing was ever learned, approved or imported.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what another host has learned; nothing that was learned here is lost or changed.
    /// `settled`: it has settled here.
    pub fn merge(&mut self, other: &Self, import: &Import, terms: Terms, settled: bool) -> Merged {
        let mut merged = Merged { new: self.is_blank(), ..Merged::default() };
        // What was taken up already, by an order that is carried out a second time.
        if self.imports.contains(import) {
            return merged;
        }
        if settled && !terms.settled_too {
            return Merged { kept: true, ..merged };
        }
        self.add_files(other, &mut merged);
        self.add_names(other, &mut merged);
        self.add_counts(other);
        if terms.times {
            self.add_times(other);
        }
        if self.imports.len() >= IMPORTS_MAX {
            self.imports.remove(0);
        }
        self.imports.push(import.clone());
        merged
    }

    fn add_files(&mut self, other: &Self, merged: &mut Merged) {
        for (module, seen) in &other.libraries {
            if self.has_library(module) {
                continue;
            }
            let room = self.libraries.len() < LIBRARIES_MAX && travels(module);
            if merged.count(room) {
                self.libraries.push((module.clone(), *seen));
            }
        }
        for (function, callers) in &other.callers {
            for module in &callers.modules {
                let own = self.callers.get(function);
                if own.is_some_and(|own| own.modules.contains(module)) {
                    continue;
                }
                let room =
                    own.map_or(self.callers.len() < NAMES_MAX, |own| own.modules.len() < NAMES_MAX);
                if merged.count(room && travels(module)) {
                    let own = self.callers.entry(function.clone()).or_default();
                    own.modules.insert(module.clone());
                }
            }
        }
        for (library, askers) in &other.openings.askers {
            for module in askers {
                let own = self.openings.askers.get(library);
                if own.is_some_and(|own| own.contains(module)) {
                    continue;
                }
                let room = own.map_or(self.openings.askers.len() < LIBRARIES_MAX, |own| {
                    own.len() < ASKERS_MAX
                });
                if merged.count(room && travels(module)) {
                    let own = self.openings.askers.entry(library.clone()).or_default();
                    own.insert(module.clone());
                }
            }
        }
    }

    fn add_names(&mut self, other: &Self, merged: &mut Merged) {
        let sets = [
            (&mut self.environment, &other.environment, NAMES_MAX),
            (&mut self.helpers, &other.helpers, NAMES_MAX),
            (&mut self.instruments, &other.instruments, super::subject::INSTRUMENTS_MAX),
        ];
        for (own, theirs, most) in sets {
            for name in theirs {
                if !own.contains(name) && merged.count(own.len() < most) {
                    own.insert(name.clone());
                }
            }
        }
    }

    /// What was seen often enough there need not be waited for here.
    fn add_counts(&mut self, other: &Self) {
        self.starts = self.starts.max(other.starts);
        self.since_new = self.since_new.max(other.since_new);
        self.openings.starts = self.openings.starts.max(other.openings.starts);
        for (method, count) in &other.methods {
            let own = self.methods.entry(*method).or_default();
            *own = (*own).max(*count);
        }
        for (library, then) in &other.openings.unasked {
            let unasked = &mut self.openings.unasked;
            if unasked.len() < LIBRARIES_MAX || unasked.contains_key(library) {
                let own = unasked.entry(library.clone()).or_default();
                *own = (*own).max(*then);
            }
        }
        self.first_seen = self.first_seen.or(other.first_seen);
        self.last_seen = self.last_seen.or(other.last_seen);
    }

    /// Only streams that have nothing here, and without the evidence of the other machine.
    fn add_times(&mut self, other: &Self) {
        if self.link.total() == 0 {
            self.link = other.link.clone();
        }
        for (module, shares) in &other.shares {
            self.shares.entry(module.clone()).or_insert_with(|| shares.clone());
        }
        for (method, times) in &other.auth {
            let own = self.auth.entry(*method).or_default();
            if *own == Samples::default() {
                *own = times.clone();
            }
        }
        for (stream, shift) in &other.shifts {
            self.shifts.entry(stream.clone()).or_insert_with(|| shift.anew());
        }
    }
}

// === impl Merged ===

impl Merged {
    /// Counts an entry that is added, or stays behind.
    fn count(&mut self, fits: bool) -> bool {
        self.added += u64::from(fits);
        self.left += u64::from(!fits);
        fits
    }
}

/// It is the same on another host: a file on a disk, known by its build-id.
fn travels(module: &ModuleId) -> bool {
    module.is_mapped_file() && module.build_id().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Method;

    fn module(path: &str, build: &str) -> ModuleId {
        ModuleId { path: path.to_owned(), build: build.to_owned() }
    }

    fn import(host: &str) -> Import {
        let time = "2026-11-21T10:00:00Z".parse().unwrap();
        Import { time, host: host.to_owned(), signer: Some("ab".to_owned()), forced: false }
    }

    fn there() -> Baseline {
        let mut there = Baseline::default();
        for (path, build) in [
            ("/lib/a.so", "aa"),
            ("/lib/b.so", "bb"),
            ("/lib/c.so", "inode:8:1:7:9:10"),
            ("/memfd:x (deleted)", "cc"),
        ] {
            there.add_library(&module(path, build), Timestamp::UNIX_EPOCH, false);
            there.add_caller("f", &module(path, build));
            there.add_opening("/lib/a.so", &module(path, build));
        }
        for _ in 0..60 {
            there.add_start(Timestamp::UNIX_EPOCH, Some(Method::Publickey));
            there.add_constructors(300_000);
            there.add_auth(Method::Publickey, 30_000_000, Some(8_000_000), None);
        }
        there.add_variable("LD_LIBRARY_PATH");
        there.add_helper("/usr/bin/keys");
        there
    }

    #[test]
    fn a_host_that_knows_nothing_is_settled_at_once_without_the_other_machines_times() {
        let mut here = Baseline::default();
        let merged = here.merge(&there(), &import("b"), Terms::default(), false);
        assert_eq!(merged, Merged { new: true, kept: false, added: 8, left: 6 });
        assert!(here.settled(20, true) && here.knows_methods(&[Method::Publickey], 20));
        assert!(here.openings.settled(20) && here.helpers.contains("/usr/bin/keys"));
        let paths: Vec<&str> = here.libraries.iter().map(|(one, _)| one.path.as_str()).collect();
        assert_eq!(paths, ["/lib/a.so", "/lib/b.so"], "what an inode names is of that host");
        assert!(here.shifts.is_empty() && here.auth.is_empty() && here.shares.is_empty());
        assert_eq!(here.imports, [import("b")]);
    }

    #[test]
    fn what_was_learned_here_stays_and_what_has_settled_is_left_alone_unless_asked() {
        let mut here = there();
        here.libraries.remove(1);
        here.add_library(&module("/lib/b.so", "b2"), Timestamp::UNIX_EPOCH, false);
        let before = here.clone();
        let merged = here.merge(&there(), &import("b"), Terms::default(), true);
        assert_eq!(merged, Merged { kept: true, ..Merged::default() });
        assert_eq!(here, before);
        let terms = Terms { settled_too: true, times: true };
        let merged = here.merge(&there(), &import("b"), terms, true);
        assert_eq!((merged.added, merged.left), (1, 0));
        assert!(before.libraries.iter().all(|one| here.libraries.contains(one)));
        assert!(here.has_library(&module("/lib/b.so", "bb")));
        assert_eq!((&here.shifts, here.starts), (&before.shifts, before.starts));
    }

    #[test]
    fn times_are_taken_where_asked_for_and_without_evidence_of_a_shift() {
        let mut there = there();
        let held = sensor_stats::Wealth::default().after(sensor_stats::Exceeded::Large, true, 1000);
        there.stand(crate::baseline::CONSTRUCTOR, held);
        let mut here = Baseline::default();
        here.merge(&there, &import("b"), Terms { times: true, ..Terms::default() }, false);
        let shift = &here.shifts[crate::baseline::CONSTRUCTOR];
        assert_eq!(shift.wealth(), sensor_stats::Wealth::default());
        assert_eq!(shift.reference().count(), 60);
        assert_eq!(here.auth[&Method::Publickey].total(), 60);
    }

    #[test]
    fn the_same_import_twice_adds_nothing_and_imports_are_bounded() {
        let mut here = Baseline::default();
        here.merge(&there(), &import("b"), Terms::default(), false);
        let once = here.clone();
        let again = here.merge(&there(), &import("b"), Terms::default(), false);
        assert_eq!((again.added, &here), (0, &once));
        for at in 0..100 {
            here.merge(&there(), &import(&at.to_string()), Terms::default(), false);
        }
        assert_eq!(here.imports.len(), IMPORTS_MAX);
    }
}
