//! Sessions with and without a verdict, and what runs before one, in every layout.

use super::*;
use crate::event::Frame;
use crate::host::testing::{CHKPWD, Flow, Layout, Way};

pub(super) fn unproven(seen: &[Observation]) -> Vec<Unproven> {
    seen.iter()
        .filter_map(|one| match &one.body {
            Body::Unproven(unproven) => Some(*unproven),
            _ => None,
        })
        .collect()
}

pub(super) fn below(seen: &[Observation]) -> Vec<(String, Below)> {
    seen.iter()
        .filter_map(|one| match &one.body {
            Body::Below(below) => Some((one.process.program.module.path.clone(), *below)),
            _ => None,
        })
        .collect()
}

pub(super) fn played(make: impl FnOnce(&mut World)) -> (Vec<Observation>, Pipeline) {
    let mut world = World::new();
    let mut station = station(&mut world);
    make(&mut world);
    let seen = run(&mut station, world.take());
    (seen, station)
}

/// Every layout and way, with PAM and without, as far as there is such a thing.
fn every(mut check: impl FnMut(Layout, Way, bool)) {
    for layout in Layout::ALL {
        for way in Way::ALL {
            for pam in [false, true] {
                if pam || way != Way::KeyboardInteractive {
                    check(layout, way, pam);
                }
            }
        }
    }
}

/// It was over before anybody read its arguments, and its standard input is no connection.
#[test]
fn a_connection_that_was_gone_when_it_was_looked_at_is_one_all_the_same() {
    every(|layout, way, pam| {
        let case = format!("{layout:?} {way:?} PAM {pam}");
        let mut world = World::new();
        let mut station = station(&mut world);
        world.whole(layout, way, pam);
        let mut events = world.take();
        for event in &mut events {
            if let EventBody::Exec(exec) = &mut event.body {
                exec.peer = None;
            }
        }
        world.fake.0.lock().unwrap().cmdlines.retain(|&tgid, _| tgid == LISTENER);
        let seen = run(&mut station, events);
        assert_eq!(unproven(&seen), [], "{case}");
        assert_eq!(count(&seen, |body| matches!(body, Body::Session)), 1, "{case}");
        let accepted = |body: &Body| matches!(body, Body::Verdict(verdict) if verdict.accepted);
        assert!(count(&seen, accepted) >= 1, "{case}");
    });
}

#[test]
fn a_session_with_its_verdict_is_proven_by_every_way_in_every_layout() {
    every(|layout, way, pam| {
        let case = format!("{layout:?} {way:?} PAM {pam}");
        let (seen, station) = played(|world| {
            world.whole(layout, way, pam);
        });
        assert_eq!(unproven(&seen), [], "{case}");
        assert_eq!(below(&seen), [], "{case}");
        assert_eq!(count(&seen, |body| matches!(body, Body::Session)), 1, "{case}");
        assert_eq!(station.tally().not_known, [0; 6], "{case}");
    });
}

#[test]
fn a_session_after_a_refusal_is_certain_at_its_fork_in_every_layout() {
    every(|layout, way, pam| {
        let case = format!("{layout:?} {way:?} PAM {pam}");
        let mut user = 0;
        let (seen, _) = played(|world| {
            let flow = world.connect(layout, pam);
            world.prove(flow, way, false);
            world.hand_over(flow);
            user = world.fresh() + 1;
            world.session(flow, 1000);
        });
        let found = unproven(&seen);
        let first = Unproven { sign: Sign::Forked, missing: Missing::Verdict, doubt: None };
        assert_eq!(found.first(), Some(&first), "{case}");
        let signs: Vec<Sign> = found.iter().map(|unproven| unproven.sign).collect();
        let whole = [Sign::Forked, Sign::Asked, Sign::Executed { finished: true }];
        assert_eq!(signs, whole, "{case}");
        let at = seen.iter().find(|one| matches!(one.body, Body::Unproven(_))).unwrap();
        assert_eq!(at.process.id.tgid, user, "{case}: before it executes anything");
        assert!(at.connection.as_ref().is_some_and(|connection| !connection.authenticated));
    });
}

#[test]
fn wrong_passwords_before_the_right_one_are_seen_by_whichever_way_they_are_asked_for() {
    for layout in Layout::ALL {
        for way in [Way::Password, Way::KeyboardInteractive] {
            let (seen, _) = played(|world| {
                let flow = world.connect(layout, true);
                for ok in [false, false, true] {
                    world.prove(flow, way, ok);
                }
                world.account(flow, true);
                world.hand_over(flow);
                world.session(flow, 1000);
            });
            let told: Vec<_> = verdicts(&seen)
                .iter()
                .map(|(verdict, _)| (verdict.accepted, verdict.earlier, verdict.check_ns.is_some()))
                .collect();
            let wanted = [(false, 0, true), (false, 1, false), (true, 2, false)];
            assert_eq!(told, wanted, "{layout:?} {way:?}");
            assert_eq!(unproven(&seen), [], "{layout:?} {way:?}");
        }
    }
}

