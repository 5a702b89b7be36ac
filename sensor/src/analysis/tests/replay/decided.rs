//! What people decide, and what is to be expected: live, and in a replay.

use std::collections::BTreeMap;

use super::*;
use crate::config::Suppress;
use crate::incident::{Standing, State, Suppressions, Verb};
use crate::record::{Change, diff, replay_with_rules};

/// What a store has.
#[derive(Default)]
struct Kept(BTreeMap<String, Entry>);

// === impl Kept ===

impl Kept {
    fn save(&mut self, bench: &mut Bench) {
        let keep = |entries: &[&Entry]| {
            let all = entries.iter().map(|&entry| (entry.incident.id.clone(), entry.clone()));
            self.0.extend(all);
            Ok::<_, ()>(())
        };
        bench.analysis.incidents().save(keep).unwrap();
    }

    fn decide(&mut self, bench: &mut Bench, id: &str, verb: Verb) -> Result<Incident, Refusal> {
        self.save(bench);
        let (stored, ktime_ns) = (self.0.get(id).cloned(), bench.world.now);
        let update = bench.analysis.decide(id, stored, &decision(bench, verb), ktime_ns)?;
        self.save(bench);
        Ok(update.incident)
    }
}

fn now(bench: &Bench) -> Timestamp {
    after(Timestamp::from_second(1_700_000_000).unwrap(), bench.world.now)
}

/// A suppression is for an hour.
fn decision(bench: &Bench, verb: Verb) -> Decision {
    let time = now(bench);
    Decision {
        verb,
        time,
        who: "carol".to_owned(),
        why: "ticket 4711".to_owned(),
        uid: 0,
        until: (verb == Verb::Suppress).then(|| time + SignedDuration::from_hours(1)),
    }
}

/// Whatever is found in sshd, but for what only the very file may explain.
fn rule(name: &str) -> Suppress {
    Suppress {
        name: name.to_owned(),
        detector: None,
        subject: Some(SSHD_PATH.to_owned()),
        package: None,
        build_id: None,
        sha256: None,
        until: "2027-01-31T00:00:00Z".parse().unwrap(),
        who: "bob".to_owned(),
        why: "it wraps crypto".to_owned(),
    }
}

/// A rule about one detector's findings.
fn rule_about(detector: &str) -> Suppress {
    Suppress { detector: Some(detector.to_owned()), ..rule("edr") }
}

/// These rules hold from now on, and what is known.
fn expect(bench: &mut Bench, rules: &[Suppress], known: Vec<Suppression>) {
    let suppressions = Suppressions::new(rules, known, now(bench));
    bench.analysis.suppress(suppressions);
}

