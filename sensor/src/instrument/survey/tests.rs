//! What is told of recorded holds.

use super::*;
use crate::instrument::fdinfo::{Link, LinkedUprobe};
use crate::instrument::ftrace;
use crate::instrument::holders::{Handle, Holding};
use crate::instrument::objects::Targets;

const OWN: u32 = 100;

fn program(name: &str, kind: &str) -> Program {
    Program {
        kind: kind.to_owned(),
        name: name.to_owned(),
        tag: 0,
        loaded: None,
        uid: Some(0),
        places: Vec::new(),
        functions: Vec::new(),
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

/// The sensor's own programs are those below 100.
fn own(programs: &[(u32, Program)]) -> Own {
    let own = programs.iter().map(|(id, _)| *id).filter(|id| *id < 100);
    Own { pid: OWN, programs: own.collect() }
}

fn looked(programs: Vec<(u32, Program)>, holdings: Vec<Holding>, told: Told) -> Looked {
    let links = holdings.iter().filter_map(|holding| match &holding.what {
        Handle::Link(link) => {
            Some(objects::Link { id: link.id, program: link.program, kind: link.kind.clone() })
        }
        _ => None,
    });
    let links: Vec<_> = links.collect();
    let still =
        (programs.iter().map(|(id, _)| *id).collect(), links.iter().map(|link| link.id).collect());
    let objects = Objects { links, programs, targets: Targets::default() };
    let walked = Walked { holdings, own: OwnHolds::Placed };
    Looked { objects, still, walked, told, modules: Vec::new() }
}

/// On a kernel where each fprobe is one call.
fn assemble(looked: Looked, own: &Own) -> Survey {
    super::assemble(looked, own, || Fprobes::Each)
}

fn told(
    programs: Vec<(u32, Program)>,
    holdings: Vec<Holding>,
    rest: Vec<Instrument>,
) -> Vec<String> {
    let own = own(&programs);
    let told = Told { instruments: rest, ..Told::default() };
    forms(&assemble(looked(programs, holdings, told), &own))
}

fn forms(survey: &Survey) -> Vec<String> {
    survey.foreign.iter().map(|one| format!("{} {:?}", one.form(), one.holders)).collect()
}

#[test]
fn a_perf_uprobe_is_told_with_its_program_and_holder() {
    let holdings = vec![
        held(7, Handle::Program(101)),
        held(7, Handle::Perf(uprobe("/lib/libpam.so.0", 0x10, Some(101)))),
    ];
    let told = told(vec![(101, program("pam_authenticat", "kprobe"))], holdings, Vec::new());
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
        held(8, Handle::Program(102)),
    ];
    let programs = vec![(1, program("exec", "kprobe")), (102, program("exec", "kprobe"))];
    assert_eq!(told(programs, holdings, Vec::new()), ["BPF kprobe exec at [] [8]"]);
}

#[test]
fn a_link_and_its_perf_event_are_one_probe() {
    let path = "/lib/libc.so.6".to_owned();
    let place = LinkedUprobe { path, offset: 0x20, is_return: false, is_usdt: false };
    let link = Link {
        id: 5,
        program: 101,
        kind: "perf".to_owned(),
        place: "uprobe /lib/libc.so.6".to_owned(),
        uprobes: vec![place],
        ..Link::default()
    };
    let holdings = vec![
        held(7, Handle::Link(link)),
        held(7, Handle::Perf(uprobe("/lib/libc.so.6", 0x20, Some(101)))),
    ];
    let told = told(vec![(101, program("f", "kprobe"))], holdings, Vec::new());
    let probes = told.iter().filter(|form| form.starts_with("uprobe")).count();
    assert_eq!(probes, 1, "{told:?}");
}

#[test]
fn a_program_that_was_loaded_for_a_moment_is_left_out() {
    let programs = vec![(101, program("probe", "kprobe"))];
    let mut looked = looked(programs, Vec::new(), Told::default());
    looked.still = (BTreeSet::new(), BTreeSet::new());
    let survey = assemble(looked, &Own { pid: OWN, ..Own::default() });
    assert_eq!((survey.foreign.len(), survey.own), (0, 0));
}

#[test]
fn what_this_process_holds_for_a_moment_of_others_is_not_its_own() {
    let link = Link { id: 5, program: 101, place: "tracing 24".to_owned(), ..Link::default() };
    let holdings = vec![held(OWN, Handle::Program(101)), held(OWN, Handle::Link(link))];
    let told = told(vec![(101, program("theirs", "tracing"))], holdings, Vec::new());
    assert_eq!(told, ["BPF tracing theirs at [tracing 24] [100]"]);
}

#[test]
fn the_sensors_own_program_attached_by_another_is_his_probe() {
    let path = "/lib/libpam.so.0".to_owned();
    let uprobes = vec![LinkedUprobe { path, offset: 0x10, is_return: false, is_usdt: false }];
    let place = "uprobe /lib/libpam.so.0".to_owned();
    let link =
        Link { id: 5, program: 1, kind: "perf".to_owned(), place, uprobes, ..Link::default() };
    let holdings = vec![
        held(OWN, Handle::Program(1)),
        held(OWN, Handle::Perf(uprobe("/lib/libc.so.6", 0x10, Some(1)))),
        held(8, Handle::Link(link)),
        held(9, Handle::Perf(uprobe("/lib/libc.so.6", 0x10, Some(1)))),
    ];
    let told = told(vec![(1, program("function_entry", "kprobe"))], holdings, Vec::new());
    assert_eq!(
        told,
        [
            "BPF kprobe function_entry at [uprobe /lib/libpam.so.0] [8]",
            "uprobe in /lib/libc.so.6 by perf [9]",
            "uprobe in /lib/libpam.so.0 by bpf link [8]",
        ]
    );
}

#[test]
fn the_same_code_is_marked_and_still_told() {
    let tagged = |name, tag| Program { tag, ..program(name, "kprobe") };
    let programs = vec![(1, tagged("exec", 7)), (101, tagged("exec", 7)), (102, tagged("exec", 8))];
    let own = own(&programs);
    let holdings = vec![
        held(OWN, Handle::Program(1)),
        held(7, Handle::Program(101)),
        held(7, Handle::Perf(uprobe("/lib/libpam.so.0", 0x10, Some(101)))),
        held(7, Handle::Perf(uprobe("/lib/libpam.so.0", 0x10, Some(102)))),
    ];
    let survey = assemble(looked(programs, holdings, Told::default()), &own);
    assert_eq!((survey.foreign.len(), survey.own), (4, 1));
    let alike: Vec<_> = survey.alike.iter().map(String::as_str).collect();
    assert_eq!(alike, ["program 101", "uprobe /lib/libpam.so.0+0x10 of program 101"]);
}

fn kprobe(function: &str, program: u32) -> PerfSite {
    let function = function.to_owned();
    PerfSite {
        place: PerfPlace::Kprobe { function, offset: 0, is_return: false },
        program: Some(program),
    }
}

#[test]
fn a_foreign_kprobe_beside_the_sensors_own_is_told() {
    let function = "security_mmap_file";
    let programs = || vec![(1, program("memory_map_kpro", "kprobe"))];
    let holdings = || vec![held(OWN, Handle::Perf(kprobe(function, 1)))];
    let line = "ff  k  security_mmap_file+0x0    [FTRACE]";
    let survey = |count: usize, hooks: &str| {
        let told = Told {
            kprobes: vec![ftrace::kprobe(line).unwrap(); count],
            hooks: ftrace::hooks(hooks.lines()),
            instruments: Vec::new(),
        };
        forms(&assemble(looked(programs(), holdings(), told), &own(&programs())))
    };
    let own = "security_mmap_file (1) R    \ttramp: 0xff (kprobe_ftrace_handler+0x0/0x1a0)\n";
    assert!(survey(1, own).is_empty());
    assert_eq!(survey(2, own), ["kprobe security_mmap_file by kernel []"]);
    let two = "security_mmap_file (2) R    \n";
    assert_eq!(survey(1, two), ["ftrace security_mmap_file []"]);
    // The list of kprobes is out of reach: the sensor's own is known all the same.
    assert!(survey(0, own).is_empty());
    assert_eq!(survey(0, two), ["ftrace security_mmap_file []"]);
}

#[test]
fn a_foreign_fentry_program_is_told_with_its_function_also_where_the_sensor_has_one() {
    let programs =
        vec![(1, program("memory_map_fent", "tracing")), (101, program("spy", "tracing"))];
    let own = own(&programs);
    let text = "security_mmap_file (1)     D  \n\tdirect-->bpf_trampoline_6442450954+0x0/0x12\n";
    let told = Told { hooks: ftrace::hooks(text.lines()), ..Told::default() };
    let holdings = vec![held(OWN, Handle::Program(1)), held(7, Handle::Program(101))];
    let mut looked = looked(programs, holdings, told);
    looked.objects.targets.known.insert(0x1_0000_000a, vec![1, 101]);
    let survey = assemble(looked, &own);
    let [one] = &survey.foreign[..] else { panic!("{survey:?}") };
    let What::Program(found) = &one.what else { panic!("{one:?}") };
    assert_eq!(
        (found.name.as_str(), &found.functions[..]),
        ("spy", &["security_mmap_file".to_owned()][..])
    );
}

#[test]
fn a_kprobe_that_tracefs_defines_is_told_once_and_many_hooks_are_one_but_for_those_that_stand_out()
{
    let place = "vfs_read".to_owned();
    let what = What::Kprobe { place, by: "tracefs" };
    let defined = Instrument { id: "a".to_owned(), what, holders: Vec::new() };
    let lines: Vec<String> = (0..100).map(|at| format!("f{at} (1)  ")).collect();
    let hooks = lines.join("\n")
        + "\nfilldir64 (2) R I  \ntcp4_seq_show (1) R  \ttramp: 0xff (hide+0x0/0x9 [rootkit])\n\
            udp4_seq_show (1) R  \ttramp: 0xff (0xffffffffc0102030)\n\
            vfs_open (1)  \ttramp: 0xff (fprobe_handler+0x0/0x9)\n";
    let told = Told {
        instruments: vec![defined],
        kprobes: ftrace::kprobe("ff  k  vfs_read+0x0  ").into_iter().collect(),
        hooks: ftrace::hooks(hooks.lines()),
    };
    let survey = assemble(looked(Vec::new(), Vec::new(), told), &Own::default());
    let expected = [
        "kprobe vfs_read by tracefs []",
        "ftrace filldir64 []",
        "ftrace tcp4_seq_show []",
        "ftrace udp4_seq_show []",
        "ftrace (many functions) []",
    ];
    assert_eq!(forms(&survey), expected);
}

#[test]
fn where_own_holds_are_unknown_nothing_that_may_be_own_is_told() {
    let programs = || vec![(1, program("memory_map_kpro", "kprobe"))];
    let text = "security_mmap_file (1) R  \ttramp: 0xff (kprobe_ftrace_handler+0x0/0x1a0)\n\
        do_exit (1) R I  \ttramp: 0xff (hide+0x0/0x90 [rootkit])\n";
    let survey = |walked: OwnHolds, list: &str| {
        let told = Told {
            kprobes: list.lines().filter_map(ftrace::kprobe).collect(),
            hooks: ftrace::hooks(text.lines()),
            instruments: Vec::new(),
        };
        let mut looked = looked(programs(), Vec::new(), told);
        looked.objects.links = vec![objects::Link { id: 5, program: 1, kind: "perf".to_owned() }];
        looked.still.1 = BTreeSet::from([5]);
        looked.walked.own = walked;
        forms(&assemble(looked, &own(&programs())))
    };
    let stray = "BPF kprobe memory_map_kpro at [perf] []";
    let listed = "ff  k  security_mmap_file+0x0    [FTRACE]";
    // A hook that is no kprobe is none of the sensor's in any case.
    assert_eq!(survey(OwnHolds::Unread, listed), ["ftrace do_exit []"]);
    assert_eq!(survey(OwnHolds::Unread, ""), ["ftrace do_exit []"]);
    assert_eq!(survey(OwnHolds::Unplaced, listed), [stray, "ftrace do_exit []"]);
    assert_eq!(survey(OwnHolds::Placed, listed).len(), 3);
}

#[test]
fn a_hook_beside_two_links_that_are_one_call_is_told() {
    let link = |id: u32, kind: &str| Link {
        id,
        program: 1,
        kind: kind.to_owned(),
        place: kind.to_owned(),
        kprobes: vec!["vfs_read".to_owned()],
        is_many: true,
        ..Link::default()
    };
    let programs = || vec![(1, program("mine", "kprobe"))];
    let survey = |fprobes: fn() -> Fprobes, kinds: [&str; 2], count: usize| {
        let links = [link(5, kinds[0]), link(6, kinds[1])];
        let holdings = links.map(|link| held(OWN, Handle::Link(link))).to_vec();
        let hooks = ftrace::hooks([format!("vfs_read ({count})  ").as_str()].into_iter());
        let told = Told { hooks, ..Told::default() };
        forms(&super::assemble(looked(programs(), holdings, told), &own(&programs()), fprobes))
    };
    let (same, both) = (["kprobe_multi"; 2], ["kprobe_multi", "kretprobe_multi"]);
    assert!(survey(|| Fprobes::Each, same, 2).is_empty());
    assert_eq!(survey(|| Fprobes::Shared, same, 2), ["ftrace vfs_read []"]);
    assert_eq!(survey(|| Fprobes::Shared, both, 2), ["ftrace vfs_read []"]);
    assert!(survey(|| Fprobes::Split, both, 2).is_empty());
    assert_eq!(survey(|| Fprobes::Split, same, 2), ["ftrace vfs_read []"]);
}