#[test]
fn pam_must_have_let_the_account_in_where_it_was_started() {
    for layout in Layout::ALL {
        let of = |word: Option<bool>| {
            let (seen, _) = played(|world| {
                let flow = world.connect(layout, true);
                world.prove(flow, Way::Publickey, true);
                if let Some(allowed) = word {
                    world.account(flow, allowed);
                }
                world.hand_over(flow);
                world.session(flow, 1000);
            });
            unproven(&seen).first().map(|unproven| (unproven.missing, unproven.doubt))
        };
        assert_eq!(of(Some(true)), None, "{layout:?}");
        assert_eq!(of(Some(false)), Some((Missing::Refused, None)), "{layout:?}");
        assert_eq!(of(None), Some((Missing::Account, None)), "{layout:?}");
    }
}

#[test]
fn roots_session_without_a_process_of_the_users_is_proven_too() {
    // Up to 9.7 the monitor itself serves root.
    let (seen, _) = played(|world| {
        let flow = world.connect(Layout::One, true);
        world.prove(flow, Way::Publickey, true);
        world.run_below(flow.monitor, CHKPWD, 0);
        world.account(flow, true);
        world.hand_over(flow);
        world.run_below(flow.monitor, "/usr/bin/bash", 0);
    });
    assert_eq!(unproven(&seen), []);
    let ran = below(&seen);
    assert_eq!(ran.len(), 1, "PAM's helper for the account comes before the verdict");
    assert!(ran[0].1.known.is_some(), "{ran:?}");
}

#[test]
fn refused_and_aborted_connections_have_no_session() {
    every(|layout, way, pam| {
        let (seen, station) = played(|world| {
            let flow = world.connect(layout, pam);
            for _ in 0..3 {
                world.prove(flow, way, false);
            }
            world.exit(flow.network, BELOW, 0);
            world.exit(flow.monitor, BELOW, 0);
        });
        assert_eq!(unproven(&seen), [], "{layout:?} {way:?} PAM {pam}");
        assert_eq!((station.tally().not_known, station.tally().connections), ([0; 6], 0));
    });
}

pub(super) fn doubts(station: &Pipeline) -> Vec<(&'static str, u64)> {
    let named = Doubt::ALL.into_iter().map(Doubt::name).zip(station.tally().not_known);
    named.filter(|(_, count)| *count > 0).collect()
}

/// Lets sessions go on as sessions where nobody can say.
fn is_counted(seen: &[Observation], station: &Pipeline, reason: &'static str) {
    let found = unproven(seen);
    assert!(found.iter().all(|unproven| unproven.doubt.is_some()), "{reason}: {found:?}");
    assert!(below(seen).iter().all(|(_, below)| below.doubt.is_some()), "{reason}");
    assert_eq!(doubts(station), [(reason, 1)]);
}

#[test]
fn lost_records_are_no_accusation() {
    for layout in Layout::ALL {
        let mut world = World::new();
        let mut station = station(&mut world);
        let flow = world.connect(layout, true);
        run(&mut station, world.take());
        // Its answers are among what is lost.
        station.on_proof_loss(world.now);
        world.frame(flow.network, 26, None, 0);
        world.session(flow, 1000);
        let seen = run(&mut station, world.take());
        is_counted(&seen, &station, "records_lost");

        // One that begins in the batch with the gap, and one after it.
        let lost_until = world.now + 100 * MS;
        station.on_proof_loss(lost_until);
        let refused = |world: &mut World, station: &mut Pipeline| {
            let flow = world.connect(layout, false);
            world.prove(flow, Way::Password, false);
            world.hand_over(flow);
            world.session(flow, 1000);
            unproven(&run(station, world.take()))[0].doubt
        };
        assert_eq!(refused(&mut world, &mut station), Some(Doubt::RecordsLost));
        world.now = lost_until + MS;
        assert_eq!(refused(&mut world, &mut station), None);
    }
}

#[test]
fn what_was_lost_of_ordinary_programs_changes_nothing() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let flow = world.connect(Layout::One, false);
    run(&mut station, world.take());
    station.on_loss();
    world.prove(flow, Way::Password, false);
    world.hand_over(flow);
    world.session(flow, 1000);
    let found = unproven(&run(&mut station, world.take()));
    assert_eq!(found[0].doubt, None, "the priority ring has lost nothing");
}

