//! What people decide, and what is to be expected.

use jiff::{SignedDuration, Timestamp};

use super::super::sample::{BUILD_ID, foreign_caller, preload, redirected, slow_link, slow_login};
use super::*;
use crate::config::Suppress;
use crate::incident::{Decision, Refusal, Standing, Suppressions, Verb};

fn decision(verb: Verb) -> Decision {
    Decision {
        verb,
        time: at(5000),
        who: "alice".to_owned(),
        why: "ticket 4711".to_owned(),
        uid: 0,
        until: (verb == Verb::Suppress).then(|| at(5000) + SignedDuration::from_hours(1)),
    }
}

fn decide(incidents: &mut Incidents, verb: Verb) -> Result<Incident, Refusal> {
    let id = only(incidents).id;
    incidents.decide(&id, None, &decision(verb), ktime(5000))
}

fn rule(change: impl FnOnce(&mut Suppress)) -> Suppress {
    let mut rule = Suppress {
        name: "edr".to_owned(),
        detector: None,
        subject: None,
        package: None,
        build_id: None,
        sha256: None,
        until: at(10_000_000),
        who: "alice".to_owned(),
        why: "the agent wraps it".to_owned(),
    };
    change(&mut rule);
    rule
}

fn with(rules: &[Suppress]) -> Incidents {
    let mut incidents = incidents();
    incidents.set_suppressions(Suppressions::new(rules, Vec::new(), at(0)));
    incidents
}

/// The entries that wait to be saved.
fn saved(incidents: &mut Incidents) -> Vec<Entry> {
    let mut all = Vec::new();
    let take = |entries: &[&Entry]| {
        all.extend(entries.iter().map(|entry| (*entry).clone()));
        Ok::<_, ()>(())
    };
    incidents.save(take).unwrap();
    all
}

#[test]
fn an_acknowledged_incident_stays_so_until_it_becomes_worse() {
    let mut incidents = incidents();
    join(&mut incidents, slow_link());
    let told = decide(&mut incidents, Verb::Acknowledge).unwrap();
    assert_eq!(told.state, State::Acknowledged);
    assert_eq!(told.decisions, [decision(Verb::Acknowledge)]);
    assert!(join(&mut incidents, later(slow_link(), 100)).is_none(), "seen to");
    assert_eq!(only(&mut incidents).state, State::Acknowledged);
    let (reason, worse) = join(&mut incidents, redirected()).unwrap();
    assert_eq!((reason, worse.state), (Reason::Escalated, State::Open));
}

#[test]
fn what_somebody_holds_does_not_close_by_itself_but_takes_no_more() {
    let mut incidents = incidents();
    join(&mut incidents, slow_link());
    decide(&mut incidents, Verb::Acknowledge).unwrap();
    assert!(incidents.tick(u64::MAX).is_empty(), "nothing has changed for anybody");
    let [entry] = saved(&mut incidents).try_into().unwrap();
    assert_eq!((entry.incident.state, entry.joins()), (State::Acknowledged, false));
    assert_eq!(join(&mut incidents, slow_link()).unwrap().0, Reason::Opened);
}

#[test]
fn after_a_close_the_next_finding_is_another_incident_and_a_reopening_brings_it_back() {
    let mut incidents = incidents();
    join(&mut incidents, slow_link());
    let closed = decide(&mut incidents, Verb::Close).unwrap();
    assert_eq!(closed.state, State::Closed);
    assert!(incidents.tick(ktime(6000)).is_empty(), "it was told when it was decided");
    let [entry] = saved(&mut incidents).try_into().unwrap();
    let (_, next) = join(&mut incidents, later(slow_link(), 100)).unwrap();
    assert_ne!(next.id, closed.id);
    // While another has its place it stays closed.
    let reopen = decision(Verb::Reopen);
    let refused = incidents.decide(&closed.id, Some(entry.clone()), &reopen, ktime(7000));
    assert_eq!(refused.unwrap_err(), Refusal::Replaced(next.id));
    incidents.tick(u64::MAX);
    let reopened = incidents.decide(&closed.id, Some(entry), &reopen, ktime(8000)).unwrap();
    assert_eq!(reopened.state, State::Open);
    assert!(join(&mut incidents, later(slow_link(), 8000)).is_none(), "it goes on");
    assert_eq!(times(&only(&mut incidents), "link_time_shift"), 2);
}

#[test]
fn the_same_decision_twice_changes_nothing() {
    let mut incidents = incidents();
    join(&mut incidents, slow_link());
    let once = decide(&mut incidents, Verb::Suppress).unwrap();
    let twice = decide(&mut incidents, Verb::Suppress).unwrap();
    assert_eq!(serde_json::to_value(once).unwrap(), serde_json::to_value(twice).unwrap());
    assert_eq!(incidents.suppressions().iter().count(), 1);
}