/// The incident that is open; there is one.
fn open(bench: &mut Bench) -> String {
    let ids: Vec<_> = bench.analysis.incidents().open().map(|one| one.id.clone()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    ids[0].clone()
}

/// An attack, and as long as findings may wait for an answer.
fn attack(bench: &mut Bench) {
    bench.attack(300, false, Tree::V9);
    bench.world.now += 20_000 * MS;
    bench.run();
}

/// Until nothing joins what was open.
fn wait(bench: &mut Bench) {
    bench.world.now += 400_000 * MS;
    bench.run();
}

/// A rule and people's decisions of each kind, about incidents that are open and of the past.
pub(super) fn decided_day(bench: &mut Bench) {
    let mut kept = Kept::default();
    clean_day(bench);
    wait(bench);
    let rules = [rule_about("auth_cpu_shift")];
    expect(bench, &rules, Vec::new());
    (0..3).for_each(|_| attack(bench));
    let first = open(bench);
    kept.decide(bench, &first, Verb::Acknowledge).unwrap();
    attack(bench);
    wait(bench);
    kept.decide(bench, &first, Verb::Suppress).unwrap();
    attack(bench);
    // As after a restart: all stand as they did.
    let known = bench.analysis.suppressions();
    expect(bench, &rules, known);
    attack(bench);
    wait(bench);
    // Over, by the clock of the findings.
    bench.world.now += 2 * 3_600_000 * MS;
    attack(bench);
    let second = open(bench);
    kept.decide(bench, &second, Verb::Close).unwrap();
    kept.decide(bench, &second, Verb::Reopen).unwrap();
    attack(bench);
    kept.decide(bench, "none", Verb::Close).unwrap_err();
    wait(bench);
}

/// What is suppressed, how often it was, and how it stands.
fn standing(all: &[Suppression], now: Timestamp) -> Vec<(String, u64, Standing)> {
    all.iter().map(|one| (one.label(), one.matches, one.standing(now))).collect()
}

#[test]
fn what_people_decide_is_followed_again_in_a_replay() {
    let mut bench = bench(&soon(), None);
    decided_day(&mut bench);
    let (live, suppressions) = (bench.analysis.told.clone(), bench.analysis.suppressions());
    let stands = standing(&suppressions, now(&bench));
    let [(edr, matched, Standing::Active), (first, again, Standing::Expired)] = &stands[..] else {
        panic!("{suppressions:#?}")
    };
    assert!(edr == "rule edr" && *matched > 0 && *again > 0, "{suppressions:#?}");
    let bytes = bench.analysis.end();
    let ((told, one), (_, two)) = (play(&bytes), play(&bytes));
    assert_eq!(told, live);
    assert_eq!(one.suppressions, suppressions);
    assert_eq!((one.counts.decisions, one.counts.unfollowed), (4, 0), "one was refused");
    assert_eq!((json(&one.incidents), one.counts), (json(&two.incidents), two.counts));
    let of = |id: &str| one.incidents.iter().find(|incident| id.ends_with(&incident.id)).unwrap();
    let first = of(first);
    assert_eq!(first.state, State::Suppressed);
    let verbs: Vec<_> = first.decisions.iter().map(|one| one.verb).collect();
    assert_eq!(verbs, [Verb::Acknowledge, Verb::Suppress]);
    let reopened = one.incidents.iter().find(|one| one.state == State::Open).unwrap();
    let verbs: Vec<_> = reopened.decisions.iter().map(|one| one.verb).collect();
    assert_eq!(verbs, [Verb::Close, Verb::Reopen]);
}

#[test]
fn what_was_suppressed_before_a_restart_is_in_the_recording_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { suppress: vec![rule_about("auth_cpu_shift")], ..soon() };
    let mut before = Bench::with(&config, Store::open(dir.path()).0);
    let mut kept = Kept::default();
    clean_day(&mut before);
    (0..3).for_each(|_| attack(&mut before));
    let id = open(&mut before);
    kept.decide(&mut before, &id, Verb::Suppress).unwrap();
    attack(&mut before);
    before.analysis.flush();
    kept.save(&mut before);
    let suppressions = before.analysis.suppressions();
    assert!(suppressions.iter().all(|one| one.matches > 0), "{suppressions:#?}");
    let (at, ktime_ns) = (now(&before), before.world.now);
    drop(before);

    let mut bench = Bench::with(&config, Store::open(dir.path()).0);
    bench.world.now = ktime_ns;
    let entries: Vec<_> = kept.0.into_values().filter(Entry::joins).collect();
    bench.analysis.restore(entries, at, ktime_ns);
    bench.analysis.suppress(Suppressions::new(&config.suppress, suppressions.clone(), at));
    // The same files as before are found, in the same order.
    bench.login(&Login::new("publickey"));
    attack(&mut bench);
    let live = bench.analysis.suppressions();
    assert!(live.iter().zip(&suppressions).all(|(now, then)| now.matches > then.matches));
    let (_, replayed) = play(&bench.analysis.end());
    assert_eq!(replayed.suppressions, live);
    let known = replayed.incidents.iter().find(|one| one.id == id).unwrap();
    assert_eq!(known.state, State::Suppressed);
}

