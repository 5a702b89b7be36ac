//! An upgrade as baselines of two builds see it, and one of a library.

use std::fs::{self, File};
use std::os::fd::OwnedFd;

use tempfile::TempDir;

use super::super::upgrades_of;
use super::*;
use crate::host::{LinkTiming, Method, ModuleId};
use crate::package::Manager;
use crate::package::history::Action;

const SSHD: &str = "/usr/sbin/sshd";
const CRYPTO: &str = "/usr/lib/libcrypto.so.3";
const LZMA: &str = "/usr/lib/liblzma.so.5.6.1";
const UPGRADE: &str = "2026-11-20T06:10:02Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn module(path: &str, build: &str) -> ModuleId {
    ModuleId { path: path.to_owned(), build: build.to_owned() }
}

/// A root in which openssh-server has sshd, and liblzma5 its library.
fn root() -> (TempDir, Root) {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let stanza = |name: &str| {
        format!("Package: {name}\nStatus: install ok installed\nArchitecture: all\nVersion: 2\n\n")
    };
    write("var/lib/dpkg/status", &(stanza("openssh-server") + &stanza("liblzma5")));
    write("var/lib/dpkg/info/openssh-server.list", &format!("{SSHD}\n"));
    write("var/lib/dpkg/info/liblzma5.list", &format!("{LZMA}\n"));
    let root = Root::from_fd(OwnedFd::from(File::open(folder.path()).unwrap())).unwrap();
    (folder, root)
}

fn change(package: &str) -> PackageChange {
    PackageChange {
        time: at(UPGRADE),
        manager: Manager::Dpkg,
        package: package.to_owned(),
        arch: Some("all".to_owned()),
        action: Action::Replaced,
        old: Some("1".to_owned()),
        new: Some("2".to_owned()),
    }
}

/// A build that was started so often since then, linked in so many milliseconds.
fn build(first: &str, starts: u64, link_ms: u64, libraries: &[(&str, &str)]) -> Baseline {
    let mut baseline = Baseline::default();
    for _ in 0..starts {
        baseline.add_start(at(first), Some(Method::Publickey));
        let cpu_ns = link_ms * 1_000_000;
        let timing = LinkTiming {
            wall_ns: cpu_ns,
            cpu_ns,
            blocked_ns: 0,
            minor_faults: 0,
            shares: Vec::new(),
            overflow: 0,
            busy: Vec::new(),
        };
        baseline.add_link(&timing, true);
        baseline.add_auth(Method::Publickey, 30_000_000, None, None);
    }
    baseline.add_caller("RSA_public_decrypt", &module(SSHD, first));
    for (path, seen) in libraries {
        baseline.add_library(&module(path, seen), at(seen), false);
    }
    baseline
}

fn known(builds: Vec<(impl Into<String>, Baseline)>) -> Known {
    Known::of(builds.into_iter().map(|(subject, baseline)| (subject.into(), baseline)))
}

#[test]
fn two_builds_of_a_program_are_compared() {
    let (_folder, root) = root();
    let (old, new) = ("2026-11-01T00:00:00Z", "2026-11-20T06:15:00Z");
    let before = build(old, 50, 3, &[(CRYPTO, old)]);
    let mut after = build(new, 12, 4, &[("/usr/lib/libcrypto.so.3.0.1", new), (LZMA, new)]);
    after.add_caller("RSA_public_decrypt", &module(LZMA, "x"));
    let mut known = known(vec![
        ("/usr/sbin/sshd aa", before),
        ("/usr/sbin/sshd bb", after),
        ("/usr/sbin/sshd cc image:1", build(new, 50, 900, &[])),
    ]);
    let told = known.behaviour(&root, &change("openssh-server"), None);
    assert_eq!(told.len(), 1, "{told:#?}");
    let told = &told[0];
    assert_eq!((told.program.as_str(), told.own), (SSHD, true));
    let link = &told.times[0];
    assert_eq!((link.what.as_str(), link.samples_before, link.samples_after), ("link", 50, 12));
    assert_eq!((link.seconds_before, link.seconds_after), (0.003, 0.004));
    assert_eq!(told.times[1].what, "auth publickey");
    assert_eq!(told.new_callers, Some(vec![format!("RSA_public_decrypt by {LZMA}")]));
    assert_eq!(told.new_libraries, Some(vec![LZMA.to_owned()]), "a version is no new library");
    assert_eq!(told.not_recorded, Vec::<String>::new());
}

