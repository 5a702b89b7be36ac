//! Sessions that nobody authenticated, and programs before a verdict, as incidents.

use super::*;
use crate::event::InodeKey;
use crate::host::Attached;
use crate::host::testing::{CHKPWD, Flow, LIBPAM, Layout, PAM_FUNCTIONS, Way};

/// A connection that is let in though its method was refused.
fn let_in(bench: &mut Bench, layout: Layout, way: Way) -> Flow {
    let flow = bench.world.connect(layout, true);
    bench.world.prove(flow, way, false);
    bench.world.hand_over(flow);
    bench.world.session(flow, 1000);
    flow
}

#[test]
fn a_session_without_a_verdict_is_critical_from_the_first_second() {
    for layout in Layout::ALL {
        for way in Way::ALL {
            let mut bench = Bench::new();
            let_in(&mut bench, layout, way);
            bench.run();
            assert_eq!(bench.fired(), ["auth_without_method"], "{layout:?} {way:?}");
            let incident = bench.incident();
            assert_eq!(incident.severity, Severity::Critical, "{layout:?} {way:?}");
            let title = "began although no method of authentication had succeeded";
            assert!(incident.title.contains(title), "{}", incident.title);
            let story = &incident.story;
            assert!(story.contains("as alice") && story.contains("sshd forked"), "{story}");
        }
    }
}

#[test]
fn ordinary_logins_of_every_kind_give_nothing() {
    let mut bench = Bench::new();
    // Above a thousand connections.
    for round in 0..60 {
        for layout in Layout::ALL {
            for way in Way::ALL {
                let flow = bench.world.connect(layout, true);
                bench.world.run_below(flow.monitor, CHKPWD, 0);
                if round % 3 == 1 {
                    bench.world.prove(flow, way, false);
                }
                bench.world.prove(flow, way, round % 3 != 2);
                if round % 3 != 2 {
                    bench.world.run_below(flow.monitor, CHKPWD, 0);
                    bench.world.account(flow, true);
                    bench.world.hand_over(flow);
                    let shell = bench.world.session(flow, 1000);
                    bench.world.run_below(shell, "/usr/bin/true", 1000);
                }
                bench.world.exit(flow.network, BELOW, 0);
                bench.world.exit(flow.monitor, BELOW, 0);
                bench.run();
            }
        }
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    assert_eq!(bench.station.tally().not_known, [0; 6]);
}

#[test]
fn what_the_network_child_executes_needs_no_learning() {
    for layout in Layout::ALL {
        let mut bench = Bench::new();
        let flow = bench.world.connect(layout, true);
        bench.world.run_below(flow.network, "/usr/bin/true", 100);
        bench.run();
        let incident = bench.incident();
        assert_eq!(detectors(incident), ["preauth_exec"], "{layout:?}");
        assert_eq!(incident.severity, Severity::Critical);
        let told = incident.story.to_lowercase();
        assert!(told.contains("network child had started it"), "{}", incident.story);
    }
}

#[test]
fn a_program_that_others_can_replace_is_no_helper_to_be_learned() {
    let mut bench = Bench::new();
    let flow = bench.world.connect(Layout::One, true);
    bench.world.run_below(flow.monitor, "/home/u/helper", 0);
    bench.run();
    assert_eq!(bench.fired(), ["preauth_exec"]);
}

#[test]
fn a_users_program_before_the_verdict_is_a_session_once_logins_are_known() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let flow = bench.world.connect(Layout::One, false);
    bench.world.run_below(flow.monitor, "/usr/bin/bash", 1000);
    bench.run();
    assert_eq!(detectors(bench.incident()), ["auth_without_method", "preauth_exec"]);
    assert_eq!(bench.incident().severity, Severity::Critical);
}

#[test]
fn what_nobody_can_say_is_counted_and_not_told() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let flow = bench.world.connect(Layout::One, true);
    bench.run();
    bench.station.on_proof_loss(bench.world.now);
    bench.world.hand_over(flow);
    bench.world.session(flow, 1000);
    bench.run();
    assert_eq!(bench.fired(), Vec::<&str>::new());
    assert_eq!(bench.station.tally().not_known.iter().sum::<u64>(), 1);
}

/// Probes on libpam are there, and one connection of this layout was heard.
fn watching(layout: Layout) -> Bench {
    let mut bench = Bench::new();
    bench.world.calls_libpam = true;
    bench.world.whole(layout, Way::Publickey, true);
    bench.run();
    let file = {
        let shared = &mut bench.world.fake.0.lock().unwrap();
        let file = shared.file(Path::new(LIBPAM));
        InodeKey { ino: file.ino, dev: file.dev, reserved: 0 }
    };
    let functions = PAM_FUNCTIONS.map(str::to_owned).to_vec();
    bench.station.attached(&Attached { file, functions, ktime_ns: bench.world.now });
    bench
}

#[test]
fn a_verdict_that_libpam_does_not_bear_out_is_an_incident_of_its_own() {
    for layout in Layout::ALL {
        let mut bench = watching(layout);
        let flow = bench.world.connect(layout, true);
        bench.world.calls_libpam = false;
        bench.world.prove(flow, Way::Password, true);
        bench.world.calls_libpam = true;
        bench.world.account(flow, true);
        bench.world.hand_over(flow);
        bench.world.session(flow, 1000);
        bench.run();
        assert_eq!(bench.fired(), ["auth_without_method"], "{layout:?}");
        let incident = bench.incident();
        assert_eq!(incident.severity, Severity::High, "{layout:?}");
        let title = "accepted password although none of the connection's processes had called \
                     pam_authenticate";
        assert!(incident.title.contains(title), "{}", incident.title);
        assert!(incident.story.contains("for alice"), "{}", incident.story);
    }
}

#[test]
fn a_dialogue_that_pam_has_refused_is_critical() {
    let mut bench = watching(Layout::SessionAuth);
    let flow = bench.world.connect(Layout::SessionAuth, true);
    let child = bench.world.fresh();
    bench.world.frame(flow.network, 104, None, 0);
    bench.world.fork(flow.monitor, child, BELOW);
    bench.world.call_pam(child, BELOW, "authenticate acct_mgmt");
    bench.world.frame(child, 7, None, 0);
    bench.world.frame(flow.monitor, 109, Some(0), 0);
    bench.run();
    assert_eq!(bench.fired(), ["auth_without_method"]);
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::Critical);
    assert!(incident.title.contains("had ended with PAM_AUTH_ERR"), "{}", incident.title);
}
