//! sshd's verdicts compared with what its libpam was asked, in every layout.

use super::*;
use crate::event::{Caller, Stack};
use crate::host::testing::{Flow, LIBPAM, Layout, MODULE_SIZE, PAM_FUNCTIONS, Way};
use crate::host::watched::inode;

/// A station that is told of calls into libpam, and a world whose sshd makes them.
fn watching() -> (World, Pipeline) {
    let mut world = World::new();
    let mut station = station(&mut world);
    world.calls_libpam = true;
    for layout in Layout::ALL {
        world.whole(layout, Way::Publickey, true);
    }
    run(&mut station, world.take());
    let attached = attached(&world, &PAM_FUNCTIONS);
    station.attached(&attached);
    (world, station)
}

fn attached(world: &World, functions: &[&str]) -> Attached {
    let shared = &mut world.fake.0.lock().unwrap();
    let file = inode(&shared.file(Path::new(LIBPAM)));
    let functions = functions.iter().map(|name| (*name).to_owned()).collect();
    Attached { file, functions, ktime_ns: world.now }
}

fn told(seen: &[Observation]) -> Vec<Disagreement> {
    let each = |one: &Observation| match one.body {
        Body::Disagreed(disagreement) => Some(disagreement),
        _ => None,
    };
    seen.iter().filter_map(each).collect()
}

/// Results other than agreement since `before`, and how often.
fn others(station: &Pipeline, before: Tally) -> Vec<(&'static str, u64)> {
    let now = station.tally().comparisons;
    let counts = now.iter().zip(before.comparisons).map(|(now, before)| now - before);
    let named = Compared::ALL.into_iter().map(Compared::name).zip(counts);
    named.filter(|(name, count)| *count > 0 && *name != Compared::Agreed.name()).collect()
}

fn agreed(station: &Pipeline) -> u64 {
    station.tally().comparisons[0]
}

