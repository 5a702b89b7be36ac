//! Histories of roots made for the purpose.

use std::fs;
use std::io::Write;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::super::tests::Fixture;
use super::*;

const PATIENCE: Duration = Duration::from_mins(1);
const STATUS: &str = "Package: openssh-server\nStatus: install ok installed\nArchitecture: amd64\n\
    Version: 1:9.2p1-2+deb12u6\n\nPackage: liblzma5\nStatus: install ok installed\n\
    Architecture: amd64\nMulti-Arch: same\nVersion: 5.4.1-1\n\n";
/// As dpkg 1.21 of Debian 12 writes it.
const LOG: &str = "2026-11-20 06:10:01 startup archives unpack\n\
    2026-11-20 06:10:02 upgrade openssh-server:amd64 1:9.2p1-2+deb12u5 1:9.2p1-2+deb12u6\n\
    2026-11-20 06:10:02 status half-configured openssh-server:amd64 1:9.2p1-2+deb12u5\n\
    2026-11-20 06:10:03 status unpacked openssh-server:amd64 1:9.2p1-2+deb12u6\n\
    2026-11-20 06:10:09 install libwrap0:amd64 <none> 7.6.q-32\n\
    2026-11-20 06:10:09 upgrade liblzma5:amd64 5.4.1-1 5.4.1-1\n\
    2026-11-21 07:00:00 remove libwrap0:amd64 7.6.q-32 <none>\n\
    2026-11-21 07:00:01 purge libwrap0:amd64 7.6.q-32 <none>\n\
    2026-11-21 07:00:01 configure openssh-server:amd64 1:9.2p1-2+deb12u6 <none>\n";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn told(history: &History) -> Vec<String> {
    history
        .changes
        .iter()
        .map(|one| format!("{} {}", one.time, one.clause(str::to_owned)))
        .collect()
}

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.write("var/lib/dpkg/status", STATUS);
    fixture
}

fn written(fixture: &Fixture, path: &str, time: &str) {
    let file = fs::File::options().write(true).open(fixture.folder.path().join(path)).unwrap();
    file.set_modified(SystemTime::from(at(time))).unwrap();
}

fn packed(fixture: &Fixture, path: &str, bytes: &[u8]) {
    let mut gz = GzEncoder::new(Vec::new(), Compression::best());
    gz.write_all(bytes).unwrap();
    fs::write(fixture.folder.path().join(path), gz.finish().unwrap()).unwrap();
}

fn all(fixture: &Fixture) -> History {
    read(&fixture.root(), Timestamp::MIN, 1000, PATIENCE).unwrap()
}

#[test]
fn a_log_of_dpkg_tells_upgrades_installations_and_removals_newest_first() {
    let fixture = fixture();
    fixture.write("var/log/dpkg.log", LOG);
    let history = all(&fixture);
    assert_eq!(
        told(&history),
        [
            "2026-11-21T07:00:00Z libwrap0 7.6.q-32 was removed",
            "2026-11-20T06:10:09Z liblzma5 5.4.1-1 was installed again",
            "2026-11-20T06:10:09Z libwrap0 7.6.q-32 was installed",
            "2026-11-20T06:10:02Z openssh-server 1:9.2p1-2+deb12u5 was replaced by 1:9.2p1-2+deb12u6",
        ]
    );
    assert!(history.gaps.is_empty() && !history.more, "{history:?}");
    let json = serde_json::to_value(&history.changes[3]).unwrap();
    let expected = serde_json::json!({
        "time": "2026-11-20T06:10:02Z", "manager": "dpkg", "package": "openssh-server",
        "arch": "amd64", "action": "replaced", "old": "1:9.2p1-2+deb12u5", "new": "1:9.2p1-2+deb12u6",
    });
    assert_eq!(json, expected);
}

