//! From events to incidents: logins as the kernel side reports them, clean and attacked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::detect::{Category, CheckReport, Mismatch, Place};
use crate::event::Event;
use crate::finding::{Family, Severity};
use crate::host::testing::{
    BELOW, CRYPTO, EVIL, Fake, LISTENER, LZMA, Login, MS, SSHD, SSHD_PATH, Tree, World, build,
    clock,
};
use crate::host::{ModuleId, Pipeline, ProcessId};
use crate::incident::{Incident, Reason};

/// Answers a check with mismatches where the process has the hooking library.
#[derive(Clone, Debug, Default)]
struct Slots(Arc<Mutex<Answers>>);

/// What the check answers.
#[derive(Debug, Default)]
struct Answers {
    redirected: Vec<u32>,
    mismatches: Vec<Mismatch>,
    in_motion: bool,
}

impl SlotCheck for Slots {
    fn check(&mut self, process: ProcessId) -> Result<CheckReport, CheckFailed> {
        let state = self.0.lock().unwrap();
        let mismatches = if state.redirected.contains(&process.tgid) {
            state.mismatches.clone()
        } else {
            Vec::new()
        };
        let settled = !state.in_motion;
        Ok(CheckReport { slots_checked: 472, settled, mismatches, ..CheckReport::default() })
    }
}

struct Bench {
    world: World,
    station: Pipeline,
    analysis: Analysis,
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
        let analysis = Analysis::new(config, "host1".to_owned(), store, Box::new(slots.clone()));
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
            if let Directive::ForgetMapping { exe, file } = directive {
                self.world.forget(exe, file);
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
            symbol: Some("RSA_public_decrypt".to_owned()),
            version: Some("OPENSSL_3.0.0".to_owned()),
            expected: place(CRYPTO, 0x0027_7490),
            actual: place(EVIL, 0x120f),
        };
        let mut state = self.slots.0.lock().unwrap();
        state.redirected.push(tgid);
        state.mismatches = vec![mismatch];
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

#[test]
fn two_hundred_clean_logins_after_learning_say_nothing() {
    for tree in [Tree::V9, Tree::V10] {
        let mut bench = Bench::new();
        bench.learn(tree);
        for at in 0..200_u64 {
            let method = if at % 3 == 0 { "password" } else { "publickey" };
            // The machine gets slower and faster by up to 1.76, for runs of logins.
            let slow_percent = if at / 20 % 2 == 0 { 100 } else { 176 };
            bench.login(&Login { slow_percent, tree, ..Login::new(method) });
        }
        assert_eq!(bench.fired(), Vec::<&str>::new(), "{tree:?}");
        assert!(bench.told.is_empty());
    }
}

#[test]
fn a_hook_with_a_burn_is_one_critical_incident_with_all_three_families() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    bench.attack(300, false, Tree::V9);
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::Critical);
    assert_eq!(families(incident), [Family::Linker, Family::Hook, Family::Sshd]);
    assert_eq!(
        detectors(incident),
        [
            "auth_cpu_shift",
            "foreign_caller",
            "got_redirected",
            "library_unexpected",
            "link_time_shift"
        ]
    );
    println!("{}\n{}\n{}", incident.title, incident.story, incident.recommendation);
    for word in [EVIL, "RSA_public_decrypt", "libcrypto.so.3", "of CPU", "publickey", "0.1 ms"] {
        assert!(incident.story.contains(word), "{word}: {}", incident.story);
    }
    assert!(incident.title.contains("RSA_public_decrypt"), "{}", incident.title);
    assert!(incident.recommendation.contains("liblzma.so.5.4.1"), "{}", incident.recommendation);
    assert!(incident.score >= 90, "{}", incident.score);
    assert_eq!(incident.hosts, ["host1"]);
}

#[test]
fn a_hook_without_a_burn_is_one_critical_incident() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    bench.attack(0, false, Tree::V9);
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::Critical);
    assert_eq!(detectors(incident), ["foreign_caller", "got_redirected", "library_unexpected"]);
}

