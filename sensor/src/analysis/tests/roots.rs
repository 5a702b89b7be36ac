//! Programs in a root of their own, of which the first is gone before anybody has looked.

use super::*;
use crate::event::{InodeKey, Role};
use crate::host::RootView;

const SU: &str = "/srv/box/usr/bin/su";
const LIBPAM: &str = "/srv/box/usr/lib/x86_64-linux-gnu/libpam.so.0";
const MODULE: &str = "/srv/box/usr/lib/x86_64-linux-gnu/security/pam_unix.so";
const ENV: &str = "/usr/bin/env";
const HOST_ROOT: u64 = 1;
const CHROOT: u64 = 90;

/// A program in this root, until its end; `view` as it is found there.
fn run(bench: &mut Bench, path: &str, role: Role, root: u64, view: Option<RootView>) {
    let tgid = bench.world.fresh();
    {
        let mut shared = bench.world.fake.0.lock().unwrap();
        shared.root_keys.insert(tgid, InodeKey { ino: root, dev: 0x800_0001, reserved: 0 });
        if let Some(view) = view {
            shared.roots.insert(tgid, view);
        }
    }
    bench.world.fork(1, tgid, Role::NONE);
    bench.world.exec(tgid, 1, path, role, 0);
    if path == SU {
        bench.world.map(tgid, SU, Path::new(LIBPAM), role);
        bench.world.open(tgid, SU, Path::new(MODULE), Path::new(LIBPAM));
    }
    bench.world.exit(tgid, role, 0);
    bench.run();
    bench.world.now += 200 * MS;
}

#[test]
fn who_was_gone_before_its_root_was_seen_takes_no_library_from_the_next_ones() {
    let mut bench = Bench::new();
    run(&mut bench, ENV, Role::NONE, HOST_ROOT, Some(RootView::Host));
    // The kernel side does not know this file yet, so its records come late.
    run(&mut bench, SU, Role::NONE, CHROOT, None);
    for _ in 0..40 {
        run(&mut bench, SU, Role::GUARDED, CHROOT, Some(RootView::Chroot));
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    let file = |path: &str| {
        let shared = &mut bench.world.fake.0.lock().unwrap();
        let path_of = Path::new(path);
        ModuleId { path: path.to_owned(), build: build(shared.inode(path_of)) }
    };
    let (su, libraries) = (file(SU), [file(LIBPAM), file(MODULE)]);
    let baseline = bench.analysis.baseline(&format!("{} {}", su.path, su.build));
    for library in libraries {
        assert!(baseline.has_library(&library), "{library:?}");
    }
}