#[test]
fn rotated_and_compressed_logs_are_read_and_only_those_of_the_time_asked_for() {
    let fixture = fixture();
    fixture.write("var/log/dpkg.log", LOG);
    fixture.write("var/log/dpkg.log.1", "2026-10-05 01:00:00 upgrade a:amd64 1 2\n");
    packed(&fixture, "var/log/dpkg.log.2.gz", b"2026-09-05 01:00:00 upgrade a:amd64 0 1\n");
    let oldest = b"2026-07-05 01:00:00 install a:amd64 <none> 0\n";
    packed(&fixture, "var/log/dpkg.log-20260801.gz", oldest);
    for (path, time) in [
        ("var/log/dpkg.log", "2026-11-21T07:00:02Z"),
        ("var/log/dpkg.log.1", "2026-10-31T00:00:00Z"),
        ("var/log/dpkg.log.2.gz", "2026-09-30T00:00:00Z"),
        ("var/log/dpkg.log-20260801.gz", "2026-08-01T00:00:00Z"),
    ] {
        written(&fixture, path, time);
    }
    let history = all(&fixture);
    assert_eq!(history.changes.len(), 7, "{history:?}");
    assert_eq!(history.changes.last().unwrap().clause(str::to_owned), "a 0 was installed");
    let later = read(&fixture.root(), at("2026-10-01T00:00:00Z"), 1000, PATIENCE).unwrap();
    assert_eq!(later.changes.len(), 5, "{later:?}");
    let newest = read(&fixture.root(), Timestamp::MIN, 2, PATIENCE).unwrap();
    assert_eq!(told(&newest), told(&history)[..2]);
    assert!(newest.more);
}

#[test]
fn a_package_that_came_without_the_logs_knowledge_is_told_by_its_list() {
    let fixture = fixture();
    for name in ["openssh-server.list", "liblzma5:amd64.list"] {
        fixture.write(&format!("var/lib/dpkg/info/{name}"), "/.\n/usr\n");
    }
    written(&fixture, "var/lib/dpkg/info/openssh-server.list", "2026-11-20T06:10:03Z");
    written(&fixture, "var/lib/dpkg/info/liblzma5:amd64.list", "2026-11-22T03:00:00Z");
    fixture.write("var/log/dpkg.log", LOG);
    let history = all(&fixture);
    assert_eq!(history.changes.len(), 5, "{history:?}");
    let first = &history.changes[0];
    assert_eq!((first.action, first.package.as_str()), (Action::Recorded, "liblzma5"));
    assert_eq!((first.time, &first.old), (at("2026-11-22T03:00:00Z"), &None));
    fs::remove_file(fixture.folder.path().join("var/log/dpkg.log")).unwrap();
    let history = all(&fixture);
    assert_eq!(history.changes.len(), 2, "{history:?}");
    assert!(history.gaps[0].contains("no dpkg.log"), "{history:?}");
}

#[test]
fn where_logs_cannot_be_listed_the_lists_of_files_tell_and_that_is_said() {
    let fixture = fixture();
    fixture.write("var/lib/dpkg/info/openssh-server.list", "/.\n");
    written(&fixture, "var/lib/dpkg/info/openssh-server.list", "2026-11-20T06:10:03Z");
    let folder = fixture.folder.path().join("var/log");
    std::os::unix::fs::symlink("log", &folder).unwrap();
    let history = all(&fixture);
    assert_eq!(
        told(&history),
        ["2026-11-20T06:10:03Z openssh-server 1:9.2p1-2+deb12u6 was installed"]
    );
    assert_eq!(history.gaps.len(), 1, "{history:?}");
    assert!(history.gaps[0].contains("var/log"), "{history:?}");
}

#[test]
fn what_reading_lists_may_take_is_bounded() {
    let fixture = fixture();
    fixture.write("var/lib/dpkg/info/openssh-server.list", "/.\n");
    fixture.write("var/log/dpkg.log", LOG);
    let history = read(&fixture.root(), Timestamp::MIN, 10, Duration::ZERO).unwrap();
    assert!(history.changes.is_empty(), "{history:?}");
    assert!(history.gaps.iter().any(|gap| gap.contains("not read within")), "{history:?}");
}

#[test]
fn many_logs_cut_a_history_only_where_they_are_of_the_time_asked_for() {
    let fixture = fixture();
    for number in 0..40 {
        let path = format!("var/log/dpkg.log.{number}");
        fixture.write(&path, "");
        written(&fixture, &path, &format!("2026-10-{:02}T00:00:00Z", number % 20 + 1));
    }
    assert!(all(&fixture).more);
    let later = read(&fixture.root(), at("2026-11-01T00:00:00Z"), 10, PATIENCE).unwrap();
    assert!(!later.more, "{later:?}");
}

#[test]
fn a_change_is_of_one_architecture_or_of_all() {
    let change = |arch: Option<&str>| PackageChange {
        time: Timestamp::MIN,
        manager: Manager::Dpkg,
        package: "liblzma5".to_owned(),
        arch: arch.map(str::to_owned),
        action: Action::Recorded,
        old: None,
        new: None,
    };
    assert!(change(Some("amd64")).is_of("liblzma5", "amd64"));
    assert!(!change(Some("i386")).is_of("liblzma5", "amd64"));
    assert!(change(None).is_of("liblzma5", "amd64"));
    assert!(change(Some("all")).is_of("liblzma5", "amd64"));
    assert!(change(Some("x86_64")).is_of("liblzma5", "noarch"));
    assert!(!change(None).is_of("liblzma", "amd64"));
}