#[test]
fn a_tail_jump_is_betrayed_by_the_slot_alone() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    bench.attack(300, true, Tree::V9);
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::Critical);
    assert_eq!(families(incident), [Family::Linker, Family::Hook, Family::Sshd]);
    assert!(!detectors(incident).contains(&"foreign_caller"));
}

#[test]
fn a_split_sshd_is_one_incident_too() {
    let mut bench = Bench::new();
    bench.learn(Tree::V10);
    bench.attack(300, false, Tree::V10);
    assert_eq!(bench.incident().severity, Severity::Critical);
    assert_eq!(families(bench.incident()), [Family::Linker, Family::Hook, Family::Sshd]);
}

#[test]
fn a_hooked_slot_is_told_before_anything_was_learned() {
    let mut bench = Bench::new();
    bench.attack(300, false, Tree::V9);
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::Critical);
    assert_eq!(detectors(incident), ["got_redirected"]);
}

#[test]
fn slot_evidence_is_there_before_the_login_is_decided() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    bench.attack(300, false, Tree::V9);
    let incident = bench.incident();
    let slot = incident.findings.iter().find(|f| f.detector == "got_redirected").unwrap();
    let auth = incident.findings.iter().find(|f| f.detector == "auth_cpu_shift").unwrap();
    assert!(slot.ktime_ns < auth.ktime_ns);
    let before = slot
        .evidence
        .iter()
        .any(|evidence| matches!(evidence, Evidence::Connection { authenticated: false, .. }));
    assert!(before, "{:?}", slot.evidence);
}

#[test]
fn repeated_attacks_join_the_incident_and_teach_nothing() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let subject = format!("{SSHD_PATH} {}", build(1));
    let before = bench.analysis.baseline(&subject).clone();
    assert!(before.starts >= 50, "{before:?}");
    for _ in 0..20 {
        bench.attack(300, false, Tree::V9);
    }
    let incident = bench.incident();
    assert!(incident.findings.len() <= 8, "{}", incident.findings.len());
    let told = bench.told.len();
    let now: Vec<Incident> = bench.analysis.incidents().open().cloned().collect();
    let slot = now[0].findings.iter().find(|f| f.detector == "got_redirected").unwrap();
    let times = slot.evidence.iter().find_map(|evidence| match evidence {
        Evidence::Repeated { count, .. } => Some(*count),
        _ => None,
    });
    assert!(times.is_some_and(|times| times >= 20), "{:?}", slot.evidence);
    // Told when new, and when it got worse or a new detector spoke; not twenty times.
    assert!(told <= 6, "{told}");
    assert_eq!(*bench.analysis.baseline(&subject), before);
}

#[test]
fn attacks_on_two_listeners_are_two_incidents() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    bench.attack(0, false, Tree::V9);
    // Another instance of the same program, started anew.
    let listener = bench.world.fresh();
    bench.world.fork(1, listener, crate::event::Role::NONE);
    bench.world.exec(listener, 1, SSHD_PATH, SSHD, 0);
    let monitor = bench.world.fresh();
    bench.redirect(monitor);
    bench.world.fork(listener, monitor, SSHD);
    let peer = Some("192.0.2.8:1".parse().unwrap());
    bench.world.exec_as(monitor, listener, SSHD_PATH, BELOW, 0, 0, peer);
    bench.world.link(monitor, SSHD_PATH, &Login::new("publickey").with_evil(0));
    bench.world.now += 50 * MS;
    bench.run();
    let ids: std::collections::BTreeSet<String> =
        bench.told.iter().map(|update| update.incident.id.clone()).collect();
    assert_eq!(ids.len(), 2);
}

#[test]
fn a_start_that_serves_nobody_joins_the_next_of_its_program() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let start = |bench: &mut Bench| {
        let tgid = bench.world.fresh();
        bench.redirect(tgid);
        bench.world.fork(1, tgid, crate::event::Role::NONE);
        bench.world.exec(tgid, 1, SSHD_PATH, SSHD, 0);
        bench.world.link(tgid, SSHD_PATH, &Login::new("publickey").with_evil(0));
        bench.world.now += 50 * MS;
        bench.run();
        bench.world.exit(tgid, SSHD, MS);
    };
    // `sshd -t`, then the daemon.
    start(&mut bench);
    start(&mut bench);
    assert_eq!(bench.incident().severity, Severity::Critical);
}

