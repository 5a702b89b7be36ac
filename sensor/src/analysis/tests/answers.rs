//! What waits for the provenance station, and what its answers make of it.

use super::*;
use crate::event::{Env, EventBody, Role};
use crate::finding::Evidence;
use crate::host::{Body, Owners, Ownership, Traced};
use crate::package::{Content, Origin, Owner};
use crate::search::{Asked, Explained, Found, List, Rule, Weakness, Why, Writer};
use sensor_common::record::ENV_LD_PRELOAD;

const PROGRAM: &str = "/usr/bin/backup";
const LIBRARY: &str = "/srv/lib/libx.so";
const JEMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";
const LONG: u64 = 5_000 * MS;

/// Observations of what the world has made, the provenance station having been asked.
fn asked(bench: &mut Bench) -> Vec<Observation> {
    let mut seen = Vec::new();
    for event in bench.world.take() {
        bench.station.on_event(event, &mut |one| seen.push(one));
    }
    for one in &mut seen {
        match &mut one.body {
            Body::Library(library) => library.asked = true,
            Body::Environment(variable) => variable.owners = Owners::Asked,
            _ => {}
        }
    }
    seen
}

fn feed(bench: &mut Bench, seen: &[Observation]) {
    for one in seen {
        bench.told.extend(bench.analysis.on_observation(one.clone()));
    }
    bench.findings = bench.analysis.tally().findings;
}

fn learned() -> Bench {
    let mut bench = Bench::new();
    for _ in 0..120 {
        let tgid = bench.world.fresh();
        bench.world.fork(1, tgid, Role::NONE);
        bench.world.exec_as(tgid, 1, PROGRAM, Role::NONE, 0, 0, None);
        bench.world.exit(tgid, Role::NONE, MS);
        bench.run();
    }
    bench
}

fn way(weak: Vec<Weakness>) -> Explained {
    let of = Some(PROGRAM.into());
    let rule = Rule::Listed { list: List::Runpath, of, element: "/srv/lib".to_owned() };
    let found = Found {
        asked: Asked::Needed(PROGRAM.into()),
        name: Some("libx.so".to_owned()),
        rule,
        path: Some(LIBRARY.into()),
        weak,
        in_current: false,
    };
    Explained { found, inside: LIBRARY.into(), on_host: Err("it lies on no mount of this host") }
}

fn weak(why: Why, hit: bool) -> Weakness {
    Weakness {
        list: List::Runpath,
        of: Some(PROGRAM.into()),
        element: "/srv/lib".to_owned(),
        directory: Some("/srv/lib".into()),
        why,
        hit,
    }
}

fn answer(seen: &[Observation], way: &Explained) -> Observation {
    let library = seen.iter().rev().find_map(|one| match &one.body {
        Body::Library(library) => Some((one, library.clone())),
        _ => None,
    });
    let (one, library) = library.expect("a library");
    let origin = Origin { owner: Owner::Nobody, content: Content::NotRecorded };
    let way = Ok(Arc::new(way.clone()));
    let traced = Traced { library, origin: Arc::new(origin), way, judged: None };
    Observation { body: Body::Traced(traced), ..one.clone() }
}

/// sshd maps something new.
fn sshd_maps(bench: &mut Bench) -> Vec<Observation> {
    bench.learn(Tree::V9);
    let tgid = bench.world.fresh();
    bench.world.fork(LISTENER, tgid, SSHD);
    bench.world.map(tgid, SSHD_PATH, Path::new(LIBRARY), SSHD);
    asked(bench)
}