#[test]
fn another_architecture_is_another_package() {
    let (folder, root) = root();
    let status = "Package: openssh-server\nStatus: install ok installed\nArchitecture: amd64\n\
        Version: 2\n\n";
    fs::write(folder.path().join("var/lib/dpkg/status"), status).unwrap();
    let (old, new) = ("2026-11-01T00:00:00Z", "2026-11-20T06:15:00Z");
    let builds = [("aa", build(old, 50, 3, &[])), ("bb", build(new, 12, 4, &[]))];
    let known = known(builds.map(|(id, build)| (format!("{SSHD} {id}"), build)).into());
    let of = |arch: &str, time: &str| PackageChange {
        time: at(time),
        arch: Some(arch.to_owned()),
        ..change("openssh-server")
    };
    // The later one of another architecture does not end the stretch of the first.
    let changes = vec![of("i386", "2026-11-20T06:13:00Z"), of("amd64", UPGRADE)];
    let told = upgrades_of(changes, Some(known), &root);
    let [other, own] = told.as_slice() else { panic!("{told:#?}") };
    assert_eq!(other.behaviour, Some(Vec::new()));
    let link = &own.behaviour.as_ref().unwrap()[0].times[0];
    assert_eq!((link.samples_before, link.samples_after), (50, 12));
}

#[test]
fn what_is_not_learned_is_said_and_not_made_up() {
    let (_folder, root) = root();
    let (old, new) = ("2026-11-01T00:00:00Z", "2026-11-20T06:15:00Z");
    let mut alone = known(vec![("/usr/sbin/sshd aa", build(old, 50, 3, &[]))]);
    let told = alone.behaviour(&root, &change("openssh-server"), None);
    assert!(told[0].times.is_empty() && told[0].new_callers.is_none());
    assert_eq!(told[0].not_recorded, ["no start of another build since then is learned"]);
    let mut few = known(vec![
        ("/usr/sbin/sshd aa", build(old, 50, 3, &[(CRYPTO, old)])),
        ("/usr/sbin/sshd bb", build(new, 9, 300, &[])),
    ]);
    let told = few.behaviour(&root, &change("openssh-server"), None);
    assert!(told[0].times.is_empty(), "{told:#?}");
    assert_eq!(told[0].new_libraries, None);
    assert!(told[0].not_recorded.iter().any(|reason| reason.starts_with("link: fewer than 10")));
    let next = few.behaviour(&root, &change("openssh-server"), Some(at("2026-11-20T06:16:00Z")));
    assert_eq!(next[0].not_recorded, ["no start of another build since then is learned"]);
    assert!(few.behaviour(&root, &change("vim"), None).is_empty());
}

#[test]
fn a_library_of_the_package_brings_what_is_first_seen_since() {
    let (_folder, root) = root();
    let old = "2026-11-01T00:00:00Z";
    let mut sshd = build(old, 50, 3, &[(CRYPTO, old)]);
    sshd.add_library(&module(LZMA, "aa"), at(old), false);
    sshd.add_library(&module(LZMA, "bb"), at("2026-11-20T07:00:00Z"), false);
    sshd.add_library(&module("/usr/lib/libx.so.1", "cc"), at("2026-11-20T07:00:00Z"), false);
    sshd.add_start(at("2026-11-20T07:00:00Z"), Some(Method::Publickey));
    let mut one = known(vec![("/usr/sbin/sshd aa", sshd)]);
    let told = one.behaviour(&root, &change("liblzma5"), None);
    assert!(!told[0].own && told[0].times.is_empty());
    assert_eq!(told[0].new_libraries, Some(vec!["/usr/lib/libx.so.1".to_owned()]));
    assert!(told[0].not_recorded[0].contains("not kept apart"), "{told:#?}");
    let mut unused = build(old, 50, 3, &[(LZMA, old)]);
    unused.add_start(at("2026-11-20T07:00:00Z"), Some(Method::Publickey));
    let mut one = known(vec![("/usr/sbin/sshd aa", unused)]);
    let told = one.behaviour(&root, &change("liblzma5"), None);
    assert!(told[0].not_recorded[0].contains("no start with another build"), "{told:#?}");
}
