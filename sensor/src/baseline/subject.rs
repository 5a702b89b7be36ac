//! One program's baseline: what it loads, who calls what in it, and how long it takes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sensor_stats::Shift;
use serde::{Deserialize, Serialize};

use super::approval::Approval;
use super::merge::Import;
use super::samples::Samples;
use super::shift::{CONSTRUCTOR, LINK, check, drift_percent};
use crate::event::FileKey;
use crate::host::{LinkTiming, Method, ModuleId};

/// Libraries remembered of one program. A program with more opens files of its own making.
pub(super) const LIBRARIES_MAX: usize = 512;
/// Names remembered of one kind (functions, variables, helpers), and callers of one function.
pub(super) const NAMES_MAX: usize = 128;
/// Forms of instrumentation remembered; a host with more keeps being told of the rest.
pub(super) const INSTRUMENTS_MAX: usize = 1024;
/// Modules that ask for one library.
pub(super) const ASKERS_MAX: usize = 16;
/// Samples of a guarded program, and of any other.
pub(super) const SAMPLES: (usize, usize) = (200, 40);
/// Samples of one module's share.
pub(super) const SHARE_SAMPLES: usize = 40;

/// What is normal for one subject. Everything here was accepted; nothing here is a suspicion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Observations accepted: logins for a program of sshd, starts for any other.
    pub starts: u64,
    /// Of these, since the last library that was new.
    pub since_new: u64,
    /// Libraries that came after it had settled.
    pub late: u32,
    /// Logins by method.
    pub methods: BTreeMap<Method, u64>,
    /// First accepted observation.
    pub first_seen: Option<Timestamp>,
    /// Latest accepted observation.
    pub last_seen: Option<Timestamp>,
    /// Files mapped executable.
    pub libraries: Vec<(ModuleId, Seen)>,
    /// Callers by guarded function.
    pub callers: BTreeMap<String, Callers>,
    /// What it opens after its start, and who in it asks.
    #[serde(default)]
    pub openings: Openings,
    /// Loader variables its environment holds.
    pub environment: BTreeSet<String>,
    /// Programs executed below it before authentication.
    pub helpers: BTreeSet<String>,
    /// What instruments the host, by form and owner; in the host's own baseline only.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub instruments: BTreeSet<String>,
    /// CPU time of linking.
    pub link: Samples,
    /// Of it, by module path.
    pub shares: BTreeMap<String, Samples>,
    /// CPU time from accept to a positive verdict, by method.
    pub auth: BTreeMap<Method, Samples>,
    /// What each stream of these times is compared with, and how the evidence for a shift stands.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "sensor_stats::sound_entries"
    )]
    pub shifts: BTreeMap<String, Shift>,
    /// When each stream last had a time that was no longer than its reference's median.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "sensor_stats::sound_entries"
    )]
    pub usual_at: BTreeMap<String, Timestamp>,
    /// Since when its detectors may speak; `None` while they may not, and where an earlier version has
    /// not recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<Timestamp>,
    /// What persons made part of it: who, why and when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// What of it other hosts have learned, and by whose word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<Import>,
}

/// When something was first and last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// First.
    pub first: Timestamp,
    /// Last: the kernel tells a known pair only once, so this is no frequency.
    pub last: Timestamp,
}

/// Who calls a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callers {
    /// Calls accepted.
    pub calls: u64,
    /// Modules that made them.
    pub modules: BTreeSet<ModuleId>,
}

/// Libraries opened after the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Openings {
    /// Observations accepted since they are watched: a baseline may be older than that.
    pub starts: u64,
    /// Modules that asked, by path of the library.
    pub askers: BTreeMap<String, BTreeSet<ModuleId>>,
    /// Libraries that were opened, and for whom could not be learned, with `starts` as it was then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unasked: BTreeMap<String, u64>,
}

/// Key of the first stretch of a start, which is not one module's alone.
pub(crate) const START_UP: &str = "(start-up)";
/// Key of the stretch after the last seal: all constructors together.
pub(crate) const CONSTRUCTORS: &str = "(constructors)";

