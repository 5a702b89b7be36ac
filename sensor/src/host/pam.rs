//! Calls into libpam that tell how far somebody has come who authenticates.
//!
//! Only entries are seen, so what a call came to is told by the one after it (Linux-PAM, pam(3)):
//! whoever asks about the account has authenticated, whoever authenticates once more has not, and
//! `pam_end` is handed the last status.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::module::ModuleId;
use super::observe::{Body, Located, Observation, ProcessId};
use super::opened;
use super::pipeline::{At, Pipeline};
use crate::event::{Caller, Usage};

/// The library, up to its version.
const LIBRARY: &str = "libpam.so";
/// How its modules come by a password.
const GET_AUTHTOK: &str = "pam_get_authtok";
/// Beyond this it is no address in it.
const LIBRARY_MAX: u64 = 4 << 20;
/// Files remembered, places in one of them, and processes.
const FILES_MAX: usize = 256;
const PLACES_MAX: usize = 16;
const PROCESSES_MAX: usize = 4096;

/// Which function of libpam was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PamStep {
    /// `pam_authenticate`: an attempt begins.
    Authenticate,
    /// `pam_acct_mgmt`: whether this account may be used now.
    Account,
    /// `pam_setcred`: it may; also called when all is over.
    Credentials,
    /// `pam_open_session`.
    Session,
    /// `pam_end`: nothing more comes.
    End,
    /// Some function that nobody could name, as the process was gone.
    Unnamed,
}

/// See [`Body::Pam`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PamCall {
    /// Which.
    pub step: PamStep,
    /// The thread, which does all of one login.
    pub tid: u32,
    /// The thread's use until now.
    #[serde(with = "crate::serial::one")]
    pub usage: Usage,
    /// What `pam_end` was handed (`_pam_types.h`): the status of the call before it.
    pub status: Option<u8>,
    /// Calls of `pam_end` are told, by configuration: without one it was not called.
    pub end_told: bool,
}

/// Where these functions lie, and others that are watched: for the last call of a process that is gone when its record is read.
#[derive(Debug, Default)]
pub(super) struct PamPlaces {
    by_address: Files,
    /// The same by the place in the file, for who was gone before its first call was looked at: where
    /// its code lay was told when it was linked.
    by_offset: Files,
    loaded: BTreeMap<ProcessId, Loaded>,
    by_age: BTreeSet<(u64, ProcessId)>,
    next: u64,
}

/// Functions of libraries, by where they lie.
#[derive(Debug, Default)]
struct Files(BTreeMap<ModuleId, BTreeMap<u64, Option<PamStep>>>);

/// A process's libpam.
#[derive(Debug)]
struct Loaded {
    /// In the order in which they came.
    age: u64,
    module: ModuleId,
    /// What addresses in the file become addresses in memory by.
    base: u64,
}

// === impl PamStep ===

impl PamStep {
    fn of(function: &str) -> Option<Self> {
        Some(match function {
            "pam_authenticate" => Self::Authenticate,
            "pam_acct_mgmt" => Self::Account,
            "pam_setcred" => Self::Credentials,
            "pam_open_session" => Self::Session,
            "pam_end" => Self::End,
            _ => return None,
        })
    }
}

// === impl Files ===

impl Files {
    fn learn(&mut self, module: &ModuleId, place: u64, step: Option<PamStep>) {
        if !self.0.contains_key(module) && self.0.len() >= FILES_MAX {
            return;
        }
        let places = self.0.entry(module.clone()).or_default();
        if places.len() < PLACES_MAX {
            places.insert(place, step);
        }
    }

    fn recall(&self, module: &ModuleId, place: u64) -> Option<PamStep> {
        let known = self.0.get(module).and_then(|places| places.get(&place)).copied();
        known.unwrap_or((place < LIBRARY_MAX).then_some(PamStep::Unnamed))
    }
}

// === impl PamPlaces ===

