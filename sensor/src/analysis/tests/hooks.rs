//! Redirected slots: one incident, told in time, with what corroborates it.

use super::*;

#[test]
fn two_hundred_clean_logins_after_learning_say_nothing() {
    for tree in [Tree::V9, Tree::V10] {
        let mut bench = Bench::new();
        bench.learn(tree);
        for at in 0..200_u64 {
            let method = if at % 3 == 0 { "password" } else { "publickey" };
            // The machine gets slower and faster by up to 1.76, for runs of logins.
            let slow_percent = if at / 20 % 2 == 0 { 100 } else { 176 };
            bench.login(&Login { slow_percent, tree, ..Login::new(method) });
        }
        assert_eq!(bench.fired(), Vec::<&str>::new(), "{tree:?}");
        assert!(bench.told.is_empty());
    }
}

#[test]
fn a_hook_with_a_burn_is_one_critical_incident_with_all_three_families() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    bench.attack(300, false, Tree::V9);
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::Critical);
    assert_eq!(families(incident), [Family::Linker, Family::Hook, Family::Sshd]);
    assert_eq!(
        detectors(incident),
        [
            "auth_cpu_shift",
            "foreign_caller",
            "got_redirected",
            "library_unexpected",
            "link_time_shift"
        ]
    );
    println!("{}\n{}\n{}", incident.title, incident.story, incident.recommendation);
    for word in [EVIL, "RSA_public_decrypt", "libcrypto.so.3", "of CPU", "publickey", "0.1 ms"] {
        assert!(incident.story.contains(word), "{word}: {}", incident.story);
    }
    assert!(incident.title.contains("RSA_public_decrypt"), "{}", incident.title);
    assert!(incident.recommendation.contains("liblzma.so.5.4.1"), "{}", incident.recommendation);
    assert!(incident.score >= 90, "{}", incident.score);
    assert_eq!(incident.hosts, ["host1"]);
}

#[test]
fn a_hook_without_a_burn_is_one_critical_incident() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    bench.attack(0, false, Tree::V9);
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::Critical);
    assert_eq!(detectors(incident), ["foreign_caller", "got_redirected", "library_unexpected"]);
}

#[test]
fn a_tail_jump_is_betrayed_by_the_slot_alone() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    bench.attack(300, true, Tree::V9);
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::Critical);
    assert_eq!(families(incident), [Family::Linker, Family::Hook, Family::Sshd]);
    assert!(!detectors(incident).contains(&"foreign_caller"));
}

#[test]
fn a_split_sshd_is_one_incident_too() {
    let mut bench = Bench::new();
    bench.learn(Tree::V10);
    bench.attack(300, false, Tree::V10);
    assert_eq!(bench.incident().severity, Severity::Critical);
    assert_eq!(families(bench.incident()), [Family::Linker, Family::Hook, Family::Sshd]);
}

#[test]
fn a_hooked_slot_is_told_before_anything_was_learned() {
    let mut bench = Bench::new();
    bench.attack(300, false, Tree::V9);
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::Critical);
    assert_eq!(detectors(incident), ["got_redirected", "link_time_shift"]);
}

#[test]
fn slot_evidence_is_there_before_the_login_is_decided() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    bench.attack(300, false, Tree::V9);
    let incident = bench.incident();
    let slot = incident.findings.iter().find(|f| f.detector == "got_redirected").unwrap();
    let auth = incident.findings.iter().find(|f| f.detector == "auth_cpu_shift").unwrap();
    assert!(slot.ktime_ns < auth.ktime_ns);
    let before = slot
        .evidence
        .iter()
        .any(|evidence| matches!(evidence, Evidence::Connection { authenticated: false, .. }));
    assert!(before, "{:?}", slot.evidence);
}

