//! Loader variables: what explains itself, what is another file of the same name, what is hidden.

use super::*;
use crate::event::{Env, EventBody, Role};
use sensor_common::record::{ENV_GLIBC_TUNABLES, ENV_LD_PRELOAD, ENV_TRUNCATED};

const PROGRAM: &str = "/usr/bin/redis-server";
const JEMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";

/// A program that starts and ends; with more rights than its user, if `secure`.
fn start(bench: &mut Bench, program: &str, secure: bool, variables: &[Env]) {
    let tgid = bench.world.fresh();
    bench.world.fork(LISTENER, tgid, Role::NONE);
    bench.world.exec(tgid, LISTENER, program, Role::NONE, 0);
    if secure
        && let Some(event) = bench.world.events.last_mut()
        && let EventBody::Exec(exec) = &mut event.body
    {
        exec.secure = true;
    }
    for env in variables {
        bench.world.push(tgid, Role::NONE, EventBody::Env(env.clone()));
    }
    // One whose environment can be read still runs by then.
    if !bench.world.fake.0.lock().unwrap().environs.contains_key(&tgid) {
        bench.world.exit(tgid, Role::NONE, MS);
    }
    bench.run();
}

fn env(variable: u32, text: &str) -> Env {
    Env { variable, text: text.to_owned(), truncated: false }
}

fn preload(value: &str) -> Env {
    env(ENV_LD_PRELOAD, &format!("LD_PRELOAD={value}"))
}

