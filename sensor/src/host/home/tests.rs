//! Subjects of one binary in several roots.

use super::*;
use crate::config::Config;
use crate::event::Role;
use crate::host::observe::Program;
use crate::host::testing::{Fake, LISTENER, MS, SSHD, SSHD_PATH, World, clock};

const OVERLAY: u32 = 0x2a;

struct Bench {
    world: World,
    station: Pipeline,
}

impl Bench {
    fn new() -> Self {
        let mut world = World::new();
        let fake: Fake = world.fake.clone();
        fake.0.lock().unwrap().roots.insert(LISTENER, RootView::Host);
        let mut station =
            Pipeline::new(&Config::default(), clock(), Box::new(fake.clone()), Box::new(fake));
        station.start(world.now);
        world.now += 100 * MS;
        Self { world, station }
    }

    /// Subject of sshd as started below `parent`, in a root with this inode.
    fn sshd(&mut self, parent: u32, root: u64, view: Option<RootView>) -> (u32, String) {
        let (tgid, program) = self.start((parent, SSHD_PATH, SSHD), root, view);
        (tgid, program.subject.clone())
    }

    fn start(
        &mut self,
        (parent, path, role): (u32, &str, Role),
        root: u64,
        view: Option<RootView>,
    ) -> (u32, Arc<Program>) {
        let tgid = self.world.fresh();
        {
            let mut shared = self.world.fake.0.lock().unwrap();
            let dev = if root == 1 { 0x800_0001 } else { OVERLAY };
            shared.root_keys.insert(tgid, InodeKey { ino: root, dev, reserved: 0 });
            if let Some(view) = view {
                shared.roots.insert(tgid, view);
            }
        }
        self.world.fork(parent, tgid, Role::NONE);
        self.world.exec(tgid, parent, path, role, 0);
        let mut program = None;
        for event in self.world.take() {
            self.station
                .on_event(event, &mut |one| program = Some(Arc::clone(&one.process.program)));
        }
        (tgid, program.expect("its start is told"))
    }
}

fn image(name: &str) -> RootView {
    RootView::Own { image: Some(name.to_owned()) }
}

#[test]
fn one_binary_on_the_host_and_in_two_images_is_three_subjects() {
    let mut bench = Bench::new();
    let (_, host) = bench.sshd(1, 1, Some(RootView::Host));
    let (_, one) = bench.sshd(1, 70, Some(image("aa")));
    let (_, same) = bench.sshd(1, 71, Some(image("aa")));
    let (_, other) = bench.sshd(1, 72, Some(image("bb")));
    assert_eq!(host.split(' ').count(), 2, "the host's key is what it always was: {host}");
    assert_eq!(one, format!("{host} image:aa"));
    assert_eq!(one, same, "two containers of one image");
    assert_eq!(other, format!("{host} image:bb"));
}

#[test]
fn what_a_container_starts_is_of_its_image_without_asking() {
    let mut bench = Bench::new();
    bench.sshd(1, 1, Some(RootView::Host));
    let (parent, first) = bench.sshd(1, 70, Some(image("aa")));
    let (_, child) = bench.sshd(parent, 70, None);
    assert_eq!(first, child);
    // Nor is the host asked about once its root is known.
    let (_, short) = bench.sshd(1, 1, None);
    assert_eq!(short.split(' ').count(), 2);
}

#[test]
fn a_chroot_keeps_the_home_of_who_made_it() {
    let mut bench = Bench::new();
    let (_, host) = bench.sshd(1, 1, Some(RootView::Host));
    assert_eq!(bench.sshd(1, 90, Some(RootView::Chroot)).1, host);
    let (parent, contained) = bench.sshd(1, 70, Some(image("aa")));
    assert_eq!(bench.sshd(parent, 91, Some(RootView::Chroot)).1, contained);
}

#[test]
fn a_container_without_layers_is_told_by_the_file_and_so_is_one_that_is_gone() {
    let mut bench = Bench::new();
    let (_, host) = bench.sshd(1, 1, Some(RootView::Host));
    let (_, plain) = bench.sshd(1, 70, Some(RootView::Own { image: None }));
    let (_, gone) = bench.sshd(1, 71, None);
    assert!(plain.starts_with(&format!("{host} file:")), "{plain}");
    assert_eq!(plain, gone, "snapshots of one tree share the numbers of a file");
}

#[test]
fn who_was_gone_before_its_root_was_looked_at_is_known_by_the_next_one() {
    let mut bench = Bench::new();
    let (_, host) = bench.sshd(1, 1, Some(RootView::Host));
    let (first, gone) = bench.start((1, SSHD_PATH, SSHD), 90, None);
    assert!(gone.root_unseen);
    // What it starts may be looked at.
    let (_, child) = bench.start((first, SSHD_PATH, SSHD), 90, Some(RootView::Chroot));
    let (_, next) = bench.start((1, SSHD_PATH, SSHD), 90, Some(RootView::Chroot));
    assert!(!child.root_unseen && child.subject == host, "{child:?}");
    assert!(!next.root_unseen && next.subject == host, "{next:?}");
}

#[test]
fn a_root_that_was_looked_at_serves_who_is_not_guarded() {
    let mut bench = Bench::new();
    bench.sshd(1, 1, Some(RootView::Host));
    let awk = |bench: &mut Bench, view| bench.start((1, "/usr/bin/awk", Role::NONE), 70, view).1;
    let gone = awk(&mut bench, None);
    assert!(gone.root_unseen && gone.subject.contains(" file:"), "{gone:?}");
    let seen = awk(&mut bench, Some(image("aa")));
    let gone = awk(&mut bench, None);
    assert!(!gone.root_unseen && gone.subject == seen.subject, "{gone:?}");
    let (_, guarded) = bench.start((1, SSHD_PATH, SSHD), 70, None);
    assert!(guarded.root_unseen, "these numbers may be another container's by now");
}

#[test]
fn what_runs_already_is_told_apart_as_well() {
    let mut world = World::new();
    let fake: Fake = world.fake.clone();
    fake.0.lock().unwrap().roots.insert(LISTENER, RootView::Own { image: Some("aa".to_owned()) });
    let mut station =
        Pipeline::new(&Config::default(), clock(), Box::new(fake.clone()), Box::new(fake));
    station.start(world.now);
    let child = world.fresh();
    world.fork(LISTENER, child, SSHD);
    world.exit(child, SSHD, 0);
    let mut subjects = Vec::new();
    for event in world.take() {
        station.on_event(event, &mut |one| subjects.push(one.process.program.subject.clone()));
    }
    assert!(!subjects.is_empty() && subjects.iter().all(|it| it.ends_with(" image:aa")));
}
