//! Code from places that someone else decides about.

use super::*;
use crate::event::{FileFacts, Role};

const NAMED: FileFacts =
    FileFacts { owner: Some(0), links: Some(1), mtime_s: Some(1_700_000_000), fs_magic: None };

/// A program that starts and ends, as this user; what it maps in between, if anything.
fn start(bench: &mut Bench, uid: u32, maps: Option<(&str, u32, FileFacts)>) {
    let program = "/usr/bin/backup";
    let tgid = bench.world.fresh();
    bench.world.fork(1, tgid, Role::NONE);
    bench.world.exec_as(tgid, 1, program, Role::NONE, 0, uid, None);
    if let Some((path, mode, facts)) = maps {
        bench.world.map_file(tgid, program, Path::new(path), Role::NONE, (mode, uid, facts));
    }
    bench.world.exit(tgid, Role::NONE, MS);
    bench.run();
}

fn learned(uid: u32) -> Bench {
    let mut bench = Bench::new();
    for _ in 0..120 {
        start(&mut bench, uid, None);
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    bench
}

fn severity(bench: &Bench) -> Option<Severity> {
    let findings = bench.told.iter().flat_map(|update| &update.incident.findings);
    let mine = findings.filter(|finding| finding.detector == "library_writable_path");
    mine.map(|finding| finding.severity).max()
}

#[test]
fn what_root_runs_and_another_user_can_change_is_medium() {
    let foreign = FileFacts { owner: Some(1000), ..NAMED };
    for (path, mode, facts) in [
        ("/home/u/libx.so", 0o755, foreign),
        ("/opt/app/libx.so", 0o777, NAMED),
        ("/var/tmp/libx.so", 0o755, foreign),
    ] {
        let mut bench = learned(0);
        start(&mut bench, 0, Some((path, mode, facts)));
        assert_eq!(severity(&bench), Some(Severity::Medium), "{path}");
        let story = &bench.incident().story;
        assert!(story.contains("/libx.so"), "{story}");
    }
}

#[test]
fn what_a_user_loads_of_his_own_is_no_incident() {
    let own = FileFacts { owner: Some(1000), ..NAMED };
    let mut bench = learned(1000);
    start(&mut bench, 1000, Some(("/home/u/libx.so", 0o755, own)));
    assert_eq!(severity(&bench), None);
    start(&mut bench, 1000, Some(("/tmp/liby.so", 0o755, own)));
    assert_eq!(severity(&bench), None);
}

#[test]
fn a_program_that_is_still_learned_is_not_judged_by_places() {
    let mut bench = Bench::new();
    let foreign = FileFacts { owner: Some(1000), ..NAMED };
    start(&mut bench, 0, Some(("/home/u/libx.so", 0o755, foreign)));
    assert_eq!(bench.fired(), Vec::<&str>::new());
}

#[test]
fn sshd_with_code_from_memory_is_high_and_says_where_it_lies() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let tgid = bench.world.fresh();
    bench.world.fork(LISTENER, tgid, SSHD);
    let unnamed = FileFacts { links: Some(0), ..NAMED };
    let path = Path::new("/memfd:libz.so.1");
    bench.world.map_file(tgid, SSHD_PATH, path, SSHD, (0o777, 0, unnamed));
    bench.run();
    assert_eq!(severity(&bench), Some(Severity::High));
    let story = &bench.incident().story;
    assert!(story.contains("which lies in memory only"), "{story}");
}