#[test]
fn what_a_hostile_log_holds_costs_a_gap_or_nothing() {
    let fixture = fixture();
    fixture.write("var/log/dpkg.log", &format!("{}\n{LOG}", "x".repeat(100_000)));
    fs::write(
        fixture.folder.path().join("var/log/dpkg.log.1"),
        b"2026-11-20 06:10:02 upgrade \x1b[2J:amd64 1 2\n2026-11-20 06:10:02 upgrade a:\xff 1 2\n\
          2026-99-20 06:10:02 upgrade a:amd64 1 2\n2026-11-20 06:10:02 upgrade a:amd64 1 <none>\n\
          2026-11-20 06:10:02 remove a:amd64 <none> <none>\n\0\0\0\n2026-11-20 06:10:02 upgrade",
    )
    .unwrap();
    fixture.write("var/log/dpkg.log.2.gz", "no gzip");
    // Forty megabytes of nothing in a few kilobytes.
    let nothing = [&[b'x'; 4095][..], b"\n"].concat().repeat(10_240);
    packed(&fixture, "var/log/dpkg.log.3.gz", &nothing);
    fixture.write("var/log/dpkg.log.4.xz", "");
    let folder = fixture.folder.path().join("var/log");
    fs::create_dir(folder.join("dpkg.log.5")).unwrap();
    std::os::unix::fs::symlink("dpkg.log.6", folder.join("dpkg.log.6")).unwrap();
    let history = all(&fixture);
    assert_eq!(history.changes.len(), 4, "{history:?}");
    for name in ["log.2.gz", "log.3.gz", "log.4.xz", "log.5", "log.6"] {
        assert!(history.gaps.iter().any(|gap| gap.contains(name)), "{name}: {:?}", history.gaps);
    }
    assert_eq!(history.gaps.len(), 5, "{:?}", history.gaps);
}

#[test]
fn of_a_log_that_is_too_long_the_end_is_read_and_that_is_said() {
    let fixture = fixture();
    let filler = "2026-01-01 00:00:00 status installed filler:amd64 1\n".repeat(180_000);
    let first = "2025-01-01 00:00:00 upgrade a:amd64 1 2\n";
    fixture.write("var/log/dpkg.log", &format!("{first}{filler}{LOG}"));
    let history = all(&fixture);
    assert_eq!(history.changes.len(), 4);
    assert!(history.more);
}

#[test]
fn a_root_without_packages_is_an_error_and_apk_without_a_log_says_so() {
    let fixture = Fixture::new();
    let none = read(&fixture.root(), Timestamp::MIN, 10, PATIENCE);
    assert!(matches!(none, Err(PackageError::NoDatabase)), "{none:?}");
    fixture.write("lib/apk/db/installed", "P:musl\nV:1.2.5-r1\nA:x86_64\n\n");
    let history = all(&fixture);
    assert!(history.changes.is_empty() && history.gaps[0].contains("apk keeps no times"));
    let run = "Running `apk add x` at 2026-11-21 10:00:00\n(1/1) Installing x (1-r0)\n";
    fixture.write("var/log/apk.log", run);
    let history = all(&fixture);
    assert_eq!(told(&history), ["2026-11-21T10:00:00Z x 1-r0 was installed"]);
    assert!(history.gaps.is_empty(), "{history:?}");
}

#[test]
fn the_newest_are_kept_in_bounded_memory_whatever_their_order() {
    let mut found = Collector::new(at("2026-01-01T00:00:00Z"), 10);
    for second in (0..5000_u64).map(|number| number * 7919 % 5000) {
        let time = SystemTime::from(at("2026-01-01T00:00:00Z")) + Duration::from_secs(second);
        found.add(PackageChange {
            time: Timestamp::try_from(time).unwrap(),
            manager: Manager::Rpm,
            package: second.to_string(),
            arch: None,
            action: Action::Recorded,
            old: None,
            new: None,
        });
        assert!(found.kept.len() < 64);
    }
    let history = found.finish();
    let names: Vec<_> = history.changes.iter().map(|change| change.package.as_str()).collect();
    let expected: Vec<_> = (4990..5000).rev().map(|number: u64| number.to_string()).collect();
    assert_eq!(names, expected);
    assert!(history.more);
}
