//! Baselines by hand: shown, compared, approved, forgotten, carried to other hosts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use sensor::baseline::WriterLock;
use serde_json::{Value, json};

use super::harness::{Ended, Place, as_stranger, assert_plain, keys, run};

const SSHD: &str = "/usr/sbin/sshd ab12";
const CAT: &str = "/usr/bin/cat cd34";
const LZMA: &str = "/lib/liblzma.so.5.4.1";

fn baseline(starts: u64) -> Value {
    let then = "2025-11-20T10:00:00Z";
    let seen = json!({"first": then, "last": then});
    json!({
        "starts": starts, "since_new": starts, "late": 0, "methods": {"publickey": starts},
        "first_seen": then, "last_seen": then,
        "libraries": [
            [{"path": LZMA, "build": "aa01"}, seen],
            [{"path": "/lib/libcrypto.so.3", "build": "aa02"}, seen],
        ],
        "callers": {"RSA_public_decrypt": {
            "calls": 9, "modules": [{"path": "/usr/sbin/sshd", "build": "ab12"}],
        }},
        "openings": {"starts": starts, "askers": {
            "/lib/nss.so": [{"path": "/lib/libc.so.6", "build": "aa03"}],
        }},
        "environment": ["LD_LIBRARY_PATH"], "helpers": ["/usr/bin/keys"],
        "link": {"total": 0, "latest_us": []}, "shares": {}, "auth": {},
        "shifts": {"constructors": {"reference": [[60, 40]], "wealth": [0, 0, 0]}},
    })
}

/// An export without a signature.
fn export(subjects: &[(&str, Value)]) -> String {
    let head = json!({
        "format": "halfsecond-baselines", "version": 1, "host": "golden",
        "exported": "2025-11-21T10:00:00Z", "sensor": "0.1.0", "observations": 20,
        "subjects": subjects.len(),
    });
    let mut lines = vec![head];
    lines
        .extend(subjects.iter().map(|(subject, one)| json!({"subject": subject, "baseline": one})));
    lines.push(json!({"signature": null}));
    lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
}

/// A place whose baselines were imported by force, as nobody but a sensor learns any.
fn learned() -> Place {
    let place = Place::new("");
    place.write("golden.jsonl", &export(&[(SSHD, baseline(60)), (CAT, baseline(17))]));
    let ended = place.baseline(&["import", "golden.jsonl", "--force", "--times"]).expect(0);
    assert!(ended.stdout.contains("2 programs that were not known here"), "{ended:#?}");
    place
}

trait Baseline {
    fn baseline(&self, arguments: &[&str]) -> Ended;
    fn signed(&self, key: &str) -> String;
}

impl Baseline for Place {
    /// In the place's folder, so that files are named by their names.
    fn baseline(&self, arguments: &[&str]) -> Ended {
        let mut command = self.command(&[&["baseline"], arguments].concat());
        run(command.current_dir(self.folder.path()))
    }

    /// Makes a key and an export signed with it; its public key.
    fn signed(&self, key: &str) -> String {
        let made = self.baseline(&["key", key]).expect(0);
        self.baseline(&["export", "signed.jsonl", "--key", key]).expect(0);
        made.stdout.trim_end().to_owned()
    }
}

/// `approve SUBJECT … --who alice --why 'ticket 42'`.
fn approve(place: &Place, arguments: &[&str]) -> Ended {
    place.baseline(&[&["approve"], arguments, &["--who", "alice", "--why", "ticket 42"]].concat())
}

#[test]
fn a_host_that_has_learned_nothing_says_so() {
    let place = Place::new("");
    let ended = place.baseline(&["show"]).expect(0);
    assert_eq!(ended.stdout, "No baselines: no sensor has learned anything here.\n");
    assert_eq!(place.baseline(&["show", "--json"]).expect(0).stdout, "");
    let ended = place.baseline(&["show", "sshd"]).expect(2);
    assert!(ended.stderr.contains("no program that is known matches \"sshd\""), "{ended:#?}");
}

#[test]
fn wrong_usage_exits_2_and_names_the_help() {
    let place = Place::new("");
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["approve", "sshd", "--library", "/x"],
        &["approve", "sshd", "--who", "a", "--why", "b"],
        &["approve", "--library", "/x@aa", "--who", "a", "--why", "b"],
        &["approve", "sshd", "--incident", "a", "--who", "a", "--why", "b"],
        &["forget"],
        &["import"],
        &["export"],
        &["key"],
        &["diff"],
    ] {
        let ended = place.baseline(arguments).expect(2);
        assert!(ended.stdout.is_empty() && ended.stderr.contains("--help"), "{ended:#?}");
    }
    for command in ["show", "diff", "approve", "forget", "export", "import", "key"] {
        let ended = place.baseline(&[command, "--help"]).expect(0);
        assert_plain(&ended.stdout);
        assert!(ended.stdout.contains("Examples:"), "{command}: {}", ended.stdout);
    }
}

