//! Other roots: mount namespaces, roots that come and go, what happens while nobody looks.

use std::fs;

use sensor::watch::Action;

use super::harness::{Bench, Tree, by_comparison, unprivileged};

const PRELOAD: &str = "/etc/ld.so.preload";

#[test]
fn a_mount_over_the_file_is_found_by_comparison() {
    if unprivileged() {
        return;
    }
    let tree = Tree::new();
    fs::write(tree.at(PRELOAD), "").unwrap();
    fs::write(tree.at("tmp/evil"), "/opt/evil.so\n").unwrap();
    let holder = tree.apart("");
    let mut bench = Bench::with(tree, holder);
    let (from, to) = (bench.tree.at("tmp/evil"), bench.tree.at(PRELOAD));
    let words = ["mount", "--bind", from.to_str().unwrap(), to.to_str().unwrap()];
    bench.inside_holder(&words);
    let change = bench.change(PRELOAD);
    assert!(change.touches.is_empty(), "{change:#?}");
    assert!(change.config.actions.contains(&Action::Mounted), "{change:#?}");
    assert_eq!(change.config.now, ["/opt/evil.so"]);
    // What is mounted there now is watched like what was there before.
    let actor = bench.tree.run(&["append", "/tmp/evil", "/opt/good.so\n"]);
    let change = bench.change(PRELOAD);
    assert_eq!(change.config.added, ["/opt/good.so"]);
    assert_eq!(change.touches[0].actor.tgid, actor.pid());
}

#[test]
fn a_namespace_that_differs_from_where_it_came_from_is_told() {
    if unprivileged() {
        return;
    }
    let tree = Tree::new();
    fs::write(tree.at(PRELOAD), "").unwrap();
    fs::write(tree.at("tmp/evil"), "/opt/evil.so\n").unwrap();
    let mut bench = Bench::new(tree);
    let other = bench.tree.apart("mount --bind \"$ROOT/tmp/evil\" \"$ROOT/etc/ld.so.preload\"");
    let change = bench.change(PRELOAD);
    assert_eq!(change.config.root.tgid, other.pid());
    assert_eq!(change.config.added, ["/opt/evil.so"]);
}

#[test]
fn a_file_of_a_root_in_another_namespace_is_watched() {
    if unprivileged() {
        return;
    }
    let tree = Tree::new();
    // Its /etc is on a file system that nobody else sees.
    let holder = tree.apart("mount -t tmpfs none \"$ROOT/etc\"");
    let mut bench = Bench::with(tree, holder);
    let root = bench.tree.at("");
    let words = ["chroot", root.to_str().unwrap(), "/bin/actor", "write", PRELOAD, "/opt/evil.so"];
    bench.inside_holder(&words);
    let change = bench.change(PRELOAD);
    assert_eq!(change.config.added, ["/opt/evil.so"]);
    if !by_comparison(&change, (5, 13), "a tmpfs has no identity") {
        assert_eq!(change.touches.len(), 1, "{change:#?}");
    }
    assert!(!bench.tree.at(PRELOAD).exists(), "the host sees nothing of it");
}

#[test]
fn a_file_of_an_image_that_is_copied_up_by_the_write_is_told() {
    if unprivileged() {
        return;
    }
    let tree = Tree::new();
    fs::write(tree.at(PRELOAD), "/opt/good.so\n").unwrap();
    // As a container has it: the image below, what it writes above, on a file system of its own.
    let holder = tree.apart(
        "mkdir \"$ROOT/run\" && mount -t tmpfs none \"$ROOT/run\"\n\
         mkdir \"$ROOT/run/up\" \"$ROOT/run/work\" \"$ROOT/run/merged\"\n\
         mount -t overlay none -o \
         \"lowerdir=$ROOT,upperdir=$ROOT/run/up,workdir=$ROOT/run/work\" \"$ROOT/run/merged\"\n\
         ROOT=\"$ROOT/run/merged\"",
    );
    let mut bench = Bench::with_root(tree, holder, "run/merged");
    let root = bench.root();
    for (file, words) in [
        (PRELOAD, ["append", PRELOAD, "/opt/evil.so\n"]),
        (PRELOAD, ["append", PRELOAD, "/opt/more.so\n"]),
        ("/etc/ld.so.conf", ["write", "/etc/ld.so.conf", "/opt/x\n"]),
    ] {
        bench.inside_holder(
            &[&["chroot", root.to_str().unwrap(), "/bin/actor"], &words[..]].concat(),
        );
        let change = bench.change(file);
        assert_eq!(change.config.added, [words[2].trim_end()], "{change:#?}");
        if !by_comparison(&change, (6, 6), "an overlay has no handles") {
            assert_eq!(change.touches.len(), 1, "who: {change:#?}");
        }
    }
}

#[test]
fn one_file_seen_from_two_namespaces_is_one_change() {
    if unprivileged() {
        return;
    }
    let tree = Tree::new();
    let other = tree.apart("");
    let mut bench = Bench::new(tree);
    bench.tree.run(&["write", PRELOAD, "/opt/evil.so\n"]).end();
    let change = bench.change(PRELOAD);
    assert_eq!(change.config.root.others, 1, "{change:#?}");
    other.end();
    bench.tree.run(&["write", "/etc/ld.so.conf", "/opt/x\n"]).end();
    bench.change("/etc/ld.so.conf");
    assert!(bench.rest().is_empty(), "{:#?}", bench.rest());
}

#[test]
fn a_root_that_comes_later_is_watched() {
    if unprivileged() {
        return;
    }
    let first = Tree::new();
    let mut bench = Bench::new(first);
    let second = Tree::new();
    let _holder = second.run(&["hold"]);
    bench.until_watched(&second);
    bench.turn_to(second);
    let actor = bench.tree.run(&["write", PRELOAD, "/opt/evil.so\n"]);
    let change = bench.change_by(PRELOAD, |change| !change.touches.is_empty());
    assert_eq!(change.touches[0].actor.tgid, actor.pid());
}

#[test]
fn a_storm_of_writes_is_one_change_and_costs_little() {
    if unprivileged() {
        return;
    }
    let mut bench = Bench::new(Tree::new());
    for at in 0..2000 {
        fs::write(bench.tree.at("etc/other"), at.to_string()).unwrap();
        fs::write(bench.tree.at("etc/ld.so.conf"), format!("/opt/{at}\n")).unwrap();
    }
    let change = bench.change_by("/etc/ld.so.conf", |change| change.config.now == ["/opt/1999"]);
    assert!(change.touches.iter().all(|touch| touch.actor.tgid == std::process::id()));
    let told = bench.rest().len();
    assert!(told < 200, "{told} changes of 2000 writes");
}
