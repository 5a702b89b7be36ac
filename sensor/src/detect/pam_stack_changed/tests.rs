use super::*;
use crate::event::FileKey;
use crate::package::{Content, Origin, Owner};
use crate::watch::{Preloaded, Tool};

fn change(role: Role, path: &str) -> LoaderConfig {
    LoaderConfig::written(role, path)
}

fn service(line: &str) -> LoaderConfig {
    LoaderConfig { added: vec![line.to_owned()], ..change(Role::PamService, "/etc/pam.d/sshd") }
}

fn module(path: &str, owner: Option<Owner>) -> Preloaded {
    let origin = owner.map(|owner| Arc::new(Origin { owner, content: Content::NotRecorded }));
    Preloaded {
        path: path.to_owned(),
        file: Some(FileKey::default()),
        mode: 0o644,
        origin,
        ..Preloaded::default()
    }
}

fn by(path: &str, packages: bool) -> Tool {
    Tool { path: path.to_owned(), packages }
}

#[test]
fn a_service_that_lets_everybody_in_is_high_and_says_so() {
    let mut opened = service("auth sufficient pam_permit.so");
    opened.pam.opened = vec!["sshd".to_owned()];
    let (severity, _, title) = judge(&opened);
    assert_eq!(
        (severity, title.as_str()),
        (Severity::High, "/etc/pam.d/sshd now lets everybody in by sshd")
    );
    opened.tool = Some(by("/usr/bin/dpkg", true));
    assert_eq!(judge(&opened).0, Severity::Low, "a package's, and worth a word");
}

#[test]
fn a_module_is_judged_by_whose_it_is_and_who_may_write_it() {
    let with = |module: Preloaded| {
        let line = format!("auth optional {}", module.path);
        judge(&LoaderConfig { libraries: vec![module], ..service(&line) }).0
    };
    assert_eq!(with(module("pam_x.so", Some(Owner::Nobody))), Severity::High);
    assert_eq!(with(module("pam_x.so", None)), Severity::Medium, "nobody was asked");
    assert_eq!(with(module("pam_x.so", Some(Owner::Unknown(String::new())))), Severity::Medium);
    let open = Preloaded { mode: 0o666, ..module("/opt/pam_x.so", None) };
    assert_eq!(with(open), Severity::Critical);
    let foreign = Preloaded { uid: 1000, ..module("/opt/pam_x.so", None) };
    assert_eq!(with(foreign), Severity::Critical);
    assert_eq!(with(module("/dev/shm/pam_x.so", None)), Severity::Critical);
}

#[test]
fn the_work_of_a_package_manager_is_info_and_of_a_tool_low() {
    let line = service("auth optional pam_cap.so");
    assert_eq!(judge(&line).0, Severity::Medium);
    let upgraded = LoaderConfig { tool: Some(by("/usr/bin/dpkg", true)), ..line.clone() };
    assert_eq!(judge(&upgraded).0, Severity::Info);
    let by_hand =
        LoaderConfig { tool: Some(by("/usr/sbin/pam-auth-update", false)), ..line.clone() };
    assert_eq!(judge(&by_hand).0, Severity::Low);
    let evil = LoaderConfig { libraries: vec![module("/tmp/x.so", None)], ..by_hand };
    assert_eq!(judge(&evil).0, Severity::Critical, "whoever had the tool write it");
    let fresh = LoaderConfig {
        tool: Some(by("/usr/bin/dpkg", true)),
        libraries: vec![module("pam_x.so", Some(Owner::Nobody))],
        ..change(Role::PamModule, "/usr/lib/security/pam_x.so")
    };
    assert_eq!(judge(&fresh).0, Severity::Info, "the records follow the files");
}

#[test]
fn a_door_that_stood_open_for_a_moment_is_high() {
    let line = "auth sufficient pam_permit.so".to_owned();
    let moment = LoaderConfig {
        meanwhile: vec![line.clone()],
        same: true,
        ..change(Role::PamService, "/etc/pam.d/sshd")
    };
    assert_eq!(judge(&moment).0, Severity::High, "written and put back");
    let conf =
        LoaderConfig { added: vec![format!("sshd {line}")], ..change(Role::PamService, pam::CONF) };
    assert_eq!(judge(&conf).0, Severity::High);
}

#[test]
fn a_program_that_is_handed_passwords_is_high() {
    assert!(hands_over("auth optional pam_exec.so expose_authtok /opt/x"));
    assert!(hands_over("sshd auth optional pam_exec.so expose_authtok /opt/x"));
    assert!(hands_over("auth required pam_python.so /opt/x.py"));
    assert!(!hands_over("session optional pam_exec.so /etc/motd.sh"));
    assert_eq!(
        judge(&service("auth optional pam_exec.so expose_authtok /opt/x")).0,
        Severity::High
    );
}

#[test]
fn a_replaced_module_is_high_and_the_packages_own_low() {
    let replaced = change(Role::PamModule, "/usr/lib/security/pam_unix.so");
    let with =
        |module: Preloaded| judge(&LoaderConfig { libraries: vec![module], ..replaced.clone() });
    assert_eq!(with(module("pam_unix.so", Some(Owner::Nobody))).0, Severity::High);
    assert_eq!(with(module("pam_unix.so", None)).0, Severity::High);
    let (severity, _, title) = judge(&replaced);
    assert_eq!(severity, Severity::Medium);
    assert!(title.ends_with("is gone"), "{title}");
    let touched = LoaderConfig { same: true, libraries: vec![module("x", None)], ..replaced };
    assert_eq!(judge(&touched).0, Severity::Info);
}

#[test]
fn a_removed_line_and_an_open_file_are_told() {
    let removed = LoaderConfig {
        removed: vec!["auth required pam_faillock.so".to_owned()],
        ..change(Role::PamService, "/etc/pam.d/sshd")
    };
    let (severity, _, title) = judge(&removed);
    assert_eq!(severity, Severity::Medium);
    assert!(title.contains("no longer has the line auth required pam_faillock.so"), "{title}");
    let open =
        LoaderConfig { same: true, exposed: true, ..change(Role::PamService, "/etc/pam.d/sshd") };
    assert_eq!(judge(&open).0, Severity::High);
    let unchanged = LoaderConfig { same: true, ..change(Role::PamService, "/etc/pam.d/sshd") };
    assert_eq!(judge(&unchanged).0, Severity::Info);
}
