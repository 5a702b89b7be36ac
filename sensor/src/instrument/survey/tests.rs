//! What is told of recorded holds.

use super::*;
use crate::instrument::fdinfo::LinkedUprobe;

const OWN: u32 = 100;

fn program(name: &str, kind: &str) -> Program {
    Program {
        kind: kind.to_owned(),
        name: name.to_owned(),
        tag: 0,
        loaded: None,
        uid: Some(0),
        places: Vec::new(),
    }
}

fn uprobe(path: &str, offset: u64, program: Option<u32>) -> PerfSite {
    let path = path.to_owned();
    let place = PerfPlace::Uprobe { file: None, path, offset, semaphore: None, is_return: false };
    PerfSite { place, program }
}

fn held(pid: u32, what: Handle) -> Holding {
    Holding { pid, what }
}

fn told(
    programs: Vec<(u32, Program)>,
    holdings: Vec<Holding>,
    rest: Vec<Instrument>,
) -> Vec<String> {
    let still = (programs.iter().map(|(id, _)| *id).collect(), BTreeSet::new());
    let links = holdings.iter().filter_map(|holding| match &holding.what {
        Handle::Link(link) => {
            Some(objects::Link { id: link.id, program: link.program, kind: link.kind.clone() })
        }
        _ => None,
    });
    let objects = Objects { links: links.collect(), programs };
    let (foreign, _) = assemble(objects, &still, holdings, rest, OWN);
    foreign.iter().map(|one| format!("{} {:?}", one.form(), one.holders)).collect()
}

#[test]
fn a_perf_uprobe_is_told_with_its_program_and_holder() {
    let holdings = vec![
        held(7, Handle::Program(1)),
        held(7, Handle::Perf(uprobe("/lib/libpam.so.0", 0x10, Some(1)))),
    ];
    let told = told(vec![(1, program("pam_authenticat", "kprobe"))], holdings, Vec::new());
    assert_eq!(
        told,
        [
            "BPF kprobe pam_authenticat at [uprobe /lib/libpam.so.0] [7]",
            "uprobe in /lib/libpam.so.0 by perf [7]",
        ]
    );
}

#[test]
fn what_the_sensor_holds_is_nobody_elses_whatever_its_name() {
    let link = Link { id: 5, program: 1, place: "raw_tracepoint x".to_owned(), ..Link::default() };
    let holdings = vec![
        held(OWN, Handle::Program(1)),
        held(OWN, Handle::Link(link)),
        held(OWN, Handle::Perf(uprobe("/lib/libpam.so.0", 0x10, Some(1)))),
        // The same name, held by another.
        held(8, Handle::Program(2)),
    ];
    let programs = vec![(1, program("exec", "kprobe")), (2, program("exec", "kprobe"))];
    assert_eq!(told(programs, holdings, Vec::new()), ["BPF kprobe exec at [] [8]"]);
}

#[test]
fn a_link_and_its_perf_event_are_one_probe() {
    let path = "/lib/libc.so.6".to_owned();
    let place = LinkedUprobe { path, offset: 0x20, is_return: false, is_usdt: false };
    let link = Link {
        id: 5,
        program: 1,
        kind: "perf".to_owned(),
        place: "uprobe /lib/libc.so.6".to_owned(),
        uprobes: vec![place],
        ..Link::default()
    };
    let holdings = vec![
        held(7, Handle::Link(link)),
        held(7, Handle::Perf(uprobe("/lib/libc.so.6", 0x20, Some(1)))),
    ];
    let told = told(vec![(1, program("f", "kprobe"))], holdings, Vec::new());
    let probes = told.iter().filter(|form| form.starts_with("uprobe")).count();
    assert_eq!(probes, 1, "{told:?}");
}

#[test]
fn a_program_that_was_loaded_for_a_moment_is_left_out() {
    let objects = Objects { programs: vec![(1, program("probe", "kprobe"))], links: Vec::new() };
    let gone = (BTreeSet::new(), BTreeSet::new());
    let (foreign, own) = assemble(objects, &gone, Vec::new(), Vec::new(), OWN);
    assert_eq!((foreign.len(), own), (0, 0));
}

#[test]
fn a_kprobe_is_told_once_and_many_hooks_are_one() {
    let kprobe = |by| What::Kprobe { place: "vfs_read".to_owned(), by };
    let one = |id: &str, what| Instrument { id: id.to_owned(), what, holders: Vec::new() };
    let mut rest = vec![one("a", kprobe("tracefs")), one("b", kprobe("kernel"))];
    rest.extend((0..100).map(|at| {
        let what = What::Ftrace { function: format!("f{at}"), flags: String::new() };
        one(&format!("f{at}"), what)
    }));
    let told = told(Vec::new(), Vec::new(), rest);
    assert_eq!(told, ["kprobe vfs_read by tracefs []", "ftrace (many functions) []"]);
}
