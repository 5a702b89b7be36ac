use std::fs::OpenOptions;

use super::harness::{Place, assert_plain, halfsecond, run};

#[test]
fn wrong_usage_exits_2_and_says_so_on_standard_error() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["scan", "--frobnicate"],
        &["scan", "--pid", "0"],
        &["scan", "--pid", "one"],
        &["incidents", "a", "b"],
        &["doctor", "-v", "--log-level", "info"],
        &["doctor", "--log-level", "loud"],
        &["logins", "--since", "yesterday"],
        &["logins", "--limit", "0"],
        &["logins", "--plot", "--json"],
        &["record", "--for", "soon"],
        &["run", "--with-arguments"],
        &["replay"],
    ] {
        let ended = run(&mut halfsecond(arguments)).expect(2);
        assert!(ended.stdout.is_empty() && ended.stderr.contains("--help"), "{ended:#?}");
    }
}

#[test]
fn help_tells_commands_exit_codes_and_examples() {
    let ended = run(&mut halfsecond(&["--help"])).expect(0);
    assert_plain(&ended.stdout);
    let commands = ["run", "scan", "libs", "doctor", "incidents", "explain", "logins", "upgrades"];
    let commands = commands.into_iter().chain(["baseline", "record", "replay"]);
    for text in commands.clone().chain(["--config", "--json", "Exit codes:"]) {
        assert!(ended.stdout.contains(text), "no {text:?} in {}", ended.stdout);
    }
    for command in commands {
        let ended = run(&mut halfsecond(&[command, "--help"])).expect(0);
        assert!(ended.stdout.contains("Examples:"), "{command}: {}", ended.stdout);
    }
}

#[test]
fn every_command_of_the_help_is_there() {
    let help = run(&mut halfsecond(&["--help"])).expect(0).stdout;
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let named: Vec<_> =
        commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(
        named,
        [
            "run",
            "scan",
            "libs",
            "doctor",
            "incidents",
            "explain",
            "logins",
            "upgrades",
            "baseline",
            "record",
            "replay",
            "help"
        ]
    );
}

#[test]
fn a_log_filter_that_is_none_exits_2_and_names_the_variable() {
    let ended = run(halfsecond(&["doctor"]).env("HALFSECOND_LOG", "a=b=c")).expect(2);
    assert!(ended.stderr.contains("HALFSECOND_LOG=\"a=b=c\" is no log filter"), "{ended:#?}");
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    let place = Place::new("");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = run(place.command(&["incidents"]).stdout(writer)).expect(0);
    assert_eq!(ended.stderr, "");
}

#[test]
fn standard_output_that_cannot_be_written_exits_4() {
    let place = Place::new("");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = run(place.command(&["incidents"]).stdout(full)).expect(4);
    assert!(ended.stderr.contains("cannot write to standard output: No space left"), "{ended:#?}");
}