/// What `make` gives, and the counts of it.
fn made(
    (mut world, mut station): (World, Pipeline),
    make: impl FnOnce(&mut World),
) -> (Vec<Disagreement>, Vec<(&'static str, u64)>) {
    let before = station.tally();
    make(&mut world);
    let seen = run(&mut station, world.take());
    (told(&seen), others(&station, before))
}

/// Accepted, and libpam is asked about the account only.
fn forged(world: &mut World, flow: Flow, way: Way) {
    world.calls_libpam = false;
    world.prove(flow, way, true);
    world.calls_libpam = true;
    world.account(flow, true);
    world.hand_over(flow);
    world.session(flow, 1000);
}

const ASKED: [(Way, Method); 3] = [
    (Way::Password, Method::Password),
    (Way::KeyThenPassword, Method::Password),
    (Way::KeyboardInteractive, Method::KeyboardInteractive),
];

#[test]
fn every_way_in_agrees_in_every_layout() {
    for layout in Layout::ALL {
        for way in Way::ALL {
            let (mut world, mut station) = watching();
            let before = station.tally();
            let flow = world.whole(layout, way, true);
            world.call_pam(flow.monitor, BELOW, "setcred end:0");
            world.exit(flow.monitor, BELOW, 0);
            let seen = run(&mut station, world.take());
            assert_eq!(told(&seen), [], "{layout:?} {way:?}");
            assert_eq!(others(&station, before), [], "{layout:?} {way:?}");
            let by_pam = ![Way::Publickey, Way::Gssapi].contains(&way);
            let compared = agreed(&station) - before.comparisons[0];
            assert_eq!(compared, 1 + u64::from(by_pam), "{layout:?} {way:?}");
        }
    }
}

#[test]
fn a_yes_that_libpam_was_not_asked_for_is_told_at_once_in_every_layout() {
    for layout in Layout::ALL {
        for (way, method) in ASKED {
            let (mut world, mut station) = watching();
            let before = station.tally();
            let flow = world.connect(layout, true);
            forged(&mut world, flow, way);
            let seen = run(&mut station, world.take());
            let case = format!("{layout:?} {way:?}");
            assert_eq!(told(&seen), [Disagreement::Unasked(method)], "{case}");
            assert_eq!(others(&station, before), [("disagreed", 1)], "{case}");
            let at = |wanted: fn(&Body) -> bool| seen.iter().position(|one| wanted(&one.body));
            let disagreed = at(|body| matches!(body, Body::Disagreed(_))).unwrap();
            assert_eq!(seen[disagreed].process.id.tgid, flow.monitor, "{case}");
            let session = at(|body| matches!(body, Body::Session)).unwrap();
            assert!(disagreed < session, "{case}: before the session");
            let connection = seen[disagreed].connection.as_ref().unwrap();
            assert_eq!(connection.user.as_deref(), Some("alice"), "{case}");
        }
    }
}

#[test]
fn each_attempt_counts_for_itself() {
    for layout in Layout::ALL {
        for (way, method) in [ASKED[0], ASKED[2]] {
            let honest = made(watching(), |world| {
                let flow = world.connect(layout, true);
                for ok in [false, false, true] {
                    world.prove(flow, way, ok);
                }
                world.account(flow, true);
                world.hand_over(flow);
                world.session(flow, 1000);
            });
            assert_eq!(honest, (vec![], vec![]), "{layout:?} {way:?}");
            let (found, _) = made(watching(), |world| {
                let flow = world.connect(layout, true);
                world.prove(flow, way, false);
                forged(world, flow, way);
            });
            assert_eq!(found, [Disagreement::Unasked(method)], "{layout:?} {way:?}");
        }
    }
}

#[test]
fn a_password_after_a_dialogue_that_was_broken_off_is_asked_for_anew() {
    let (found, _) = made(watching(), |world| {
        let flow = world.connect(Layout::One, true);
        let child = world.fresh();
        for (sender, frame_type) in [(flow.network, 104), (flow.monitor, 105)] {
            world.frame(sender, frame_type, None, 0);
        }
        world.fork(flow.monitor, child, BELOW);
        world.call_pam(child, BELOW, "authenticate");
        forged(world, flow, Way::Password);
    });
    assert_eq!(found, [Disagreement::Unasked(Method::Password)]);
}

#[test]
fn an_account_that_libpam_was_not_asked_about_is_told_in_every_layout() {
    for layout in Layout::ALL {
        let (found, counted) = made(watching(), |world| {
            let flow = world.connect(layout, true);
            world.prove(flow, Way::Publickey, true);
            world.calls_libpam = false;
            world.account(flow, true);
            world.calls_libpam = true;
            world.hand_over(flow);
            world.session(flow, 1000);
        });
        assert_eq!(found, [Disagreement::AccountUnasked], "{layout:?}");
        assert_eq!(counted, [("disagreed", 1)], "{layout:?}");
    }
}

/// A dialogue whose child ends with `status`; the monitor accepts it all the same.
fn overruled(world: &mut World, flow: Flow, status: u8) {
    let child = world.fresh();
    world.frame(flow.network, 104, None, 0);
    world.fork(flow.monitor, child, BELOW);
    world.call_pam(child, BELOW, "authenticate get_authtok acct_mgmt");
    world.frame(child, 1, None, 0);
    world.frame(child, status, None, 0);
    world.frame(flow.monitor, 107, Some(0), 0);
    world.frame(flow.network, 108, None, 0);
    world.frame(flow.monitor, 109, Some(0), 0);
    world.exit(child, BELOW, 0);
    world.account(flow, true);
    world.hand_over(flow);
    world.session(flow, 1000);
}

#[test]
fn a_dialogue_that_pams_child_has_refused_is_told_in_every_layout() {
    for layout in Layout::ALL {
        for (status, wanted) in [(7, true), (11, true), (13, true), (0, false)] {
            let (found, _) = made(watching(), |world| {
                let flow = world.connect(layout, true);
                overruled(world, flow, status);
            });
            let refused = if wanted { vec![Disagreement::Refused(status)] } else { vec![] };
            assert_eq!(found, refused, "{layout:?} {status}");
        }
    }
    // It is said by the frames alone.
    let mut world = World::new();
    let unwatched = station(&mut world);
    let (found, _) = made((world, unwatched), |world| {
        let flow = world.connect(Layout::One, true);
        overruled(world, flow, 7);
    });
    assert_eq!(found, [Disagreement::Refused(7)]);
}

#[test]
fn a_session_after_libpams_last_refusal_is_told_and_no_other() {
    let end = |calls: &str, session: bool| {
        made(watching(), |world| {
            let flow = world.connect(Layout::Session, true);
            world.prove(flow, Way::Password, true);
            world.account(flow, true);
            world.calls_libpam = false;
            world.hand_over(flow);
            if session {
                world.session(flow, 1000);
            }
            world.call_pam(flow.monitor, BELOW, calls);
        })
        .0
    };
    assert_eq!(end("end:13", true), [Disagreement::Ended(13)]);
    assert_eq!(end("end:13", false), [], "nobody was let in");
    // sshd goes on without a session of PAM's where a module refuses one.
    for calls in ["end:0", "end:12", "setcred open_session end:6", "setcred end:7", "open_session"]
    {
        assert_eq!(end(calls, true), [], "{calls}");
    }
}

#[test]
fn without_pam_nothing_is_compared() {
    let (mut world, mut station) = watching();
    world.calls_libpam = false;
    let before = station.tally();
    for layout in Layout::ALL {
        for way in [Way::Publickey, Way::Password] {
            world.whole(layout, way, false);
        }
    }
    assert_eq!(told(&run(&mut station, world.take())), []);
    assert_eq!(station.tally().comparisons, before.comparisons);
}

#[test]
fn what_is_not_watched_or_not_for_long_enough_accuses_nobody() {
    let alone = || {
        let mut world = World::new();
        let station = station(&mut world);
        (world, station)
    };
    let password = |world: &mut World| {
        world.calls_libpam = true;
        let flow = world.connect(Layout::SessionAuth, true);
        forged(world, flow, Way::Password);
    };
    let unwatched = (vec![], vec![("unwatched", 1)]);
    assert_eq!(made(alone(), password), unwatched, "no probe is there");
    let built_in = |world: &mut World| {
        let flow = world.connect(Layout::One, true);
        world.prove(flow, Way::Password, true);
    };
    assert_eq!(made(alone(), built_in), unwatched, "it has no libpam that is known");

    // Its probes are there once the connection is.
    let (mut world, mut station) = alone();
    world.calls_libpam = true;
    let flow = world.connect(Layout::One, true);
    run(&mut station, world.take());
    let late = attached(&world, &PAM_FUNCTIONS);
    station.attached(&late);
    assert_eq!(made((world, station), |world| forged(world, flow, Way::Password)), unwatched);

    // Another function's is.
    let (mut world, mut station) = alone();
    world.calls_libpam = true;
    world.whole(Layout::One, Way::Password, true);
    run(&mut station, world.take());
    let other = attached(&world, &["pam_acct_mgmt"]);
    station.attached(&other);
    let one = |world: &mut World| {
        let flow = world.connect(Layout::One, true);
        forged(world, flow, Way::Password);
    };
    assert_eq!(made((world, station), one), unwatched);
}

#[test]
fn a_probe_that_was_never_heard_accuses_nobody() {
    let mut world = World::new();
    let mut station = station(&mut world);
    world.calls_libpam = true;
    world.connect(Layout::One, true);
    run(&mut station, world.take());
    let attached = attached(&world, &PAM_FUNCTIONS);
    station.attached(&attached);
    world.now += MS;
    let silent = |world: &mut World| {
        let flow = world.connect(Layout::One, true);
        world.calls_libpam = false;
        world.prove(flow, Way::Password, true);
    };
    assert_eq!(made((world, station), silent), (vec![], vec![("unwatched", 1)]));
}

#[test]
fn what_was_lost_or_could_not_be_named_accuses_nobody() {
    let case = |between: &dyn Fn(&mut World, &mut Pipeline, Flow)| {
        let (mut world, mut station) = watching();
        let before = station.tally();
        let flow = world.connect(Layout::Session, true);
        run(&mut station, world.take());
        between(&mut world, &mut station, flow);
        forged(&mut world, flow, Way::KeyboardInteractive);
        assert_eq!(told(&run(&mut station, world.take())), []);
        others(&station, before)
    };
    let lost = case(&|world, station, _| station.on_proof_loss(world.now));
    assert_eq!(lost, [("partly_seen", 1)]);
    let full = case(&|world, station, _| station.call_missed(world.now));
    assert_eq!(full, [("call_unnamed", 1)]);
    let stranger = case(&|world, _, _| world.call_pam(7777, BELOW, "authenticate"));
    assert_eq!(stranger, [("call_unnamed", 1)]);
    let nameless = case(&|world, _, flow| {
        let ip = {
            let shared = &mut world.fake.0.lock().unwrap();
            shared.inode(Path::new(LIBPAM)) * MODULE_SIZE + 0x4000
        };
        let usage = World::usage(0);
        let stack = Stack::default();
        let caller = Caller { usage, ip, return_address: ip, status: None, stack };
        world.push(flow.monitor, BELOW, EventBody::Caller(caller));
    });
    assert_eq!(nameless, [("call_unnamed", 1)]);
}

#[test]
fn a_connection_from_before_accuses_nobody() {
    let (mut world, mut station) = watching();
    let before = station.tally();
    let flow = world.connect(Layout::One, true);
    station.armed(world.now);
    forged(&mut world, flow, Way::Password);
    assert_eq!(told(&run(&mut station, world.take())), []);
    assert_eq!(others(&station, before), [("partly_seen", 1)]);
}

#[test]
fn a_password_that_kerberos_may_have_checked_accuses_nobody() {
    for commands in [Some(Commands::of_kerberos()), None] {
        for (way, method) in [ASKED[0], ASKED[2]] {
            let (world, station) = watching();
            world.fake.0.lock().unwrap().commands = commands.clone();
            let found = made((world, station), |world| {
                let flow = world.connect(Layout::SessionAuth, true);
                forged(world, flow, way);
            });
            let elsewhere = (vec![], vec![("checked_elsewhere", 1)]);
            let pams = (vec![Disagreement::Unasked(method)], vec![("disagreed", 1)]);
            let wanted = if way == Way::Password { elsewhere } else { pams };
            assert_eq!(found, wanted, "{way:?} {commands:?}");
        }
    }
}

#[test]
fn the_call_of_a_child_that_is_gone_when_it_is_looked_at_is_heard() {
    let (mut world, mut station) = watching();
    // Where its functions lie is known from others.
    world.whole(Layout::One, Way::Password, true);
    let before = agreed(&station);
    run(&mut station, world.take());
    assert_eq!(agreed(&station) - before, 2);
    let found = made((world, station), |world| {
        let flow = world.connect(Layout::SessionAuth, true);
        let child = world.fresh() + 1;
        world.fake.0.lock().unwrap().gone.push(child);
        world.prove(flow, Way::KeyboardInteractive, true);
        world.account(flow, true);
    });
    assert_eq!(found, (vec![], vec![]));
}