#[test]
fn strangers_teach_nothing() {
    let mut bench = Bench::new();
    for _ in 0..200 {
        bench.login(&Login { succeeds: false, ..Login::new("password") });
    }
    let subject = format!("{SSHD_PATH} {}", build(1));
    let learned = bench.analysis.baseline(&subject).clone();
    assert_eq!(learned, Baseline::default());
    assert_eq!(bench.fired(), Vec::<&str>::new());
    // The first who are let in teach, and are not suspected for what only they bring.
    bench.learn(Tree::V9);
    assert!(bench.analysis.baseline(&subject).settled(20, true));
}

#[test]
fn a_first_password_after_keys_alone_may_bring_its_own_libraries() {
    let mut bench = Bench::new();
    for _ in 0..60 {
        bench.login(&Login { opened: Vec::new(), ..Login::new("publickey") });
    }
    let mut login = Login::new("password");
    login.opened.push(PathBuf::from("/usr/lib/security/pam_krb5.so"));
    for _ in 0..30 {
        bench.login(&login);
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    // Once passwords are known too, one more library is one too many.
    login.opened.push(PathBuf::from("/usr/lib/security/pam_evil.so"));
    bench.login(&login);
    assert_eq!(bench.fired(), ["library_unexpected"]);
    assert_eq!(bench.incident().severity, Severity::High);
}

#[test]
fn a_stranger_who_tries_an_unused_method_alarms_nobody() {
    let mut bench = Bench::new();
    for _ in 0..60 {
        bench.login(&Login { opened: Vec::new(), ..Login::new("publickey") });
    }
    for _ in 0..5 {
        bench.login(&Login { succeeds: false, ..Login::new("password") });
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
}

#[test]
fn a_new_link_time_library_alarms_whatever_the_method() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let mut login = Login::new("publickey").with_evil(0);
    login.caller = PathBuf::from(SSHD_PATH);
    bench.login(&login);
    bench.login(&login);
    assert_eq!(bench.fired(), ["library_unexpected"]);
    let incident = bench.incident();
    assert_eq!((incident.severity, incident.findings.len()), (Severity::High, 1));
    let count = bench.findings.iter().find(|(id, _)| *id == "library_unexpected").unwrap().1;
    assert_eq!(count, 2, "asked for again, so told again");
}

#[test]
fn a_burn_alone_is_medium_for_the_linker_and_named() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let mut login = Login::new("publickey");
    for (path, cpu) in &mut login.libraries {
        if path == Path::new(LZMA) {
            *cpu += 300 * MS;
        }
    }
    bench.login(&login);
    let incident = bench.incident();
    assert_eq!(detectors(incident), ["auth_cpu_shift", "link_time_shift"]);
    let link = incident.findings.iter().find(|f| f.detector == "link_time_shift").unwrap();
    assert_eq!(link.severity, Severity::Medium);
    let named = link.evidence.iter().any(|evidence| {
        matches!(evidence, Evidence::Timing { module: Some(module), .. } if module == LZMA)
    });
    assert!(named, "{:?}", link.evidence);
    assert_eq!(incident.severity, Severity::High, "two families agree");
}

#[test]
fn a_small_burn_shows_in_a_run_of_logins_and_drift_does_not() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    for _ in 0..12 {
        bench.login(&Login { slow_percent: 176, ..Login::new("publickey") });
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    let mut login = Login::new("publickey");
    for (path, cpu) in &mut login.libraries {
        if path == Path::new(LZMA) {
            *cpu += 8 * MS;
        }
    }
    for _ in 0..4 {
        bench.login(&login);
    }
    assert_eq!(bench.fired(), Vec::<&str>::new(), "four are no run of five");
    bench.login(&login);
    assert_eq!(bench.fired(), ["link_time_shift"]);
}

