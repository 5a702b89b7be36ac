use std::fs;

use tempfile::TempDir;

use super::*;
use crate::record::Step;
use crate::record::testing::{incident, recording};

fn attacked() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/attacked.rec")
}

fn run(global: &Global, args: &ReplayArgs) -> Result<(Exit, String), Failure> {
    let mut out = Vec::new();
    let exit = replayed(global, args, &mut out)?;
    Ok((exit, String::from_utf8(out).unwrap()))
}

fn global(json: bool, config: Option<PathBuf>) -> Global {
    Global { config, json, verbose: 0, log_level: None }
}

fn args(file: PathBuf, diff: Option<PathBuf>) -> ReplayArgs {
    ReplayArgs { file, id: None, diff }
}

fn in_folder(folder: &TempDir, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn incidents_are_written_as_by_the_command_for_them() {
    let args = args(attacked(), None);
    let (exit, text) = run(&global(false, None), &args).unwrap();
    assert_eq!(exit, Exit::Findings);
    assert!(text.starts_with("Recording of host1, begun 2023-11-14T22:13:20Z by"), "{text}");
    assert!(text.contains("SEVERITY") && text.contains("critical"), "{text}");
    let (exit, lines) = run(&global(true, None), &args).unwrap();
    assert_eq!(exit, Exit::Findings);
    let all: Vec<Incident> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let one = ReplayArgs { id: Some(all[0].id.clone()), ..args };
    let (_, shown) = run(&global(true, None), &one).unwrap();
    assert_eq!(shown.trim_end(), lines.lines().next().unwrap());
}

#[test]
fn what_another_build_wrote_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    let (_, lines) = run(&global(true, None), &args(attacked(), None)).unwrap();
    let before = in_folder(&folder, "before.jsonl", &lines);
    let same = args(attacked(), Some(before));
    let (exit, text) = run(&global(false, None), &same).unwrap();
    assert_eq!((exit, text.as_str()), (Exit::Success, "The incidents are the same.\n"));
    assert_eq!(run(&global(true, None), &same).unwrap(), (Exit::Success, String::new()));

    let mut all: Vec<Incident> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    all[0].score += 1;
    all.push(incident("ghost", "/usr/bin/su cd", 0));
    let all: Vec<String> = all.iter().map(|one| serde_json::to_string(one).unwrap()).collect();
    let other = args(attacked(), Some(in_folder(&folder, "other.jsonl", all.join("\n"))));
    let (exit, text) = run(&global(false, None), &other).unwrap();
    assert_eq!(exit, Exit::Findings);
    assert!(text.contains("removed  ghost high"), "{text}");
    assert!(text.contains("changed ") && text.contains("  score "), "{text}");
    let (_, lines) = run(&global(true, None), &other).unwrap();
    let changes: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(changes.iter().any(|one| one["change"] == "removed" && one["before"]["id"] == "ghost"));
    assert!(changes.iter().any(|one| one["change"] == "changed" && one["differs"][0].is_string()));
}

#[test]
fn another_configuration_is_compared_with_the_one_in_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    let patient = in_folder(&folder, "patient.toml", "[learning]\nobservations = 1000\n");
    let (exit, text) = run(&global(false, None), &args(attacked(), Some(patient.clone()))).unwrap();
    assert_eq!(exit, Exit::Findings, "{text}");
    // Against itself.
    let same = args(attacked(), Some(patient.clone()));
    assert_eq!(run(&global(false, Some(patient)), &same).unwrap().0, Exit::Success);
}

#[test]
fn rules_of_another_configuration_are_compared_with_those_of_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    let rule = "[[suppress]]\nname = \"lab\"\nsubject = \"/usr/sbin/sshd\"\n\
                until = 2027-01-31\nwho = \"bob\"\nwhy = \"a lab\"\n";
    // As in the recordings.
    let settled = "[learning]\nobservations = 5\n";
    let without = in_folder(&folder, "without.toml", settled);
    let with = in_folder(&folder, "with.toml", format!("{settled}{rule}"));
    let usual = run(&global(false, Some(without.clone())), &args(attacked(), None)).unwrap().1;
    assert!(usual.contains(" observations.\n"), "{usual}");
    let shown = run(&global(false, Some(with.clone())), &args(attacked(), None)).unwrap().1;
    assert!(shown.contains(" findings suppressed.\n"), "{shown}");
    let (exit, text) = run(&global(false, None), &args(attacked(), Some(with.clone()))).unwrap();
    assert_eq!(exit, Exit::Findings);
    assert!(text.contains(", suppressed by rule lab"), "{text}");
    let (_, text) = run(&global(false, Some(with)), &args(attacked(), Some(without))).unwrap();
    assert!(text.contains(", not suppressed"), "{text}");
}

#[test]
fn decisions_in_a_recording_are_shown_with_its_incidents() {
    let decided = attacked().with_file_name("decided.rec");
    let (exit, text) = run(&global(false, None), &args(decided.clone(), None)).unwrap();
    assert_eq!(exit, Exit::Findings);
    assert!(text.contains(" 4 decisions, ") && text.contains(" findings suppressed"), "{text}");
    let (_, lines) = run(&global(true, None), &args(decided, None)).unwrap();
    assert!(lines.contains("\"who\":\"carol\""), "{lines}");
}

#[test]
fn files_that_cannot_be_replayed_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = recording(&[Step::Loss, Step::Tick(7)]);
    let mut damaged = whole.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let cut = &whole[..whole.len() - 1];
    for (name, bytes, says) in [
        ("text", &b"hello, I am no recording"[..], "no recording"),
        ("damaged", &damaged, "damaged in the frame at byte"),
    ] {
        let path = in_folder(&folder, name, bytes);
        let failure = run(&global(false, None), &args(path.clone(), None)).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        let told = failure.told();
        assert!(told.contains(path.to_str().unwrap()) && told.contains(says), "{told}");
    }
    let cut = args(in_folder(&folder, "cut", cut), None);
    assert_eq!(run(&global(true, None), &cut).unwrap(), (Exit::Success, String::new()));
    let missing = args(folder.path().join("none"), None);
    assert_eq!(run(&global(false, None), &missing).unwrap_err().exit(), Exit::Usage);
    let whole = in_folder(&folder, "whole", whole);
    let nonsense = in_folder(&folder, "nonsense.jsonl", "{}\n");
    let told = run(&global(false, None), &args(whole, Some(nonsense))).unwrap_err().told();
    assert!(told.contains("nonsense.jsonl:1: no incident"), "{told}");
}
