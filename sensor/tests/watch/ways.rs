//! Every way to a watched file: who, what, and what the loader reads now.

use std::fs;
use std::os::unix::fs::symlink;

use sensor::watch::{Action, Change, Role};

use super::harness::{Actor, Bench, Tree, is_slow, unprivileged};

const PRELOAD: &str = "/etc/ld.so.preload";

/// Who did it, by id and, as it still lives, by executable.
#[track_caller]
fn is_by(change: &Change, actor: &Actor) {
    let [touch] = change.touches.as_slice() else { panic!("one actor: {change:#?}") };
    assert_eq!(touch.actor.tgid, actor.pid(), "{change:#?}");
    assert!(touch.actor.exe.as_ref().unwrap().ends_with("bin/actor"), "{change:#?}");
    assert!(touch.actor.start_ticks.is_some());
}

#[track_caller]
fn did(change: &Change, action: Action) {
    assert!(change.config.actions.contains(&action), "{action:?}: {change:#?}");
}

/// The preload list gains the library by what `words` do.
#[track_caller]
fn gains(prepare: impl FnOnce(&Tree), words: &[&str], action: Action) -> Option<Change> {
    if unprivileged() {
        return None;
    }
    let tree = Tree::new();
    prepare(&tree);
    let mut bench = Bench::new(tree);
    let actor = bench.tree.run(words);
    if actor.said.starts_with("unsupported") {
        println!("skipped: {}", actor.said.trim());
        return None;
    }
    let change = bench.change(PRELOAD);
    is_by(&change, &actor);
    did(&change, action);
    assert_eq!(change.config.role, Role::Preload);
    assert!(!change.config.same);
    assert_eq!(change.config.added, ["/opt/evil.so"], "{change:#?}");
    assert_eq!(change.config.now.last().map(String::as_str), Some("/opt/evil.so"));
    let [library] = change.config.libraries.as_slice() else { panic!("{change:#?}") };
    assert_eq!((library.path.as_str(), library.uid), ("/opt/evil.so", 0));
    assert!(library.file.is_some());
    actor.end();
    Some(change)
}

fn nothing(_: &Tree) {}

fn one_entry(tree: &Tree) {
    fs::write(tree.at(PRELOAD), "/opt/good.so\n").unwrap();
}

#[test]
fn a_file_written_by_its_path_is_told() {
    let change = gains(nothing, &["write", PRELOAD, "/opt/evil.so\n"], Action::Created);
    if let Some(change) = change {
        assert_eq!(change.config.before, "absent");
    }
}

#[test]
fn a_file_written_by_a_relative_path_is_told() {
    gains(nothing, &["relative", "/etc", "ld.so.preload", "/opt/evil.so\n"], Action::Created);
}

#[test]
fn a_file_written_through_a_directory_descriptor_is_told() {
    gains(nothing, &["dirfd", "/etc", "ld.so.preload", "/opt/evil.so\n"], Action::Created);
}

#[test]
fn an_appended_entry_is_told_apart_from_what_was_there() {
    let change = gains(one_entry, &["append", PRELOAD, "/opt/evil.so\n"], Action::Written);
    if let Some(change) = change {
        assert_eq!(change.config.now, ["/opt/good.so", "/opt/evil.so"]);
        assert_eq!(change.config.before, "/opt/good.so");
    }
}

#[test]
fn a_file_written_through_a_symbolic_link_elsewhere_is_told() {
    let prepare = |tree: &Tree| {
        one_entry(tree);
        symlink(PRELOAD, tree.at("tmp/link")).unwrap();
    };
    gains(prepare, &["append", "/tmp/link", "/opt/evil.so\n"], Action::Written);
}

#[test]
fn the_target_of_a_symbolic_link_in_place_is_watched() {
    let prepare = |tree: &Tree| {
        fs::write(tree.at("opt/list"), "/opt/good.so\n").unwrap();
        symlink("../opt/list", tree.at(PRELOAD)).unwrap();
    };
    gains(prepare, &["append", "/opt/list", "/opt/evil.so\n"], Action::Written);
}