#[test]
fn a_program_run_by_the_monitor_before_the_verdict_is_critical() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let helper = Some(PathBuf::from("/usr/bin/bash"));
    bench.login(&Login { helper, ..Login::new("publickey") });
    let incident = bench.incident();
    assert_eq!(detectors(incident), ["preauth_exec"]);
    assert_eq!(incident.severity, Severity::Critical);
    assert!(incident.story.contains("/usr/bin/bash"), "{}", incident.story);
}

#[test]
fn helpers_that_logins_always_had_are_normal() {
    let mut bench = Bench::new();
    let helper = Some(PathBuf::from("/usr/local/bin/find-keys"));
    for _ in 0..40 {
        bench.login(&Login { helper: helper.clone(), ..Login::new("publickey") });
    }
    let chkpwd = Some(PathBuf::from("/usr/sbin/unix_chkpwd"));
    bench.login(&Login { helper: chkpwd, ..Login::new("publickey") });
    assert_eq!(bench.fired(), Vec::<&str>::new());
}

#[test]
fn a_loader_variable_at_a_guarded_program_is_told_at_once() {
    let mut bench = Bench::new();
    let tgid = bench.world.fresh();
    bench.world.fork(1, tgid, crate::event::Role::NONE);
    bench.world.exec(tgid, 1, SSHD_PATH, SSHD, 0);
    bench.world.env(tgid, SSHD, "LD_AUDIT=/tmp/lab/audit.so");
    bench.run();
    let incident = bench.incident();
    assert_eq!((detectors(incident), incident.severity), (vec!["preload_env"], Severity::High));
    assert!(incident.story.contains("LD_AUDIT was set to /tmp/lab/audit.so"), "{}", incident.story);
}

#[test]
fn a_variable_that_children_inherit_is_told_once() {
    let mut bench = Bench::new();
    let role = crate::event::Role::NONE;
    for _ in 0..130 {
        let tgid = bench.world.fresh();
        bench.world.fork(1, tgid, role);
        bench.world.exec(tgid, 1, "/usr/bin/dash", role, 0);
        bench.world.map(tgid, "/usr/bin/dash", Path::new(CRYPTO), role);
        bench.world.exec(tgid, 1, "/usr/bin/env", role, 0);
        bench.world.exit(tgid, role, MS);
    }
    bench.run();
    let (sshd, shell) = (bench.world.fresh(), bench.world.fresh());
    bench.world.fork(1, sshd, role);
    bench.world.exec(sshd, 1, SSHD_PATH, SSHD, 0);
    bench.world.env(sshd, SSHD, "LD_AUDIT=/tmp/lab/audit.so");
    bench.world.fork(sshd, shell, SSHD);
    bench.world.exec(shell, sshd, "/usr/bin/dash", role, 0);
    bench.world.env(shell, role, "LD_AUDIT=/tmp/lab/audit.so");
    bench.world.map(shell, "/usr/bin/dash", Path::new("/tmp/lab/audit.so"), role);
    bench.run();
    assert_eq!(bench.incident().findings.len(), 1);
    // A shell that sets it itself is another matter.
    let other = bench.world.fresh();
    bench.world.fork(1, other, role);
    bench.world.exec(other, 1, "/usr/bin/dash", role, 0);
    bench.world.exec(other, 1, "/usr/bin/env", role, 0);
    bench.world.env(other, role, "LD_PRELOAD=/tmp/lab/other.so");
    bench.run();
    assert_eq!(bench.told.last().unwrap().incident.severity, Severity::Medium);
}

#[test]
fn a_search_path_at_a_start_of_sshd_that_serves_nobody_is_a_remark() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let tgid = bench.world.fresh();
    bench.world.fork(1, tgid, crate::event::Role::NONE);
    bench.world.exec(tgid, 1, SSHD_PATH, SSHD, 0);
    bench.world.env(tgid, SSHD, "LD_LIBRARY_PATH=/opt/lib");
    bench.run();
    assert_eq!(bench.fired(), ["preload_env"]);
    assert!(bench.told.is_empty());
}