#[test]
fn repeated_attacks_join_the_incident_and_teach_nothing() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let subject = format!("{SSHD_PATH} {}", build(1));
    let before = bench.analysis.baseline(&subject).clone();
    assert!(before.starts >= 50, "{before:?}");
    for _ in 0..20 {
        bench.attack(300, false, Tree::V9);
    }
    let incident = bench.incident();
    assert!(incident.findings.len() <= 8, "{}", incident.findings.len());
    let told = bench.told.len();
    let now: Vec<Incident> = bench.analysis.incidents().open().cloned().collect();
    let slot = now[0].findings.iter().find(|f| f.detector == "got_redirected").unwrap();
    let times = slot.evidence.iter().find_map(|evidence| match evidence {
        Evidence::Repeated { count, .. } => Some(*count),
        _ => None,
    });
    assert!(times.is_some_and(|times| times >= 20), "{:?}", slot.evidence);
    // Told when new, and when it got worse or a new detector spoke; not twenty times.
    assert!(told <= 6, "{told}");
    assert_eq!(*bench.analysis.baseline(&subject), before);
}

#[test]
fn fifty_attacked_connections_are_one_incident_that_tells_the_count() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    for _ in 0..50 {
        bench.attack(300, false, Tree::V9);
    }
    bench.incident();
    let open: Vec<Incident> = bench.analysis.incidents().open().cloned().collect();
    let [incident] = open.as_slice() else { panic!("{open:#?}") };
    let fired = detectors(incident);
    for detector in ["auth_cpu_shift", "foreign_caller", "got_redirected"] {
        assert!(fired.contains(&detector), "no {detector} in {fired:?}");
    }
    assert!(incident.title.ends_with("; on 50 connections"), "{}", incident.title);
    assert!(incident.story.contains("In all, 50 connections"), "{}", incident.story);
    assert_eq!(incident.severity, Severity::Critical);
}

#[test]
fn attacks_on_two_listeners_by_one_library_are_one_incident() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    bench.attack(0, false, Tree::V9);
    // Another instance of the same program, started anew.
    let listener = bench.world.fresh();
    bench.world.fork(1, listener, crate::event::Role::NONE);
    bench.world.exec(listener, 1, SSHD_PATH, SSHD, 0);
    let monitor = bench.world.fresh();
    bench.redirect(monitor);
    bench.world.fork(listener, monitor, SSHD);
    let peer = Some("192.0.2.8:1".parse().unwrap());
    bench.world.exec_as(monitor, listener, SSHD_PATH, BELOW, 0, 0, peer);
    bench.world.link(monitor, SSHD_PATH, &Login::new("publickey").with_evil(0));
    bench.world.now += 50 * MS;
    bench.run();
    let incident = bench.incident().clone();
    let open: Vec<Incident> = bench.analysis.incidents().open().cloned().collect();
    assert_eq!(open.len(), 1, "{open:#?}");
    assert_eq!(open[0].id, incident.id);
}

#[test]
fn a_start_that_serves_nobody_joins_the_next_of_its_program() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let start = |bench: &mut Bench| {
        let tgid = bench.world.fresh();
        bench.redirect(tgid);
        bench.world.fork(1, tgid, crate::event::Role::NONE);
        bench.world.exec(tgid, 1, SSHD_PATH, SSHD, 0);
        bench.world.link(tgid, SSHD_PATH, &Login::new("publickey").with_evil(0));
        bench.world.now += 50 * MS;
        bench.run();
        bench.world.exit(tgid, SSHD, MS);
    };
    // `sshd -t`, then the daemon.
    start(&mut bench);
    start(&mut bench);
    assert_eq!(bench.incident().severity, Severity::Critical);
}

#[test]
fn an_audit_that_nobody_asked_for_is_critical_in_sshd() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let next = bench.world.fresh() + 1;
    bench.slots.0.lock().unwrap().3 = Some(next);
    bench.login(&Login::new("publickey"));
    assert_eq!(bench.fired(), ["audit_unrequested"]);
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::Critical);
    assert!(
        incident.story.contains("for auditing that nobody had asked for"),
        "{}",
        incident.story
    );
    assert!(incident.title.contains("liblzma.so.5.4.1"), "{}", incident.title);
}

#[test]
fn who_called_into_the_library_counts_where_its_own_code_calls_the_function() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let through =
        |caller: &str| Login { through: true, caller: caller.into(), ..Login::new("publickey") };
    bench.login(&through(SSHD_PATH));
    assert_eq!(bench.fired(), Vec::<&str>::new(), "the program itself");
    bench.login(&through(LZMA));
    assert_eq!(bench.fired(), ["foreign_caller"]);
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::Critical);
    assert!(incident.story.contains("liblzma.so.5.4.1"), "{}", incident.story);
}