/// Settled, with these files where processes see them; true: only root decides about it.
fn learned(files: &[(&str, bool)]) -> Bench {
    let mut bench = Bench::new();
    for _ in 0..120 {
        start(&mut bench, PROGRAM, false, &[]);
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    let inside = files.iter().map(|(path, protected)| ((*path).to_owned(), *protected)).collect();
    bench.world.fake.0.lock().unwrap().inside = inside;
    bench
}

/// Severities since the last call.
fn found(bench: &mut Bench) -> Vec<Severity> {
    let all = bench.analysis.found();
    assert!(all.iter().all(|(detector, _)| *detector == "preload_env"), "{all:?}");
    all.into_iter().map(|(_, severity)| severity).collect()
}

#[test]
fn an_allocator_of_the_distribution_explains_itself() {
    let mut bench = learned(&[(JEMALLOC, true)]);
    start(&mut bench, PROGRAM, false, &[preload(JEMALLOC)]);
    assert_eq!(found(&mut bench), [Severity::Info]);
    assert!(bench.told.is_empty());
    // By name alone, as it is mostly written, it is found too; then it is known.
    start(&mut bench, PROGRAM, false, &[preload("libjemalloc.so.2")]);
    assert_eq!(found(&mut bench), []);
}

#[test]
fn the_same_name_elsewhere_is_told() {
    let fake = "/tmp/libjemalloc.so.2";
    let mut bench = learned(&[(JEMALLOC, true), (fake, false)]);
    start(&mut bench, PROGRAM, false, &[preload("libjemalloc.so.2")]);
    assert_eq!(found(&mut bench), [Severity::Info]);
    // That the variable is known by then does not cover another file.
    start(&mut bench, PROGRAM, false, &[preload(fake)]);
    assert_eq!(found(&mut bench), [Severity::Medium]);
    let incident = bench.incident();
    assert!(incident.story.contains("others than root may write to"), "{}", incident.story);
}

#[test]
fn a_search_path_that_leads_elsewhere_is_told_whatever_its_place() {
    let path = env(4, "LD_LIBRARY_PATH=/tmp/lib");
    let preload = preload("libjemalloc.so.2");
    for variables in [[path.clone(), preload.clone()], [preload, path]] {
        let mut bench = learned(&[(JEMALLOC, true), ("/tmp/lib/libjemalloc.so.2", false)]);
        start(&mut bench, PROGRAM, false, &variables);
        assert!(found(&mut bench).contains(&Severity::Medium), "{variables:?}");
    }
}

#[test]
fn one_stranger_behind_a_known_library_is_told() {
    let mut bench = learned(&[(JEMALLOC, true), ("/opt/evil.so", true)]);
    start(&mut bench, PROGRAM, false, &[preload(&format!("{JEMALLOC}:/opt/evil.so"))]);
    assert_eq!(found(&mut bench), [Severity::Medium]);
}

#[test]
fn set_twice_both_are_looked_at() {
    let mut bench = learned(&[(JEMALLOC, true)]);
    start(&mut bench, PROGRAM, false, &[preload(JEMALLOC), preload("/tmp/evil.so")]);
    assert_eq!(found(&mut bench), [Severity::Info, Severity::Medium]);
    let story = &bench.incident().story;
    assert!(story.contains("glibc obeys the last"), "{story}");
}

#[test]
fn a_program_with_more_rights_ignores_it_and_says_so() {
    let mut bench = learned(&[]);
    start(&mut bench, PROGRAM, true, &[preload("/tmp/evil.so")]);
    assert_eq!(found(&mut bench), [Severity::Info]);
    assert!(bench.told.is_empty());
}

#[test]
fn tunables_made_to_overflow_a_program_with_more_rights_are_told_at_once() {
    let long = format!("GLIBC_TUNABLES=glibc.malloc.mxfast={}", "A".repeat(2000));
    for (text, secure, severity) in [
        ("GLIBC_TUNABLES=glibc.malloc.mxfast=glibc.malloc.mxfast=A", true, Some(Severity::Medium)),
        (&long, true, Some(Severity::Medium)),
        ("GLIBC_TUNABLES=glibc.malloc.check=0:glibc.cpu.x86_ibt=on", true, None),
        ("GLIBC_TUNABLES=glibc.malloc.mxfast=glibc.malloc.mxfast=A", false, None),
    ] {
        let mut bench = Bench::new();
        start(&mut bench, "/usr/bin/su", secure, &[env(ENV_GLIBC_TUNABLES, text)]);
        let at_once = found(&mut bench).into_iter().max().filter(|worst| *worst > Severity::Info);
        assert_eq!(at_once, severity, "{text} {secure}");
    }
}

#[test]
fn what_lies_behind_thousands_of_variables_is_read_later() {
    let mut bench = learned(&[]);
    let tgid = bench.world.fresh() + 1;
    let mut environ = b"A=x\0".repeat(10_000);
    environ.extend(b"LD_PRELOAD=/tmp/evil.so\0");
    bench.world.fake.0.lock().unwrap().environs.insert(tgid, environ);
    start(&mut bench, PROGRAM, false, &[env(ENV_TRUNCATED, "")]);
    assert_eq!(found(&mut bench), [Severity::Medium, Severity::Info]);
    let story = &bench.incident().story;
    assert!(story.contains("/tmp/evil.so") && story.contains("may have changed"), "{story}");
}

#[test]
fn what_could_not_be_read_later_either_is_told() {
    let mut bench = learned(&[]);
    start(&mut bench, PROGRAM, false, &[env(ENV_TRUNCATED, "")]);
    assert_eq!(found(&mut bench), [Severity::Low]);
}

#[test]
fn a_cut_value_is_read_whole_where_it_still_can_be() {
    let mut bench = learned(&[(JEMALLOC, true)]);
    let tgid = bench.world.fresh() + 1;
    let whole = format!("LD_PRELOAD={JEMALLOC}:{}/tmp/evil.so", ":".repeat(300));
    let cut = Env { truncated: true, ..env(ENV_LD_PRELOAD, &whole[..255]) };
    bench.world.fake.0.lock().unwrap().environs.insert(tgid, whole.into_bytes());
    start(&mut bench, PROGRAM, false, std::slice::from_ref(&cut));
    assert_eq!(found(&mut bench), [Severity::Medium]);
    assert!(bench.incident().story.contains("/tmp/evil.so"), "{}", bench.incident().story);
    // Where it cannot, what is hidden behind the cut is not vouched for.
    let mut bench = learned(&[(JEMALLOC, true)]);
    start(&mut bench, PROGRAM, false, &[cut]);
    assert_eq!(found(&mut bench), [Severity::Medium]);
}

#[test]
fn a_variable_no_loader_obeys_stays_where_it_is() {
    let mut bench = learned(&[]);
    start(&mut bench, PROGRAM, false, &[env(16, "LD_TRACE_TOKEN=hunter2")]);
    assert_eq!(found(&mut bench), []);
}