#[test]
fn all_are_listed_with_their_state_and_one_is_shown_in_full() {
    let place = learned();
    let list = place.baseline(&["show"]).expect(0);
    assert_plain(&list.stdout);
    let lines: Vec<&str> = list.stdout.lines().collect();
    assert!(lines[0].starts_with("STATE"), "{}", list.stdout);
    assert!(lines[1].starts_with("learning  17") && lines[1].contains(CAT), "{}", lines[1]);
    assert!(lines[1].ends_with("17 of 20 starts; last new library 17 starts ago (wanted are 20)"));
    assert!(lines[2].starts_with("settled   60") && lines[2].contains(SSHD), "{}", lines[2]);
    let json = place.baseline(&["show", "--json"]).expect(0).lines();
    assert_eq!((&json[0]["state"], &json[1]["state"]), (&json!("learning"), &json!("settled")));
    assert_eq!(json[1]["reasons"].as_array().unwrap().len(), 1);
    assert_eq!(
        keys(&json[1]),
        [
            "approvals",
            "build",
            "container",
            "first_seen",
            "guarded",
            "imports",
            "last_seen",
            "libraries",
            "program",
            "reasons",
            "starts",
            "state",
            "subject",
            "unit",
        ]
    );
    let one = place.baseline(&["show", "sshd"]).expect(0);
    assert_plain(&one.stdout);
    for text in [
        SSHD,
        "60 logins",
        LZMA,
        "aa01",
        "RSA_public_decrypt",
        "/lib/nss.so",
        "LD_LIBRARY_PATH",
        "/usr/bin/keys",
        "publickey",
        "constructors",
        "40 of 200",
        "0 of 1000000",
        "from golden",
        "by force: nobody vouches for it",
    ] {
        assert!(one.stdout.contains(text), "no {text:?} in {}", one.stdout);
    }
    let json = &place.baseline(&["show", SSHD, "--json"]).expect(0).lines()[0];
    assert_eq!(json["baseline"]["libraries"][0][0]["build"], "aa01");
    assert_eq!(json["streams"][0]["stream"], "constructors");
    assert_eq!(json["streams"][0]["drifts_from"], 10_000);
    assert_eq!(json["baseline"]["imports"][0]["forced"], true);
}

#[test]
fn a_name_that_two_have_is_ambiguous() {
    let place = learned();
    let ended = place.baseline(&["show", "/usr"]).expect(2);
    for text in ["2 programs match \"/usr\"", SSHD, CAT] {
        assert!(ended.stderr.contains(text), "no {text:?} in {}", ended.stderr);
    }
}

