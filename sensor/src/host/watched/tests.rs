//! Files with probes over time, by what is asked of the kernel side.

use std::path::Path;

use super::*;
use crate::config::Config;
use crate::event::{FileFacts, Role};
use crate::host::testing::{Fake, MS, SSHD, World, clock};
use crate::host::{Observation, Pipeline};

const EXE: &str = "/usr/sbin/sshd";
const LIBRARY: &str = "/usr/lib/libcrypto.so.3";

struct Bench {
    world: World,
    station: Pipeline,
}

impl Bench {
    fn new() -> Self {
        let mut world = World::new();
        let fake: Fake = world.fake.clone();
        let mut station =
            Pipeline::new(&Config::default(), clock(), Box::new(fake.clone()), Box::new(fake));
        station.start(world.now);
        station.directives();
        world.now += 100 * MS;
        Self { world, station }
    }

    /// What is asked for, now that these events are read.
    fn run(&mut self) -> Vec<Directive> {
        let mut seen: Vec<Observation> = Vec::new();
        for event in self.world.take() {
            self.station.on_event(event, &mut |one| seen.push(one));
        }
        let asked = self.station.directives();
        self.forget(&asked);
        asked
    }

    /// As the kernel side does.
    fn forget(&mut self, asked: &[Directive]) {
        for directive in asked {
            if let Directive::ForgetMapping { exe, file } = directive {
                self.world.forget(*exe, *file);
            }
        }
    }

    /// Time passes, a look at a time.
    fn pass(&mut self, ns: u64) -> Vec<Directive> {
        let until = self.world.now + ns;
        let mut asked = Vec::new();
        while self.world.now < until {
            self.world.now += LOOK_EVERY_NS;
            self.station.tick(self.world.now, &mut |_| {});
            let new = self.station.directives();
            self.forget(&new);
            asked.extend(new);
        }
        asked
    }

    /// A container's sshd with its library.
    fn sshd(&mut self, container: u32) -> u32 {
        let tgid = self.world.fresh();
        let (exe, library) = paths(container);
        self.world.fork(1, tgid, Role::NONE);
        self.world.exec(tgid, 1, &exe, SSHD, 0);
        self.world.map(tgid, &exe, Path::new(&library), SSHD);
        tgid
    }

    fn key(&self, path: &str) -> FileKey {
        self.world.fake.0.lock().unwrap().file(Path::new(path))
    }
}

fn paths(container: u32) -> (String, String) {
    (format!("/c{container}{EXE}"), format!("/c{container}{LIBRARY}"))
}

fn attached(asked: &[Directive]) -> Vec<String> {
    let path = |one: &Directive| match one {
        Directive::Attach { path, .. } => Some(path.display().to_string()),
        _ => None,
    };
    asked.iter().filter_map(path).collect()
}

fn released(asked: &[Directive]) -> Vec<InodeKey> {
    let inode = |one: &Directive| match one {
        Directive::Release { inode, .. } => Some(*inode),
        _ => None,
    };
    asked.iter().filter_map(inode).collect()
}

#[test]
fn a_dead_containers_files_are_released_after_a_while_and_asked_for_when_it_is_back() {
    let mut bench = Bench::new();
    let (exe, library) = paths(1);
    let tgid = bench.sshd(1);
    assert_eq!(attached(&bench.run()), [exe.clone(), library.clone()]);
    bench.world.exit(tgid, SSHD, 0);
    assert!(released(&bench.run()).is_empty());
    assert!(released(&bench.pass(KEEP_NS / 2)).is_empty(), "a login may follow");
    let asked = bench.pass(2 * KEEP_NS);
    let (exe_key, library_key) = (bench.key(&exe), bench.key(&library));
    let mut gone = released(&asked);
    gone.sort();
    let mut expected = vec![inode(&exe_key), inode(&library_key)];
    expected.sort();
    assert_eq!(gone, expected);
    // Asked to tell it again first: a start in between is told, and the probes come back.
    let at = |wanted: &Directive| asked.iter().position(|one| one == wanted).unwrap();
    let forget = Directive::ForgetMapping { exe: exe_key, file: library_key };
    let release = Directive::Release { inode: inode(&library_key), heirs: Vec::new() };
    assert!(at(&forget) < at(&release), "{asked:?}");
    assert!(released(&bench.pass(10 * KEEP_NS)).is_empty(), "once is enough");
    bench.sshd(1);
    assert_eq!(attached(&bench.run()), [exe, library]);
}

