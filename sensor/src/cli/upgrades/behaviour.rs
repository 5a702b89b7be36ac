//! What a change of a package changed in the behaviour of programs that have its files mapped, as far
//! as their baselines tell: one of a program's build before with that of its build after, or the
//! libraries that were first seen since. What is not recorded is said, and nothing is guessed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::baseline::{Baseline, CONSTRUCTORS, Samples, StoreError, read_subjects};
use crate::package::history::PackageChange;
use crate::package::{Packages, Root};

/// A change is told from when unpacking began; until that is over, the files of before are there.
const UNPACKING: SignedDuration = SignedDuration::from_mins(2);
/// Times learned of a build before its median is told.
const LEARNED: u64 = 10;

/// What is known of the programs of this host.
#[derive(Debug)]
pub(super) struct Known {
    /// Baselines of every build, by the path of the program.
    programs: BTreeMap<String, Vec<Baseline>>,
    /// The package that owns a path now, and its architecture.
    owners: HashMap<String, Option<(String, String)>>,
    packages: Packages,
}

/// One program before and after a change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Behaviour {
    /// Path of the program.
    pub(super) program: String,
    /// The program itself is the package's; else a library of it is.
    pub(super) own: bool,
    /// Median CPU times of both builds.
    pub(super) times: Vec<Times>,
    /// `FUNCTION by MODULE`: guarded functions and who calls them since; `None` is not recorded.
    pub(super) new_callers: Option<Vec<String>>,
    /// Libraries that no start before had, in whatever version; `None` is not recorded.
    pub(super) new_libraries: Option<Vec<String>>,
    /// What is not known, and why.
    pub(super) not_recorded: Vec<String>,
}

/// One kind of time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Times {
    /// `link`, `constructors`, or `auth` and the method.
    pub(super) what: String,
    /// Median before, seconds.
    pub(super) seconds_before: f64,
    /// Median after, seconds.
    pub(super) seconds_after: f64,
    /// Times learned before.
    pub(super) samples_before: u64,
    /// Times learned after.
    pub(super) samples_after: u64,
}

/// The stretch in which a change holds: until the next change of the same package.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    from: Timestamp,
    until: Timestamp,
}

// === impl Known ===

impl Known {
    /// Reads the baselines in a state directory.
    pub(super) fn read(state_dir: &Path) -> Result<Self, StoreError> {
        let subjects = read_subjects(state_dir)?.into_iter();
        Ok(Self::of(subjects.filter_map(|(subject, json)| {
            // One that is damaged tells nothing; the sensor counts it.
            Some((subject, serde_json::from_slice(&json).ok()?))
        })))
    }

    /// Of these baselines by subject; programs of containers are left out, whose packages are others.
    fn of(subjects: impl Iterator<Item = (String, Baseline)>) -> Self {
        let mut programs: BTreeMap<String, Vec<Baseline>> = BTreeMap::new();
        for (subject, baseline) in subjects {
            let Some((path, build)) = subject.rsplit_once(' ') else { continue };
            let elsewhere = build.starts_with("image:") || build.starts_with("file:");
            if path.starts_with('/') && !elsewhere {
                programs.entry(path.to_owned()).or_default().push(baseline);
            }
        }
        Self { programs, owners: HashMap::new(), packages: Packages::default() }
    }

    /// The programs that have files of the package, with what has changed in them between this change
    /// and `next`, the package's next one.
    pub(super) fn behaviour(
        &mut self,
        root: &Root,
        change: &PackageChange,
        next: Option<Timestamp>,
    ) -> Vec<Behaviour> {
        let earlier = |time: Timestamp| time.saturating_sub(UNPACKING).unwrap_or(Timestamp::MIN);
        let stretch =
            Stretch { from: earlier(change.time), until: next.map_or(Timestamp::MAX, earlier) };
        let Self { programs, owners, packages } = self;
        let mut owns = |path: &str| {
            if !owners.contains_key(path) {
                // Of what cannot be answered nothing is told.
                let owner = packages.owner(root, Path::new(path)).ok().flatten();
                owners.insert(path.to_owned(), owner.map(|owned| (owned.package, owned.arch)));
            }
            let owner = owners.get(path).and_then(Option::as_ref);
            owner.is_some_and(|(package, arch)| change.is_of(package, arch))
        };
        let mut all = Vec::new();
        for (path, builds) in programs {
            if owns(path) {
                all.push(stretch.of_program(path, builds));
                continue;
            }
            let paths = |baseline: &Baseline| {
                let paths = baseline.libraries.iter().map(|(module, _)| module.path.clone());
                paths.collect::<Vec<_>>()
            };
            let libraries: BTreeSet<String> =
                builds.iter().flat_map(paths).filter(|library| owns(library)).collect();
            if !libraries.is_empty() {
                all.extend(stretch.of_library(path, builds, &libraries));
            }
        }
        all
    }
}

// === impl Stretch ===

impl Stretch {
    fn holds(self, time: Timestamp) -> bool {
        self.from <= time && time < self.until
    }