#[test]
fn a_finding_on_a_library_waits_and_says_how_it_was_found() {
    let mut bench = Bench::new();
    let seen = sshd_maps(&mut bench);
    feed(&mut bench, &seen);
    assert!(bench.told.is_empty(), "it waits: {:#?}", bench.told);
    assert!(bench.analysis.next_due().is_some());
    feed(&mut bench, &[answer(&seen, &way(Vec::new()))]);
    let incident = bench.incident();
    let finding = incident.findings.iter().find(|one| one.detector == "library_unexpected");
    let told = finding.unwrap().evidence.iter().find_map(|one| match one {
        Evidence::Search { found_by, asked_by, seen_as, not_told, .. } => {
            Some((found_by.clone(), asked_by.clone(), seen_as.clone(), not_told.clone()))
        }
        _ => None,
    });
    let (found_by, asked_by, seen_as, unknown) = told.expect("how it was found");
    assert_eq!(found_by, "RUNPATH /srv/lib of /usr/bin/backup");
    assert_eq!(asked_by.as_deref(), Some("/usr/bin/backup as libx.so"));
    assert_eq!((seen_as.as_str(), unknown.is_some()), (LIBRARY, true));
    assert!(incident.story.contains("RUNPATH"), "{}", incident.story);
}

#[test]
fn an_answer_about_a_process_that_has_ended_opens_nothing_that_nobody_would_close() {
    let mut bench = Bench::new();
    let mut seen = sshd_maps(&mut bench);
    let tgid = seen.iter().rev().find(|one| matches!(one.body, Body::Library(_))).unwrap();
    bench.world.exit(tgid.process.id.tgid, SSHD, MS);
    seen.extend(asked(&mut bench));
    feed(&mut bench, &seen);
    let before = bench.analysis.learner.units();
    feed(&mut bench, &[answer(&seen, &way(Vec::new()))]);
    assert_eq!(bench.analysis.learner.units(), before);
}

#[test]
fn a_finding_does_not_wait_for_an_answer_that_does_not_come() {
    let mut bench = Bench::new();
    let seen = sshd_maps(&mut bench);
    feed(&mut bench, &seen);
    assert!(bench.told.is_empty());
    let later = bench.analysis.next_due().unwrap();
    bench.told.extend(bench.analysis.tick(later - 1));
    assert!(bench.told.is_empty(), "not before it is due");
    bench.told.extend(bench.analysis.tick(later));
    assert!(detectors(bench.incident()).contains(&"library_unexpected"));
    // What comes then adds nothing twice.
    let before = bench.analysis.tally().findings;
    feed(&mut bench, &[answer(&seen, &way(Vec::new()))]);
    let count = |all: &[(&str, u64)]| {
        all.iter().find(|(id, _)| *id == "library_unexpected").map(|(_, count)| *count)
    };
    assert_eq!(count(&before), count(&bench.analysis.tally().findings));
}

#[test]
fn a_way_past_a_place_of_others_is_judged_by_who_runs_it() {
    let everyone = Writer::Everyone;
    for (why, hit, severity) in [
        (Why::Writable(everyone), true, Some(Severity::Medium)),
        (Why::Missing(everyone), false, Some(Severity::Low)),
        (Why::Writable(Writer::Group(50)), true, Some(Severity::Info)),
        (Why::Current(None), true, Some(Severity::Info)),
        (Why::Current(Some(everyone)), true, Some(Severity::Medium)),
    ] {
        let mut bench = learned();
        let tgid = bench.world.fresh();
        bench.world.fork(1, tgid, Role::NONE);
        bench.world.exec_as(tgid, 1, PROGRAM, Role::NONE, 0, 0, None);
        bench.world.map(tgid, PROGRAM, Path::new(LIBRARY), Role::NONE);
        let seen = asked(&mut bench);
        feed(&mut bench, &seen);
        bench.analysis.found();
        feed(&mut bench, &[answer(&seen, &way(vec![weak(why, hit)]))]);
        let found = bench.analysis.found();
        let mine = found.iter().find(|(id, _)| *id == "library_writable_path");
        assert_eq!(mine.map(|(_, severity)| *severity), severity, "{why:?}");
    }
}

