//! Joining by the file that is blamed, and floods.

use std::time::Instant;

use super::super::sample::{foreign_caller, new_library, preload, redirected, slow_link, xz_like};
use super::*;

fn program(path: &str) -> Lineage {
    Lineage::Program(format!("{path} 00112233"))
}

/// `finding` as it would be of `exe`.
fn of(mut finding: Finding, exe: &str, pid: u32) -> Finding {
    finding.process.exe = exe.to_owned();
    finding.process.pid = pid;
    finding.subject = format!("{exe} 00112233");
    finding
}

fn join_as(incidents: &mut Incidents, finding: Finding, lineage: &Lineage) -> Option<Reason> {
    let ktime_ns = finding.ktime_ns;
    Some(incidents.join(finding, lineage, ktime_ns)?.reason)
}

#[test]
fn one_library_in_two_programs_is_one_incident() {
    let mut incidents = incidents();
    let sudo = program("/usr/bin/sudo");
    for finding in xz_like() {
        join(&mut incidents, finding);
    }
    let again = of(later(redirected(), 1000), "/usr/bin/sudo", 900);
    assert_eq!(join_as(&mut incidents, again, &sudo), None, "the same finding: counted");
    // What names no file goes with the program's other findings.
    let more = of(later(preload(), 2000), "/usr/bin/sudo", 900);
    assert_eq!(join_as(&mut incidents, more, &sudo), Some(Reason::Corroborated));
    let incident = only(&mut incidents);
    assert_eq!(times(&incident, "got_redirected"), 2);
    assert!(incident.story.contains("sudo (pid 900)"), "{}", incident.story);
    // Once it is over, so is that.
    let late = of(later(preload(), 2000 + WINDOW_MS + 10), "/usr/bin/sudo", 900);
    assert_eq!(join_as(&mut incidents, late, &sudo), Some(Reason::Opened));
}

#[test]
fn a_finding_goes_where_its_library_is_blamed_before_where_its_program_is() {
    let mut incidents = incidents();
    let sudo = program("/usr/bin/sudo");
    join_as(&mut incidents, of(preload(), "/usr/bin/sudo", 900), &sudo);
    join(&mut incidents, redirected());
    assert_eq!(incidents.open().count(), 2);
    let reason = join_as(&mut incidents, of(foreign_caller(), "/usr/bin/sudo", 900), &sudo);
    assert_eq!(reason, Some(Reason::Corroborated));
    let lengths: Vec<_> = incidents.open().map(|one| one.findings.len()).collect();
    assert_eq!(lengths, [2, 1], "sshd's has both that blame liblzma");
    // Where the program's own blames it as well, it stays there.
    join_as(&mut incidents, of(slow_link(), "/usr/bin/sudo", 900), &sudo);
    let lengths: Vec<_> = incidents.open().map(|one| one.findings.len()).collect();
    assert_eq!(lengths, [3, 1], "{lengths:?}");
}

#[test]
fn a_library_is_found_at_another_incident_once_the_first_is_over() {
    let mut incidents = incidents();
    let (sudo, su) = (program("/usr/bin/sudo"), program("/usr/bin/su"));
    let of_sudo = |finding| of(finding, "/usr/bin/sudo", 900);
    // Two incidents that come to blame the same library, in the first one's window.
    let mut other = of_sudo(slow_link());
    other.evidence.truncate(1);
    if let Evidence::Timing { module, .. } = &mut other.evidence[0] {
        *module = Some("/usr/lib/libother.so.1".to_owned());
    }
    join_as(&mut incidents, other, &sudo);
    join(&mut incidents, redirected());
    let mut both = of_sudo(slow_link());
    let more = both.evidence[0].clone();
    if let Evidence::Timing { module, .. } = &mut both.evidence[0] {
        *module = Some("/usr/lib/libother.so.1".to_owned());
    }
    both.evidence.push(more);
    join_as(&mut incidents, later(both, 200_000), &sudo);
    // Only sudo's has been touched lately.
    incidents.tick(ktime(400 + WINDOW_MS));
    assert_eq!(incidents.open().count(), 1);
    let third = later(of(foreign_caller(), "/usr/bin/su", 901), 210_000);
    assert_eq!(join_as(&mut incidents, third, &su), Some(Reason::Escalated));
    assert_eq!(incidents.open().count(), 1);
}

#[test]
fn what_is_worth_no_telling_ties_nothing_together() {
    let mut incidents = incidents();
    let sudo = program("/usr/bin/sudo");
    join(&mut incidents, redirected());
    let mut known = of(new_library(), "/usr/bin/sudo", 900);
    known.severity = Severity::Info;
    assert_eq!(join_as(&mut incidents, known, &sudo), None);
    assert_eq!(incidents.counters().passed, 1);
    assert_eq!(only(&mut incidents).findings.len(), 1);
}

#[test]
fn after_a_restart_the_library_still_joins() {
    let mut before = incidents();
    join(&mut before, redirected());
    let mut kept = Vec::new();
    before
        .save(|entries| {
            kept.extend(entries.iter().map(|entry| serde_json::to_vec(entry).unwrap()));
            Ok::<_, ()>(())
        })
        .unwrap();
    let entries = kept.iter().map(|json| serde_json::from_slice(json).unwrap()).collect();
    let mut after = incidents();
    after.restore(entries, at(400), 5_000_000);
    let again = of(redirected(), "/usr/bin/sudo", 900);
    assert!(after.join(again, &program("/usr/bin/sudo"), 6_000_000).is_none());
    assert_eq!(times(&only(&mut after), "got_redirected"), 2);
}

#[test]
fn ten_thousand_findings_of_one_attack_are_one_incident_whose_text_is_written_once_in_a_while() {
    let chain = xz_like();
    let flood: Vec<Finding> = (0..10_000)
        .map(|number| {
            let mut finding = later(chain[number % chain.len()].clone(), 10);
            finding.process.pid = 1000 + u32::try_from(number).unwrap();
            finding
        })
        .collect();
    let mut incidents = incidents();
    let began = Instant::now();
    let mut told = 0;
    for finding in flood {
        told += u64::from(join(&mut incidents, finding).is_some());
    }
    let incident = only(&mut incidents);
    // For the record; no test depends on the time a machine takes.
    println!("10,000 findings of one attack joined in {:?}", began.elapsed());
    assert_eq!(incident.findings.len(), chain.len());
    assert_eq!(times(&incident, "got_redirected"), 2000);
    let counters = incidents.counters();
    assert_eq!(counters.kept + counters.repeated, 10_000);
    // The text costs most: it is written where it is told, and for whoever asked at the end.
    assert_eq!((told, counters.written), (5, 6));
}
