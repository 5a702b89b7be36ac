//! Title, story and recommendation, and the JSON as a whole.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::sample::{
    bare, finding, foreign_caller, new_library, preload, redirected, session, shell, slow_link,
    slow_login, timing, xz_like,
};
use super::{incidents, join, only};
use crate::finding::{Evidence, Family, Finding, Severity};
use crate::incident::Incident;

/// The keys the design fixes.
const INCIDENT_KEYS: [&str; 12] = [
    "id",
    "opened",
    "updated",
    "state",
    "severity",
    "score",
    "title",
    "story",
    "findings",
    "hosts",
    "recommendation",
    "partial",
];
/// The same, and the two a reader of the store needs.
const FINDING_KEYS: [&str; 14] = [
    "time",
    "id",
    "detector",
    "severity",
    "confidence",
    "title",
    "host",
    "process",
    "subject",
    "evidence",
    "attack",
    "explained_by",
    "ktime_ns",
    "family",
];
const PROCESS_KEYS: [&str; 8] =
    ["pid", "exe", "cmdline", "uid", "start", "ancestors", "container", "pod"];

fn told(findings: Vec<Finding>) -> Incident {
    let mut incidents = incidents();
    for finding in findings {
        join(&mut incidents, finding);
    }
    only(&mut incidents)
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_xz_like_incident_is_the_golden_one() {
    let incident = told(xz_like());
    let shown = serde_json::to_string_pretty(&incident).unwrap() + "\n";
    let golden = include_str!("golden.json");
    assert_eq!(shown, golden, "found:\n{shown}\nexpected: tests/golden.json");
}

#[test]
fn keys_are_those_of_the_design() {
    let json = serde_json::to_value(told(xz_like())).unwrap();
    assert_eq!(keys(&json), BTreeSet::from(INCIDENT_KEYS));
    for finding in json["findings"].as_array().unwrap() {
        assert_eq!(keys(finding), BTreeSet::from(FINDING_KEYS));
        assert_eq!(keys(&finding["process"]), BTreeSet::from(PROCESS_KEYS));
        assert!(
            finding["evidence"].as_array().unwrap().iter().all(|piece| piece["kind"].is_string())
        );
    }
}

#[test]
fn the_title_names_the_worst_and_its_cost() {
    let title = |findings: Vec<Finding>| told(findings).title;
    assert_eq!(
        title(xz_like()),
        "liblzma.so.5.4.1 owns sshd's RSA_public_decrypt and added 0.300 s to its start"
    );
    assert_eq!(title(vec![redirected()]), "liblzma.so.5.4.1 owns sshd's RSA_public_decrypt");
    assert_eq!(
        title(vec![slow_login(), redirected()]),
        "liblzma.so.5.4.1 owns sshd's RSA_public_decrypt and added 0.300 s to authentication by \
         publickey"
    );
    assert_eq!(title(vec![foreign_caller()]), "liblzma.so.5.4.1 calls RSA_public_decrypt in sshd");
    assert_eq!(
        title(vec![slow_link()]),
        "Linking of sshd took 0.304 s of CPU instead of 0.003 s, 0.300 s of it in liblzma.so.5.4.1"
    );
    assert_eq!(
        title(vec![slow_login()]),
        "Authentication by publickey in sshd took 0.330 s of CPU instead of 0.030 s"
    );
    assert_eq!(
        title(vec![new_library()]),
        "sshd mapped /usr/lib/x86_64-linux-gnu/liblzma.so.5.4.1, which was not there while learning"
    );
    assert_eq!(title(vec![preload()]), "LD_PRELOAD was set for sshd");
    assert_eq!(title(vec![shell()]), "sshd executed /usr/bin/dash before authentication");
    assert_eq!(
        title(vec![session()]),
        "A session of sshd began although no method of authentication had succeeded"
    );
    assert_eq!(title(vec![bare("blinded", Severity::High)]), "blinded in sshd");
}

#[test]
fn another_modules_time_is_not_laid_at_the_owners_door() {
    let other = timing("link_cpu", 0.2, 0.003, Some(("/usr/lib/libother.so.1", 0.19)));
    let link = finding("link_time_shift", Family::Linker, Severity::Medium, 0.9, 310, vec![other]);
    assert_eq!(
        told(vec![link, redirected()]).title,
        "liblzma.so.5.4.1 owns sshd's RSA_public_decrypt"
    );
}

#[test]
fn the_story_is_in_time_order_whatever_came_first() {
    let mut backwards = xz_like();
    backwards.reverse();
    assert_eq!(told(backwards).story, told(xz_like()).story);
}

#[test]
fn every_detector_alone_has_a_story() {
    let cases = [
        (
            slow_link(),
            "Linking took 0.304 s of CPU instead of 0.003 s, and liblzma.so.5.4.1 (/usr/",
        ),
        (slow_login(), "authentication by publickey cost 0.330 s of CPU (usual 0.030 s)."),
        (preload(), "LD_PRELOAD was set to /tmp/x.so in sshd's environment."),
        (
            shell(),
            "sshd executed /usr/bin/dash (\"sh -c id > /tmp/out\") before authentication had succeeded.",
        ),
        (
            new_library(),
            "sshd mapped liblzma.so.5.4.1 (/usr/lib/x86_64-linux-gnu/liblzma.so.5.4.1, build-id \
             ab12cd34ef56…), which was not there while learning.",
        ),
        (bare("blinded", Severity::High), "blinded in sshd."),
    ];
    for (finding, expected) in cases {
        let story = told(vec![finding]).story;
        assert!(
            story.starts_with(
                "At 2026-11-22 14:03:07 UTC sshd (/usr/sbin/sshd, pid 812) on web1 was"
            )
        );
        assert!(story.contains(expected), "found: {story}\nexpected: {expected}");
    }
}

#[test]
fn a_slot_that_may_be_right_is_not_told_as_redirected() {
    let mut unclear = redirected();
    unclear.severity = Severity::Low;
    unclear.title =
        "sshd: a library's file changed under it, RSA_public_decrypt unclear".to_owned();
    let incident = told(vec![unclear.clone(), slow_link()]);
    assert!(!incident.story.contains("leads to"), "{}", incident.story);
    assert!(incident.story.contains(&unclear.title), "{}", incident.story);
    assert_eq!(told(vec![unclear.clone()]).title, unclear.title);
}

#[test]
fn a_library_named_only_as_evidence_is_not_told_as_new() {
    let story = told(vec![slow_link(), redirected(), foreign_caller()]).story;
    assert!(!story.contains("mapped"), "{story}");
    assert!(story.contains("build-id ab12cd34ef56…"), "{story}");
    assert_eq!(story.matches("compared").count(), 2, "two notes are enough: {story}");
}

#[test]
fn another_process_is_named() {
    let mut second = slow_login();
    second.process.pid = 813;
    second.process.exe = "/usr/lib/openssh/sshd-session".to_owned();
    let mut linked = slow_link();
    linked.process = second.process.clone();
    linked.time = second.time;
    let story = told(vec![redirected(), linked, second]).story;
    assert!(
        story.contains("At 14:03:08 linking of sshd-session (pid 813) took 0.304 s"),
        "{story}"
    );
    assert!(story.contains("Authentication by publickey cost"), "{story}");
}

#[test]
fn advice_saves_evidence_first_and_never_ends_the_process() {
    for findings in
        [xz_like(), vec![redirected()], vec![shell()], vec![preload()], vec![slow_link()]]
    {
        let advice = told(findings).recommendation;
        assert!(advice.starts_with("Save evidence before sshd is restarted"), "{advice}");
        assert!(!advice.contains("kill"), "{advice}");
        assert!(advice.contains("Confirmed if") && advice.contains("refuted if"), "{advice}");
    }
    let advice = told(vec![slow_login()]).recommendation;
    assert!(advice.starts_with("Log in again by other methods"), "{advice}");
}

#[test]
fn a_path_made_for_a_shell_is_put_into_no_command() {
    let hostile = "/tmp/$(touch /tmp/owned);\n.so";
    let library =
        Evidence::Library { path: hostile.to_owned(), build_id: None, inode: String::new() };
    let found =
        finding("library_unexpected", Family::Linker, Severity::High, 0.9, 5, vec![library]);
    let incident = told(vec![found]);
    assert!(!incident.recommendation.contains("touch"), "{}", incident.recommendation);
    for text in [&incident.title, &incident.story] {
        assert!(text.contains("\"/tmp/$(touch /tmp/owned);\u{fffd}.so\""), "{text}");
        assert!(!text.contains(char::is_control));
    }
}