#[test]
fn decisions_that_lack_something_are_refused() {
    let mut incidents = incidents();
    join(&mut incidents, slow_link());
    let id = only(&mut incidents).id;
    let mut refused = |change: fn(&mut Decision)| {
        let mut decision = decision(Verb::Suppress);
        change(&mut decision);
        incidents.decide(&id, None, &decision, 1).unwrap_err()
    };
    for change in [
        (|one| one.until = None) as fn(&mut Decision),
        |one| one.until = Some(one.time),
        |one| one.why = " ".to_owned(),
        |one| one.who = String::new(),
        |one| one.who = "x".repeat(201),
    ] {
        assert!(matches!(refused(change), Refusal::Malformed(_)));
    }
    assert_eq!(only(&mut incidents).state, State::Open);
    let unknown = incidents.decide("none", None, &decision(Verb::Close), 1).unwrap_err();
    assert_eq!(unknown, Refusal::Unknown("none".to_owned()));
}

#[test]
fn what_was_suppressed_is_counted_and_nobody_is_told_until_something_else_comes() {
    let mut incidents = incidents();
    for finding in [slow_link(), slow_login()] {
        join(&mut incidents, finding);
    }
    assert_eq!(only(&mut incidents).severity, Severity::High, "two families");
    let told = decide(&mut incidents, Verb::Suppress).unwrap();
    assert_eq!(told.state, State::Suppressed);
    assert!(told.story.contains("counts for nothing"), "{}", told.story);
    assert!(join(&mut incidents, later(slow_link(), 100)).is_none());
    // Over: the next one opens an incident of which nobody is told, and which counts for nothing.
    incidents.tick(u64::MAX);
    assert!(join(&mut incidents, later(slow_link(), 200)).is_none());
    let quiet = only(&mut incidents);
    assert_eq!((quiet.state, quiet.severity, quiet.score), (State::Suppressed, Severity::Info, 0));
    assert_eq!(quiet.findings.len(), 1, "kept all the same");
    // Another object is not what was suppressed; and what was is no second witness.
    let (reason, woken) = join(&mut incidents, later(preload(), 300)).unwrap();
    assert_eq!((reason, woken.state), (Reason::Opened, State::Open));
    assert_eq!((woken.severity, woken.score), (Severity::High, 63), "preload alone: 0.7 × 0.9");
    let kept: Vec<_> = incidents.suppressions().iter().map(|one| one.matches).collect();
    assert_eq!((kept, incidents.counters().suppressed), (vec![2], 2));
}

#[test]
fn a_suppression_ends_by_the_findings_own_time_and_with_a_reopening() {
    let mut incidents = incidents();
    join(&mut incidents, slow_link());
    let id = decide(&mut incidents, Verb::Suppress).unwrap().id;
    incidents.tick(u64::MAX);
    assert!(join(&mut incidents, later(slow_link(), 3_600_000)).is_none());
    incidents.tick(u64::MAX);
    let late = later(slow_link(), 3_700_000);
    assert_eq!(join(&mut incidents, late).unwrap().0, Reason::Opened);

    let mut incidents = incidents_with_one_suppressed();
    assert!(join(&mut incidents, later(slow_link(), 50)).is_none());
    incidents.decide(&id, None, &decision(Verb::Reopen), ktime(6000)).unwrap();
    assert_eq!(incidents.suppressions().iter().count(), 0);
    let open = only(&mut incidents);
    assert_eq!((open.state, open.findings[0].suppressed_by.clone()), (State::Open, None));
}

fn incidents_with_one_suppressed() -> Incidents {
    let mut incidents = incidents();
    join(&mut incidents, slow_link());
    decide(&mut incidents, Verb::Suppress).unwrap();
    incidents
}