impl PamPlaces {
    /// `linked`: the file and the place in it by what was told when the process was linked.
    fn learn(
        &mut self,
        id: ProcessId,
        ip: u64,
        (function, step): (&Located, Option<PamStep>),
        linked: Option<(&ModuleId, u64)>,
    ) {
        let module = &function.module;
        self.by_address.learn(module, function.offset, step);
        if let Some((module, offset)) = linked {
            self.by_offset.learn(module, offset, step);
        }
        let base = ip.wrapping_sub(function.offset);
        self.forget(id);
        if self.loaded.len() >= PROCESSES_MAX
            && let Some((_, oldest)) = self.by_age.first().copied()
        {
            self.forget(oldest);
        }
        self.next += 1;
        self.by_age.insert((self.next, id));
        self.loaded.insert(id, Loaded { age: self.next, module: module.clone(), base });
    }

    fn recall(&self, id: ProcessId, ip: u64, linked: Option<(&ModuleId, u64)>) -> Option<PamStep> {
        if let Some(Loaded { module, base, .. }) = self.loaded.get(&id) {
            return self.by_address.recall(module, ip.wrapping_sub(*base));
        }
        let (module, offset) = linked.filter(|(module, _)| is_libpam(module))?;
        self.by_offset.recall(module, offset)
    }

    /// It is known where its libpam lies.
    fn knows(&self, id: ProcessId) -> bool {
        self.loaded.contains_key(&id)
    }