    /// A program that the package brought: its builds have baselines of their own.
    fn of_program(self, path: &str, builds: &[Baseline]) -> Behaviour {
        let first = |build: &&Baseline| build.first_seen.unwrap_or(Timestamp::MIN);
        let before = builds.iter().filter(|build| first(build) < self.from).max_by_key(first);
        let after = builds.iter().filter(|build| self.holds(first(build))).min_by_key(first);
        let mut told = Behaviour::new(path, true);
        match (before, after) {
            (Some(before), Some(after)) => told.compare(before, after),
            (_, None) => told.lacks("no start of another build since then is learned"),
            (None, Some(_)) => told.lacks("no start of a build before is learned"),
        }
        told
    }

    /// A program that has libraries of the package: its baseline goes on over their changes. `None`
    /// where it was not there at the time.
    fn of_library(
        self,
        path: &str,
        builds: &[Baseline],
        libraries: &BTreeSet<String>,
    ) -> Option<Behaviour> {
        let there = |build: &&Baseline| {
            build.first_seen.is_some_and(|first| first < self.from)
                && build.last_seen.is_some_and(|last| last >= self.from)
        };
        let build = builds.iter().find(there)?;
        let mut told = Behaviour::new(path, false);
        let came = build.libraries.iter().filter(|(_, seen)| self.holds(seen.first));
        let came: Vec<&str> = came.map(|(module, _)| module.path.as_str()).collect();
        if !came.iter().any(|path| libraries.contains(*path)) {
            told.lacks("no start with another build of the package's files is learned");
            return Some(told);
        }
        let before = build.libraries.iter().filter(|(_, seen)| seen.first < self.from);
        let before = before.map(|(module, _)| module.path.as_str());
        told.new_libraries = Some(new_ones(before, came.into_iter()));
        told.lacks("times and callers are not kept apart by the builds of libraries");
        Some(told)
    }
}

// === impl Behaviour ===

impl Behaviour {
    fn new(path: &str, own: bool) -> Self {
        Self {
            program: path.to_owned(),
            own,
            times: Vec::new(),
            new_callers: None,
            new_libraries: None,
            not_recorded: Vec::new(),
        }
    }

    fn lacks(&mut self, reason: &str) {
        self.not_recorded.push(reason.to_owned());
    }

    fn compare(&mut self, before: &Baseline, after: &Baseline) {
        let mut streams = vec![("link".to_owned(), Some(&before.link), Some(&after.link))];
        let constructors = |baseline: &'_ Baseline| baseline.shares.contains_key(CONSTRUCTORS);
        if constructors(before) || constructors(after) {
            let (old, new) = (before.shares.get(CONSTRUCTORS), after.shares.get(CONSTRUCTORS));
            streams.push(("constructors".to_owned(), old, new));
        }
        let methods: BTreeSet<_> = before.auth.keys().chain(after.auth.keys()).collect();
        for method in methods {
            let (old, new) = (before.auth.get(method), after.auth.get(method));
            streams.push((format!("auth {method}"), old, new));
        }
        for (what, old, new) in streams {
            match times(&what, old, new) {
                Some(times) => self.times.push(times),
                None => self.lacks(&format!("{what}: fewer than {LEARNED} times before or after")),
            }
        }
        if before.callers.is_empty() || after.callers.is_empty() {
            self.lacks("no callers of guarded functions before or after");
        } else {
            self.new_callers = Some(new_callers(before, after));
        }
        let paths = |baseline: &'_ Baseline| baseline.libraries.len();
        if paths(before) == 0 || paths(after) == 0 {
            self.lacks("no libraries before or after");
        } else {
            let old = before.libraries.iter().map(|(module, _)| module.path.as_str());
            let new = after.libraries.iter().map(|(module, _)| module.path.as_str());
            self.new_libraries = Some(new_ones(old, new));
        }
    }
}

/// Both medians, where enough was learned.
fn times(what: &str, before: Option<&Samples>, after: Option<&Samples>) -> Option<Times> {
    let enough = |samples: Option<&Samples>| {
        samples.and_then(Samples::summary).filter(|summary| summary.count >= LEARNED)
    };
    let (before, after) = (enough(before)?, enough(after)?);
    let seconds = |us: u64| crate::host::seconds(us.saturating_mul(1000));
    Some(Times {
        what: what.to_owned(),
        seconds_before: seconds(before.median_us),
        seconds_after: seconds(after.median_us),
        samples_before: before.count,
        samples_after: after.count,
    })
}

/// By path: that a caller has another build is what an upgrade is about.
fn new_callers(before: &Baseline, after: &Baseline) -> Vec<String> {
    let mut new = Vec::new();
    for (function, callers) in &after.callers {
        let known = before.callers.get(function);
        for module in &callers.modules {
            let mut known = known.into_iter().flat_map(|known| &known.modules);
            if !known.any(|known| stem(&known.path) == stem(&module.path)) {
                new.push(format!("{function} by {}", module.path));
            }
        }
    }
    new.sort_unstable();
    new.dedup();
    new
}

/// Libraries whose name is new, whatever their version.
fn new_ones<'a>(
    before: impl Iterator<Item = &'a str>,
    after: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    let known: BTreeSet<&str> = before.map(stem).collect();
    let new: BTreeSet<&str> = after.filter(|path| !known.contains(stem(path))).collect();
    new.into_iter().map(str::to_owned).collect()
}

/// The path without the version of a library.
fn stem(path: &str) -> &str {
    path.rfind(".so").and_then(|at| path.get(..at)).unwrap_or(path)
}

#[cfg(test)]
mod tests;
