//! Walks over a folder that stands for proc.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

const LINK: &str = "anon_inode:bpf_link";
const PERF: &str = "anon_inode:[perf_event]";

fn proc() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// One descriptor of a process, which has these real and effective users.
fn holds(proc: &TempDir, folder: &str, number: i32, kind: &str, text: &str) {
    let folder = proc.path().join(folder);
    fs::create_dir_all(folder.join("fd")).unwrap();
    fs::create_dir_all(folder.join("fdinfo")).unwrap();
    symlink(kind, folder.join(format!("fd/{number}"))).unwrap();
    if kind == LINK {
        fs::write(folder.join(format!("fdinfo/{number}")), text).unwrap();
    }
}

fn is_of(proc: &TempDir, pid: u32, users: &str) {
    let text = format!("Name:\tx\nPid:\t{pid}\nUid:\t{users}\nGid:\t0\t0\t0\t0\n");
    fs::write(proc.path().join(format!("{pid}/status")), text).unwrap();
}

fn link(id: u32) -> String {
    format!("link_type:\traw_tracepoint\nlink_id:\t{id}\nprog_id:\t1\ntp_name:\tx\n")
}

/// Links found, with their holders, how the walk's own process stands, and the reasons.
fn walked(proc: &TempDir, left: usize) -> (Vec<(u32, u32)>, OwnHolds, Vec<Source>) {
    let mut ask = |_: std::os::fd::BorrowedFd<'_>, _: bool| Err("refused".to_owned());
    let mut sources = Vec::new();
    let walk = Walk { left, ..Walk::new(&mut ask, proc.path(), std::process::id()) };
    let walked = walk.walked(&mut sources);
    let links = walked.holdings.iter().filter_map(|one| match &one.what {
        Handle::Link(link) => Some((one.pid, link.id)),
        _ => None,
    });
    (links.collect(), walked.own, sources)
}

fn reason<'a>(sources: &'a [Source], name: &str) -> Option<&'a str> {
    sources.iter().find(|source| source.name == name).unwrap().reason.as_deref()
}

#[test]
fn descriptors_of_others_take_nothing_from_the_sensors_own() {
    let proc = proc();
    let own = std::process::id();
    (0..5).for_each(|number| holds(&proc, "1", number, LINK, &link(7)));
    (0..5).for_each(|number| {
        holds(&proc, "self", number, LINK, &link(100 + number.unsigned_abs()));
    });
    let (links, holds, sources) = walked(&proc, 3);
    assert_eq!(links.iter().filter(|(pid, _)| *pid == own).count(), 5, "{links:?}");
    assert_eq!((holds, reason(&sources, "own descriptors")), (OwnHolds::Placed, None));
    assert!(reason(&sources, "descriptors").unwrap().contains("more descriptors"));
}

#[test]
fn who_can_do_nothing_is_looked_at_after_root() {
    let proc = proc();
    for (pid, users) in [(10, "1000\t1000\t1000\t1000"), (20, "1000\t0\t0\t0"), (30, "")] {
        (0..3).for_each(|number| holds(&proc, &pid.to_string(), number, LINK, &link(pid)));
        is_of(&proc, pid, users);
    }
    let (links, ..) = walked(&proc, 3);
    assert_eq!(links, [(20, 20)], "the same link is told once");
}

#[test]
fn a_process_that_something_else_is_mounted_over_is_left_out_and_told() {
    let proc = proc();
    (1..4).for_each(|pid| holds(&proc, &pid.to_string(), 3, LINK, &link(pid)));
    let mut ask = |_: std::os::fd::BorrowedFd<'_>, _: bool| Ok(None);
    let mut sources = Vec::new();
    let walk = Walk::new(&mut ask, proc.path(), std::process::id());
    let walked = Walk { covered: BTreeSet::from([2]), ..walk }.walked(&mut sources);
    let pids: Vec<_> = walked.holdings.iter().map(|one| one.pid).collect();
    assert_eq!(pids.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([1, 3]));
    assert!(reason(&sources, "descriptors").unwrap().ends_with("/2"));
    let own = std::process::id();
    holds(&proc, "self", 3, LINK, &link(9));
    let walk = Walk::new(&mut ask, proc.path(), own);
    let walked = Walk { covered: BTreeSet::from([own]), ..walk }.walked(&mut sources);
    assert_eq!(walked.own, OwnHolds::Unread);
}

#[test]
fn own_descriptors_that_cannot_be_read_are_told_with_what_follows() {
    let (_, own, sources) = walked(&proc(), 3);
    assert_eq!(own, OwnHolds::Unread);
    assert!(reason(&sources, "own descriptors").unwrap().contains("not compared"));
    // A text that cannot be read, beside one that is gone.
    let proc = proc();
    holds(&proc, "self", 3, LINK, "");
    fs::remove_file(proc.path().join("self/fdinfo/3")).unwrap();
    assert_eq!(walked(&proc, 3).1, OwnHolds::Placed);
    fs::create_dir(proc.path().join("self/fdinfo/3")).unwrap();
    assert_eq!(walked(&proc, 3).1, OwnHolds::Unread);
}

#[test]
fn own_probes_whose_place_is_refused_are_not_taken_for_placed() {
    let proc = proc();
    // Any descriptor of this process will do: the answer is a refusal.
    let file = tempfile::tempfile().unwrap();
    holds(&proc, "self", file.as_raw_fd(), PERF, "");
    let (_, own, sources) = walked(&proc, 3);
    assert_eq!(own, OwnHolds::Unplaced);
    assert!(reason(&sources, "own descriptors").unwrap().contains("refused"));
    assert_eq!(reason(&sources, "perf events"), None, "that is about others");
}