// === impl Baseline ===

impl Baseline {
    /// Its detectors may speak. A program nobody guards must also have stopped growing: a plug-in
    /// host never settles.
    #[must_use]
    pub fn settled(&self, observations: u32, guarded: bool) -> bool {
        let wanted = u64::from(observations);
        self.starts >= wanted && (guarded || self.since_new >= wanted)
    }

    /// Enough logins with every one of these methods have been seen.
    #[must_use]
    pub fn knows_methods(&self, methods: &[Method], observations: u32) -> bool {
        methods
            .iter()
            .all(|method| self.methods.get(method).copied().unwrap_or(0) >= observations.into())
    }

    /// The library is known, in this very build.
    #[must_use]
    pub fn has_library(&self, module: &ModuleId) -> bool {
        self.libraries.iter().any(|(known, _)| known.same_file(module))
    }

    /// Some build of a library at this path is known.
    #[must_use]
    pub fn has_path(&self, path: &str) -> bool {
        self.libraries.iter().any(|(known, _)| known.path == path)
    }

    /// This very file is known, but could not be read so far.
    #[must_use]
    pub fn was_unread(&self, module: &ModuleId, file: &FileKey) -> bool {
        let unread = ModuleId::unread(module.path.clone(), file);
        self.libraries.iter().any(|(known, _)| known.is_unread() && known.same_file(&unread))
    }

    /// Another build that was seen at the same path.
    #[must_use]
    pub fn other_build(&self, module: &ModuleId) -> Option<&ModuleId> {
        let same = |known: &&(ModuleId, Seen)| known.0.path == module.path && known.0 != *module;
        self.libraries.iter().rev().find(same).map(|(known, _)| known)
    }

    /// Counts an accepted observation.
    pub fn add_start(&mut self, time: Timestamp, method: Option<Method>) {
        self.starts = self.starts.saturating_add(1);
        self.since_new = self.since_new.saturating_add(1);
        self.openings.starts = self.openings.starts.saturating_add(1);
        self.first_seen.get_or_insert(time);
        self.last_seen = Some(time);
        if let Some(method) = method {
            *self.methods.entry(method).or_default() += 1;
        }
    }

    /// Accepts a library.
    ///
    /// One that could not be read so far gives way to what is read at its path.
    pub fn add_library(&mut self, module: &ModuleId, time: Timestamp, late: bool) {
        let unread = |known: &ModuleId| known.is_unread() && known.path == module.path;
        if !module.is_unread()
            && let Some((known, seen)) = self.libraries.iter_mut().find(|(known, _)| unread(known))
        {
            (*known, seen.last) = (module.clone(), time);
            return;
        }
        if let Some((_, seen)) = self.libraries.iter_mut().find(|(known, _)| known == module) {
            seen.last = time;
            return;
        }
        self.since_new = 0;
        self.late = self.late.saturating_add(u32::from(late));
        if self.libraries.len() >= LIBRARIES_MAX {
            self.libraries.remove(0);
        }
        self.libraries.push((module.clone(), Seen { first: time, last: time }));
    }

    /// Accepts a caller.
    pub fn add_caller(&mut self, function: &str, module: &ModuleId) {
        if self.callers.len() >= NAMES_MAX && !self.callers.contains_key(function) {
            return;
        }
        let callers = self.callers.entry(function.to_owned()).or_default();
        callers.calls = callers.calls.saturating_add(1);
        if callers.modules.len() < NAMES_MAX {
            callers.modules.insert(module.clone());
        }
    }

    /// Accepts who asks for a library.
    pub fn add_opening(&mut self, library: &str, asker: &ModuleId) {
        let askers = &mut self.openings.askers;
        if askers.len() >= LIBRARIES_MAX && !askers.contains_key(library) {
            return;
        }
        let known = askers.entry(library.to_owned()).or_default();
        // One that could not be read so far gives way to what is read at its path.
        known.retain(|known| asker.is_unread() || !known.is_unread() || known.path != asker.path);
        if known.len() < ASKERS_MAX {
            known.insert(asker.clone());
        }
    }

