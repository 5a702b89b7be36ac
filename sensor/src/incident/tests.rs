//! Joining, judging and telling.

mod decided;
mod joined;
mod property;
mod tell;

use std::time::Duration;

use super::sample::{
    at, bare, foreign_caller, ktime, redirected, shell, slow_link, slow_login, sshd, xz_like,
};
use super::{Entry, Incident, Incidents, MAX_FINDINGS, MAX_OPEN, Reason, State};
use crate::finding::{Evidence, Family, Finding, Severity};
use crate::host::Lineage;

const WINDOW: Duration = Duration::from_mins(5);
const WINDOW_MS: i64 = 300_000;

fn incidents() -> Incidents {
    Incidents::new(WINDOW, "web1".to_owned())
}

/// Joins at the finding's own clock.
fn join(incidents: &mut Incidents, finding: Finding) -> Option<(Reason, Incident)> {
    let ktime_ns = finding.ktime_ns;
    let update = incidents.join(finding, &sshd(), ktime_ns)?;
    Some((update.reason, update.incident))
}

/// `finding` as it would be `ms` later.
fn later(mut finding: Finding, ms: i64) -> Finding {
    finding.time += jiff::SignedDuration::from_millis(ms);
    finding.ktime_ns += u64::try_from(ms).unwrap() * 1_000_000;
    finding
}

fn only(incidents: &mut Incidents) -> Incident {
    let open: Vec<_> = incidents.open().cloned().collect();
    assert_eq!(open.len(), 1, "{open:#?}");
    open.into_iter().next().unwrap()
}

/// How often the finding of `detector` was seen, by its evidence.
fn times(incident: &Incident, detector: &str) -> u64 {
    let finding = incident.findings.iter().find(|finding| finding.detector == detector).unwrap();
    super::limit::count(finding)
}

#[test]
fn findings_of_one_attack_are_one_critical_incident() {
    let mut incidents = incidents();
    let reasons: Vec<_> = xz_like()
        .into_iter()
        .map(|finding| join(&mut incidents, finding).map(|(why, _)| why))
        .collect();
    let expected = [
        Some(Reason::Opened),       // library_unexpected, medium
        Some(Reason::Corroborated), // link_time_shift, medium, of the same family
        Some(Reason::Escalated),    // got_redirected, critical
        Some(Reason::Corroborated), // foreign_caller
        Some(Reason::Corroborated), // auth_cpu_shift
    ];
    assert_eq!(reasons, expected);
    let incident = only(&mut incidents);
    assert_eq!(incident.severity, Severity::Critical);
    assert_eq!(incident.opened, at(8));
    assert_eq!(incident.updated, at(1050));
    assert_eq!(incident.hosts, ["web1"]);
}

#[test]
fn fifty_connections_are_one_incident_with_counts() {
    let mut incidents = incidents();
    let mut told = 0;
    for connection in 0..50 {
        for finding in xz_like() {
            let mut finding = later(finding, connection * 2000);
            finding.process.pid += u32::try_from(connection).unwrap();
            told += usize::from(join(&mut incidents, finding).is_some());
        }
    }
    let incident = only(&mut incidents);
    assert_eq!(incident.findings.len(), 5);
    assert_eq!(times(&incident, "got_redirected"), 50);
    assert_eq!(told, 5, "a repetition is not told");
    assert_eq!(incident.findings[2].time, at(350), "the first stays");
    assert_eq!(incident.updated, at(1050 + 49 * 2000));
    assert!(
        incident.story.contains("This was seen 50 times, last at 14:04:45."),
        "{}",
        incident.story
    );
    assert!(incident.story.contains("In all, 50 connections"), "{}", incident.story);
    assert!(incident.title.ends_with("; on 50 connections"), "{}", incident.title);
}

#[test]
fn a_worse_repetition_takes_the_place_and_the_count() {
    let mut incidents = incidents();
    join(&mut incidents, slow_link());
    let mut worse = later(slow_link(), 2000);
    worse.severity = Severity::High;
    let (reason, incident) = join(&mut incidents, worse).unwrap();
    assert_eq!(reason, Reason::Escalated);
    assert_eq!(incident.findings[0].time, at(2310));
    let expected = Evidence::Repeated { count: 2, first: at(310), last: at(2310) };
    assert_eq!(incident.findings[0].evidence.last(), Some(&expected));
    join(&mut incidents, later(slow_link(), 4000));
    assert_eq!(times(&only(&mut incidents), "link_time_shift"), 3);
    assert_eq!(only(&mut incidents).findings[0].severity, Severity::High);
}

#[test]
fn another_object_is_another_finding() {
    let mut incidents = incidents();
    join(&mut incidents, redirected());
    let mut other = redirected();
    if let Evidence::Slot { symbol, .. } = &mut other.evidence[0] {
        *symbol = "EVP_PKEY_verify@OPENSSL_3.0.0".to_owned();
    }
    assert!(join(&mut incidents, other).is_none(), "the same detector is no corroboration");
    assert_eq!(only(&mut incidents).findings.len(), 2);
}

