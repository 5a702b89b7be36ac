//! `halfsecond replay` on recordings that are kept: no agent, no state, no privilege.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::harness::{Place, assert_plain, halfsecond, run};

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(name)
}

#[test]
fn the_incidents_of_a_recording_are_findings_and_those_of_a_clean_day_are_not() {
    let (attacked, clean) = (kept("attacked.rec"), kept("clean.rec"));
    let ended = run(halfsecond(&["replay"]).arg(&attacked)).expect(1);
    assert_plain(&ended.stdout);
    assert!(ended.stdout.contains("Recording of host1"), "{}", ended.stdout);
    let lines = run(halfsecond(&["replay", "--json"]).arg(&attacked)).expect(1).stdout;
    let critical = lines.lines().filter(|line| {
        let incident: Value = serde_json::from_str(line).unwrap();
        incident["severity"] == "critical"
    });
    assert_eq!(critical.count(), 1, "{lines}");
    let ended = run(halfsecond(&["replay", "--json"]).arg(&clean)).expect(0);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""));
}

#[test]
fn what_is_no_recording_exits_2_and_is_named() {
    let path = kept("attacked.txt");
    let ended = run(halfsecond(&["replay"]).arg(&path)).expect(2);
    assert!(ended.stdout.is_empty() && ended.stderr.contains("attacked.txt"), "{ended:#?}");
    assert!(ended.stderr.contains("no recording of halfsecond"), "{ended:#?}");
}

#[test]
fn a_recording_is_not_written_over() {
    let (place, path) = (Place::new(""), kept("clean.rec"));
    let before = std::fs::read(&path).unwrap();
    let ended = place.run(&["record", "--out", path.to_str().unwrap()]).expect(2);
    assert!(ended.stderr.contains("exists already"), "{ended:#?}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