#[test]
fn a_symbolic_link_made_in_place_is_told() {
    let prepare = |tree: &Tree| fs::write(tree.at("opt/list"), "/opt/evil.so\n").unwrap();
    gains(prepare, &["symlink", "/opt/list", PRELOAD], Action::Symlinked);
}

#[test]
fn a_file_renamed_into_place_from_another_directory_is_told() {
    let prepare = |tree: &Tree| fs::write(tree.at("tmp/list"), "/opt/evil.so\n").unwrap();
    gains(prepare, &["rename", "/tmp/list", PRELOAD], Action::RenamedInto);
}

#[test]
fn a_file_renamed_over_another_is_told() {
    let prepare = |tree: &Tree| {
        one_entry(tree);
        fs::write(tree.at("tmp/list"), "/opt/good.so /opt/evil.so\n").unwrap();
    };
    gains(prepare, &["rename", "/tmp/list", PRELOAD], Action::RenamedInto);
}

#[test]
fn a_hard_link_into_place_is_told() {
    let prepare = |tree: &Tree| fs::write(tree.at("tmp/list"), "/opt/evil.so\n").unwrap();
    gains(prepare, &["link", "/tmp/list", PRELOAD], Action::Linked);
}

#[test]
fn a_write_through_another_hard_link_is_told() {
    let prepare = |tree: &Tree| {
        one_entry(tree);
        fs::hard_link(tree.at(PRELOAD), tree.at("tmp/other")).unwrap();
    };
    gains(prepare, &["append", "/tmp/other", "/opt/evil.so\n"], Action::Written);
}

#[test]
fn a_store_into_a_shared_mapping_is_told() {
    gains(one_entry, &["mmap", PRELOAD, "/opt/evil.so\n"], Action::Written);
}

#[test]
fn a_write_through_io_uring_is_told() {
    gains(one_entry, &["uring", PRELOAD, "/opt/evil.so\n"], Action::Written);
}

#[test]
fn what_was_there_for_a_moment_only_is_told() {
    if unprivileged() || is_slow("60 ms may not be enough to read what was there") {
        return;
    }
    let mut bench = Bench::new(Tree::new());
    let actor = bench.tree.run(&["moment", PRELOAD, "/opt/evil.so\n"]);
    let change = bench.change(PRELOAD);
    is_by(&change, &actor);
    did(&change, Action::Removed);
    assert!(change.config.same && change.config.added.is_empty());
    assert_eq!(change.config.meanwhile, ["/opt/evil.so"]);
}

#[test]
fn entries_that_go_are_told() {
    if unprivileged() {
        return;
    }
    for (words, action) in [
        (["unlink", PRELOAD, ""], Action::Removed),
        (["truncate", PRELOAD, ""], Action::Written),
        (["rename", PRELOAD, "/tmp/away"], Action::RenamedAway),
    ] {
        let tree = Tree::new();
        one_entry(&tree);
        let mut bench = Bench::new(tree);
        let actor = bench.tree.run(&words);
        let change = bench.change(PRELOAD);
        is_by(&change, &actor);
        did(&change, action);
        assert_eq!(change.config.removed, ["/opt/good.so"]);
        assert!(change.config.now.is_empty());
    }
}

#[test]
fn a_mode_that_lets_everyone_write_is_told() {
    if unprivileged() {
        return;
    }
    let tree = Tree::new();
    one_entry(&tree);
    let mut bench = Bench::new(tree);
    let actor = bench.tree.run(&["chmod", PRELOAD, "666"]);
    let change = bench.change(PRELOAD);
    is_by(&change, &actor);
    assert!(change.config.exposed && change.config.same, "{change:#?}");
    assert_eq!(change.config.actions, [Action::Attributes]);
}