#[test]
fn rules_of_another_configuration_take_the_place_of_the_recorded_ones() {
    let config = Config { suppress: vec![rule("edr")], ..soon() };
    let mut bench = bench(&config, None);
    attacked_day(&mut bench);
    let live = bench.analysis.suppressions();
    assert!(live[0].matches > 0, "{live:#?}");
    let bytes = bench.analysis.end();
    let under = |rules: Option<&[Suppress]>| {
        let mut reader = Reader::open(&bytes[..]).unwrap();
        let settings = reader.header().settings;
        replay_with_rules(&mut reader, &settings, rules, &mut |_| {}).unwrap()
    };
    let then = under(None);
    assert_eq!(then.suppressions, live);
    assert!(then.counts.suppressed >= live[0].matches);
    let same = under(Some(&config.suppress));
    assert!(diff(&then.incidents, &same.incidents).is_empty());
    assert_eq!(same.counts, then.counts);

    let without = under(Some(&[]));
    assert_eq!((without.counts.suppressed, without.suppressions.len()), (0, 0));
    let differs = |replayed: &Replayed| -> Vec<String> {
        // What is suppressed ties no connections together: of several incidents one may have become.
        let changes = diff(&then.incidents, &replayed.incidents);
        let clauses = changes.into_iter().flat_map(|change| match change {
            Change::Changed { differs, .. } => differs,
            Change::Added { .. } | Change::Removed { .. } => Vec::new(),
        });
        clauses.collect()
    };
    let clauses = differs(&without);
    assert!(clauses.iter().any(|one| one.ends_with(", not suppressed")), "{clauses:#?}");
    let fewer = under(Some(&[rule_about("link_time_shift")]));
    let clauses = differs(&fewer);
    assert!(clauses.iter().any(|one| one.ends_with(", not suppressed")), "{clauses:#?}");
    assert!(!clauses.iter().any(|one| one.contains("~ link_time_shift")), "{clauses:#?}");
    assert_eq!(fewer.suppressions[0].detector.as_deref(), Some("link_time_shift"));
}

#[test]
fn a_recording_without_rules_is_replayed_under_those_that_are_given() {
    let mut bench = bench(&soon(), None);
    attacked_day(&mut bench);
    let bytes = bench.analysis.end();
    let mut reader = Reader::open(&bytes[..]).unwrap();
    let settings = reader.header().settings;
    let rules = [rule("edr"), Suppress { subject: Some("/usr/bin/su".to_owned()), ..rule("su") }];
    let under = replay_with_rules(&mut reader, &settings, Some(&rules), &mut |_| {}).unwrap();
    let matches: Vec<_> = under.suppressions.iter().map(|one| one.matches).collect();
    assert!(matches[0] > 0 && matches[1] == 0, "{matches:?}");
    let (_, usual) = play(&bytes);
    assert!(!diff(&usual.incidents, &under.incidents).is_empty());
}

#[test]
fn a_rule_ends_by_the_clock_of_the_recording() {
    let mut bench = bench(&soon(), None);
    clean_day(&mut bench);
    // Years ago by the clock on the wall.
    let until = now(&bench) + SignedDuration::from_mins(1);
    let rules = [Suppress { until, ..rule("edr") }];
    expect(&mut bench, &rules, Vec::new());
    attack(&mut bench);
    wait(&mut bench);
    let matches = bench.analysis.suppressions()[0].matches;
    assert!(matches > 0);
    attack(&mut bench);
    let (told, replayed) = play(&bench.analysis.end());
    assert_eq!(replayed.suppressions[0].matches, matches);
    assert!(replayed.suppressions[0].last_match.unwrap() <= until);
    let (first, second) = (&replayed.incidents[1], &replayed.incidents[0]);
    assert!(first.findings.iter().any(|one| one.suppressed_by.is_some()), "{told:#?}");
    assert!(second.findings.iter().all(|one| one.suppressed_by.is_none()), "{told:#?}");
}

#[test]
fn a_decision_about_what_another_configuration_does_not_tell_is_counted() {
    let mut bench = bench(&soon(), None);
    clean_day(&mut bench);
    let mut login = Login::new("publickey").with_evil(0);
    login.caller = PathBuf::from(SSHD_PATH);
    bench.login(&login);
    bench.world.now += 20_000 * MS;
    bench.run();
    let id = open(&mut bench);
    Kept::default().decide(&mut bench, &id, Verb::Acknowledge).unwrap();
    wait(&mut bench);
    Kept::default().decide(&mut bench, &id, Verb::Close).unwrap();
    let bytes = bench.analysis.end();
    assert_eq!(play(&bytes).1.counts.decisions, 2);
    let mut config = soon();
    config.learning.observations = 1_000;
    let mut reader = Reader::open(&bytes[..]).unwrap();
    let patient = replay(&mut reader, &Settings::of(&config), &mut |_| {}).unwrap();
    assert_eq!((patient.counts.decisions, patient.counts.unfollowed), (0, 2));
    assert!(patient.incidents.is_empty(), "{:#?}", patient.incidents);
}