#[test]
fn sshd_with_a_library_from_the_current_directory_is_high() {
    let mut bench = Bench::new();
    let seen = sshd_maps(&mut bench);
    feed(&mut bench, &seen);
    feed(&mut bench, &[answer(&seen, &way(vec![weak(Why::Current(None), true)]))]);
    let found =
        bench.incident().findings.iter().find(|one| one.detector == "library_writable_path");
    let found = found.unwrap();
    assert_eq!(found.severity, Severity::High);
    assert!(found.title.contains("from the current directory"), "{}", found.title);
}

#[test]
fn a_library_that_was_learned_so_is_not_told() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let monitor = bench.login(&Login::new("publickey"));
    assert!(monitor > 0);
    let tgid = bench.world.fresh();
    bench.world.fork(LISTENER, tgid, SSHD);
    bench.world.map(tgid, SSHD_PATH, Path::new(LZMA), SSHD);
    let seen = asked(&mut bench);
    if !seen.iter().any(|one| matches!(one.body, Body::Library(_))) {
        // Known pairs are not even recorded.
        return;
    }
    feed(&mut bench, &seen);
    feed(&mut bench, &[answer(&seen, &way(vec![weak(Why::Current(None), true)]))]);
    assert!(!bench.fired().contains(&"library_writable_path"));
}

/// A program with a preload of the right name in the right place, and what its file turns out to be.
fn preloaded(owner: &Ownership) -> Vec<Severity> {
    let mut bench = learned();
    bench.world.fake.0.lock().unwrap().inside = [(JEMALLOC.to_owned(), true)].into();
    let tgid = bench.world.fresh();
    bench.world.fork(1, tgid, Role::NONE);
    bench.world.exec(tgid, 1, PROGRAM, Role::NONE, 0);
    let text = format!("LD_PRELOAD={JEMALLOC}");
    let env = Env { variable: ENV_LD_PRELOAD, text, truncated: false };
    bench.world.push(tgid, Role::NONE, EventBody::Env(env));
    let seen = asked(&mut bench);
    feed(&mut bench, &seen);
    assert!(bench.analysis.found().is_empty(), "it waits");
    let mut told: Vec<Observation> =
        seen.into_iter().filter(|one| matches!(one.body, Body::Environment(_))).collect();
    for one in &mut told {
        if let Body::Environment(variable) = &mut one.body {
            variable.owners = Owners::Answered;
            variable.libraries[0].owner = owner.clone();
        }
    }
    feed(&mut bench, &told);
    // The same again is too late.
    let found = bench.analysis.found();
    feed(&mut bench, &told);
    assert!(bench.analysis.found().is_empty());
    found.into_iter().map(|(_, severity)| severity).collect()
}

#[test]
fn a_preload_is_explained_by_its_package_and_not_by_its_place() {
    let package = || "libjemalloc2 5.3.0-1".to_owned();
    assert_eq!(preloaded(&Ownership::Package(package())), [Severity::Info]);
    assert_eq!(preloaded(&Ownership::Nobody), [Severity::Medium]);
    assert_eq!(preloaded(&Ownership::Differs(package())), [Severity::Medium]);
    assert_eq!(preloaded(&Ownership::Unknown), [Severity::Info]);
}

#[test]
fn a_preload_is_judged_by_its_place_where_nobody_answers() {
    let mut bench = learned();
    bench.world.fake.0.lock().unwrap().inside = [(JEMALLOC.to_owned(), true)].into();
    let tgid = bench.world.fresh();
    bench.world.fork(1, tgid, Role::NONE);
    bench.world.exec(tgid, 1, PROGRAM, Role::NONE, 0);
    let text = format!("LD_PRELOAD={JEMALLOC}:/tmp/evil.so");
    let env = Env { variable: ENV_LD_PRELOAD, text, truncated: false };
    bench.world.push(tgid, Role::NONE, EventBody::Env(env));
    let seen = asked(&mut bench);
    feed(&mut bench, &seen);
    let now = bench.world.now + LONG;
    bench.told.extend(bench.analysis.tick(now));
    let found = bench.analysis.found();
    assert_eq!(found, [("preload_env", Severity::Medium)]);
}
