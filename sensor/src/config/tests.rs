use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

const PATH: &str = "halfsecond.toml";

fn delivered() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/halfsecond.toml");
    fs::read_to_string(path).unwrap()
}

/// What is wrong with `text`, one line each.
fn problems(text: &str) -> Vec<String> {
    match file::parse(Path::new(PATH), text) {
        Ok(_) => Vec::new(),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    }
}

fn read(text: &str) -> Config {
    file::parse(Path::new(PATH), text).unwrap().0
}

#[test]
fn the_delivered_file_says_nothing_as_it_stands() {
    assert_eq!(read(&delivered()), Config::default());
}

#[test]
fn the_delivered_file_uncommented_says_the_defaults() {
    let text: String = delivered()
        .lines()
        // A comment of prose has a blank after the hash, a key has none.
        .map(|line| line.strip_prefix('#').filter(|key| !key.starts_with(' ')).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let (config, asked) = file::parse(Path::new(PATH), &text).unwrap();
    assert_eq!(config, Config::default());
    // Every key that is asked for stands in the file.
    for key in asked {
        let name = key.rsplit('.').next().unwrap();
        let written = |line: &str| {
            line.starts_with(&format!("{name} =")) || line.contains(&format!("[{name}]"))
        };
        assert!(text.lines().any(written), "`{key}` is not in deploy/halfsecond.toml");
    }
}

#[test]
fn mistakes_are_named_with_line_key_and_remedy() {
    for (text, expected) in [
        (
            "[learning]\nobservation = 20\n",
            "halfsecond.toml:2: unknown key `learning.observation`; did you mean `observations`?",
        ),
        (
            "stat_dir = \"/x\"\n",
            "halfsecond.toml:1: unknown key `stat_dir`; did you mean `state_dir`?",
        ),
        ("\n[detection]\n", "halfsecond.toml:2: unknown key `detection`; did you mean `detect`?"),
        ("[http]\nport = 9477\n", "halfsecond.toml:2: unknown key `http.port`; known here: listen"),
        (
            "[detect]\n\nsettle = \"10 msec\"\n",
            "halfsecond.toml:3: `detect.settle` = \"10 msec\" is not a duration; write a number \
             and ns, us, ms, s, min, h or d, like \"10ms\" or \"5min\"",
        ),
        (
            "[detect]\nsettle = \"1min\"\n",
            "halfsecond.toml:2: `detect.settle` = \"1min\" is out of range; write from \"0ns\" to \
             \"10s\"",
        ),
        (
            "[limits]\nqueue = 0\n",
            "halfsecond.toml:2: `limits.queue` = 0 is out of range; write a whole number from 16 \
             to 1048576",
        ),
        (
            "[limits]\nqueue = \"many\"\n",
            "halfsecond.toml:2: `limits.queue` = \"many\" is not a whole number; write a whole \
             number from 16 to 1048576",
        ),
        (
            "[limits]\nbulk_ring = \"3MiB\"\n",
            "halfsecond.toml:2: `limits.bulk_ring` = \"3MiB\" is not a power of two; write \
             \"2MiB\" or \"4MiB\"",
        ),
        (
            "[output]\nfile = \"incidents.jsonl\"\n",
            "halfsecond.toml:2: `output.file` = \"incidents.jsonl\" is not an absolute path; write \
             a path that begins with /, or \"off\"",
        ),
        (
            "[output]\nstdout = \"yes\"\n",
            "halfsecond.toml:2: `output.stdout` = \"yes\" is not a truth value; write true or \
             false",
        ),
        (
            "[http]\nlisten = \"localhost:9477\"\n",
            "halfsecond.toml:2: `http.listen` = \"localhost:9477\" is not an address and port; \
             write one like \"127.0.0.1:9477\" or \"[::1]:9477\", or \"off\"",
        ),
        (
            "[[guarded]]\nsshd = true\n",
            "halfsecond.toml:1: `guarded.path` is missing; add `path = \"/usr/sbin/sshd\"`",
        ),
        (
            "[logins]\nfailed_users = true\nkeep = 100001\n",
            "halfsecond.toml:3: `logins.keep` = 100001 is out of range; write a whole number from \
             0 to 100000",
        ),
        (
            "guarded = \"sshd\"\n",
            "halfsecond.toml:1: `guarded` is a list of sections, and not of type string; write \
             `[[guarded]]` once for each",
        ),
        (
            "[[functions]]\nlibrary = \"/lib/libc.so\"\nsymbol = \"crypt\"\n",
            "halfsecond.toml:2: `functions.library` = \"/lib/libc.so\" is not the start of a \
             library's file name; write one like \"libcrypto.so\"",
        ),
        (
            "http = 1\n",
            "halfsecond.toml:1: `http` is a section, and not of type integer; write `[http]` on \
             a line",
        ),
    ] {
        assert_eq!(problems(text), [expected], "{text}");
    }
}

#[test]
fn the_example_of_a_suppression_has_every_key_and_can_be_used() {
    let delivered = delivered();
    let example: String = delivered
        .lines()
        .skip_while(|line| *line != "# [[suppress]]")
        .map_while(|line| line.strip_prefix("# "))
        .fold(String::new(), |text, line| text + line + "\n");
    let (config, asked) = file::parse(Path::new(PATH), &example).unwrap();
    assert_eq!(config.suppress.len(), 1, "{example}");
    for key in asked.iter().filter_map(|key| key.strip_prefix("suppress.")) {
        assert!(example.contains(&format!("\n{key} = ")), "no {key} in {example}");
    }
}

#[test]
fn a_suppression_holds_to_the_end_of_its_day() {
    let until = |value: &str| {
        let text = format!(
            "[[suppress]]\nname = \"x\"\nsubject = \"/usr/sbin/sshd\"\nuntil = {value}\n\
             who = \"a\"\nwhy = \"b\"\n"
        );
        read(&text).suppress[0].until.to_string()
    };
    assert_eq!(until("2027-01-31"), "2027-01-31T23:59:59.999999999Z");
    assert_eq!(until("\"2027-01-31\""), "2027-01-31T23:59:59.999999999Z");
    assert_eq!(until("2027-01-31T18:00:00+01:00"), "2027-01-31T17:00:00Z");
    assert_eq!(until("\"2027-01-31T18:00:00Z\""), "2027-01-31T18:00:00Z");
}

#[test]
fn mistakes_in_suppressions_are_named_with_line_key_and_remedy() {
    for (text, expected) in [
        (
            "[[suppress]]\nname = \"x\"\ndetector = \"kernel_hook\"\nuntil = \"2027-01-31\"\n\
             who = \"a\"\nwhy = \"b\"\n",
            "halfsecond.toml:1: a rule of `suppress` says neither whose finding it is nor which file \
             is blamed; add `subject`, `package`, `build_id` or `sha256`: the name of a process is \
             everybody's",
        ),
        (
            "[[suppress]]\nname = \"x\"\nprocess = \"sshd\"\npackage = \"a\"\n\
             until = 2027-01-31\nwho = \"a\"\nwhy = \"b\"\n",
            "halfsecond.toml:3: unknown key `suppress.process`; known here: name, detector, subject, \
             package, build_id, sha256, until, who, why",
        ),
        (
            "[[suppress]]\nname = \"x\"\npackage = \"a\"\nuntil = \"soon\"\nwho = \"a\"\n\
             why = \"b\"\n",
            "halfsecond.toml:4: `suppress.until` = \"soon\" is no time; write a day or a time of \
             RFC 3339: \"2027-01-31\", \"2027-01-31T18:00:00Z\"",
        ),
        (
            "[[suppress]]\nname = \"x\"\nbuild_id = \"xyz\"\nuntil = 2027-01-31\nwho = \"a\"\n\
             why = \"b\"\n",
            "halfsecond.toml:3: `suppress.build_id` = \"xyz\" is no such number; write 8 to 128 \
             hexadecimal digits",
        ),
        (
            "[[suppress]]\nname = \"x\"\npackage = \"a\"\nuntil = 2027-01-31\nwho = \"a\"\n",
            "halfsecond.toml:1: `suppress.why` is missing; add `why = \"the tracer of ticket 4711\"`",
        ),
    ] {
        assert_eq!(problems(text), [expected], "{text}");
    }
}

#[test]
fn two_suppressions_of_one_name_are_refused() {
    let rule = "[[suppress]]\nname = \"x\"\npackage = \"a\"\nuntil = 2027-01-31\nwho = \"a\"\n\
                why = \"b\"\n";
    assert_eq!(read(rule).suppress.len(), 1);
    let expected = "halfsecond.toml:7: two rules of `suppress` have the name \"x\"; give each a name \
                    of its own";
    assert_eq!(problems(&format!("{rule}{rule}")), [expected]);
}

#[test]
fn every_mistake_is_told_in_the_order_of_the_file() {
    let text = "[limits]\nqueu = 5\nprocesses = 1\n[http]\nlisten = 1\n[nothing]\n";
    let lines: Vec<_> = problems(text).iter().map(|line| line[..18].to_owned()).collect();
    let expected =
        ["halfsecond.toml:2:", "halfsecond.toml:3:", "halfsecond.toml:5:", "halfsecond.toml:6:"];
    assert_eq!(lines, expected);
}

#[test]
fn what_is_no_toml_is_named_with_its_line() {
    for (text, start) in [
        ("[http\nlisten = 1", "halfsecond.toml:1: "),
        ("a = 1\nb = \"x", "halfsecond.toml:2: "),
        ("[http]\nlisten = \"off\"\nlisten = \"off\"\n", "halfsecond.toml:3: "),
    ] {
        let problems = problems(text);
        assert!(problems[0].starts_with(start), "{text:?}: {problems:?}");
        assert!(problems[0].contains("write it as TOML"), "{problems:?}");
    }
}

#[test]
fn what_is_written_is_used() {
    let config = read(
        "state_dir = \"/srv/hs\"\n[http]\nlisten = \"off\"\n[output]\nkeep = 0\n\
         [detect]\nsettle = \"0s\"\n[[guarded]]\npath = \"/opt/sshd\"\nsshd = true\n\
         [limits]\npriority_ring = \"64KiB\"\n",
    );
    assert_eq!(config.http.listen, None);
    assert_eq!(config.output.file, Some(PathBuf::from("/srv/hs/incidents.jsonl")));
    assert_eq!(config.output.keep, 0);
    assert_eq!(config.detect.settle, Duration::ZERO);
    assert_eq!(config.guarded, [GuardedProgram { path: PathBuf::from("/opt/sshd"), sshd: true }]);
    assert_eq!(config.limits.priority_ring_bytes, 65_536);
    assert_eq!(config.functions, Config::default().functions);
    assert!(read("functions = []\n").functions.is_empty());
}

#[test]
fn a_missing_file_is_an_error_only_where_it_was_asked_for() {
    let error = Config::load(Some(Path::new("/nowhere/halfsecond.toml"))).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration file /nowhere/halfsecond.toml");
}

#[test]
fn what_cannot_be_a_configuration_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Config::load(Some(folder.path())), Err(LoadError::Read { .. })));
    let large = folder.path().join("large.toml");
    fs::write(&large, "#".repeat(2 * 1024 * 1024)).unwrap();
    assert!(matches!(Config::load(Some(&large)), Err(LoadError::TooLarge { .. })));
    let binary = folder.path().join("binary.toml");
    fs::write(&binary, b"\xff\xfe\0").unwrap();
    assert!(matches!(Config::load(Some(&binary)), Err(LoadError::Read { .. })));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = file::parse(Path::new(PATH), &text);
    }

    #[test]
    fn any_value_of_a_known_key_is_read_or_refused(
        key in "(http|output|learning|detect|limits)\\.(listen|file|keep|settle|queue|bulk_ring)",
        value in "(\"[^\"\\\\\n]{0,20}\"|-?[0-9]{1,25}|0x[0-9a-f]{1,20}|true|\\[\\]|\\{\\}|[0-9]\\.[0-9]|inf)",
    ) {
        let _ = file::parse(Path::new(PATH), &format!("{key} = {value}\n"));
    }
}
