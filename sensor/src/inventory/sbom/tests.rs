#[path = "../../../tests/schemas/cyclonedx.rs"]
mod cyclonedx;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::*;
use crate::inventory::collect::{Tally, Use};
use crate::inventory::elf::ElfFacts;
use crate::inventory::file::Unread;
use crate::inventory::owner::{Owner, Package};
use crate::inventory::process::Process;
use cyclonedx::assert_valid;

fn process(pid: u32, exe: &str, container: Option<&str>) -> Process {
    Process {
        pid,
        comm: "x".into(),
        exe: exe.into(),
        uid: 0,
        user: None,
        container: container.map(str::to_owned),
        pod: None,
        root: "/".into(),
        started: Timestamp::UNIX_EPOCH,
        is_static: false,
    }
}

fn file(path: &[u8], ino: u64, build_id: Option<&str>, owner: Owner) -> File {
    let elf = ElfFacts {
        build_id: build_id.map(str::to_owned),
        soname: Some("lib\u{1b}x.so".into()),
        interpreter: true,
    };
    File {
        path: crate::inventory::root::path_of(path),
        dev: 1,
        ino,
        size: Some(1),
        memory: false,
        deleted: Some(false),
        replaced: None,
        elf: Some(Arc::new(elf)),
        unread: None,
        owner,
        sha256: None,
        content: None,
        changed: None,
        link: None,
    }
}

fn package() -> Owner {
    Owner::Package(Package {
        manager: "dpkg".into(),
        name: "libssl3".into(),
        version: Some("3.0.11-1~deb12u2".into()),
        arch: Some("amd64".into()),
        purl: Some("pkg:deb/debian/libssl3@3.0.11-1~deb12u2?arch=amd64".into()),
        recorded: None,
    })
}

/// Two containers of one image and the host; ino is what a file system would make of them.
fn inventory() -> Inventory {
    let unknown = || Owner::Unknown("not read".into());
    let files = vec![
        file(b"/usr/bin/app", 1, Some("aa"), unknown()),
        file(b"/usr/bin/app", 2, Some("aa"), unknown()),
        file(b"/usr/lib/libssl.so.3", 3, Some("bb"), package()),
        file(b"/usr/lib/libssl.so.3", 4, Some("bb"), package()),
        File {
            deleted: Some(true),
            ..file(b"/usr/lib/libssl.so.3", 5, Some("cc"), package().of_an_earlier_file())
        },
        file(b"/opt/same.so", 6, None, Owner::Unowned),
        file(b"/opt/same.so", 7, None, Owner::Unowned),
        File {
            elf: None,
            size: None,
            unread: Some(Unread::Remote("nfs4".into())),
            ..file(b"/srv/\xff\n\x1b[2J.so.1", 8, None, unknown())
        },
    ];
    let one = |process, file, role| Use { process, file, role, code: true };
    let (app, lib) = (Role::Application, Role::Library);
    Inventory {
        processes: vec![
            process(10, "/usr/bin/app", Some("one")),
            process(11, "/usr/bin/app", Some("two")),
            process(12, "/usr/bin/app", None),
        ],
        files,
        uses: vec![
            one(0, 0, app),
            one(0, 2, lib),
            one(0, 5, lib),
            one(1, 1, app),
            one(1, 3, lib),
            one(1, 6, lib),
            one(2, 0, app),
            one(2, 4, lib),
            one(2, 7, lib),
        ],
        tally: Tally { processes: 3, read: 3, ..Tally::default() },
    }
}

fn document(inventory: &Inventory) -> Value {
    let host = Host { name: "h".into(), ..Host::default() };
    serde_json::to_value(Bom::new(inventory, &host, Timestamp::UNIX_EPOCH)).unwrap()
}

/// The components with this name.
fn named<'a>(bom: &'a Value, name: &str) -> Vec<&'a Value> {
    bom["components"].as_array().unwrap().iter().filter(|one| one["name"] == name).collect()
}

fn properties(component: &Value, name: &str) -> Vec<String> {
    let name = format!("halfsecond:{name}");
    let all = component["properties"].as_array().unwrap();
    let values = all.iter().filter(|one| one["name"] == name.as_str());
    values.map(|one| one["value"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn packages_stale_unread_and_hostile_files_make_a_valid_bill() {
    let bom = document(&inventory());
    assert_valid(&bom);
    let [stale, current] = named(&bom, "libssl.so.3")[..] else { panic!("{bom:#}") };
    let (stale, current) = match properties(stale, "deleted")[0].as_str() {
        "true" => (stale, current),
        _ => (current, stale),
    };
    assert_eq!(current["version"], "3.0.11-1~deb12u2");
    assert!(current["purl"].as_str().unwrap().starts_with("pkg:deb/debian/libssl3@"));
    assert_eq!(properties(current, "container"), ["one", "two"]);
    assert_eq!(properties(current, "processes"), ["2"]);
    // The package database knows the version of the file that came after it.
    assert_eq!((&stale["version"], &stale["purl"]), (&"3".into(), &Value::Null), "{stale:#}");
    assert_eq!(properties(stale, "package"), ["libssl3"]);
    assert_eq!(properties(stale, "version-from"), ["file name"]);
}

#[test]
fn equal_build_ids_are_one_component_and_files_without_are_not() {
    let bom = document(&inventory());
    assert_eq!(named(&bom, "app").len(), 1);
    assert_eq!(named(&bom, "same.so").len(), 2);
    let app = &named(&bom, "app")[0]["bom-ref"];
    let dependencies = bom["dependencies"].as_array().unwrap();
    let of_app = dependencies.iter().find(|one| one["ref"] == *app).unwrap();
    assert_eq!(of_app["dependsOn"].as_array().unwrap().len(), 5, "{of_app:#}");
}

#[test]
fn the_order_in_which_files_were_met_does_not_show() {
    let one = inventory();
    let mut other = inventory();
    let last = u32::try_from(other.files.len() - 1).unwrap();
    other.files.reverse();
    for one in &mut other.uses {
        one.file = last - one.file;
    }
    assert_eq!(document(&one), document(&other));
}

#[test]
fn a_bill_with_gaps_says_incomplete() {
    let whole = inventory();
    assert_eq!(document(&whole)["compositions"][0]["aggregate"], "complete");
    let mut partly = inventory();
    partly.tally.denied = 1;
    assert_eq!(document(&partly)["compositions"][0]["aggregate"], "incomplete");
}