#[test]
fn an_import_that_is_unsigned_changed_or_signed_by_a_stranger_is_refused_unless_forced() {
    let place = learned();
    let own = place.signed("own.key");
    let other = place.baseline(&["key", "other.key"]).expect(0).stdout.trim_end().to_owned();
    let mode = fs::metadata(place.path("own.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_to_string(place.path("own.key.pub")).unwrap().trim_end(), own);
    let signed = fs::read_to_string(place.path("signed.jsonl")).unwrap();
    place.write("changed.jsonl", &signed.replace("aa01", "aa09"));
    for (file, trust, reason) in [
        ("golden.jsonl", &own, "it is not signed"),
        ("signed.jsonl", &other, "which no --trust names"),
        ("changed.jsonl", &own, "the signature does not belong to this content"),
    ] {
        let fresh = Place::new("");
        fs::copy(place.path(file), fresh.path(file)).unwrap();
        let ended = fresh.baseline(&["import", file, "--trust", trust]).expect(2);
        assert!(ended.stderr.contains("is refused") && ended.stderr.contains(reason), "{ended:#?}");
        assert_eq!(fresh.baseline(&["show", "--json"]).expect(0).stdout, "", "nothing has changed");
        let ended = fresh.baseline(&["import", file, "--trust", trust, "--force"]).expect(0);
        assert!(ended.stderr.contains("nobody vouches for it"), "{ended:#?}");
        let shown = &fresh.baseline(&["show", SSHD, "--json"]).expect(0).lines()[0];
        let import = &shown["baseline"]["imports"][0];
        assert_eq!((&import["forced"], &import["signer"]), (&json!(true), &Value::Null));
    }
}

#[test]
fn a_trusted_export_settles_a_fresh_host_and_overwrites_nothing() {
    let place = learned();
    let own = place.signed("own.key");
    let fresh = Place::new("");
    fs::copy(place.path("signed.jsonl"), fresh.path("signed.jsonl")).unwrap();
    fs::copy(place.path("own.key.pub"), fresh.path("own.key.pub")).unwrap();
    let ended = fresh.baseline(&["import", "signed.jsonl", "--trust", "own.key.pub"]).expect(0);
    assert_eq!(ended.stderr, "");
    assert!(ended.stdout.contains("no sensor runs; the next one will have it"), "{ended:#?}");
    let shown = &fresh.baseline(&["show", SSHD, "--json"]).expect(0).lines()[0];
    assert_eq!(shown["state"], "settled");
    assert_eq!(shown["baseline"]["imports"][0]["signer"], json!(own));
    assert_eq!(shown["streams"], json!([]), "times are another machine's");
    // What has settled here stays as it is, and says so.
    approve(&fresh, &["sshd", "--library", "/lib/own.so@bb01"]).expect(0);
    let before = fresh.baseline(&["show", SSHD, "--json"]).expect(0).stdout;
    let ended = fresh.baseline(&["import", "signed.jsonl", "--trust", &own]).expect(0);
    assert!(ended.stdout.contains("1 have settled here and are as they were"), "{ended:#?}");
    assert_eq!(fresh.baseline(&["show", SSHD, "--json"]).expect(0).stdout, before);
    fresh.baseline(&["import", "signed.jsonl", "--trust", &own, "--merge"]).expect(0);
    let after = &fresh.baseline(&["show", SSHD, "--json"]).expect(0).lines()[0];
    assert_eq!(after["libraries"], 3, "the host's own library is still there");
    assert_eq!(after["baseline"]["approvals"][0]["who"], "alice");
}

#[test]
fn hostile_files_are_refused_with_the_line_and_force_does_not_help() {
    let place = learned();
    let mut many = baseline(60);
    many["environment"] = (0..500).map(|at| json!(format!("V{at}"))).collect();
    let mut future = baseline(60);
    future["last_seen"] = json!("2199-01-01T00:00:00Z");
    let deep = format!("{{\"subject\":\"/x y\",\"baseline\":{}", "[".repeat(100_000));
    let good = export(&[(SSHD, baseline(60))]);
    for (text, line, problem) in [
        (export(&[(SSHD, many)]), 2, "environment has 500 entries"),
        (export(&[(SSHD, future)]), 2, "is a time after the export"),
        (export(&[("\u{1b}[2J", baseline(1))]), 2, "the subject is no path with a build-id"),
        (good.replace(&good.lines().nth(1).unwrap().to_owned(), &deep), 2, "no baseline"),
        (good.replace("\"version\":1", "\"version\":7"), 1, "version 7 is not read"),
        (good[..good.len() / 2].to_owned(), 2, "no signature line"),
        ("\0\u{7f}\u{1b}".to_owned(), 1, "no signature line"),
    ] {
        place.write("bad.jsonl", &text);
        let before = place.baseline(&["show", "--json"]).expect(0).stdout;
        let ended = place.baseline(&["import", "bad.jsonl", "--force", "--merge"]).expect(2);
        let at = format!("bad.jsonl:{line}: ");
        assert!(
            ended.stderr.contains(&at) && ended.stderr.contains(problem),
            "{problem}: {ended:#?}"
        );
        assert_eq!(place.baseline(&["show", "--json"]).expect(0).stdout, before);
    }
    place.baseline(&["import", "absent.jsonl", "--force"]).expect(2);
    let ended = place.baseline(&["import", "golden.jsonl", "--trust", "ed25519:00"]).expect(2);
    assert!(ended.stderr.contains("is no public key"), "{ended:#?}");
}

#[test]
fn diff_exits_with_1_where_something_differs() {
    let place = learned();
    let same = place.baseline(&["diff", "golden.jsonl"]).expect(0);
    assert_eq!(same.stdout, "As on golden.\n");
    assert!(same.stderr.contains("not signed"), "{same:#?}");
    let mut evil = baseline(60);
    evil["libraries"][0][0] = json!({"path": "/lib/liblzma.so.5.6.1", "build": "ee01"});
    let caller = json!({"path": "/lib/liblzma.so.5.6.1", "build": "ee01"});
    evil["callers"]["RSA_public_decrypt"]["modules"] = json!([caller]);
    evil["shifts"]["constructors"]["reference"] = json!([[900, 40]]);
    place.write("evil.jsonl", &export(&[(SSHD, evil), (CAT, baseline(17))]));
    let text = place.baseline(&["diff", "evil.jsonl"]).expect(1);
    assert_plain(&text.stdout);
    for part in [
        SSHD,
        "liblzma.so.5: here /lib/liblzma.so.5.4.1 aa01; on golden /lib/liblzma.so.5.6.1 ee01",
        "caller RSA_public_decrypt by /lib/liblzma: only on golden",
        "caller RSA_public_decrypt by /usr/sbin/sshd: only here",
        "constructors: median",
    ] {
        assert!(text.stdout.contains(part), "no {part:?} in {}", text.stdout);
    }
    assert!(!text.stdout.contains(CAT), "{}", text.stdout);
    let json = place.baseline(&["diff", "evil.jsonl", "--json"]).expect(1).lines();
    assert_eq!((json.len(), &json[0]["host"]), (1, &json!("golden")));
    assert_eq!(json[0]["differs"][0]["what"], "library");
    place.baseline(&["diff", "evil.jsonl", "cat"]).expect(0);
    place.baseline(&["diff", "evil.jsonl", "dog"]).expect(2);
}

#[test]
fn what_is_approved_is_kept_with_who_and_why() {
    let place = learned();
    let ended = approve(&place, &["sshd", "--library", "/lib/new.so@bb01"]).expect(0);
    for part in ["approved for /usr/sbin/sshd ab12: library /lib/new.so bb01", "in effect since"] {
        assert!(ended.stdout.contains(part), "no {part:?} in {}", ended.stdout);
    }
    let caller = "RSA_public_decrypt=/lib/new.so@bb01";
    let json = approve(&place, &["sshd", "--caller", caller, "--json"]).expect(0).lines();
    assert_eq!(
        (&json[0]["approved"]["kind"], &json[0]["by"]),
        (&json!("caller"), &json!("command"))
    );
    approve(&place, &["sshd", "--times", "constructors"]).expect(0);
    let shown = &place.baseline(&["show", "sshd", "--json"]).expect(0).lines()[0];
    let approvals = shown["baseline"]["approvals"].as_array().unwrap();
    assert_eq!(approvals.len(), 3);
    assert!(approvals.iter().all(|one| one["who"] == "alice" && one["why"] == "ticket 42"));
    assert_eq!(shown["streams"][0]["samples"], 0, "learned anew");
    assert_eq!(shown["state"], "settled");
    let text = place.baseline(&["show", "sshd"]).expect(0).stdout;
    assert!(text.contains("alice") && text.contains("ticket 42"), "{text}");
}

#[test]
fn what_must_not_be_learned_is_refused_with_the_reason() {
    let place = learned();
    let before = place.baseline(&["show", "sshd", "--json"]).expect(0).stdout;
    for (arguments, reason) in [
        (["--library", "/memfd:x@aa"], "is no file whose build is known"),
        (["--library", "/lib/x.so (deleted)@aa"], "is no file whose build is known"),
        (["--library", "/proc/self/exe"], "is guarded: name the build that was found"),
        (["--caller", "RSA_public_decrypt=/lib/x.so@aa"], "approve the library first"),
        (["--caller", "RSA_public_decrypt=/lib/x.so"], "names no build"),
        (["--caller", "/lib/x.so@aa"], "is not of the form"),
        (["--helper", "/bin/sh"], "runs whatever it is told to"),
        (["--helper", "keys"], "is no absolute path"),
        (["--variable", "LD_PRELOAD"], "name the library"),
        (["--times", "login"], "is no stream of times"),
    ] {
        let ended = approve(&place, &[&["sshd"], &arguments[..]].concat()).expect(2);
        assert!(ended.stderr.contains(reason), "{reason}: {ended:#?}");
    }
    let nobody = ["approve", "sshd", "--variable", "X", "--who", " ", "--why", "x"];
    let ended = place.baseline(&nobody).expect(2);
    assert!(ended.stderr.contains("--who is empty"), "{ended:#?}");
    assert_eq!(place.baseline(&["show", "sshd", "--json"]).expect(0).stdout, before);
}

#[test]
fn a_redirected_slot_is_approved_by_no_incident() {
    let place = learned();
    let incident =
        super::incidents::incident("aaa1", "2026-11-20T10:00:00Z", "liblzma owns sshd").to_string();
    place.write("state/incidents.jsonl", &format!("{incident}\n"));
    let ended = approve(&place, &["--incident", "aaa1"]).expect(2);
    assert!(ended.stderr.contains("got_redirected belongs to incident aaa1"), "{ended:#?}");
    approve(&place, &["--incident", "zzz"]).expect(2);
}

#[test]
fn what_is_forgotten_is_gone() {
    let place = learned();
    let ended = place.baseline(&["forget", "cat"]).expect(0);
    assert!(ended.stdout.starts_with("forgot /usr/bin/cat cd34"), "{ended:#?}");
    let left = place.baseline(&["show", "--json"]).expect(0).lines();
    assert_eq!((left.len(), &left[0]["subject"]), (1, &json!(SSHD)));
    place.baseline(&["forget", "cat"]).expect(2);
}

#[test]
fn keys_are_not_overwritten_nor_read_where_others_can() {
    let place = learned();
    place.baseline(&["key", "k"]).expect(0);
    let ended = place.baseline(&["key", "k"]).expect(2);
    assert!(ended.stderr.contains("keys are not overwritten"), "{ended:#?}");
    fs::set_permissions(place.path("k"), fs::Permissions::from_mode(0o644)).unwrap();
    let ended = place.baseline(&["export", "x.jsonl", "--key", "k"]).expect(2);
    assert!(ended.stderr.contains("can be read by others (mode 644)"), "{ended:#?}");
    assert!(!super::harness::exists(&place.path("x.jsonl")));
    place.baseline(&["export", "x.jsonl"]).expect(0);
    let mode = fs::metadata(place.path("x.jsonl")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "what runs here is nobody's business");
}

#[test]
fn without_rights_it_says_to_run_as_root() {
    let place = learned();
    place.open_to_all();
    fs::set_permissions(place.path("state"), fs::Permissions::from_mode(0o755)).unwrap();
    for arguments in [&["baseline", "show"][..], &["baseline", "import", "golden.jsonl", "--force"]]
    {
        let mut command = place.command(arguments);
        let Some(command) = as_stranger(command.current_dir(place.folder.path())) else { return };
        let ended = run(command).expect(3);
        assert!(ended.stderr.contains("run as root"), "{ended:#?}");
    }
}

/// The one order that a command has left, once there is one.
fn order(orders: &Path) -> PathBuf {
    let deadline = Instant::now() + crate::patience::patient(Duration::from_secs(20));
    loop {
        let mut found = fs::read_dir(orders).into_iter().flatten().map(|one| one.unwrap().path());
        if let Some(order) = found.find(|path| path.extension().is_some_and(|e| e == "order")) {
            return order;
        }
        assert!(Instant::now() < deadline, "no order in {}", orders.display());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command while something holds the lock as a sensor does, and answers its order.
fn with_sensor(place: &Place, arguments: &[&str], answer: &Value) -> (Value, Ended) {
    let state = place.path("state");
    let _lock = WriterLock::take(&state, Duration::ZERO).unwrap().unwrap();
    let mut command = place.command(&[&["baseline"], arguments].concat());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let order = order(&state.join("orders"));
    let asked = serde_json::from_slice(&fs::read(&order).unwrap()).unwrap();
    fs::rename(&order, order.with_extension("taken")).unwrap();
    let draft = order.with_extension("draft");
    fs::write(&draft, answer.to_string()).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&draft, order.with_extension("answer")).unwrap();
    let output = command.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    (asked, Ended { code: output.status.code(), stdout, stderr })
}

#[test]
fn while_a_sensor_runs_it_makes_the_change_and_says_when() {
    let place = learned();
    let time = "2025-11-21T12:00:00Z";
    let done = json!({"time": time, "done": {"done": "forgotten", "was": true}, "refused": null});
    let (asked, ended) = with_sensor(&place, &["forget", "cat"], &done);
    assert_eq!(asked, json!({"version": 1, "act": {"act": "forget", "subject": CAT}}));
    let ended = ended.expect(0);
    let expected =
        "it is learned anew; in effect since 2025-11-21T12:00:00Z: the running sensor has it\n";
    assert!(ended.stdout.ends_with(expected), "{ended:#?}");
    // The command itself has touched nothing.
    assert_eq!(place.baseline(&["show", "--json"]).expect(0).lines().len(), 2);
    let refused = json!({"time": time, "done": null, "refused": "the disk is on fire"});
    let ended = with_sensor(&place, &["forget", "cat"], &refused).1.expect(2);
    assert!(ended.stderr.contains("the disk is on fire") && ended.stdout.is_empty(), "{ended:#?}");
}
