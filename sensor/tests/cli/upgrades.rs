use std::fs;

use serde_json::Value;

use super::harness::{Place, assert_plain};

/// As dpkg of Debian 12 writes it, and what nobody but a hostile image has.
const LOG: &str = "2026-11-20 06:10:02 upgrade openssh-server:amd64 1:9.2p1-2+deb12u5 1:9.2p1-2+deb12u6\n\
    2026-11-20 06:10:03 status unpacked openssh-server:amd64 1:9.2p1-2+deb12u6\n\
    2026-11-21 10:00:00 upgrade liblzma5:amd64 5.4.1-0.2 5.6.1-1\n\
    2026-11-21 11:00:00 upgrade \u{1b}[2J:amd64 1 2\n\
    2026-11-21 12:00:00 remove \u{202e}x:amd64 1 <none>\n";

/// A place with a system below `root`, whose log this is.
fn with(log: &str) -> Place {
    let place = Place::new("");
    fs::create_dir_all(place.path("root/var/lib/dpkg")).unwrap();
    fs::create_dir_all(place.path("root/var/log")).unwrap();
    place.write("root/var/lib/dpkg/status", "");
    place.write("root/var/log/dpkg.log", log);
    place
}

fn run(place: &Place, more: &[&str]) -> super::harness::Ended {
    let root = place.path("root");
    let root = root.to_str().unwrap();
    place.run(&[&["upgrades", "--root", root], more].concat())
}

#[test]
fn changes_are_listed_newest_first_and_steer_no_terminal() {
    let ended = run(&with(LOG), &[]).expect(0);
    assert_plain(&ended.stdout);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ended.stdout);
    assert!(lines[0].starts_with("TIME"), "{}", ended.stdout);
    assert!(lines[1].contains("liblzma5:amd64") && lines[1].contains("5.6.1-1"), "{}", lines[1]);
    for text in ["2026-11-20T06:10:02Z", "replaced", "1:9.2p1-2+deb12u5", "1:9.2p1-2+deb12u6"] {
        assert!(lines[2].contains(text), "no {text:?} in {}", lines[2]);
    }
    assert_eq!(ended.stderr, "");
}

#[test]
fn json_has_one_object_per_line_with_stable_keys() {
    let ended = run(&with(LOG), &["--json"]).expect(0);
    let lines: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{}", ended.stdout);
    assert_eq!(lines[0]["package"], "liblzma5");
    assert_eq!(lines[0]["action"], "replaced");
    assert_eq!((&lines[0]["old"], &lines[0]["new"]), (&"5.4.1-0.2".into(), &"5.6.1-1".into()));
    assert_eq!(lines[0]["behaviour"], Value::Null, "this host's baselines say nothing of it");
    for key in ["time", "manager", "package", "arch", "action", "old", "new", "behaviour"] {
        assert!(lines[1].get(key).is_some(), "no {key} in {}", lines[1]);
    }
}

#[test]
fn since_and_limit_choose() {
    let place = with(LOG);
    let since = run(&place, &["--since", "2026-11-21T00:00:00Z"]).expect(0);
    assert!(since.stdout.contains("liblzma5") && !since.stdout.contains("openssh"), "{since:#?}");
    let one = run(&place, &["--limit", "1"]).expect(0);
    assert!(one.stdout.contains("There are older ones"), "{one:#?}");
    assert!(!one.stdout.contains("openssh"), "{one:#?}");
    let one = run(&place, &["--limit", "1", "--json"]).expect(0);
    assert!(one.stderr.contains("there are older ones"), "{one:#?}");
    assert_eq!(one.stdout.lines().count(), 1, "{one:#?}");
    let none = run(&place, &["--since", "2026-11-22T00:00:00Z"]).expect(0);
    assert_eq!(none.stdout, "No changes of packages.\n");
    run(&place, &["--since", "yesterday"]).expect(2);
    run(&place, &["--limit", "0"]).expect(2);
}

#[test]
fn a_system_without_packages_exits_3_and_what_is_missing_is_said() {
    let place = with(LOG);
    fs::remove_file(place.path("root/var/lib/dpkg/status")).unwrap();
    let ended = run(&place, &[]).expect(3);
    assert!(ended.stderr.contains("no package database"), "{ended:#?}");
    assert_eq!(ended.stdout, "");
    let place = with(LOG);
    fs::remove_file(place.path("root/var/log/dpkg.log")).unwrap();
    let ended = run(&place, &[]).expect(0);
    assert!(ended.stderr.contains("there is no dpkg.log"), "{ended:#?}");
    assert!(ended.stdout.contains("not everything was read"), "{ended:#?}");
    let absent = place.path("absent");
    let absent = place.run(&["upgrades", "--root", absent.to_str().unwrap()]).expect(2);
    assert!(absent.stderr.contains("name a directory"), "{absent:#?}");
}
