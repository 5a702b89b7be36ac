use std::fs;
use std::os::unix::fs::PermissionsExt;

use sensor::incident::{Entry, IncidentStore, StoreLimits};
use serde_json::{Value, json};

use super::harness::{Place, as_stranger, assert_plain, keys, run};
use super::incidents::incident;

const RULE: &str = "[http]\nlisten = \"off\"\n[[suppress]]\nname = \"edr\"\n\
                    package = \"libedr1\"\nuntil = 2027-01-31\nwho = \"bob\"\n\
                    why = \"it wraps crypto\"\n";

fn entry(id: &str, lineage: &str) -> Entry {
    let incident = incident(id, "2026-11-20T10:00:00Z", "older");
    let entry = json!({"lineage": {"Program": lineage}, "omitted": 0, "incident": incident});
    serde_json::from_value(entry).unwrap()
}

/// A place whose sensor has ended and has left these incidents open.
fn place(config: &str, entries: &[Entry]) -> Place {
    let place = Place::new(config);
    fs::create_dir_all(place.path("state")).unwrap();
    let store = IncidentStore::open(&place.path("state"), StoreLimits::default()).unwrap().store;
    store.put(&entries.iter().collect::<Vec<_>>()).unwrap();
    place
}

fn one() -> Place {
    place("", &[entry("aaa1", "/usr/sbin/sshd 00")])
}

fn shown(place: &Place, id: &str) -> Value {
    place.run(&["incidents", id, "--json"]).expect(1).lines().remove(0)
}

#[test]
fn an_incident_is_acknowledged_closed_and_reopened_with_who_and_why() {
    let place = one();
    let ended = place.run(&["incidents", "ack", "aaa", "--who", "alice", "--why", "mine"]);
    assert_eq!(
        ended.expect(0).stdout,
        "Incident aaa1 is acknowledged: no sensor runs, and it stands in the store.\n"
    );
    let text = place.run(&["incidents", "aaa1"]).expect(1).stdout;
    assert!(text.contains("by alice (uid ") && text.contains("): mine"), "{text}");
    assert_eq!(shown(&place, "aaa1")["state"], "acknowledged");
    place.run(&["incidents", "close", "aaa1", "--who", "alice"]).expect(0);
    assert_eq!(shown(&place, "aaa1")["state"], "closed");
    let told = place.run(&["incidents", "reopen", "aaa1", "--who", "bob", "--json"]).expect(0);
    let told = told.lines().remove(0);
    assert_eq!(keys(&told), ["by", "decision", "effective", "id", "state"]);
    assert_eq!((&told["state"], &told["effective"]), (&json!("open"), &json!(true)));
    let decisions = &shown(&place, "aaa1")["decisions"];
    let verbs: Vec<_> = decisions.as_array().unwrap().iter().map(|one| &one["verb"]).collect();
    assert_eq!(verbs, ["acknowledge", "close", "reopen"]);
}

#[test]
fn a_suppression_is_listed_with_its_end_and_ends_with_a_reopening() {
    let place = one();
    let say =
        ["incidents", "suppress", "aaa1", "--for", "30d", "--who", "al\u{1b}", "--why", "known"];
    place.run(&say).expect(0);
    assert_eq!(shown(&place, "aaa1")["state"], "suppressed");
    let ended = place.run(&["incidents", "suppressions"]).expect(0);
    assert_plain(&ended.stdout);
    assert!(ended.stdout.contains("1 findings of that incident"), "{}", ended.stdout);
    let lines = place.run(&["incidents", "suppressions", "--json"]).expect(0).lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(
        keys(&lines[0]),
        [
            "build_id",
            "detector",
            "in_effect",
            "last_match",
            "matches",
            "name",
            "origin",
            "package",
            "sha256",
            "since",
            "standing",
            "subject",
            "until",
            "who",
            "why"
        ]
    );
    assert_eq!((&lines[0]["name"], &lines[0]["standing"]), (&json!("aaa1"), &json!("unmatched")));
    place.run(&["incidents", "reopen", "aaa1"]).expect(0);
    let ended = place.run(&["incidents", "suppressions"]).expect(0);
    assert_eq!(ended.stdout, "Nothing is suppressed.\n");
}

