use jiff::SignedDuration;

use super::super::sample::{
    BUILD_ID, LIBCRYPTO_ID, LIBLZMA, at, bare, foreign_caller, patched, preload, slow_link,
};
use super::*;
use crate::finding::Evidence;
use crate::host::Lineage;
use crate::incident::{Incident, State, Verb};

fn rule() -> Suppress {
    Suppress {
        name: "edr".to_owned(),
        detector: None,
        subject: None,
        package: None,
        build_id: None,
        sha256: None,
        until: at(1_000_000),
        who: "alice".to_owned(),
        why: "ticket".to_owned(),
    }
}

fn matches(rule: &Suppress, finding: &Finding) -> bool {
    let rules = std::slice::from_ref(rule);
    Suppressions::new(rules, Vec::new(), at(0)).matching(finding).is_some()
}

/// `finding` with what the package database says of liblzma.
fn packaged(mut finding: Finding, content: &str, digest: Option<&str>) -> Finding {
    finding.evidence.push(Evidence::Package {
        path: LIBLZMA.to_owned(),
        package: "liblzma5 5.4.1-0.2 (amd64)".to_owned(),
        purl: None,
        installed: None,
        previous: None,
        content: content.to_owned(),
        digest: digest.map(str::to_owned),
    });
    finding
}

#[test]
fn a_package_is_one_that_has_brought_the_file_as_it_is() {
    let by = |package: &str| Suppress { package: Some(package.to_owned()), ..rule() };
    let good = packaged(slow_link(), "matches", None);
    assert!(matches(&by("liblzma5"), &good));
    assert!(matches(&by("liblzma5 5.4.1-0.2"), &good));
    assert!(!matches(&by("liblzma5 5.4.1-0.3"), &good));
    assert!(!matches(&by("liblzma"), &good), "not the beginning of a name");
    assert!(!matches(&by("liblzma5"), &packaged(slow_link(), "differs", None)));
    assert!(!matches(&by("liblzma5"), &packaged(slow_link(), "not_recorded", None)));
    assert!(!matches(&by("liblzma5"), &slow_link()), "nobody knows yet");
    assert!(!matches(&by("liblzma5"), &preload()), "no file is blamed");
}

#[test]
fn every_key_of_a_rule_must_hold() {
    let digest = "9f".repeat(32);
    let told = format!("Sha256:{digest}");
    let finding = packaged(slow_link(), "differs", Some(&told));
    let whole = Suppress {
        detector: Some("link_time_shift".to_owned()),
        subject: Some("/usr/sbin/sshd".to_owned()),
        sha256: Some(digest),
        ..rule()
    };
    assert!(matches(&whole, &finding));
    let other = |change: fn(&mut Suppress)| {
        let mut rule = whole.clone();
        change(&mut rule);
        rule
    };
    for rule in [
        other(|rule| rule.detector = Some("auth_cpu_shift".to_owned())),
        other(|rule| rule.subject = Some("/usr/bin/sudo".to_owned())),
        other(|rule| rule.sha256 = Some("00".repeat(32))),
        other(|rule| rule.build_id = Some("00ff00ff".to_owned())),
        other(|rule| rule.package = Some("liblzma5".to_owned())),
        other(|rule| rule.until = at(0)),
    ] {
        assert!(!matches(&rule, &finding), "{rule:?}");
    }
    let info = Finding { severity: Severity::Info, ..finding };
    assert!(!matches(&whole, &info), "nobody is told of those anyway");
}

#[test]
fn patched_code_is_known_by_where_it_leads_else_by_the_file_if_a_rule_says_so() {
    let by = |detector: Option<&str>, build_id: &str| Suppress {
        detector: detector.map(str::to_owned),
        build_id: Some(build_id.to_owned()),
        ..rule()
    };
    let named = Some("text_patched");
    // Whoever it leads to is the culprit, whether or not the rule names the detector.
    assert!(matches(&by(named, BUILD_ID), &patched(true)));
    assert!(matches(&by(None, BUILD_ID), &patched(true)));
    assert!(!matches(&by(named, LIBCRYPTO_ID), &patched(true)), "it leads elsewhere");
    // It leads nowhere: the file whose code it is, and only for a rule about such changes.
    assert!(matches(&by(named, LIBCRYPTO_ID), &patched(false)));
    assert!(!matches(&by(None, LIBCRYPTO_ID), &patched(false)), "trusted as a caller, perhaps");
    assert!(!matches(&by(named, BUILD_ID), &patched(false)));
    let package = Suppress {
        detector: named.map(str::to_owned),
        package: Some("libssl3".to_owned()),
        ..rule()
    };
    assert!(!matches(&package, &patched(false)), "critical: only by the very file");
    // Evidence of earlier versions does not say which file it was.
    let mut old = patched(false);
    if let Evidence::Code { build_id, .. } = &mut old.evidence[0] {
        *build_id = None;
    }
    assert!(!matches(&by(named, LIBCRYPTO_ID), &old));
    assert!(identified(&patched(false)) && identified(&patched(true)) && !identified(&old));
}