#[test]
fn a_redirection_in_sshd_is_suppressed_by_the_very_file_only() {
    let by_subject = rule(|rule| rule.subject = Some("/usr/sbin/sshd".to_owned()));
    let mut unmatched = with(std::slice::from_ref(&by_subject));
    assert!(join(&mut unmatched, redirected()).is_some());
    assert!(join(&mut unmatched, foreign_caller()).is_none(), "high: the subject will do");
    assert_eq!(only(&mut unmatched).severity, Severity::Critical);

    let by_file = rule(|rule| rule.build_id = Some(BUILD_ID.to_owned()));
    let mut matched = with(&[by_file]);
    assert!(join(&mut matched, redirected()).is_none());
    assert_eq!(only(&mut matched).findings[0].suppressed_by.as_deref(), Some("rule edr"));
    // Another build at the same path is another file.
    let mut other = later(redirected(), 10);
    if let Evidence::Slot { actual_build_id, .. } = &mut other.evidence[0] {
        *actual_build_id = Some("00ff".to_owned());
    }
    let (_, told) = join(&mut matched, other).unwrap();
    assert_eq!(told.severity, Severity::Critical);

    // By a decision: where the file is not identified, not at all.
    let mut nameless = incidents();
    let mut finding = redirected();
    if let Evidence::Slot { actual_build_id, .. } = &mut finding.evidence[0] {
        *actual_build_id = None;
    }
    join(&mut nameless, finding);
    let refused = decide(&mut nameless, Verb::Suppress).unwrap_err();
    assert!(matches!(refused, Refusal::NotSuppressible(_)), "{refused}");
    assert_eq!(only(&mut nameless).state, State::Open);
}

#[test]
fn an_info_finding_of_the_same_kind_lifts_no_suppression() {
    let mut incidents = incidents_with_one_suppressed();
    let mut info = later(slow_link(), 50);
    info.severity = Severity::Info;
    assert!(join(&mut incidents, info).is_none());
    let kept = only(&mut incidents);
    assert_eq!(kept.state, State::Suppressed);
    assert!(kept.findings[0].suppressed_by.is_some(), "{kept:#?}");
}

#[test]
fn a_rule_for_one_file_does_not_hide_another_beside_it() {
    let by_file = rule(|rule| rule.build_id = Some(BUILD_ID.to_owned()));
    let mut incidents = with(&[by_file]);
    let mut finding = redirected();
    let mut evil = finding.evidence[0].clone();
    if let Evidence::Slot { actual_module, actual_build_id, .. } = &mut evil {
        *actual_module = "/tmp/evil.so".to_owned();
        *actual_build_id = Some("00ff".to_owned());
    }
    finding.evidence.insert(1, evil);
    assert!(join(&mut incidents, finding).is_some());
    assert_eq!(incidents.suppressions().iter().map(|one| one.matches).sum::<u64>(), 0);
}

#[test]
fn every_rule_that_matches_is_counted_and_stands_as_it_did_after_a_restart() {
    let rules = [
        rule(|rule| rule.detector = Some("link_time_shift".to_owned())),
        rule(|rule| {
            rule.name = "old".to_owned();
            rule.until = at(-1);
        }),
        rule(|rule| rule.name = "idle".to_owned()),
    ];
    let mut rules = rules;
    for rule in &mut rules {
        rule.subject = Some("/usr/sbin/sshd".to_owned());
    }
    rules[2].subject = Some("/usr/bin/sudo".to_owned());
    let mut incidents = with(&rules);
    join(&mut incidents, slow_link());
    join(&mut incidents, slow_login());
    let standing = |incidents: &mut Incidents, now: Timestamp| -> Vec<_> {
        let all = incidents.suppressions().iter();
        all.map(|one| (one.name.clone(), one.matches, one.standing(now))).collect()
    };
    let expected = [
        ("edr".to_owned(), 1, Standing::Active),
        ("old".to_owned(), 0, Standing::Expired),
        ("idle".to_owned(), 0, Standing::Unmatched),
    ];
    assert_eq!(standing(&mut incidents, at(9000)), expected);
    assert_eq!(
        incidents.suppressions().matched().into_iter().collect::<Vec<_>>(),
        [("edr".to_owned(), 1)]
    );
    let mut kept = Vec::new();
    incidents
        .suppressions()
        .save(|all| {
            kept.extend(all.iter().map(|one| serde_json::to_vec(one).unwrap()));
            Ok::<_, ()>(())
        })
        .unwrap();
    let kept: Vec<_> = kept.iter().map(|json| serde_json::from_slice(json).unwrap()).collect();
    let mut after = incidents_of(&rules, kept.clone());
    assert_eq!(standing(&mut after, at(9000)), expected);
    // Under the same name another rule: it begins anew.
    rules[0].subject = Some("/usr/bin/su".to_owned());
    let mut after = incidents_of(&rules, kept);
    assert_eq!(standing(&mut after, at(9000))[0], ("edr".to_owned(), 0, Standing::Unmatched));
}

fn incidents_of(rules: &[Suppress], kept: Vec<crate::incident::Suppression>) -> Incidents {
    let mut incidents = incidents();
    incidents.set_suppressions(Suppressions::new(rules, kept, at(9000)));
    incidents
}