    /// Notes that a library was opened and nobody knows for whom.
    pub fn add_unasked(&mut self, library: &str) {
        let Openings { starts, unasked, .. } = &mut self.openings;
        if unasked.len() < LIBRARIES_MAX || unasked.contains_key(library) {
            unasked.insert(library.to_owned(), *starts);
        }
    }

    /// Accepts a variable.
    pub fn add_variable(&mut self, name: &str) {
        if self.environment.len() < NAMES_MAX {
            self.environment.insert(name.to_owned());
        }
    }

    /// Accepts a program executed before authentication.
    pub fn add_helper(&mut self, path: &str) {
        if self.helpers.len() < NAMES_MAX {
            self.helpers.insert(path.to_owned());
        }
    }

    /// Accepts something that instruments the host. `learning`: what else there is has to be waited
    /// for; later, something harmless must not open the door to what comes after it.
    pub fn add_instrument(&mut self, key: &str, learning: bool) {
        let room = self.instruments.len() < INSTRUMENTS_MAX;
        if room && self.instruments.insert(key.to_owned()) && learning {
            self.since_new = 0;
        }
    }

    /// Accepts a start's link time.
    pub fn add_link(&mut self, timing: &LinkTiming, guarded: bool) {
        self.link.add(timing.cpu_ns, if guarded { SAMPLES.0 } else { SAMPLES.1 });
        if !guarded {
            return;
        }
        self.learn_time(LINK, timing.cpu_ns, drift_percent(self, timing));
        for (at, share) in timing.shares.iter().enumerate().filter(|(_, share)| !share.blocked) {
            let Some(key) = share_key(at, share.module.as_ref()) else { continue };
            if self.shares.len() < NAMES_MAX || self.shares.contains_key(key) {
                let samples = self.shares.entry(key.to_owned()).or_default();
                samples.add_while_room(share.cpu_ns, SHARE_SAMPLES);
            }
        }
    }

    /// Accepts the CPU time of all constructors.
    pub fn add_constructors(&mut self, cpu_ns: u64) {
        self.shares.entry(CONSTRUCTORS.to_owned()).or_default().add(cpu_ns, SHARE_SAMPLES);
        self.learn_time(CONSTRUCTOR, cpu_ns, None);
    }

    /// Accepts the CPU time of a successful authentication since accept, and of checking its proof where
    /// that is comparable, ns; `drift_percent` is how slow the machine was when the connection's program
    /// was linked, 100 as usual.
    pub fn add_auth(
        &mut self,
        method: Method,
        cpu_ns: u64,
        check_ns: Option<u64>,
        drift_percent: Option<u64>,
    ) {
        self.auth.entry(method).or_default().add(cpu_ns, SAMPLES.0);
        if let Some(check_ns) = check_ns {
            self.learn_time(&check(method), check_ns, drift_percent);
        }
    }
}

// === impl Openings ===

impl Openings {
    /// Enough observations were accepted while openings were watched.
    #[must_use]
    pub fn settled(&self, observations: u32) -> bool {
        self.starts >= observations.into()
    }

    /// Enough of them since somebody asked for this library and was not seen.
    #[must_use]
    pub fn settled_for(&self, library: &str, observations: u32) -> bool {
        let then = self.unasked.get(library).copied().unwrap_or(0);
        self.starts >= then.saturating_add(observations.into())
    }

    /// This module, in this very build, asks for the library.
    #[must_use]
    pub fn knows(&self, library: &str, asker: &ModuleId) -> bool {
        self.askers(library).any(|known| known.same_file(asker))
    }

    /// Another build of it does.
    #[must_use]
    pub fn other_build(&self, library: &str, asker: &ModuleId) -> Option<&ModuleId> {
        self.askers(library).find(|known| known.path == asker.path && !known.same_file(asker))
    }

    /// Who asks for the library.
    pub fn askers(&self, library: &str) -> impl Iterator<Item = &ModuleId> {
        self.askers.get(library).into_iter().flatten()
    }
}

