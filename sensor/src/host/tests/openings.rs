//! Libraries opened after the start, and starts whose processes are gone.

use super::*;
use crate::event::{FileKey, Link, Modules, Placement, SealAt};
use crate::host::testing::{LZMA, MODULE_SIZE, NOWHERE};

const PLUGIN: &str = "/usr/lib/plugin.so";

fn openings(seen: &[Observation]) -> Vec<&Opening> {
    seen.iter()
        .filter_map(|one| match &one.body {
            Body::Opened(opening) => Some(opening),
            _ => None,
        })
        .collect()
}

fn started(world: &mut World) -> u32 {
    let tgid = world.fresh();
    world.fork(1, tgid, Role::NONE);
    world.exec(tgid, 1, SSHD_PATH, SSHD, 0);
    tgid
}

#[test]
fn an_opening_waits_for_its_files_name_and_its_seal() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let tgid = started(&mut world);
    for _ in 0..2 {
        world.open(tgid, SSHD_PATH, Path::new(PLUGIN), Path::new(LZMA));
        let seen = run(&mut station, world.take());
        assert!(openings(&seen).is_empty());
        world.now += 5 * MS;
        world.seal(tgid, Path::new(PLUGIN));
        let seen = run(&mut station, world.take());
        let found = openings(&seen);
        assert_eq!(found.len(), 1, "{seen:#?}");
        assert_eq!(found[0].module.path, PLUGIN);
        assert_eq!(found[0].asked.as_ref().unwrap().place.module.path, LZMA);
        let took = found[0].took_ns.unwrap();
        assert!((5 * MS..6 * MS).contains(&took), "{took}");
    }
}

#[test]
fn what_a_library_needs_is_asked_for_by_who_asked_for_it() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let tgid = started(&mut world);
    let needed = Path::new("/usr/lib/needed.so");
    world.open(tgid, SSHD_PATH, Path::new(PLUGIN), Path::new(LZMA));
    world.open(tgid, SSHD_PATH, needed, Path::new(LZMA));
    for library in [needed, Path::new(PLUGIN)] {
        world.seal(tgid, library);
    }
    // Nothing is under way any more.
    world.open(tgid, SSHD_PATH, Path::new("/usr/lib/later.so"), Path::new(LZMA));
    let mut events = world.take();
    // The stack of the second and the third reaches nobody.
    for event in
        events.iter_mut().filter(|event| matches!(event.body, EventBody::Opened(_))).skip(1)
    {
        let EventBody::Opened(opened) = &mut event.body else { unreachable!() };
        opened.stack.words.fill(0);
    }
    let mut seen = run(&mut station, events);
    station.tick(world.now + 1_000 * MS, &mut |one| seen.push(one));
    let asked = |one: &Opening| one.asked.as_ref().map(|asked| asked.place.module.path.clone());
    let found: Vec<Option<String>> = openings(&seen).into_iter().map(asked).collect();
    assert_eq!(found, [Some(LZMA.to_owned()), Some(LZMA.to_owned()), None]);
}

#[test]
fn without_a_seal_it_is_told_after_a_while_or_at_the_end() {
    for ends in [false, true] {
        let mut world = World::new();
        let mut station = station(&mut world);
        let tgid = started(&mut world);
        world.open(tgid, SSHD_PATH, Path::new(PLUGIN), Path::new(LZMA));
        if ends {
            world.exit(tgid, SSHD, MS);
        }
        let mut seen = run(&mut station, world.take());
        if !ends {
            assert!(openings(&seen).is_empty());
            let due = station.next_due().unwrap();
            assert!(due <= world.now + 500 * MS, "{due}");
            station.tick(world.now + 500 * MS, &mut |one| seen.push(one));
        }
        let found = openings(&seen);
        assert_eq!((found.len(), found[0].took_ns), (1, None));
    }
}

#[test]
fn who_asks_from_no_file_is_told_at_once() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let tgid = started(&mut world);
    world.open(tgid, SSHD_PATH, Path::new(PLUGIN), Path::new(NOWHERE));
    let seen = run(&mut station, world.take());
    assert_eq!(openings(&seen).len(), 1);
}

