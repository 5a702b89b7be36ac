//! From events to incidents: logins as the kernel side reports them, clean and attacked.

mod answers;
mod code;
mod environment;
mod hooks;
mod instrument;
mod keeping;
mod month;
mod normal;
mod openings;
mod orders;
mod origins;
mod places;
mod poisoning;
mod proof;
mod refusals;
mod replay;
mod roots;
mod shifts;
mod strangers;
mod upgrades;
mod writers;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::detect::{
    Anyway, Category, CheckFailed, CheckReport, Mismatch, Namespace, Place, Refusal,
    UnrequestedAudit,
};
use crate::event::Event;
use crate::finding::{Family, Severity};
use crate::host::testing::{
    BELOW, CRYPTO, EVIL, Fake, LISTENER, LZMA, Login, MS, NOWHERE, SSHD, SSHD_PATH, Tree, World,
    build, clock,
};
use crate::host::{CheckReason, ModuleId, Pipeline, ProcessId};
use crate::incident::{Incident, Reason};

/// Processes to report of, what to report, whether they are still in motion, who is audited,
/// what else is reported of every process, how the processes refuse, why they cannot be read, and how
/// they were asked anyway.
type Answers = (
    Vec<u32>,
    Vec<Mismatch>,
    bool,
    Option<u32>,
    CheckReport,
    Option<Refusal>,
    Option<String>,
    Vec<Anyway>,
);

/// Answers a check with mismatches where the process has the hooking library.
#[derive(Clone, Debug, Default)]
struct Slots(Arc<Mutex<Answers>>);

impl SlotCheck for Slots {
    fn check(
        &mut self,
        process: ProcessId,
        _reason: CheckReason,
    ) -> Result<CheckReport, CheckFailed> {
        let state = self.0.lock().unwrap();
        if let Some(refusal) = state.5.clone().filter(|_| state.0.contains(&process.tgid)) {
            return Err(CheckFailed::Refused(refusal));
        }
        if let Some(why) = state.6.clone().filter(|_| state.0.contains(&process.tgid)) {
            return Err(CheckFailed::Unread(why));
        }
        let mismatches = if state.0.contains(&process.tgid) { state.1.clone() } else { Vec::new() };
        let settled = !state.2;
        let module = ModuleId { path: EVIL.to_owned(), build: "ab".to_owned() };
        let callback = Place { module: Some(module), offset: Some(16), ..Place::default() };
        let audit = (state.3 == Some(process.tgid))
            .then_some(UnrequestedAudit { count: 1, callback: Some(callback) });
        Ok(CheckReport { slots_checked: 472, settled, mismatches, audit, ..state.4.clone() })
    }

    fn check_anyway(
        &mut self,
        process: ProcessId,
        asked: Anyway,
    ) -> Result<CheckReport, CheckFailed> {
        self.0.lock().unwrap().7.push(asked);
        let refusal = self.0.lock().unwrap().5.take();
        let report = self.check(process, CheckReason::Patrol);
        self.0.lock().unwrap().5 = refusal;
        Ok(CheckReport { settled: false, ..report? })
    }
}

struct Bench {
    world: World,
    station: Pipeline,
    analysis: replay::Watched,
    slots: Slots,
    told: Vec<IncidentUpdate>,
    findings: Vec<(&'static str, u64)>,
}

impl Bench {
    fn with(config: &Config, store: Store) -> Self {
        let mut world = World::new();
        let fake: Fake = world.fake.clone();
        let mut station = Pipeline::new(config, clock(), Box::new(fake.clone()), Box::new(fake));
        station.start(world.now);
        world.now += 100 * MS;
        let slots = Slots::default();
        let analysis = replay::Watched::new(config, store, Box::new(slots.clone()));
        Self { world, station, analysis, slots, told: Vec::new(), findings: Vec::new() }
    }

    fn new() -> Self {
        Self::with(&Config::default(), Store::off())
    }

    /// Runs what the world has made, and applies what is asked of the kernel side.
    fn run(&mut self) {
        let events: Vec<Event> = self.world.take();
        let mut seen = Vec::new();
        for event in events {
            self.station.on_event(event, &mut |one| seen.push(one));
        }
        self.station.tick(self.world.now, &mut |one| seen.push(one));
        for one in seen {
            self.told.extend(self.analysis.on_observation(one));
        }
        self.told.extend(self.analysis.tick(self.world.now));
        let asked = self.station.directives().into_iter().chain(self.analysis.directives());
        for directive in asked {
            match directive {
                Directive::ForgetMapping { exe, file } => self.world.forget(exe, file),
                Directive::ForgetMappings => self.world.forget_all(),
                _ => {}
            }
        }
        self.findings = self.analysis.tally().findings;
    }

    fn login(&mut self, login: &Login) -> u32 {
        let monitor = self.world.login(login);
        self.run();
        self.world.now += 200 * MS;
        monitor
    }

    /// Both methods, mixed, until both are settled.
    fn learn(&mut self, tree: Tree) {
        for at in 0..50 {
            let method = if at % 2 == 0 { "publickey" } else { "password" };
            self.login(&Login { tree, ..Login::new(method) });
        }
        assert_eq!(self.fired(), Vec::<&str>::new(), "nothing is said while learning");
    }

    fn fired(&self) -> Vec<&'static str> {
        self.findings.iter().filter(|(_, n)| *n > 0).map(|(id, _)| *id).collect()
    }

    /// The next monitors have this slot redirected.
    fn redirect(&mut self, tgid: u32) {
        let inode = |path: &str| {
            let shared = &mut self.world.fake.0.lock().unwrap();
            shared.inode(Path::new(path))
        };
        let module = |path: &str| ModuleId { path: path.to_owned(), build: build(inode(path)) };
        let place = |path: &str, offset| Place {
            address: offset,
            module: Some(module(path)),
            offset: Some(offset),
            ..Place::default()
        };
        let mismatch = Mismatch {
            module: module(SSHD_PATH),
            slot: 0x0013_4218,
            kind: "JUMP_SLOT".to_owned(),
            category: Category::Redirected,
            sealed: false,
            symbol: Some("RSA_public_decrypt".to_owned()),
            version: Some("OPENSSL_3.0.0".to_owned()),
            expected: place(CRYPTO, 0x0027_7490),
            actual: place(EVIL, 0x120f),
        };
        let mut state = self.slots.0.lock().unwrap();
        state.0.push(tgid);
        state.1 = vec![mismatch];
    }

    /// A login to an sshd that the imitation of the backdoor has hooked.
    fn attack(&mut self, burn_ms: u64, tail_jump: bool, tree: Tree) {
        // The monitor gets the next tgid.
        let next = self.world.fresh() + 1;
        self.redirect(next);
        let mut login = Login { tree, ..Login::new("publickey") }.with_evil(burn_ms * MS);
        if tail_jump {
            login.caller = PathBuf::from(SSHD_PATH);
        }
        assert_eq!(self.login(&login), next);
    }

    /// The one incident, as last told.
    fn incident(&self) -> &Incident {
        let ids: std::collections::BTreeSet<&str> =
            self.told.iter().map(|update| update.incident.id.as_str()).collect();
        assert_eq!(ids.len(), 1, "one incident: {:#?}", self.told);
        &self.told.last().unwrap().incident
    }
}

fn detectors(incident: &Incident) -> Vec<&str> {
    let mut ids: Vec<&str> = incident.findings.iter().map(|f| f.detector.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn families(incident: &Incident) -> Vec<Family> {
    let mut all: Vec<Family> = incident.findings.iter().map(|f| f.family).collect();
    all.sort_unstable();
    all.dedup();
    all
}
