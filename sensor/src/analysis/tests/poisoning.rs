//! Attackers who are there while the sensor learns, and attackers who are patient.

use super::*;
use crate::baseline::{LINK, check_stream};
use crate::event::EventBody;
use crate::finding::Evidence;
use crate::host::{Method, Traced};
use crate::package::{Content, Origin, Owner};

/// Logins a day.
const LOGINS: u32 = 20;
const DAYS: u32 = 30;

fn subject() -> String {
    format!("{SSHD_PATH} {}", build(1))
}

fn baseline(bench: &mut Bench) -> Baseline {
    bench.analysis.baseline(&subject()).clone()
}

/// Whether anything of this file was learned.
fn knows(baseline: &Baseline, path: &str) -> bool {
    let mut callers = baseline.callers.values().flat_map(|callers| &callers.modules);
    baseline.has_path(path) || callers.any(|module| module.path == path)
}

/// Severest finding of a detector in any incident.
fn severity(bench: &Bench, detector: &str) -> Option<Severity> {
    let findings = bench.told.iter().flat_map(|update| &update.incident.findings);
    findings.filter(|finding| finding.detector == detector).map(|finding| finding.severity).max()
}

/// The baseline is settled, its references are complete, and nothing was told.
fn complete() -> Bench {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    for _ in 0..220 {
        bench.login(&Login::new("publickey"));
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    bench
}

/// A login in which liblzma takes so much longer.
fn burnt(ns: u64) -> Login {
    let mut login = Login::new("publickey");
    for (path, cpu) in &mut login.libraries {
        if path == Path::new(LZMA) {
            *cpu += ns;
        }
    }
    login
}

/// Days of a drift of one percent a day on top of `usual_ns`, as a login of each day is made.
fn drift(bench: &mut Bench, usual_ns: u64, login: impl Fn(u64) -> Login) -> Option<u32> {
    let (mut millionths, mut told) = (1_000_000_u64, None);
    for day in 1..=DAYS {
        millionths = millionths * 101 / 100;
        for _ in 0..LOGINS {
            bench.login(&login(usual_ns * (millionths - 1_000_000) / 1_000_000));
        }
        if told.is_none() && !bench.fired().is_empty() {
            told = Some(day);
        }
    }
    told
}

#[test]
fn link_time_that_rises_by_a_percent_a_day_is_told_and_never_becomes_usual() {
    let mut bench = complete();
    let before = baseline(&mut bench);
    let usual_ns = Login::new("").libraries.iter().map(|(_, cpu)| cpu).sum();
    let told = drift(&mut bench, usual_ns, burnt);
    println!("told on day {told:?}");
    assert!(told.is_some_and(|day| day > 10), "{told:?}");
    assert_eq!(bench.fired(), ["link_time_shift"]);
    assert_eq!(severity(&bench, "link_time_shift"), Some(Severity::Low));
    let incident = bench.incident();
    let mut evidence = incident.findings.iter().flat_map(|finding| &finding.evidence);
    let text = evidence.find_map(|one| match one {
        Evidence::Note { text } if text.contains("stays as it was learned") => Some(text),
        _ => None,
    });
    assert!(text.is_some_and(|text| text.contains("The last 100 starts")), "{incident:#?}");
    let after = baseline(&mut bench);
    assert_eq!(after.shifts[LINK].reference(), before.shifts[LINK].reference());
    assert_eq!(after.shares, before.shares, "nor the library's own share");
    // Where the drift goes on, the usual detector measures it by the time before it began.
    let login = burnt(20 * MS);
    let late = (1..=5).find(|_| {
        bench.login(&login);
        severity(&bench, "link_time_shift") >= Some(Severity::Medium)
    });
    assert_eq!(late, Some(5));
}

#[test]
fn checks_of_logins_that_rise_by_a_percent_a_day_are_told_and_never_become_usual() {
    let mut bench = complete();
    let stream = check_stream(Method::Publickey);
    let before = baseline(&mut bench).shifts[&stream].reference().clone();
    let usual_ns = before.median().unwrap() * 1000;
    let told =
        drift(&mut bench, usual_ns, |verdict_ns| Login { verdict_ns, ..Login::new("publickey") });
    println!("told on day {told:?}");
    assert!(told.is_some_and(|day| day > 10), "{told:?}");
    assert_eq!(bench.fired(), ["auth_cpu_shift"]);
    assert_eq!(severity(&bench, "auth_cpu_shift"), Some(Severity::Low));
    assert_eq!(*baseline(&mut bench).shifts[&stream].reference(), before);
}

#[test]
fn a_machine_that_gets_slower_for_weeks_is_no_drift_of_a_program() {
    let mut bench = complete();
    for at in 0..600 {
        let slow_percent = 100 + at / 10;
        bench.login(&Login { slow_percent, ..Login::new("publickey") });
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
}

#[test]
fn a_slot_that_was_redirected_from_the_first_login_on_is_told_and_never_learned() {
    let mut bench = Bench::new();
    for _ in 0..60 {
        bench.attack(0, false, Tree::V9);
    }
    assert_eq!(baseline(&mut bench), Baseline::default(), "60 logins taught nothing");
    assert_eq!(bench.incident().severity, Severity::Critical);
    // The attacker hides for a while, and what is learned then is clean.
    for _ in 0..60 {
        bench.login(&Login::new("publickey"));
    }
    let learned = baseline(&mut bench);
    assert!(learned.settled(20, true) && !knows(&learned, EVIL));
    assert!(!bench.fired().contains(&"library_unexpected"));
    bench.attack(0, false, Tree::V9);
    for detector in ["got_redirected", "foreign_caller", "library_unexpected"] {
        assert!(bench.fired().contains(&detector), "{detector}: {:?}", bench.fired());
    }
    assert!(!knows(&baseline(&mut bench), EVIL));
}

/// A login; the provenance station says of the attacker's library that no package owns it.
fn login_of_nobodys(bench: &mut Bench, login: &Login) {
    bench.world.login(login);
    let mut seen = Vec::new();
    for event in bench.world.take() {
        bench.station.on_event(event, &mut |one| seen.push(one));
    }
    for one in seen {
        let answer = match &one.body {
            Body::Library(library) if library.module.path == EVIL => {
                let origin = Origin { owner: Owner::Nobody, content: Content::NotRecorded };
                let body = Body::Traced(Traced {
                    library: library.clone(),
                    origin: Arc::new(origin),
                    way: Err("not asked".into()),
                    judged: None,
                });
                Some(Observation { body, ..one.clone() })
            }
            _ => None,
        };
        // It answers when the call was seen long ago, as it does on a busy machine.
        bench.told.extend(bench.analysis.on_observation(one));
        if let Some(answer) = answer {
            bench.told.extend(bench.analysis.on_observation(answer));
        }
    }
    bench.run();
    bench.world.now += 200 * MS;
}

#[test]
fn a_caller_of_no_package_that_was_there_first_is_never_learned() {
    let mut bench = Bench::new();
    // By a way that leaves no slot redirected.
    let login = Login::new("publickey").with_evil(0);
    for _ in 0..60 {
        login_of_nobodys(&mut bench, &login);
    }
    let learned = baseline(&mut bench);
    assert!(learned.settled(20, true));
    let mut callers = learned.callers.values().flat_map(|callers| &callers.modules);
    assert!(!callers.any(|module| module.path == EVIL), "{:?}", learned.callers);
    assert_eq!(bench.fired(), ["foreign_caller"]);
    assert_eq!(severity(&bench, "foreign_caller"), Some(Severity::Critical));
}

#[test]
fn a_library_that_others_can_change_is_never_learned_however_often_it_is_mapped() {
    let mut bench = Bench::new();
    let login = Login::new("publickey").with_evil(0);
    for _ in 0..60 {
        bench.world.login(&login);
        for event in &mut bench.world.events {
            if let EventBody::Map(map) = &mut event.body
                && map.path.path == Path::new(EVIL)
            {
                map.mode = 0o100_777;
            }
        }
        bench.run();
        bench.world.now += 200 * MS;
    }
    let learned = baseline(&mut bench);
    assert!(learned.settled(20, true) && !knows(&learned, EVIL));
    assert_eq!(severity(&bench, "library_writable_path"), Some(Severity::High));
    assert_eq!(severity(&bench, "library_unexpected"), Some(Severity::High));
    assert_eq!(severity(&bench, "foreign_caller"), Some(Severity::Critical), "nor as a caller");
}

#[test]
fn a_program_run_before_the_verdict_is_never_learned_unless_it_is_configured() {
    for helper in ["/usr/bin/bash", "/usr/local/bin/find-keys"] {
        let mut bench = Bench::new();
        let login = Login { helper: Some(PathBuf::from(helper)), ..Login::new("publickey") };
        for _ in 0..60 {
            bench.login(&login);
        }
        assert!(baseline(&mut bench).helpers.is_empty(), "{helper}");
        assert_eq!(bench.fired(), ["preauth_exec"], "{helper}");
        assert_eq!(severity(&bench, "preauth_exec"), Some(Severity::Critical), "{helper}");
    }
}

#[test]
fn a_preload_of_sshd_is_told_at_every_start_and_never_learned() {
    let mut bench = Bench::new();
    let times = |bench: &Bench| {
        bench.findings.iter().find(|(id, _)| *id == "preload_env").map_or(0, |(_, count)| *count)
    };
    for start in 1..=30 {
        let tgid = bench.world.fresh();
        bench.world.fork(1, tgid, crate::event::Role::NONE);
        bench.world.exec(tgid, 1, SSHD_PATH, SSHD, 0);
        bench.world.env(tgid, SSHD, "LD_AUDIT=/tmp/lab/audit.so");
        bench.world.exit(tgid, SSHD, MS);
        bench.run();
        assert_eq!(times(&bench), start);
    }
    assert!(baseline(&mut bench).environment.is_empty());
}

#[test]
fn a_library_that_takes_nearly_all_of_the_first_start_is_told_and_never_learned() {
    let mut bench = Bench::new();
    bench.login(&burnt(300 * MS));
    assert_eq!(bench.fired(), ["link_time_shift"], "at the very first login");
    let incident = bench.incident();
    assert!(incident.title.contains("liblzma.so.5.4.1"), "{}", incident.title);
    for _ in 0..60 {
        bench.login(&burnt(300 * MS));
    }
    let learned = baseline(&mut bench);
    assert!(learned.settled(20, true), "everything else is learned");
    assert_eq!(learned.link.total(), 0);
    assert!(!learned.shifts.contains_key(LINK));
    let count = bench.findings.iter().find(|(id, _)| *id == "link_time_shift").unwrap().1;
    assert_eq!(count, 61, "and it is told ever after");
    // A slow machine is slow in everything.
    let mut slow = Bench::new();
    for _ in 0..30 {
        slow.login(&Login { slow_percent: 20_000, ..Login::new("publickey") });
    }
    assert_eq!(slow.fired(), Vec::<&str>::new());
}

/// What cannot be seen from one host's times alone: the documentation says so.
#[test]
fn a_small_burn_that_is_there_from_the_first_start_on_is_usual_by_its_time() {
    let mut bench = Bench::new();
    for _ in 0..60 {
        bench.login(&burnt(20 * MS));
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    assert!(baseline(&mut bench).shifts.contains_key(LINK));
}
