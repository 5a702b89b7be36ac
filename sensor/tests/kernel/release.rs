//! Probes hold the file system of their file: released, they let it go.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use sensor::event::InodeKey;
use sensor::loader::probes::Hook;
use sensor::loader::{FunctionSite, ProbesNow, Released, Sensor};

use crate::function::{file_offset, libc};
use crate::harness::{Bench, inode_of, same, skip};
use crate::patience::repetitions;

/// Containers of one image, and as many as show the same where mounting takes its time.
const CONTAINERS: (usize, usize) = (1000, 50);

/// Mounts below a directory, taken down when dropped.
struct Mounts(tempfile::TempDir);

impl Mounts {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a script in the directory; `false`, with what it wrote, where that fails.
    fn run(&self, script: &str) -> bool {
        let mut shell = Command::new("/bin/sh");
        match shell.args(["-ec", script]).current_dir(self.0.path()).output() {
            Ok(done) if done.status.success() => true,
            Ok(done) => {
                println!("{script}: {}", String::from_utf8_lossy(&done.stderr));
                false
            }
            Err(error) => {
                println!("/bin/sh: {error}");
                false
            }
        }
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        self.run("for m in */; do if mountpoint -q $m; then umount -l $m; fi; done");
    }
}

fn watch(sensor: &mut Sensor, library: &Path, site: &FunctionSite) -> InodeKey {
    let file = File::open(library).expect("open");
    let results = sensor.attach_functions(&file, std::slice::from_ref(site)).expect("identify");
    assert!(matches!(results[..], [Ok(_)]), "{results:?}");
    inode_of(sensor, library)
}

/// A bench whose kernel side counts from zero.
fn bench() -> Option<(Bench, PathBuf, FunctionSite)> {
    let bench = Bench::start()?;
    if !bench.serves(Hook::Functions) {
        return None;
    }
    let path = libc()?;
    let site = FunctionSite { symbol: "getppid".to_owned(), offset: file_offset(&path, "getppid") };
    Some((bench, path, site))
}

fn since(sensor: &Sensor, before: ProbesNow) -> (usize, u64, u64) {
    let now = sensor.probes_now();
    (now.files, now.attached - before.attached, now.released - before.released)
}

#[test]
fn a_file_system_can_be_unmounted_once_its_library_is_released() {
    let Some((mut bench, path, site)) = bench() else { return };
    let mounts = Mounts::new();
    if !mounts.run("mkdir fs && mount -t tmpfs none fs") {
        return skip("no tmpfs");
    }
    let library = mounts.at("fs").join("libc.so.6");
    std::fs::copy(&path, &library).expect("copy");
    let before = bench.sensor.probes_now();
    let view = watch(&mut bench.sensor, &library, &site);
    same("watched files, attached, released", since(&bench.sensor, before), (1, 1, 0));
    assert!(!mounts.run("umount fs"), "a probe holds nothing here: the test shows nothing");
    let released = bench.sensor.release_functions(view, []);
    same("released", released, Released::All { orphans: 0 });
    same("watched files, attached, released", since(&bench.sensor, before), (0, 1, 1));
    assert!(mounts.run("umount fs"), "it is still held");
    same("again", bench.sensor.release_functions(view, []), Released::Nothing);
}

#[test]
fn a_thousand_containers_of_one_image_cost_one_attachment_and_hold_one_mount() {
    let Some((mut bench, path, site)) = bench() else { return };
    let mounts = Mounts::new();
    let containers = repetitions(CONTAINERS.0, CONTAINERS.1);
    let script = format!(
        "mkdir image empty; cp {} image/libc.so.6; for i in $(seq {containers}); do mkdir m$i; \
         mount -t overlay -o lowerdir=empty:image none m$i; done",
        path.display()
    );
    if !mounts.run(&script) {
        return skip("no overlays");
    }
    let library = |number: usize| mounts.at(&format!("m{number}")).join("libc.so.6");
    let before = bench.sensor.probes_now();
    let views: Vec<InodeKey> =
        (1..=containers).map(|number| watch(&mut bench.sensor, &library(number), &site)).collect();
    same("watched files, attached, released", since(&bench.sensor, before), (1, 1, 0));

    // All but the last are over. The first is the one through which it is probed.
    let heir = || File::open(library(containers)).ok();
    assert!(!mounts.run("umount m1"), "nothing holds the first: the test shows nothing");
    same("the first", bench.sensor.release_functions(views[0], heir()), Released::Moved);
    same("watched files, attached, released", since(&bench.sensor, before), (1, 2, 1));
    for view in &views[1..containers - 1] {
        same("another", bench.sensor.release_functions(*view, heir()), Released::Shared);
    }
    same("watched files, attached, released", since(&bench.sensor, before), (1, 2, 1));
    let rest = format!("for i in $(seq {}); do umount m$i; done", containers - 1);
    assert!(mounts.run(&rest), "a container that is over is still held");
    let last = views[containers - 1];
    same("the last", bench.sensor.release_functions(last, []), Released::All { orphans: 0 });
    assert!(mounts.run(&format!("umount m{containers}")), "it is still held");
}

#[test]
fn without_an_heir_that_can_be_opened_the_file_is_let_go_all_the_same() {
    let Some((mut bench, path, site)) = bench() else { return };
    let mounts = Mounts::new();
    let script = "mkdir image empty m1 m2; for i in 1 2; do \
                  mount -t overlay -o lowerdir=empty:image none m$i; done";
    std::fs::create_dir(mounts.at("image")).expect("mkdir");
    std::fs::copy(&path, mounts.at("image").join("libc.so.6")).expect("copy");
    if !mounts.run(&script.replace("mkdir image empty", "mkdir empty")) {
        return skip("no overlays");
    }
    let before = bench.sensor.probes_now();
    let view = watch(&mut bench.sensor, &mounts.at("m1/libc.so.6"), &site);
    watch(&mut bench.sensor, &mounts.at("m2/libc.so.6"), &site);
    // Another file is none.
    let wrong = File::open("/bin/sh").ok();
    let released = bench.sensor.release_functions(view, wrong);
    same("released", released, Released::All { orphans: 1 });
    same("watched files", since(&bench.sensor, before).0, 0);
    assert!(mounts.run("umount m1"), "it is still held");
}
