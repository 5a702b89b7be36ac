//! What is told of several looks.

use super::*;
use crate::instrument::Program as Loaded;

fn program(id: u32, holders: &[u32]) -> Instrument {
    let loaded = Loaded {
        kind: "kprobe".to_owned(),
        name: "x".to_owned(),
        tag: 1,
        loaded: None,
        uid: None,
        places: Vec::new(),
        functions: Vec::new(),
    };
    let (id, what) = (format!("program {id}"), What::Program(loaded));
    Instrument { id, what, holders: holders.to_vec() }
}

/// What is told of several looks.
fn told(looks: Vec<Vec<Instrument>>) -> Vec<Vec<String>> {
    let (out, said) = channel();
    let surveyor = Surveyor::new(Box::new(|_, _| Ok(None)), OwnPrograms::new());
    let tell = Box::new(move |one| drop(out.send(one)));
    let mut work = Work::new(&[], surveyor, tell);
    let look = |news| {
        work.tell_news(news);
        let seen = said.try_iter().filter_map(|one| match one {
            Told::Seen(seen) => match seen.body {
                Body::Instrument(found) => Some(found.instrument.id),
                _ => None,
            },
            _ => None,
        });
        seen.collect()
    };
    looks.into_iter().map(look).collect()
}

#[test]
fn what_nobody_holds_is_told_only_if_it_lasts() {
    let own = std::process::id();
    let gone = u32::MAX;
    let first = vec![program(1, &[own]), program(2, &[]), program(3, &[gone])];
    let second = vec![program(3, &[gone])];
    let found = told(vec![first, second, vec![program(2, &[])]]);
    assert_eq!(found[0], ["program 1"]);
    assert_eq!(found[1], ["program 3"], "its holder hides");
    assert!(found[2].is_empty(), "2 was gone meanwhile");
}

#[test]
fn what_two_lists_disagree_on_is_told_only_if_it_lasts() {
    let what = What::Kprobe { place: "vfs_read".to_owned(), by: "kernel" };
    let extra = Instrument { id: "kprobe".to_owned(), what, holders: Vec::new() };
    let found = told(vec![vec![extra.clone()], vec![extra]]);
    assert_eq!((found[0].len(), found[1].len()), (0, 1));
}

#[test]
fn a_hook_that_is_counted_differently_at_each_look_is_told_all_the_same() {
    let hook = |count: usize| {
        let what = What::Ftrace { function: "vfs_read".to_owned(), flags: format!("({count})") };
        Instrument { id: format!("ftrace vfs_read {count}"), what, holders: Vec::new() }
    };
    let found = told(vec![vec![hook(1)], vec![hook(2)]]);
    assert_eq!(found, [vec![], vec!["ftrace vfs_read 2".to_owned()]]);
    let kprobe = |offset: u64| {
        let what = What::Kprobe { place: "vfs_read".to_owned(), by: "kernel" };
        Instrument { id: format!("kprobe ff k vfs_read+{offset:#x} 0"), what, holders: Vec::new() }
    };
    assert_eq!(told(vec![vec![kprobe(4)], vec![kprobe(8)]])[1].len(), 1);
    // One in another function is another.
    let what = What::Kprobe { place: "vfs_write".to_owned(), by: "kernel" };
    let other = Instrument { id: "kprobe".to_owned(), what, holders: Vec::new() };
    assert!(told(vec![vec![hook(1)], vec![other]])[1].is_empty());
}

#[test]
fn a_source_that_was_not_come_to_is_told_as_well() {
    let reason = Some("not mounted".to_owned());
    let told = unread(&[Source { name: "tracefs", reason }]);
    assert_eq!(told.len(), SOURCES.len() + 1);
    let unread: Vec<_> = told.iter().filter(|(_, unread)| *unread).collect();
    assert_eq!(unread, [&("tracefs", true)]);
}

#[test]
fn a_process_that_runs_this_program_is_a_twin_only_by_the_code_it_has_loaded() {
    let (out, _said) = channel();
    let surveyor = Surveyor::new(Box::new(|_, _| Ok(None)), OwnPrograms::new());
    let mut work = Work::new(&[], surveyor, Box::new(move |one| drop(out.send(one))));
    let found = program(1, &[std::process::id()]);
    assert!(!work.owner(&found).unwrap().is_twin, "the executable alone");
    work.alike.insert(found.id.clone());
    let owner = work.owner(&found).unwrap();
    assert!(owner.is_twin && !owner.is_tool, "{owner:?}");
}
