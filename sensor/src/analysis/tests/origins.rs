//! Libraries and their packages.

use super::*;
use crate::event::Role;
use crate::finding::Evidence;
use crate::host::Traced;
use crate::package::digest::{Algorithm, Digest};
use crate::package::{Content, Distro, Manager, Origin, Owned, Owner};

const PROGRAM: &str = "/usr/bin/backup";

pub(super) fn owned(content: Content) -> Origin {
    let owned = Owned {
        package: "liblzma5".to_owned(),
        version: "5.6.1-1".to_owned(),
        arch: "amd64".to_owned(),
        epoch: None,
        distro: Distro { id: "debian".to_owned(), version: Some("13".to_owned()) },
        manager: Manager::Dpkg,
        installed: Some(Timestamp::UNIX_EPOCH),
        previous: Some("5.4.1-1".to_owned()),
        recorded: None,
        config: false,
        diverted_from: None,
    };
    Origin { owner: Owner::Package(Box::new(owned)), content }
}

fn nobodys() -> Origin {
    Origin { owner: Owner::Nobody, content: Content::NotRecorded }
}

fn another_content() -> Content {
    let digest = |byte| Digest::from_bytes(Algorithm::Md5, &[byte; 16]).unwrap();
    Content::Differs { recorded: digest(1), found: digest(2) }
}

/// Starts a program that maps a library, and tells where that came from.
fn start(bench: &mut Bench, library: Option<(&str, Origin)>) {
    let tgid = bench.world.fresh();
    bench.world.fork(1, tgid, Role::NONE);
    bench.world.exec(tgid, 1, PROGRAM, Role::NONE, 0);
    let Some((path, origin)) = library else {
        bench.world.exit(tgid, Role::NONE, MS);
        return bench.run();
    };
    bench.world.map(tgid, PROGRAM, Path::new(path), Role::NONE);
    traced(bench, &origin);
}

/// Runs what the world has made, and what the provenance station says of its mappings.
fn traced(bench: &mut Bench, origin: &Origin) {
    let mut seen = Vec::new();
    for event in bench.world.take() {
        bench.station.on_event(event, &mut |one| seen.push(one));
    }
    for one in seen {
        let answer = match &one.body {
            Body::Library(library) => {
                let origin = Arc::new(origin.clone());
                let body = Body::Traced(Traced {
                    library: library.clone(),
                    origin,
                    way: Err("not asked".into()),
                    judged: None,
                });
                Some(Observation { body, ..one.clone() })
            }
            _ => None,
        };
        for one in [Some(one), answer].into_iter().flatten() {
            bench.told.extend(bench.analysis.on_observation(one));
        }
    }
    bench.run();
}

fn learned() -> Bench {
    let mut bench = Bench::new();
    for _ in 0..120 {
        start(&mut bench, None);
    }
    bench
}

fn severity(bench: &Bench) -> Option<Severity> {
    let findings = bench.told.iter().flat_map(|update| &update.incident.findings);
    let mine = findings.filter(|finding| finding.detector == "library_unowned");
    mine.map(|finding| finding.severity).max()
}

#[test]
fn a_library_that_differs_from_its_package_is_medium_and_says_which() {
    let mut bench = learned();
    start(&mut bench, Some(("/usr/lib/liblzma.so.5", owned(another_content()))));
    assert_eq!(severity(&bench), Some(Severity::Medium));
    let story = &bench.incident().story;
    assert!(story.contains("liblzma5 5.6.1-1 (amd64)"), "{story}");
    assert!(story.contains("but is not what that brought"), "{story}");
}

#[test]
fn a_library_of_nobody_counts_only_where_packages_put_theirs() {
    for (path, fires) in [("/usr/lib/libx.so", true), ("/usr/local/lib/libx.so", false)] {
        let mut bench = learned();
        start(&mut bench, Some((path, nobodys())));
        let told = bench.fired().contains(&"library_unowned");
        assert_eq!(told, fires, "{path}");
        assert!(severity(&bench).is_none_or(|severity| severity <= Severity::Low), "{path}");
    }
}

#[test]
fn a_library_that_is_what_its_package_brought_is_no_finding() {
    let mut bench = learned();
    start(&mut bench, Some(("/usr/lib/liblzma.so.5", owned(Content::Matches))));
    assert!(!bench.fired().contains(&"library_unowned"));
}

#[test]
fn sshd_with_a_library_of_nobody_is_high() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let tgid = bench.world.fresh();
    bench.world.fork(LISTENER, tgid, SSHD);
    bench.world.map(tgid, SSHD_PATH, Path::new("/usr/lib/libx.so"), SSHD);
    traced(&mut bench, &nobodys());
    assert_eq!(severity(&bench), Some(Severity::High));
}

#[test]
fn a_redirected_slot_names_the_packages_of_both_files() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let tgid = bench.world.fresh();
    bench.world.fork(LISTENER, tgid, SSHD);
    for path in [EVIL, CRYPTO] {
        // The world tells a library once per program: as another program's this time.
        bench.world.map(tgid, "/usr/bin/openssl", Path::new(path), SSHD);
    }
    traced(&mut bench, &owned(Content::Matches));
    let next = bench.world.fresh() + 1;
    bench.redirect(next);
    bench.login(&Login::new("publickey").with_evil(0));
    let finding = bench.incident().findings.iter().find(|one| one.detector == "got_redirected");
    let files: Vec<_> = finding
        .unwrap()
        .evidence
        .iter()
        .filter_map(|one| match one {
            Evidence::Package { path, .. } => Some(path.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(files, [EVIL, CRYPTO]);
    let story = &bench.incident().story;
    for file in [EVIL, CRYPTO] {
        let name = file.rsplit('/').next().unwrap();
        assert!(story.contains(&format!("{name} belongs to")), "{story}");
    }
}

#[test]
fn a_finding_that_names_a_library_says_since_when_its_package_is_there() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let tgid = bench.world.fresh();
    bench.world.fork(LISTENER, tgid, SSHD);
    bench.world.map(tgid, SSHD_PATH, Path::new(EVIL), SSHD);
    traced(&mut bench, &owned(Content::Matches));
    // Told before the origin was known; the next connection's finding has it.
    let next = bench.world.fresh() + 1;
    bench.redirect(next);
    bench.login(&Login::new("publickey").with_evil(0));
    let finding = bench.incident().findings.iter().find(|one| one.detector == "got_redirected");
    let evidence = &finding.unwrap().evidence;
    let package = evidence.iter().find_map(|one| match one {
        Evidence::Package { package, previous, .. } => Some((package.clone(), previous.clone())),
        _ => None,
    });
    let wanted = ("liblzma5 5.6.1-1 (amd64)".to_owned(), Some("5.4.1-1".to_owned()));
    assert_eq!(package, Some(wanted), "{evidence:#?}");
}