#[test]
fn a_rule_that_no_sensor_has_met_is_told_as_not_in_effect() {
    let place = place(RULE, &[]);
    let ended = place.run(&["incidents", "suppressions"]).expect(0);
    for text in ["edr", "not yet: restart the sensor", "package libedr1", "bob"] {
        assert!(ended.stdout.contains(text), "no {text:?} in {}", ended.stdout);
    }
    let line = place.run(&["incidents", "suppressions", "--json"]).expect(0).lines().remove(0);
    assert_eq!((&line["origin"], &line["in_effect"]), (&json!("rule"), &json!(false)));
}

#[test]
fn doctor_names_a_rule_that_has_expired() {
    let place = Place::new(&RULE.replace("2027-01-31", "2020-01-31"));
    let lines = place.run(&["doctor", "--json"]).lines();
    let check = lines.iter().find(|line| line["check"] == "suppressions").unwrap();
    assert_eq!(check["state"], "degraded", "{check}");
    assert!(check["found"].as_str().unwrap().contains("expired: rule edr"), "{check}");
    assert!(check["remedy"].as_str().unwrap().contains("incidents suppressions"), "{check}");
}

#[test]
fn wrong_decisions_exit_2_and_say_what_is_missing() {
    let place = one();
    for (say, text) in [
        (&["incidents", "suppress", "aaa1", "--for", "30d", "--who", "al"][..], "--why"),
        (&["incidents", "suppress", "aaa1", "--for", "2y", "--who", "a", "--why", "b"], "like 30d"),
        (&["incidents", "suppress", "aaa1", "--for", "367d", "--who", "a", "--why", "b"], "366d"),
        (&["incidents", "ack", "zzz"], "no incident has the id \"zzz\""),
        (&["incidents", "ack"], "<ID>"),
        (&["incidents", "ack", "aaa1", "--who", " "], "--who"),
        (&["incidents", "aaa1", "ack", "aaa1"], "give the id behind the word"),
    ] {
        let ended = place.run(say).expect(2);
        assert!(ended.stderr.contains(text), "no {text:?} in {ended:#?}");
    }
    assert_eq!(shown(&place, "aaa1")["state"], "open");
}

#[test]
fn while_another_incident_of_the_program_is_open_a_closed_one_stays_closed() {
    let place = place("", &[entry("aaa1", "/usr/bin/su 00"), entry("bbb2", "/usr/bin/su 00")]);
    place.run(&["incidents", "close", "aaa1"]).expect(0);
    let ended = place.run(&["incidents", "reopen", "aaa1"]).expect(2);
    assert!(ended.stderr.contains("incident bbb2 has taken its place"), "{ended:#?}");
}

#[test]
fn who_may_not_write_the_store_decides_nothing() {
    let place = one();
    place.open_to_all();
    let state = place.path("state");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = place.command(&["incidents", "ack", "aaa1"]);
    let Some(command) = as_stranger(&mut command) else { return };
    let ended = run(command).expect(3);
    assert!(ended.stderr.contains("run as root"), "{ended:#?}");
    assert_eq!(shown(&place, "aaa1")["state"], "open");
}

#[test]
fn an_incident_reads_from_what_it_means_to_what_to_do() {
    let place = one();
    let text = place.run(&["incidents", "aaa1"]).expect(1).stdout;
    assert_plain(&text);
    let headings = [
        "What it means",
        "What happened",
        "How sure it is",
        "What is blamed",
        "What to do",
        "MITRE ATT&CK",
        "Findings and their evidence",
    ];
    let at: Vec<_> = headings.iter().map(|heading| text.find(heading)).collect();
    assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{at:?} in {text}");
    for fact in ["T1574 Hijack Execution Flow", "build-id ab12", "score"] {
        assert!(text.contains(fact), "no {fact:?} in {text}");
    }
}

#[test]
fn explain_has_the_arithmetic_of_the_score() {
    let place = one();
    let text = place.run(&["explain", "aaa1"]).expect(1).stdout;
    for line in [
        "critical 0.90 × 0.99 = 0.891",
        "score = 100 × (1 − 0.109) = 89, rounded",
        "severity: the worst finding is critical; only hook has",
        "the loader would have chosen libcrypto.so.3+0x277490",
        "It is told as critical, 97",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    let told = place.run(&["explain", "aaa1", "--json"]).expect(1).lines().remove(0);
    let sum = &told["arithmetic"];
    assert_eq!((&sum["score"], &sum["terms"][0]["counts"]), (&json!(89), &json!(true)));
}