#[test]
fn a_check_of_a_process_in_motion_is_repeated_and_a_firm_finding_is_not_put_off() {
    for (settled, leads_somewhere) in [(false, true), (true, false), (false, false)] {
        let mut bench = Bench::new();
        let next = bench.world.fresh() + 1;
        bench.redirect(next);
        {
            let mut state = bench.slots.0.lock().unwrap();
            state.in_motion = !settled;
            if !leads_somewhere {
                // A loader may yet fill the slot. In the end it is told.
                state.mismatches[0].actual = Place::default();
            }
        }
        bench.login(&Login::new("publickey"));
        let told = bench.fired() == ["got_redirected"];
        assert_eq!(told, leads_somewhere, "settled {settled}");
        for _ in 0..20 {
            bench.world.now += 400 * MS;
            bench.run();
        }
        assert_eq!(bench.fired(), ["got_redirected"], "settled {settled}");
    }
}

#[test]
fn an_inherited_loader_variable_is_no_incident_of_its_own() {
    let role = crate::event::Role::NONE;
    let mut bench = Bench::new();
    let start = |bench: &mut Bench, parent: u32, shell: &str, variable: Option<&str>| {
        let tgid = bench.world.fresh();
        bench.world.fork(parent, tgid, role);
        bench.world.exec(tgid, parent, shell, role, 0);
        if let Some(variable) = variable {
            bench.world.env(tgid, role, variable);
        }
        bench.world.exit(tgid, role, MS);
        bench.run();
    };
    for _ in 0..50 {
        start(&mut bench, LISTENER, "/usr/bin/dash", None);
        start(&mut bench, LISTENER, "/usr/bin/bash", None);
    }
    let tgid = bench.world.fresh();
    bench.world.fork(1, tgid, crate::event::Role::NONE);
    bench.world.exec(tgid, 1, SSHD_PATH, SSHD, 0);
    bench.world.env(tgid, SSHD, "LD_AUDIT=/tmp/lab/audit.so");
    bench.run();
    start(&mut bench, tgid, "/usr/bin/dash", Some("LD_AUDIT=/tmp/lab/audit.so"));
    assert_eq!(bench.incident().severity, Severity::High);
    // Another value came from somewhere else.
    start(&mut bench, tgid, "/usr/bin/bash", Some("LD_AUDIT=/tmp/lab/other.so"));
    assert_eq!(bench.told.len(), 2, "{:#?}", bench.told);
    assert_eq!(bench.told[1].incident.severity, Severity::Medium);
}

#[test]
fn an_ordinary_program_that_gains_a_plugin_is_at_most_a_remark() {
    let mut bench = Bench::new();
    let role = crate::event::Role::NONE;
    for at in 0..60 {
        let tgid = bench.world.fresh();
        bench.world.fork(LISTENER, tgid, role);
        bench.world.exec(tgid, 1, "/usr/bin/python3", role, 0);
        if at == 50 {
            bench.world.map(tgid, "/usr/bin/python3", Path::new("/home/a/plugin.so"), role);
        }
        bench.world.exit(tgid, role, MS);
        bench.run();
    }
    assert_eq!(bench.fired(), ["library_unexpected"]);
    assert!(bench.told.is_empty(), "a remark opens no incident: {:?}", bench.told);
}

#[test]
fn an_ordinary_program_that_never_grew_and_loads_from_tmp_is_odd() {
    let mut bench = Bench::new();
    let role = crate::event::Role::NONE;
    for at in 0..260 {
        let tgid = bench.world.fresh();
        bench.world.fork(1, tgid, role);
        bench.world.exec(tgid, 1, "/usr/bin/cat", role, 0);
        bench.world.map(tgid, "/usr/bin/cat", Path::new(CRYPTO), role);
        if at == 250 {
            bench.world.map(tgid, "/usr/bin/cat", Path::new("/tmp/x.so"), role);
        }
        bench.world.exit(tgid, role, MS);
        bench.run();
    }
    assert_eq!(bench.incident().severity, Severity::Low);
}