#[test]
fn a_file_is_kept_while_any_process_runs_a_program_that_maps_it() {
    let mut bench = Bench::new();
    let parent = bench.sshd(1);
    // The kernel side tells a pair once: nothing of the second process names the library.
    let second = bench.sshd(1);
    let child = bench.world.fresh();
    bench.world.fork(second, child, SSHD);
    bench.world.exit(parent, SSHD, 0);
    bench.world.exit(second, SSHD, 0);
    bench.run();
    assert!(released(&bench.pass(20 * KEEP_NS)).is_empty());
    // Another program in the same process needs it no more.
    bench.world.exec(child, 1, "/usr/bin/bash", Role::NONE, 0);
    bench.run();
    assert_eq!(released(&bench.pass(2 * KEEP_NS)).len(), 2);
}

#[test]
fn logins_that_follow_one_another_attach_once() {
    let mut bench = Bench::new();
    let mut asked = Vec::new();
    for _ in 0..50 {
        let tgid = bench.sshd(1);
        bench.world.exit(tgid, SSHD, 0);
        asked.extend(bench.run());
        asked.extend(bench.pass(2 * LOOK_EVERY_NS));
    }
    assert_eq!((attached(&asked).len(), released(&asked).len()), (2, 0));
}

#[test]
fn the_hosts_own_are_kept_until_they_are_replaced() {
    let mut bench = Bench::new();
    let tgid = bench.world.fresh();
    bench.world.fork(1, tgid, Role::NONE);
    bench.world.exec(tgid, 1, "/usr/bin/sudo", Role::GUARDED, 0);
    bench.world.map(tgid, "/usr/bin/sudo", Path::new("/usr/lib/libpam.so.0"), Role::GUARDED);
    bench.world.exit(tgid, Role::GUARDED, 0);
    assert!(attached(&bench.run()).contains(&"/usr/lib/libpam.so.0".to_owned()));
    assert!(released(&bench.pass(20 * KEEP_NS)).is_empty());
    let old = bench.key("/usr/lib/libpam.so.0");
    bench.world.fake.0.lock().unwrap().files.insert("/usr/lib/libpam.so.0".into(), 4711);
    assert_eq!(released(&bench.pass(2 * KEEP_NS)), [inode(&old)]);
}

#[test]
fn a_process_whose_end_was_missed_keeps_nothing() {
    let mut bench = Bench::new();
    let tgid = bench.sshd(1);
    bench.run();
    bench.world.fake.0.lock().unwrap().processes.remove(&tgid);
    assert_eq!(released(&bench.pass(2 * KEEP_NS)).len(), 2);
}

#[test]
fn a_process_whose_beginning_was_missed_keeps_what_it_needs() {
    let mut bench = Bench::new();
    let first = bench.sshd(1);
    bench.run();
    let second = bench.sshd(1);
    let lost = bench.world.take();
    assert!(lost.len() >= 2);
    bench.station.on_loss();
    bench.world.exit(first, SSHD, 0);
    bench.run();
    assert!(released(&bench.pass(5 * KEEP_NS)).is_empty());
    bench.world.exit(second, SSHD, 0);
    bench.run();
    assert_eq!(released(&bench.pass(5 * KEEP_NS)).len(), 2);
}

#[test]
fn where_another_container_needs_the_same_file_the_probes_are_handed_over() {
    let mut bench = Bench::new();
    let first = bench.sshd(1);
    let second = bench.sshd(2);
    bench.world.exit(first, SSHD, 0);
    bench.run();
    let asked = bench.pass(2 * KEEP_NS);
    let (_, library) = paths(2);
    let heirs = vec![(second, library.clone().into(), inode(&bench.key(&library)))];
    let own = inode(&bench.key(&paths(1).1));
    assert!(asked.contains(&Directive::Release { inode: own, heirs }), "{asked:?}");
}

#[test]
fn a_start_that_is_told_late_is_looked_at_again() {
    let mut bench = Bench::new();
    let (exe, library) = paths(1);
    let first = bench.sshd(1);
    bench.world.exit(first, SSHD, 0);
    bench.run();
    // Maps its library just before that is released: the pair is known, so no record tells it.
    let late = bench.world.fresh();
    bench.world.now += KEEP_NS;
    bench.world.fork(1, late, Role::NONE);
    bench.world.exec(late, 1, &exe, SSHD, 0);
    let events = bench.world.take();
    bench.world.fake.0.lock().unwrap().processes.remove(&late);
    assert_eq!(released(&bench.pass(2 * KEEP_NS)).len(), 2);
    let library_path = std::path::PathBuf::from(&library);
    bench.world.fake.0.lock().unwrap().libraries.insert(late, vec![library_path]);
    bench.world.events = events;
    assert!(attached(&bench.run()).contains(&library));
}