#[test]
fn a_file_that_is_never_named_is_counted() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let tgid = started(&mut world);
    world.open(tgid, SSHD_PATH, Path::new(PLUGIN), Path::new(LZMA));
    let mut events = world.take();
    events.retain(|event| !matches!(event.body, EventBody::Map(_)));
    let mut seen = run(&mut station, events);
    station.tick(world.now + 1_000 * MS, &mut |one| seen.push(one));
    assert!(openings(&seen).is_empty());
    assert_eq!(station.tally().openings_unnamed, 1);
}

#[test]
fn many_openings_of_one_process_are_bounded() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let tgid = started(&mut world);
    for at in 0..100 {
        let library = PathBuf::from(format!("/usr/lib/{at}.so"));
        world.open(tgid, SSHD_PATH, &library, Path::new(LZMA));
    }
    let mut seen = run(&mut station, world.take());
    station.tick(world.now + 1_000 * MS, &mut |one| seen.push(one));
    let told = openings(&seen).len() as u64;
    assert_eq!((told, station.tally().openings_unnamed), (64, 36));
}

#[test]
fn an_opening_before_an_exec_is_not_looked_for_in_the_memory_behind_it() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let tgid = started(&mut world);
    world.map(tgid, SSHD_PATH, Path::new(LZMA), SSHD);
    let lzma = world.fake.0.lock().unwrap().file(Path::new(LZMA));
    let start = lzma.ino * MODULE_SIZE;
    let FileKey { ino, dev, generation, .. } = lzma;
    let placed = Placement { start, len: 0x1000, offset: 0, ino, dev, generation };
    let modules = Modules { placed: vec![placed], overflow: 0 };
    world.push(tgid, SSHD, EventBody::Modules(Box::new(modules)));
    // Its code is not there any more when the opening is read: by what was told before, it was the
    // library; and an address that was nowhere then is nobody's, not code in no file.
    world.fake.0.lock().unwrap().left.push(start);
    world.open(tgid, SSHD_PATH, Path::new(PLUGIN), Path::new(LZMA));
    world.open(tgid, SSHD_PATH, Path::new("/usr/lib/other.so"), Path::new(NOWHERE));
    world.exit(tgid, SSHD, MS);
    let seen = run(&mut station, world.take());
    let asked: Vec<_> = openings(&seen).into_iter().map(|one| one.asked.as_ref()).collect();
    let [Some(first), Some(second)] = asked.as_slice() else { panic!("{asked:#?}") };
    assert_eq!((first.place.module.path.as_str(), first.unwound), (LZMA, false));
    // The first is under way still, and the library may be needed by it.
    assert_eq!(second.place.module.path, LZMA);
}

#[test]
fn the_seals_of_a_process_that_is_gone_have_their_modules() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let tgid = started(&mut world);
    world.map(tgid, SSHD_PATH, Path::new(LZMA), SSHD);
    let (exe, lzma) = {
        let shared = &mut world.fake.0.lock().unwrap();
        (shared.file(Path::new(SSHD_PATH)), shared.file(Path::new(LZMA)))
    };
    // Where the fake machine has nothing mapped, as if the process were gone.
    let (program, library) = (0x5500_0000_0000_u64, 0x7f00_0000_0000_u64);
    let placed = |start, file: &FileKey| Placement {
        start,
        len: 0x1000,
        offset: 0x1000,
        ino: file.ino,
        dev: file.dev,
        generation: file.generation,
    };
    let modules =
        Modules { placed: vec![placed(program, &exe), placed(library, &lzma)], overflow: 0 };
    world.push(tgid, SSHD, EventBody::Modules(Box::new(modules)));
    let seal = |addr, wall_ns| SealAt { addr, wall_ns, ..SealAt::default() };
    let seals = vec![seal(library + 0x3000, 100), seal(program + 0x3000, 300), seal(8, 400)];
    let link = Link { exe, exec_ktime_ns: world.now, seals, overflow: 0 };
    world.push(tgid, SSHD, EventBody::Link(Box::new(link)));
    world.exit(tgid, SSHD, MS);
    let seen = run(&mut station, world.take());
    let linked = seen.iter().find_map(|one| match &one.body {
        Body::Linked(timing) => Some(timing),
        _ => None,
    });
    let named: Vec<Option<&str>> = linked
        .unwrap()
        .shares
        .iter()
        .map(|share| share.module.as_ref().map(|module| module.path.as_str()))
        .collect();
    assert_eq!(named, [Some(LZMA), Some(SSHD_PATH), None]);
}