#[test]
fn a_connection_older_than_the_sensor_is_no_accusation() {
    let mut world = World::new();
    let flow = world.connect(Layout::Session, true);
    world.take();
    let mut station = station(&mut world);
    world.hand_over(flow);
    world.session(flow, 1000);
    let seen = run(&mut station, world.take());
    let found = unproven(&seen);
    assert!(found.iter().all(|one| one.doubt == Some(Doubt::BegunBefore)), "{found:?}");
}

#[test]
fn a_connection_from_before_the_last_probe_is_no_accusation() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let flow = world.connect(Layout::One, false);
    station.armed(world.now);
    world.hand_over(flow);
    world.session(flow, 1000);
    let seen = run(&mut station, world.take());
    is_counted(&seen, &station, "begun_before");
}

#[test]
fn a_layout_whose_frames_are_not_read_is_no_accusation() {
    let (seen, station) = played(|world| {
        let (monitor, network) = (world.fresh(), world.fresh());
        world.fork(LISTENER, monitor, SSHD);
        let peer = Some("192.0.2.7:50022".parse().unwrap());
        world.exec_as(monitor, LISTENER, SSHD_PATH, BELOW, 0, 0, peer);
        world.fork(monitor, network, BELOW);
        world.exit(network, BELOW, 0);
        let flow = Flow { monitor, network };
        let user = world.fresh();
        world.fork(flow.monitor, user, BELOW);
        let shell = world.run_below(user, "/usr/bin/bash", 1000);
        world.run_below(shell, "/usr/bin/true", 1000);
    });
    is_counted(&seen, &station, "frames_unread");
    let is_last = |one: &&Observation| one.process.program.name() == "true";
    let left = seen.iter().find(is_last).unwrap();
    assert!(left.connection.is_none(), "it goes on as a session: {left:?}");
}

#[test]
fn a_program_that_the_kernel_side_did_not_know_is_no_accusation() {
    let first = |named: bool| {
        played(|world| {
            let (monitor, network) = (world.fresh(), world.fresh());
            world.fork(LISTENER, monitor, SSHD);
            let peer = Some("192.0.2.7:50022".parse().unwrap());
            // Replaced since: its inode is new.
            world.exec_as(monitor, LISTENER, SESSION_PATH, Role::BELOW_SSHD, 0, 0, peer);
            world.fork(monitor, network, BELOW);
            if named {
                world.frame(network, 8, None, 0);
            }
            let flow = Flow { monitor, network };
            world.hand_over(flow);
            world.session(flow, 1000);
        })
    };
    // Its role comes after the answers.
    let (seen, station) = first(false);
    is_counted(&seen, &station, "begun_before");
    // Its role came before anything that counts.
    let (seen, _) = first(true);
    assert_eq!(unproven(&seen).first().map(|one| one.doubt), Some(None));
}

#[test]
fn a_session_that_speaks_first_is_no_network_child() {
    let (seen, station) = played(|world| {
        let (monitor, network) = (world.fresh(), world.fresh());
        world.fork(LISTENER, monitor, SSHD);
        let peer = Some("192.0.2.7:50022".parse().unwrap());
        world.exec_as(monitor, LISTENER, SESSION_PATH, BELOW, 0, 0, peer);
        world.fork(monitor, network, BELOW);
        world.exit(network, BELOW, 0);
        world.session(Flow { monitor, network }, 1000);
    });
    is_counted(&seen, &station, "frames_unread");
}

#[test]
fn a_question_whose_answer_was_not_seen_is_no_accusation() {
    let (seen, station) = played(|world| {
        let flow = world.connect(Layout::SessionAuth, false);
        world.frame(flow.network, 24, None, 0);
        world.hand_over(flow);
        world.session(flow, 1000);
    });
    is_counted(&seen, &station, "answer_unseen");
}

#[test]
fn a_session_cannot_rewrite_who_has_logged_in() {
    let (seen, _) = played(|world| {
        let flow = world.connect(Layout::Session, false);
        world.prove(flow, Way::Publickey, true);
        world.hand_over(flow);
        let user = world.fresh();
        world.fork(flow.monitor, user, BELOW);
        // As if on a socket that is forwarded: another name, and another method.
        let frame = |frame_type, user: Option<&str>| {
            let usage = World::usage(0);
            let user = user.map(str::to_owned);
            EventBody::Frame(Frame {
                usage,
                frame_type,
                frame_len: 9,
                verdict: None,
                euid: 0,
                user,
                key_type: None,
            })
        };
        world.push(user, BELOW, frame(8, Some("root")));
        world.push(user, BELOW, frame(12, None));
        world.exit(user, BELOW, 0);
    });
    let last = seen.last().and_then(|one| one.connection.as_ref()).unwrap();
    assert_eq!(last.user.as_deref(), Some("alice"));
    assert_eq!(last.attempted, [Method::Publickey]);
}