#[test]
fn nobody_passes_for_another_program_by_a_blank_in_a_path() {
    assert!(is_subject("/usr/sbin/sshd 00ff", "/usr/sbin/sshd"));
    assert!(is_subject("/usr/sbin/sshd 00ff", "/usr/sbin/sshd 00ff"));
    assert!(is_subject("/opt/a b/c 00ff", "/opt/a b/c"));
    assert!(!is_subject("/usr/sbin/sshd evil 00ff", "/usr/sbin/sshd"));
    assert!(!is_subject("/usr/sbin/sshd 00ff image:x", "/usr/sbin/sshd"), "a container's own");
    assert!(is_subject("/usr/sbin/sshd 00ff image:x", "/usr/sbin/sshd 00ff image:x"));
}

#[test]
fn a_finding_is_recognised_by_what_it_is_about_and_not_by_when_and_where() {
    let known = recognised_by(&slow_link());
    let mut again = slow_link();
    again.time = at(99_000);
    again.process.pid = 9;
    if let Evidence::Timing { seconds, .. } = &mut again.evidence[0] {
        *seconds = 0.4;
    }
    assert_eq!(recognised_by(&again), known);
    let mut upgraded = slow_link();
    upgraded.subject = "/usr/sbin/sshd 99ff".to_owned();
    assert_ne!(recognised_by(&upgraded), known, "another build of the program");
    let mut other = slow_link();
    if let Evidence::Library { build_id, .. } = &mut other.evidence[1] {
        *build_id = Some("77".to_owned());
    }
    assert_ne!(recognised_by(&other), known, "another build of the library");
    let mut patched = patched(false);
    let code = recognised_by(&patched);
    if let Evidence::Code { build_id, .. } = &mut patched.evidence[0] {
        *build_id = Some("77".to_owned());
    }
    assert_ne!(recognised_by(&patched), code, "another build of the patched library");
    assert_ne!(recognised_by(&foreign_caller()), known);
}

fn entry(id: usize, finding: Finding) -> Entry {
    let incident = Incident {
        id: format!("{id:016x}"),
        opened: at(0),
        updated: at(0),
        state: State::Open,
        severity: finding.severity,
        score: 1,
        title: String::new(),
        story: String::new(),
        findings: vec![finding],
        hosts: Vec::new(),
        recommendation: String::new(),
        partial: false,
        decisions: Vec::new(),
    };
    let lineage = Lineage::Program("p".to_owned());
    Entry { lineage, others: Vec::new(), omitted: 0, connections: 0, over: true, incident }
}

#[test]
fn suppressions_of_incidents_are_bounded_and_those_that_are_over_make_room() {
    let decision = |hours: i64, time| Decision {
        verb: Verb::Suppress,
        time,
        who: "alice".to_owned(),
        why: "ticket".to_owned(),
        uid: 0,
        until: Some(at(0) + SignedDuration::from_hours(hours)),
    };
    let mut all = Suppressions::default();
    let first = decision(1, at(0));
    all.suppress(&entry(0, slow_link()), &first).unwrap();
    for id in 1..MAX_KEPT {
        all.suppress(&entry(id, slow_link()), &decision(100, at(0))).unwrap();
    }
    let full = all.suppress(&entry(MAX_KEPT, slow_link()), &decision(100, at(0))).unwrap_err();
    assert_eq!(full, Refusal::TooMany(MAX_KEPT));
    let later = at(0) + SignedDuration::from_hours(2);
    all.suppress(&entry(MAX_KEPT, slow_link()), &decision(100, later)).unwrap();
    assert_eq!(all.iter().count(), MAX_KEPT);
    assert!(all.iter().all(|one| one.until > later), "the one that was over has gone");
    let nothing = all.suppress(&entry(1, bare("blinded", Severity::Info)), &first).unwrap_err();
    assert!(matches!(nothing, Refusal::NotSuppressible(_)), "{nothing}");
}
