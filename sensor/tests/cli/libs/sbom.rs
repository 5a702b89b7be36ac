#[path = "../../schemas/cyclonedx.rs"]
mod cyclonedx;

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::fixture::{Library, Running};
use crate::harness::Place;
use cyclonedx::{assert_valid, validator};

fn bom(place: &Place) -> Value {
    let ended = place.run(&["libs", "--sbom"]).expect(0);
    serde_json::from_str(&ended.stdout).unwrap()
}

fn property<'a>(component: &'a Value, name: &str) -> Option<&'a str> {
    let name = format!("halfsecond:{name}");
    let properties = component["properties"].as_array()?;
    properties.iter().find(|one| one["name"] == name.as_str())?["value"].as_str()
}

#[test]
fn the_bill_is_valid_by_the_published_schema_and_has_what_is_mapped() {
    let (library, gone) = (Library::build(), Library::build());
    let _sleeper = Running::with(&library.path);
    let _again = Running::with(&library.path);
    let _stale = Running::with(&gone.path);
    fs::remove_file(&gone.path).unwrap();
    let bom = bom(&Place::new(""));
    assert_valid(&bom);
    assert_eq!((&bom["specVersion"], &bom["version"]), (&"1.6".into(), &1.into()));
    let serial = bom["serialNumber"].as_str().unwrap();
    assert!(serial.starts_with("urn:uuid:") && serial.len() == 45, "{serial}");
    let components = bom["components"].as_array().unwrap();
    let find = |path: &str| {
        let mut found = components.iter().filter(|one| property(one, "path") == Some(path));
        found.next().unwrap_or_else(|| panic!("no component {path}"))
    };
    let component = find(library.path.to_str().unwrap());
    assert_eq!((&component["type"], &component["version"]), (&"library".into(), &"1.2.3".into()));
    assert_eq!(component["name"], library.file_name());
    for (name, value) in [
        ("build-id", library.build_id.as_str()),
        ("deleted", "false"),
        ("processes", "2"),
        ("version-from", "file name"),
    ] {
        assert_eq!(property(component, name), Some(value), "{component:#}");
    }
    assert_eq!(property(find(gone.path.to_str().unwrap()), "deleted"), Some("true"));
    let needing = bom["dependencies"].as_array().unwrap().iter().find(|one| {
        let needs = one["dependsOn"].as_array().unwrap();
        needs.contains(&component["bom-ref"])
    });
    let program = needing.unwrap()["ref"].as_str().unwrap();
    let program = components.iter().find(|one| one["bom-ref"] == program).unwrap();
    assert_eq!((&program["type"], &program["name"]), (&"application".into(), &"sleep".into()));
}

#[test]
fn what_could_be_read_has_its_digest_and_the_rest_a_reason() {
    let (library, huge) = (Library::build(), Library::build());
    // Longer than is ever hashed, and nearly all of it a hole.
    fs::OpenOptions::new().append(true).open(&huge.path).unwrap().set_len(300 << 20).unwrap();
    let _sleeper = Running::with(&library.path);
    let _other = Running::with(&huge.path);
    let bom = bom(&Place::new(""));
    assert_valid(&bom);
    let components = bom["components"].as_array().unwrap();
    let find = |library: &Library| {
        let path = library.path.to_str();
        components.iter().find(|one| property(one, "path") == path).unwrap()
    };
    let output = std::process::Command::new("sha256sum").arg(&library.path).output().unwrap();
    let digest = String::from_utf8(output.stdout).unwrap();
    let digest = digest.split(' ').next().unwrap();
    let hashes = json!([{"alg": "SHA-256", "content": digest}]);
    assert_eq!(find(&library)["hashes"], hashes);
    let huge = find(&huge);
    assert_eq!(huge["hashes"], Value::Null, "{huge:#}");
    assert!(property(huge, "not-hashed").unwrap().contains("are more than the"), "{huge:#}");
    let count = |name: &str| -> u64 { property(&bom["metadata"], name).unwrap().parse().unwrap() };
    assert!(count("files-hashed") > 3 && count("files-not-hashed") >= 1, "{:#}", bom["metadata"]);
}

#[test]
fn references_are_unique_lead_somewhere_and_stand_in_order() {
    let library = Library::build();
    let _sleeper = Running::with(&library.path);
    let bom = bom(&Place::new(""));
    let components = bom["components"].as_array().unwrap();
    let listed: Vec<&str> = components.iter().map(|one| one["bom-ref"].as_str().unwrap()).collect();
    let mut all: BTreeSet<&str> = listed.iter().copied().collect();
    assert_eq!(all.len(), listed.len(), "{listed:#?}");
    let paths: Vec<_> = components.iter().skip(1).map(|one| property(one, "path")).collect();
    assert!(paths.is_sorted(), "{paths:#?}");
    all.insert(bom["metadata"]["component"]["bom-ref"].as_str().unwrap());
    let mut told = BTreeSet::new();
    for dependency in bom["dependencies"].as_array().unwrap() {
        let from = dependency["ref"].as_str().unwrap();
        assert!(all.contains(from) && told.insert(from), "{from}");
        for to in dependency["dependsOn"].as_array().unwrap() {
            assert!(all.contains(to.as_str().unwrap()), "{to}");
        }
    }
    assert_eq!(told, all, "every component has its line");
}

#[test]
fn the_schema_refuses_what_is_wrong() {
    let right = bom(&Place::new(""));
    let validator = validator();
    assert!(validator.is_valid(&right));
    for (pointer, value) in [
        ("/components/0/type", json!("lib")),
        ("/serialNumber", json!("urn:uuid:1")),
        ("/metadata/timestamp", json!("yesterday")),
        ("/compositions/0/aggregate", json!("most")),
        ("/dependencies/0/ref", json!("")),
    ] {
        let mut wrong = right.clone();
        *wrong.pointer_mut(pointer).unwrap() = value;
        assert!(!validator.is_valid(&wrong), "{pointer}");
    }
}

#[test]
fn a_bill_goes_into_a_file_as_a_whole() {
    let place = Place::new("");
    let file = place.path("host.cdx.json");
    let ended = place.run(&["libs", "--sbom", file.to_str().unwrap()]).expect(0);
    assert_eq!(ended.stdout, "");
    assert_valid(&serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap());
    let nowhere = place.path("no/such/folder.json");
    let ended = place.run(&["libs", "--sbom", nowhere.to_str().unwrap()]).expect(4);
    assert!(ended.stderr.contains("folder.json"), "{ended:#?}");
}
