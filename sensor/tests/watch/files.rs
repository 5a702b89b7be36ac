//! The other files of the loader.

use std::fs;
use std::path::Path;
use std::process::Command;

use sensor::watch::{Action, Role};

use super::harness::{Bench, Tree, unprivileged};

#[cfg(target_arch = "x86_64")]
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
#[cfg(target_arch = "aarch64")]
const LOADER: &str = "/lib/ld-linux-aarch64.so.1";
#[cfg(target_arch = "x86_64")]
const MUSL: (&str, &str) = ("/lib/ld-musl-x86_64.so.1", "/etc/ld-musl-x86_64.path");
#[cfg(target_arch = "aarch64")]
const MUSL: (&str, &str) = ("/lib/ld-musl-aarch64.so.1", "/etc/ld-musl-aarch64.path");

#[test]
fn a_directory_for_ldconfig_is_told_whatever_the_file_is_called() {
    if unprivileged() {
        return;
    }
    let mut bench = Bench::new(Tree::new());
    let actor = bench.tree.run(&["write", "/etc/ld.so.conf.d/new.conf", "/opt/x\n"]);
    let change = bench.change("/etc/ld.so.conf.d/new.conf");
    assert_eq!(
        (change.config.role, change.config.added.as_slice()),
        (Role::Conf, &["/opt/x".to_owned()][..])
    );
    assert_eq!(change.touches[0].actor.tgid, actor.pid());
    let second = bench.tree.run(&["append", "/etc/ld.so.conf.d/new.conf", "/opt/y\n"]);
    let change = bench.change("/etc/ld.so.conf.d/new.conf");
    assert_eq!(change.config.added, ["/opt/y"], "the new file is watched like the old ones");
    assert_eq!(change.touches[0].actor.tgid, second.pid());
}

#[test]
fn a_directory_of_files_renamed_into_place_is_told_file_by_file() {
    if unprivileged() {
        return;
    }
    let tree = Tree::new();
    fs::remove_dir(tree.at("etc/ld.so.conf.d")).unwrap();
    fs::create_dir(tree.at("tmp/d")).unwrap();
    fs::write(tree.at("tmp/d/a.conf"), "/opt/a\n").unwrap();
    let mut bench = Bench::new(tree);
    let actor = bench.tree.run(&["rename", "/tmp/d", "/etc/ld.so.conf.d"]);
    let change = bench.change("/etc/ld.so.conf.d/a.conf");
    assert_eq!(change.config.added, ["/opt/a"]);
    assert_eq!(change.touches[0].actor.tgid, actor.pid());
}

#[test]
fn files_that_nothing_reads_are_noise() {
    if unprivileged() {
        return;
    }
    let mut bench = Bench::new(Tree::new());
    for name in ["/etc/passwd", "/etc/ld.so.conf.d/x.conf.dpkg-new", "/etc/ld.so.preload.bak"] {
        bench.tree.run(&["write", name, "x"]).end();
    }
    // Told after the others would have been.
    bench.tree.run(&["write", "/etc/ld.so.conf", "/opt/x\n"]).end();
    bench.change("/etc/ld.so.conf");
    assert!(bench.rest().is_empty(), "{:#?}", bench.rest());
    let noise = bench.metrics.watch_events.with_label_values(&["noise"]).get();
    assert!(noise >= 2, "{noise}");
}

#[test]
fn a_replaced_and_a_patched_loader_are_told() {
    if unprivileged() {
        return;
    }
    let tree = Tree::new();
    fs::copy(LOADER, tree.at("lib/x/ld.so")).unwrap();
    std::os::unix::fs::symlink("/lib/x/ld.so", tree.at(LOADER)).unwrap();
    fs::copy("/bin/true", tree.at("tmp/other")).unwrap();
    let mut bench = Bench::new(tree);
    let patch = bench.tree.run(&["append", "/lib/x/ld.so", "x"]);
    let change = bench.change(LOADER);
    assert_eq!((change.config.role, change.config.same), (Role::Loader, false));
    assert_eq!(change.touches[0].actor.tgid, patch.pid());
    patch.end();
    let swap = bench.tree.run(&["rename", "/tmp/other", "/lib/x/ld.so"]);
    let change = bench.change(LOADER);
    assert!(change.config.actions.contains(&Action::RenamedInto));
    assert_ne!(change.config.before, change.config.after, "build-ids");
    assert_eq!(change.touches[0].actor.tgid, swap.pid());
}

#[test]
fn musls_loader_and_search_path_are_watched() {
    if unprivileged() {
        return;
    }
    let mut bench = Bench::new(Tree::new());
    bench.tree.run(&["write", MUSL.1, "/lib:/opt/x\n"]).end();
    let change = bench.change(MUSL.1);
    assert_eq!(change.config.role, Role::SearchPath);
    assert_eq!(change.config.added, ["/lib", "/opt/x"]);
    bench.tree.run(&["write", MUSL.0, "loader"]).end();
    assert_eq!(bench.change(MUSL.0).config.role, Role::Loader);
}

#[test]
fn a_cache_that_leads_elsewhere_is_told_by_its_new_pairs() {
    if unprivileged() {
        return;
    }
    let ldconfig = ["/sbin/ldconfig.real", "/sbin/ldconfig"];
    let Some(ldconfig) = ldconfig.into_iter().find(|path| Path::new(path).exists()) else {
        println!("skipped: this machine has no ldconfig");
        return;
    };
    let tree = Tree::new();
    let make = |tree: &Tree| {
        let root = tree.at("");
        let status = Command::new(ldconfig).arg("-X").arg("-r").arg(root).status().unwrap();
        assert!(status.success(), "{status}");
    };
    let libc = "/lib/x86_64-linux-gnu/libc.so.6";
    let libc = if Path::new(libc).exists() { libc } else { "/lib/aarch64-linux-gnu/libc.so.6" };
    fs::create_dir_all(tree.at("usr/lib")).unwrap();
    fs::create_dir_all(tree.at("var/cache/ldconfig")).unwrap();
    fs::write(tree.at("etc/ld.so.conf"), "/opt\n").unwrap();
    make(&tree);
    let mut bench = Bench::new(tree);
    fs::copy(libc, bench.tree.at("opt/libc.so.6")).unwrap();
    make(&bench.tree);
    let change = bench.change_by("/etc/ld.so.cache", |change| !change.config.same);
    assert_eq!(change.config.role, Role::Cache);
    assert!(
        change.config.added.iter().any(|pair| pair == "libc.so.6 => /opt/libc.so.6"),
        "{change:#?}"
    );
}