#[test]
fn there_are_never_too_many() {
    let mut bench = Bench::new();
    let tgid = bench.sshd(1);
    let (exe, _) = paths(1);
    bench.run();
    let mut asked = Vec::new();
    for at in 0..2 * FILES_MAX {
        let library = format!("/c2/{at}/libcrypto.so.3");
        bench.world.map(tgid, &exe, Path::new(&library), SSHD);
        asked.extend(bench.run());
    }
    assert!(bench.station.watched.files.len() <= FILES_MAX);
    assert!(attached(&asked).len() < FILES_MAX);
    assert!(bench.station.tally().unwatched > 0);
    // None was needed less than another; once one is, it makes room.
    bench.world.exit(tgid, SSHD, 0);
    bench.run();
    bench.pass(2 * LOOK_EVERY_NS);
    bench.sshd(3);
    let asked = bench.run();
    assert_eq!((attached(&asked).len(), released(&asked).len()), (2, 2), "{asked:?}");
}

#[test]
fn a_file_that_may_hang_gets_no_probes_and_is_not_waited_for() {
    const FUSE: u32 = 0x6573_5546;
    let mut bench = Bench::new();
    let tgid = bench.sshd(1);
    bench.run();
    let (exe, _) = paths(1);
    let facts = FileFacts { fs_magic: Some(FUSE), ..FileFacts::default() };
    let library = Path::new("/c2/mnt/libcrypto.so.3");
    bench.world.map_file(tgid, &exe, library, SSHD, (0o755, 0, facts));
    assert!(attached(&bench.run()).is_empty());
    assert_eq!(bench.station.tally().unwatched, 1);
    let ino = bench.key("/c2/mnt/libcrypto.so.3").ino;
    assert_eq!(bench.world.fake.0.lock().unwrap().not_waited_for, [ino]);
}

/// The probes on this file are there.
fn confirm(bench: &mut Bench, path: &str, function: &str) -> InodeKey {
    let file = inode(&bench.key(path));
    let (functions, ktime_ns) = (vec![function.to_owned()], bench.world.now);
    bench.station.attached(&Attached { file, functions, ktime_ns });
    file
}

#[test]
fn entries_are_told_once_the_probe_is_there_and_was_heard_and_until_it_is_released() {
    const FUNCTION: &str = "RSA_public_decrypt";
    let mut bench = Bench::new();
    let (_, library) = paths(1);
    let tgid = bench.sshd(1);
    bench.run();
    let is_told =
        |bench: &Bench, file: &InodeKey, at| bench.station.watched.is_told(file, FUNCTION, at);
    let since = bench.world.now;
    let file = confirm(&mut bench, &library, FUNCTION);
    assert!(!is_told(&bench, &file, u64::MAX), "nothing was heard of it");
    bench.station.watched.hear(&file);
    assert!(is_told(&bench, &file, since) && !is_told(&bench, &file, since - 1));
    assert!(!bench.station.watched.is_told(&file, "RSA_sign", u64::MAX), "another function");
    // Asked for again, it is there since the first time.
    bench.world.now += MS;
    confirm(&mut bench, &library, FUNCTION);
    assert!(is_told(&bench, &file, since));

    bench.world.exit(tgid, SSHD, 0);
    bench.run();
    let late = bench.world.now;
    bench.pass(3 * KEEP_NS);
    bench.sshd(1);
    bench.run();
    // Word of the probe that was released comes late.
    let functions = vec![FUNCTION.to_owned()];
    bench.station.attached(&Attached { file, functions, ktime_ns: late });
    bench.station.watched.hear(&file);
    assert!(!is_told(&bench, &file, u64::MAX));
    confirm(&mut bench, &library, FUNCTION);
    assert!(is_told(&bench, &file, u64::MAX));
}

#[test]
fn what_is_released_below_one_overlay_is_asked_for_again_below_the_others() {
    let mut bench = Bench::new();
    let (first, _) = (bench.sshd(1), bench.sshd(2));
    bench.run();
    let (_, library) = paths(2);
    let file = confirm(&mut bench, &library, "RSA_sign");
    bench.station.watched.hear(&file);
    assert!(bench.station.watched.is_told(&file, "RSA_sign", u64::MAX));
    bench.world.exit(first, SSHD, 0);
    bench.run();
    bench.pass(3 * KEEP_NS);
    assert!(!bench.station.watched.is_told(&file, "RSA_sign", u64::MAX), "nobody can say");
    bench.sshd(2);
    assert_eq!(attached(&bench.run()), [library], "the next process tells of it");
}
