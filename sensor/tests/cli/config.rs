use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::harness::{Place, as_stranger, halfsecond, run};

const COMMANDS: [&[&str]; 3] = [&["run"], &["scan"], &["incidents"]];

#[test]
fn a_typo_exits_2_with_file_line_key_and_remedy_in_every_command() {
    let place = Place::new("[learning]\nobservation = 20\n");
    let file = place.path("halfsecond.toml");
    let expected = format!(
        "error: {}:5: unknown key `learning.observation`; did you mean `observations`?\n",
        file.display()
    );
    for command in COMMANDS {
        let ended = place.run(command).expect(2);
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", expected.as_str()));
    }
}

#[test]
fn every_mistake_is_told_at_once() {
    let place = Place::new("[detect]\nsettle = 10\nrun_length = 1\n");
    let ended = place.run(&["incidents"]).expect(2);
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains(":5: `detect.settle` = 10 is not a duration"), "{lines:?}");
    assert!(lines[1].contains(":6: `detect.run_length` = 1 is out of range"), "{lines:?}");
}

#[test]
fn a_file_that_was_asked_for_and_is_not_there_exits_2() {
    for command in COMMANDS {
        let ended = run(halfsecond(command).args(["--config", "/nowhere/x.toml"])).expect(2);
        assert_eq!(
            ended.stderr,
            "error: cannot read the configuration file /nowhere/x.toml: No such file or directory \
             (os error 2)\n"
        );
    }
}

#[test]
fn a_file_for_others_exits_3() {
    let place = Place::new("");
    place.open_to_all();
    let file = place.path("halfsecond.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = place.command(&["incidents"]);
    let Some(command) = as_stranger(&mut command) else { return };
    let ended = run(command).expect(3);
    assert!(ended.stderr.contains("Permission denied"), "{ended:#?}");
}