    /// Its memory is another one from now on.
    pub(super) fn forget(&mut self, id: ProcessId) {
        if let Some(loaded) = self.loaded.remove(&id) {
            self.by_age.remove(&(loaded.age, id));
        }
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// A function was entered, which was found by its address. True if that was all there is to say
    /// of it: who calls `pam_end` is of no interest.
    pub(super) fn pam_entered(
        &mut self,
        id: ProcessId,
        at: At,
        caller: &Caller,
        (function, name): (&Located, &str),
        out: &mut impl FnMut(Observation),
    ) -> bool {
        if !is_libpam(&function.module) {
            return false;
        }
        let step = PamStep::of(name);
        if let Some(proc) = self.table.get(id).filter(|proc| proc.guarded()) {
            let sshd = proc.sshd();
            let linked = opened::code_at(&proc.placed, caller.ip);
            self.pam_places.learn(id, caller.ip, (function, step), linked);
            match step {
                _ if sshd && name == GET_AUTHTOK => self.hear_password(id),
                None if sshd && function.symbol.is_none() => {
                    self.hear(id, at, caller, Some(PamStep::Unnamed), out);
                }
                step if sshd => self.hear(id, at, caller, step, out),
                Some(step) => self.tell_pam(id, at, caller, step, out),
                None => {}
            }
        }
        step == Some(PamStep::End)
    }

    /// A function was entered by a process that is gone. True if it is known which.
    pub(super) fn pam_recalled(
        &mut self,
        id: ProcessId,
        at: At,
        caller: &Caller,
        out: &mut impl FnMut(Observation),
    ) -> bool {
        let Some(proc) = self.table.get(id).filter(|proc| proc.guarded()) else { return false };
        let sshd = proc.sshd();
        let linked = opened::code_at(&proc.placed, caller.ip);
        let step = self.pam_places.recall(id, caller.ip, linked);
        // What lies nowhere that is known may be in libpam.
        let nowhere = linked.is_none() && !self.pam_places.knows(id);
        let step = step.or((sshd && nowhere).then_some(PamStep::Unnamed));
        let Some(step) = step else { return false };
        // Of sshd its own processes tell more.
        if sshd {
            self.hear(id, at, caller, Some(step), out);
        } else {
            self.tell_pam(id, at, caller, step, out);
        }
        step != PamStep::Unnamed
    }

    fn tell_pam(
        &mut self,
        id: ProcessId,
        at: At,
        caller: &Caller,
        step: PamStep,
        out: &mut impl FnMut(Observation),
    ) {
        self.learn_details(id);
        let status = caller.status.filter(|_| step == PamStep::End);
        let end_told = self.guards.is_function("pam_end");
        let call = PamCall { step, tid: at.tid, usage: caller.usage, status, end_told };
        self.emit(id, at.ktime_ns, Body::Pam(call), out);
    }
}

pub(super) fn is_libpam(module: &ModuleId) -> bool {
    module.name().starts_with(LIBRARY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(tgid: u32) -> ProcessId {
        ProcessId { tgid, start_ticks: 1 }
    }

    fn found(build: &str, offset: u64) -> Located {
        let path = "/usr/lib/libpam.so.0.85.1".to_owned();
        Located { module: ModuleId { path, build: build.to_owned() }, offset, symbol: None }
    }

    #[test]
    fn a_function_is_known_again_in_a_process_that_is_gone() {
        let mut places = PamPlaces::default();
        let (asks, ends) = (Some(PamStep::Authenticate), Some(PamStep::End));
        places.learn(id(1), 0x7f00_0000_5000, (&found("a", 0x5000), ends), None);
        places.learn(id(1), 0x7f00_0000_6000, (&found("a", 0x6000), None), None);
        places.learn(id(2), 0x7f11_0000_4000, (&found("a", 0x4000), asks), None);
        let recall = |places: &PamPlaces, tgid, ip| places.recall(id(tgid), ip, None);
        assert_eq!(recall(&places, 2, 0x7f11_0000_5000), ends);
        assert_eq!(recall(&places, 2, 0x7f00_0000_5000), None, "another process's address");
        assert_eq!(recall(&places, 3, 0x7f11_0000_5000), None);
        assert_eq!(recall(&places, 2, 0x7f11_0000_6000), None, "another function");
        places.learn(id(4), 0x7f22_0000_4000, (&found("b", 0x4000), asks), None);
        let unnamed = Some(PamStep::Unnamed);
        assert_eq!(recall(&places, 4, 0x7f22_0000_5000), unnamed, "another build");
        places.forget(id(2));
        assert_eq!(recall(&places, 2, 0x7f11_0000_5000), None);
    }

    #[test]
    fn one_that_was_never_looked_at_is_known_by_where_it_was_linked() {
        let mut places = PamPlaces::default();
        let ends = Some(PamStep::End);
        let (pam, other) = (found("a", 0x5000).module, found("b", 0).module);
        let libc = ModuleId { path: "/usr/lib/libc.so.6".to_owned(), build: "c".to_owned() };
        // The address in a file and the place in it need not be the same.
        places.learn(id(1), 0x7f00_0000_5000, (&found("a", 0x5000), ends), Some((&pam, 0x4000)));
        let recall = |module, offset| places.recall(id(2), 7, Some((module, offset)));
        assert_eq!(recall(&pam, 0x4000), ends);
        assert_eq!(recall(&pam, 0x5000), Some(PamStep::Unnamed));
        assert_eq!(recall(&other, 0x4000), Some(PamStep::Unnamed));
        assert_eq!(recall(&libc, 0x4000), None);
    }

    #[test]
    fn a_flood_of_processes_and_files_is_bounded() {
        let mut places = PamPlaces::default();
        let ends = Some(PamStep::End);
        for number in 0..10_000 {
            let function = found(&number.to_string(), u64::from(number));
            let linked = Some((&function.module, u64::from(number)));
            places.learn(id(number), u64::MAX, (&function, ends), linked);
            places.learn(id(number), 0, (&found("0", u64::from(number)), None), linked);
        }
        assert_eq!((places.loaded.len(), places.by_age.len()), (PROCESSES_MAX, PROCESSES_MAX));
        for Files(files) in [&places.by_address, &places.by_offset] {
            assert_eq!(files.len(), FILES_MAX);
            assert!(files.values().all(|places| places.len() <= PLACES_MAX));
        }
        assert!(!places.loaded.contains_key(&id(0)), "the oldest is forgotten");
    }
}