/// What a stretch is kept under.
pub(crate) fn share_key(at: usize, module: Option<&ModuleId>) -> Option<&str> {
    if at == 0 { Some(START_UP) } else { module.map(|module| module.path.as_str()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ModuleShare;

    fn module(path: &str, build: &str) -> ModuleId {
        ModuleId { path: path.to_owned(), build: build.to_owned() }
    }

    #[test]
    fn a_program_that_keeps_loading_new_files_does_not_settle_unless_guarded() {
        let mut baseline = Baseline::default();
        for at in 0..100_u32 {
            baseline.add_start(Timestamp::UNIX_EPOCH, None);
            if at % 10 == 0 {
                let library = module(&format!("/lib/{at}.so"), "aa");
                baseline.add_library(&library, Timestamp::UNIX_EPOCH, false);
            }
        }
        assert!(!baseline.settled(20, false));
        assert!(baseline.settled(20, true));
    }

    #[test]
    fn a_replaced_file_is_another_library() {
        let mut baseline = Baseline::default();
        baseline.add_library(&module("/lib/a.so", "01"), Timestamp::UNIX_EPOCH, false);
        let new = module("/lib/a.so", "02");
        assert!(!baseline.has_library(&new));
        assert_eq!(baseline.other_build(&new).unwrap().build, "01");
    }

    #[test]
    fn the_first_stretch_is_kept_apart_and_sleep_is_left_out() {
        let share = |path: &str, cpu_ns, blocked| ModuleShare {
            module: Some(module(path, "01")),
            wall_ns: cpu_ns,
            cpu_ns,
            blocked,
        };
        let timing = LinkTiming {
            wall_ns: 0,
            cpu_ns: 9_000,
            blocked_ns: 0,
            minor_faults: 0,
            shares: vec![
                share("/a", 5_000, false),
                share("/b", 3_000, false),
                share("/c", 1_000, true),
            ],
            overflow: 0,
            busy: Vec::new(),
        };
        let mut baseline = Baseline::default();
        baseline.add_link(&timing, true);
        assert_eq!(baseline.shares.keys().collect::<Vec<_>>(), [START_UP, "/b"]);
    }

    #[test]
    fn everything_learned_is_bounded() {
        let mut baseline = Baseline::default();
        for at in 0..2_000 {
            let name = format!("/{at}");
            baseline.add_library(&module(&name, "0"), Timestamp::UNIX_EPOCH, false);
            baseline.add_caller(&name, &module(&name, "0"));
            baseline.add_caller("f", &module(&name, "0"));
            baseline.add_opening(&name, &module(&name, "0"));
            baseline.add_opening("/plugin.so", &module(&name, "0"));
            baseline.add_variable(&name);
            baseline.add_helper(&name);
            baseline.add_instrument(&name, true);
        }
        assert_eq!(baseline.instruments.len(), INSTRUMENTS_MAX);
        assert_eq!(baseline.libraries.len(), LIBRARIES_MAX);
        assert_eq!(baseline.callers.len(), NAMES_MAX);
        assert!(baseline.environment.len() <= NAMES_MAX && baseline.helpers.len() <= NAMES_MAX);
        assert_eq!(baseline.openings.askers.len(), LIBRARIES_MAX);
        assert!(baseline.openings.askers.values().all(|askers| askers.len() <= ASKERS_MAX));
        assert!(serde_json::to_vec(&baseline).unwrap().len() < 200_000);
    }

    #[test]
    fn a_baseline_from_before_openings_were_watched_is_read_and_has_yet_to_learn_them() {
        let mut old = Baseline::default();
        for _ in 0..50 {
            old.add_start(Timestamp::UNIX_EPOCH, None);
        }
        let mut json = serde_json::to_value(&old).unwrap();
        json.as_object_mut().unwrap().remove("openings").unwrap();
        let read: Baseline = serde_json::from_value(json).unwrap();
        assert!(read.settled(20, true) && !read.openings.settled(20));
    }
}