#[test]
fn the_same_events_give_the_same_bytes() {
    let script = || {
        let mut bench = Bench::new();
        bench.learn(Tree::V9);
        bench.attack(300, false, Tree::V9);
        let incidents: Vec<&Incident> = bench.told.iter().map(|u| &u.incident).collect();
        serde_json::to_string(&incidents).unwrap()
    };
    let (first, second) = (script(), script());
    assert!(!first.is_empty());
    assert_eq!(first, second);
}

#[test]
fn findings_after_the_window_open_another_incident() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    bench.attack(0, false, Tree::V9);
    bench.world.now += 400_000 * MS;
    bench.run();
    assert_eq!(bench.analysis.incidents().open().count(), 0);
    bench.attack(0, false, Tree::V9);
    let opened = bench.told.iter().filter(|update| update.reason == Reason::Opened).count();
    assert_eq!(opened, 2);
}

#[test]
fn loss_makes_what_is_open_partial() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    bench.attack(300, false, Tree::V9);
    assert!(!bench.incident().partial);
    bench.analysis.on_loss();
    assert!(bench.analysis.incidents().open().all(|incident| incident.partial));
}

#[test]
fn what_was_learned_is_on_disk_after_a_tick_and_used_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::default();
    let (store, _) = Store::open(dir.path());
    let mut bench = Bench::with(&config, store);
    bench.learn(Tree::V9);
    bench.world.now += 2_000 * MS;
    bench.run();
    let subject = format!("{SSHD_PATH} {}", build(1));
    // Read while the sensor runs, as a command does.
    let stored = crate::baseline::read_subjects(dir.path()).unwrap();
    let stored = stored.iter().find(|(key, _)| *key == subject).expect("sshd is stored");
    let read: Baseline = serde_json::from_slice(&stored.1).unwrap();
    assert_eq!(read.starts, 50);
    drop(bench);

    let (store, _) = Store::open(dir.path());
    let mut bench = Bench::with(&config, store);
    assert_eq!(*bench.analysis.baseline(&subject), read);
    bench.attack(300, false, Tree::V9);
    assert_eq!(bench.incident().severity, Severity::Critical);
    assert_eq!(families(bench.incident()), [Family::Linker, Family::Hook, Family::Sshd]);
}

#[test]
fn learning_ends_after_the_configured_number_of_logins() {
    let mut config = Config::default();
    config.learning.observations = 5;
    config.detect.run_length = 3;
    config.detect.incident_window = Duration::from_secs(1);
    let mut bench = Bench::with(&config, Store::off());
    for _ in 0..5 {
        bench.login(&Login::new("publickey"));
    }
    let mut login = Login::new("publickey").with_evil(300 * MS);
    login.caller = PathBuf::from(SSHD_PATH);
    bench.login(&login);
    assert_eq!(bench.fired(), ["library_unexpected", "link_time_shift", "auth_cpu_shift"]);
}

#[test]
fn link_summaries_of_ordinary_programs_are_limited_once_known() {
    let mut bench = Bench::new();
    let role = crate::event::Role::NONE;
    let mut limits = Vec::new();
    for _ in 0..40 {
        let tgid = bench.world.fresh();
        bench.world.fork(1, tgid, role);
        bench.world.exec(tgid, 1, "/usr/bin/python3", role, 0);
        let login = Login { libraries: vec![(PathBuf::from(CRYPTO), 2 * MS)], ..Login::new("") };
        bench.world.link(tgid, "/usr/bin/python3", &login);
        bench.world.exit(tgid, role, MS);
        let events = bench.world.take();
        let mut seen = Vec::new();
        for event in events {
            bench.station.on_event(event, &mut |one| seen.push(one));
        }
        for one in seen {
            bench.analysis.on_observation(one);
        }
        limits.extend(bench.analysis.directives().into_iter().filter_map(|one| match one {
            Directive::LinkLimit { limit_ns, .. } => Some(limit_ns),
            _ => None,
        }));
    }
    assert_eq!(limits.len(), 2, "at 20 and at 40 samples");
    assert!(limits.iter().all(|limit| (101 * MS..103 * MS).contains(limit)), "{limits:?}");
}