#[test]
fn another_lineage_is_another_incident() {
    let mut incidents = incidents();
    join(&mut incidents, super::sample::preload());
    let sudo = Lineage::Program("/usr/bin/sudo 00".to_owned());
    assert!(incidents.join(super::sample::preload(), &sudo, ktime(320)).is_some());
    let ids: Vec<_> = incidents.open().map(|incident| incident.id.clone()).collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn an_info_finding_joins_but_opens_none_and_is_not_told() {
    let mut incidents = incidents();
    assert!(join(&mut incidents, bare("library_unexpected", Severity::Info)).is_none());
    assert_eq!(incidents.open().count(), 0);
    assert_eq!(incidents.counters().passed, 1);
    join(&mut incidents, slow_link());
    assert!(join(&mut incidents, bare("library_unexpected", Severity::Info)).is_none());
    assert_eq!(only(&mut incidents).findings.len(), 2);
}

#[test]
fn the_window_counts_from_the_latest_finding() {
    let mut incidents = incidents();
    join(&mut incidents, slow_link());
    join(&mut incidents, later(redirected(), WINDOW_MS - 40));
    assert_eq!(incidents.open().count(), 1);
    assert!(incidents.tick(ktime(350 + 2 * WINDOW_MS - 40)).is_empty());
    let closed = incidents.tick(ktime(350 + 2 * WINDOW_MS - 39));
    assert_eq!(closed.len(), 1);
    assert_eq!((closed[0].reason, closed[0].incident.state), (Reason::Closed, State::Closed));
    assert_eq!(closed[0].incident.findings.len(), 2);
    assert!(incidents.tick(u64::MAX).is_empty(), "told once");
}

#[test]
fn a_finding_after_the_window_opens_another_without_a_tick() {
    let mut incidents = incidents();
    let (_, first) = join(&mut incidents, slow_link()).unwrap();
    let (reason, second) = join(&mut incidents, later(slow_link(), WINDOW_MS + 1)).unwrap();
    assert_eq!(reason, Reason::Opened);
    assert_ne!(first.id, second.id);
    let closed = incidents.tick(ktime(WINDOW_MS + 400));
    assert_eq!(closed.iter().map(|update| &update.incident.id).collect::<Vec<_>>(), [&first.id]);
}

#[test]
fn severity_rises_only_where_families_corroborate() {
    let severity = |findings: Vec<Finding>| {
        let mut incidents = incidents();
        for finding in findings {
            join(&mut incidents, finding);
        }
        only(&mut incidents).severity
    };
    let weak = |mut finding: Finding| {
        finding.severity = Severity::Low;
        finding
    };
    let explained = |mut finding: Finding| {
        finding.explained_by = Some("upgrade of openssh-server".to_owned());
        finding
    };
    assert_eq!(severity(vec![slow_link()]), Severity::Medium);
    assert_eq!(severity(vec![slow_link(), super::sample::new_library()]), Severity::Medium);
    assert_eq!(severity(vec![slow_link(), slow_login()]), Severity::High);
    assert_eq!(severity(vec![slow_link(), weak(slow_login())]), Severity::Medium);
    assert_eq!(severity(vec![slow_link(), explained(slow_login())]), Severity::Medium);
    assert_eq!(severity(vec![foreign_caller(), slow_link()]), Severity::Critical);
    assert_eq!(severity(vec![redirected(), slow_link()]), Severity::Critical);
}

#[test]
fn the_score_is_what_its_formula_says() {
    let score = |findings: Vec<Finding>| super::score::arithmetic(&findings).score;
    assert_eq!(score(vec![redirected(), slow_link(), slow_login()]), 96); // the module's example
    assert_eq!(score(vec![redirected()]), 88);
    assert_eq!(score(vec![slow_link()]), 41); // 45 × 0.9 = 40.5
    assert_eq!(score(vec![slow_link(), slow_login()]), 62); // 1 - 0.595 × 0.64 = 0.619
    assert_eq!(score(vec![bare("blinded", Severity::Info)]), 0);
    assert_eq!(score(Vec::new()), 0);
}

#[test]
fn the_readme_tells_the_same_weights_and_example() {
    let readme = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    for (severity, name) in [
        (Severity::Critical, "critical"),
        (Severity::High, "high"),
        (Severity::Medium, "medium"),
        (Severity::Low, "low"),
    ] {
        let sum = super::score::arithmetic(&[bare("blinded", severity)]);
        let line = format!("| {name} | {:.2} |", sum.terms[0].weight);
        assert!(readme.contains(&line), "no {line:?}");
    }
    let sum = super::score::arithmetic(&[redirected(), slow_link(), slow_login()]);
    let factors: Vec<_> =
        sum.terms.iter().map(|term| format!("{:.3}", 1.0 - term.strength)).collect();
    let line = format!("100 × (1 − {}) = {}.", factors.join(" × "), sum.score);
    assert!(readme.contains(&line), "no {line:?}");
}

#[test]
fn a_flood_of_one_kind_pushes_out_no_other() {
    let mut incidents = incidents();
    join(&mut incidents, slow_link());
    for number in 0..MAX_FINDINGS * 2 {
        let mut finding = super::sample::new_library();
        finding.severity = Severity::Low;
        finding.evidence =
            vec![Evidence::Exec { path: format!("/x/{number}"), cmdline: Vec::new() }];
        join(&mut incidents, finding);
    }
    assert_eq!(join(&mut incidents, redirected()).unwrap().0, Reason::Escalated);
    let incident = only(&mut incidents);
    assert_eq!(incident.findings.len(), MAX_FINDINGS);
    assert_eq!(times(&incident, "link_time_shift"), 1);
    assert_eq!(times(&incident, "got_redirected"), 1);
    let counters = incidents.counters();
    assert_eq!(counters.omitted, 2 * 64 - 63);
    assert_eq!(counters.displaced, 1);
    assert!(incident.story.contains("66 further findings found no room."), "{}", incident.story);
}

#[test]
fn with_too_many_open_the_oldest_is_closed_and_counted() {
    let mut incidents = incidents();
    let ids: Vec<_> = (0..=MAX_OPEN)
        .map(|number| {
            let lineage = Lineage::Program(format!("/usr/bin/{number}"));
            let moment = ktime(i64::try_from(number).unwrap());
            incidents.join(shell(), &lineage, moment).unwrap().incident.id
        })
        .collect();
    assert_eq!(incidents.open().count(), MAX_OPEN);
    assert_eq!(incidents.counters().closed_early, 1);
    let closed = incidents.tick(ktime(1000));
    assert_eq!(closed.iter().map(|update| &update.incident.id).collect::<Vec<_>>(), [&ids[0]]);
}

#[test]
fn lost_records_make_what_is_open_partial() {
    let mut incidents = incidents();
    join(&mut incidents, slow_link());
    incidents.save(|_| Ok::<_, ()>(())).unwrap();
    incidents.mark_partial();
    let incident = only(&mut incidents);
    assert!(incident.partial && incident.story.contains("Records were lost"), "{incident:#?}");
    assert!(incidents.unsaved());
    let (_, next) = join(&mut incidents, later(slow_link(), WINDOW_MS + 1)).unwrap();
    assert!(!next.partial);
}

#[test]
fn what_changed_is_saved_until_that_succeeds() {
    let mut incidents = incidents();
    join(&mut incidents, slow_link());
    assert_eq!(incidents.save(|_| Err("full")), Err("full"));
    incidents.tick(u64::MAX);
    let mut saved = Vec::new();
    let mut save = |entries: &[&Entry]| {
        saved.extend(entries.iter().map(|entry| entry.incident.state));
        Ok::<_, ()>(())
    };
    incidents.save(&mut save).unwrap();
    incidents.save(&mut save).unwrap();
    assert_eq!(saved, [State::Closed]);
}

#[test]
fn after_a_restart_findings_join_what_was_open() {
    let mut before = incidents();
    join(&mut before, slow_link());
    let mut kept = Vec::new();
    before
        .save(|entries| {
            kept.extend(entries.iter().map(|entry| serde_json::to_vec(entry).unwrap()));
            Ok::<_, ()>(())
        })
        .unwrap();
    let entries = || kept.iter().map(|json| serde_json::from_slice(json).unwrap()).collect();

    // Booted anew in between: the event clock is a small one.
    let mut after = incidents();
    after.restore(entries(), at(310 + WINDOW_MS), 5_000_000);
    let (reason, incident) = {
        let update = after.join(redirected(), &sshd(), 5_000_000).unwrap();
        (update.reason, update.incident)
    };
    assert_eq!(reason, Reason::Escalated);
    assert_eq!(incident.findings.len(), 2);
    assert_eq!(incident.id, only(&mut before).id);

    let mut late = incidents_restored_late(entries());
    assert_eq!(late.open().count(), 0);
    assert_eq!(late.tick(0).len(), 1);
    assert!(late.unsaved(), "that it is closed must be stored");
}

fn incidents_restored_late(entries: Vec<Entry>) -> Incidents {
    let mut late = incidents();
    late.restore(entries, at(311 + WINDOW_MS), 900_000_000_000);
    late
}

#[test]
fn hostile_texts_and_numbers_can_be_stored_and_read_back() {
    let mut incidents = incidents();
    let mut finding = slow_link();
    finding.confidence = f64::NAN;
    finding.process.cmdline = vec!["x".repeat(10_000); 1000];
    finding.evidence = vec![super::sample::timing("link_cpu", f64::INFINITY, f64::NAN, None); 500];
    finding.evidence.push(Evidence::Note { text: "\u{1b}[2J".repeat(100_000) });
    finding.family = Family::Linker;
    join(&mut incidents, finding);
    let json = serde_json::to_vec(&only(&mut incidents)).unwrap();
    assert!(json.len() < 64 * 1024, "{} bytes", json.len());
    let back: Incident = serde_json::from_slice(&json).unwrap();
    assert_eq!(serde_json::to_vec(&back).unwrap(), json);
}
