//! PAM's services and modules, in a root of their own: who changes them, and what that comes to.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use sensor::watch::{Action, Role};

use super::harness::{Bench, Tree, unprivileged};

const COMMON: &str = "/etc/pam.d/common-auth";
const SSHD: &str = "/etc/pam.d/sshd";
const MODULES: &str = "usr/lib/x86_64-linux-gnu/security";
/// As Debian 12 has it.
const COMMON_AUTH: &str = "auth\t[success=1 default=ignore]\tpam_unix.so nullok\n\
                           auth\trequisite\tpam_deny.so\nauth\trequired\tpam_permit.so\n";

/// A root with a service, a file that it includes, and two modules.
pub fn tree() -> Tree {
    let tree = Tree::new();
    for folder in ["etc/pam.d", MODULES] {
        fs::create_dir_all(tree.at(folder)).unwrap();
    }
    fs::write(tree.at(COMMON), COMMON_AUTH).unwrap();
    fs::write(tree.at(SSHD), "# sshd\n@include common-auth\naccount required pam_unix.so\n")
        .unwrap();
    for module in ["pam_unix.so", "pam_permit.so"] {
        fs::write(tree.at(&format!("{MODULES}/{module}")), module).unwrap();
    }
    tree
}

#[test]
fn a_line_that_lets_everybody_in_is_told_for_each_service_that_includes_it() {
    if unprivileged() {
        return;
    }
    let mut bench = Bench::new(tree());
    let open = format!("auth sufficient pam_permit.so\n{COMMON_AUTH}");
    let actor = bench.tree.run(&["write", COMMON, &open]);
    let change = bench.change(COMMON);
    assert_eq!(change.touches[0].actor.tgid, actor.pid());
    let config = change.config;
    assert_eq!((config.role, config.same), (Role::PamService, false));
    assert_eq!(config.added, ["auth sufficient pam_permit.so"], "and no other line");
    assert_eq!(config.pam.services, ["common-auth", "sshd"]);
    assert_eq!(config.pam.opened, ["common-auth", "sshd"]);
    let [module] = config.libraries.as_slice() else { panic!("{:#?}", config.libraries) };
    assert_eq!(module.path, format!("/{MODULES}/pam_permit.so"));
    assert!(module.file.is_some());
}

#[test]
fn a_module_out_of_its_directory_is_told_with_who_may_write_it() {
    if unprivileged() {
        return;
    }
    let tree = tree();
    fs::write(tree.at("opt/pam_x.so"), "x").unwrap();
    fs::set_permissions(tree.at("opt/pam_x.so"), fs::Permissions::from_mode(0o666)).unwrap();
    let mut bench = Bench::new(tree);
    bench.tree.run(&["append", SSHD, "session optional /opt/pam_x.so\n"]).end();
    let config = bench.change(SSHD).config;
    assert_eq!(config.added, ["session optional /opt/pam_x.so"]);
    assert!(config.pam.opened.is_empty());
    let [module] = config.libraries.as_slice() else { panic!("{:#?}", config.libraries) };
    assert_eq!((module.path.as_str(), module.mode), ("/opt/pam_x.so", 0o666));
}

#[test]
fn every_way_to_a_service_is_told() {
    if unprivileged() {
        return;
    }
    let tree = tree();
    fs::write(tree.at("tmp/new"), "auth required pam_deny.so\n").unwrap();
    let mut bench = Bench::new(tree);
    for (words, file, action) in [
        (&["rename", "/tmp/new", SSHD][..], SSHD, Action::RenamedInto),
        (&["chmod", SSHD, "0600"], SSHD, Action::Attributes),
        (&["link", SSHD, "/etc/pam.d/login"], "/etc/pam.d/login", Action::Linked),
        (&["symlink", SSHD, "/etc/pam.d/su"], "/etc/pam.d/su", Action::Symlinked),
        (&["unlink", COMMON], COMMON, Action::Removed),
    ] {
        let actor = bench.tree.run(words);
        let wanted = |change: &sensor::watch::Change| change.config.actions.contains(&action);
        let change = bench.change_by(file, wanted);
        assert_eq!(change.touches[0].actor.tgid, actor.pid(), "{change:#?}");
        assert_eq!(change.config.role, Role::PamService);
    }
}

#[test]
fn a_file_mounted_over_a_service_is_told() {
    if unprivileged() {
        return;
    }
    let tree = tree();
    fs::write(tree.at("tmp/open"), "auth required pam_permit.so\n").unwrap();
    let holder = tree.apart("");
    let mut bench = Bench::with(tree, holder);
    let (from, to) = (bench.tree.at("tmp/open"), bench.tree.at(SSHD));
    bench.inside_holder(&["mount", "--bind", from.to_str().unwrap(), to.to_str().unwrap()]);
    let config = bench.change(SSHD).config;
    assert_eq!(config.actions, [Action::Mounted]);
    assert_eq!(config.pam.opened, ["sshd"]);
}

#[test]
fn a_module_that_is_written_replaced_or_new_is_told() {
    if unprivileged() {
        return;
    }
    let tree = tree();
    fs::write(tree.at("tmp/other"), "other").unwrap();
    let mut bench = Bench::new(tree);
    let unix = format!("/{MODULES}/pam_unix.so");
    let new = format!("/{MODULES}/pam_new.so");
    for (words, file) in [
        (["append", unix.as_str(), "x"], &unix),
        (["rename", "/tmp/other", unix.as_str()], &unix),
        (["write", new.as_str(), "x"], &new),
    ] {
        let actor = bench.tree.run(&words);
        let change = bench.change(file);
        assert_eq!(change.touches[0].actor.tgid, actor.pid());
        let config = change.config;
        assert_eq!((config.role, config.same), (Role::PamModule, false));
        assert_eq!(config.libraries[0].path, **file);
    }
}

#[test]
fn a_module_directory_by_two_names_is_watched_once() {
    if unprivileged() {
        return;
    }
    let tree = tree();
    fs::remove_dir_all(tree.at("lib")).unwrap();
    std::os::unix::fs::symlink("usr/lib", tree.at("lib")).unwrap();
    let mut bench = Bench::new(tree);
    bench.tree.run(&["append", "/lib/x86_64-linux-gnu/security/pam_unix.so", "x"]).end();
    let change = bench.change(&format!("/{MODULES}/pam_unix.so"));
    assert!(!change.config.same);
    // Told after a second one would have been.
    bench.tree.run(&["write", "/etc/ld.so.conf", "/opt/x\n"]).end();
    bench.change("/etc/ld.so.conf");
    assert!(bench.rest().is_empty(), "{:#?}", bench.rest());
}

#[test]
fn what_editors_and_package_managers_put_aside_is_noise() {
    if unprivileged() {
        return;
    }
    let mut bench = Bench::new(tree());
    for name in ["/etc/pam.d/sshd.dpkg-new", "/etc/pam.d/.sshd.swp", "/etc/pam.d/sshd~"] {
        bench.tree.run(&["write", name, "auth required pam_permit.so\n"]).end();
    }
    bench.tree.run(&["write", "/etc/ld.so.conf", "/opt/x\n"]).end();
    bench.change("/etc/ld.so.conf");
    assert!(bench.rest().is_empty(), "{:#?}", bench.rest());
}
