//! From events to logins: whole ones, broken ones, strangers', and what is kept of them.

mod kept;
mod keys;
mod pam;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::event::{Event, EventBody};
use crate::host::testing::{
    BELOW, Fake, LISTENER, Layout, Login as Made, MS, SESSION_PATH, SSHD, SSHD_PATH, Tree, Way,
    World, clock,
};
use crate::host::{Body, Owners, Pipeline, Variable};

/// A login as the interface has it, from a peer that guesses.
pub(crate) fn sample() -> Value {
    let phase = |wall: f64, cpu: f64| json!({"wall_seconds": wall, "cpu_seconds": cpu, "page_faults": null});
    json!({
        "start": "2026-11-21T10:00:00Z", "end": "2026-11-21T10:00:09Z", "duration_seconds": 9.0,
        "pid": 4711, "program": "sshd", "uid": null, "peer": "192.0.2.7", "peer_port": 50022, "subject": "/usr/sbin/sshd ab12",
        "container": null, "user": "alice", "method": "publickey", "outcome": "accepted",
        "reason": null, "attempts_left_out": 0, "session": true, "exit_status": 0,
        "exit_signal": null, "guessing": "brute_force", "partial": false,
        "attempts": [{"method": "publickey", "key_type": "ssh-ed25519", "verdict": "accepted",
            "seconds": 0.2, "cpu_seconds": 0.031}],
        "phases": {
            "link": {"wall_seconds": 0.005, "cpu_seconds": 0.004, "page_faults": 295},
            "key_exchange": phase(0.08, 0.012), "auth": phase(0.12, 0.015),
            "pam": phase(0.002, 0.001), "session": null,
        },
    })
}

struct Bench {
    world: World,
    station: Pipeline,
    recorder: Recorder,
}

impl Bench {
    fn new(failed_users: bool) -> Self {
        Self::after(World::new(), failed_users)
    }

    /// With a sensor that starts in this world.
    fn after(world: World, failed_users: bool) -> Self {
        Self::configured(world, failed_users, &Config::default())
    }

    fn configured(world: World, failed_users: bool, config: &Config) -> Self {
        let fake: Fake = world.fake.clone();
        let mut station = Pipeline::new(config, clock(), Box::new(fake.clone()), Box::new(fake));
        station.start(world.now);
        Self { world, station, recorder: Recorder::new(failed_users) }
    }

    fn feed(&mut self, events: Vec<Event>) -> Vec<Told> {
        let mut told = Vec::new();
        for event in events {
            self.station.on_event(event, &mut |seen| told.extend(self.recorder.note(&seen)));
        }
        told
    }

    /// The one connection that these events are of, in the end.
    fn one(&mut self, events: Vec<Event>) -> Login {
        let told = self.feed(events);
        let mut ended = told.into_iter().filter_map(|told| match told {
            Told::Ended { login, .. } => Some(login),
            Told::Begun(..) => None,
        });
        let login = ended.next().expect("it has ended");
        assert!(ended.next().is_none(), "one connection ended once");
        login
    }

    fn login(&mut self, made: &Made) -> Login {
        self.world.login(made);
        let events = self.world.take();
        self.world.now += 200 * MS;
        self.one(events)
    }

    /// The events of a login, cut off before the first frame of this type; everybody exits then,
    /// the monitor with `status`.
    fn cut(&mut self, made: &Made, frame_type: u8, status: u32) -> Vec<Event> {
        let monitor = self.world.login(made);
        let all = self.world.take();
        let is_end = |event: &Event| matches!(&event.body, EventBody::Frame(frame) if frame.frame_type == frame_type);
        let end = all.iter().position(is_end).expect("there is such a frame");
        let is_exit = |event: &&Event| matches!(event.body, EventBody::Exit(_));
        let exits: Vec<_> = all.iter().skip(end).filter(is_exit).cloned().collect();
        let mut events: Vec<Event> = all.into_iter().take(end).chain(exits).collect();
        exit_with(&mut events, monitor, status);
        events
    }
}

fn exit_with(events: &mut [Event], tgid: u32, status: u32) {
    for event in events.iter_mut().filter(|event| event.tgid == tgid) {
        if let EventBody::Exit(exit) = &mut event.body {
            exit.exit_code = status << 8;
        }
    }
}

fn attempts(login: &Login) -> Vec<(&str, &str)> {
    let each = |attempt: &Attempt| (attempt.method.name(), attempt.verdict.name());
    login.attempts.iter().map(each).collect()
}

#[test]
fn a_login_is_told_with_peer_user_verdict_and_phases() {
    for (tree, program) in [(Tree::V9, SSHD_PATH), (Tree::V10, SESSION_PATH)] {
        let mut bench = Bench::new(false);
        let login = bench.login(&Made { tree, ..Made::new("publickey") });
        assert_eq!(login.outcome, Outcome::Accepted);
        assert_eq!(login.user.as_deref(), Some("alice"));
        assert_eq!(login.peer.unwrap().to_string(), "192.0.2.7");
        assert_eq!(login.peer_port, Some(50_022));
        assert!(login.subject.starts_with(program), "{}", login.subject);
        assert_eq!(attempts(&login), [("publickey", "accepted")]);
        assert!(login.session && !login.partial && login.guessing.is_none());
        assert_eq!((login.exit_status, login.exit_signal), (Some(0), None));
        assert_eq!(login.reason, None);

        let end = login.end.expect("it is over");
        let lasted = end.duration_since(login.start).as_secs_f64();
        assert!((lasted - login.duration_seconds.unwrap()).abs() < 1e-6, "{login:#?}");
        let link = login.phases.link.expect("linked");
        assert_eq!(link.page_faults, Some(295));
        assert!(link.cpu_seconds.unwrap() <= link.wall_seconds, "{link:?}");
        let exchanged = login.phases.key_exchange.expect("asked for the user");
        // The client is asked for 12 ms (twice with sshd-auth), after the linking.
        assert!((0.012..0.1).contains(&exchanged.wall_seconds), "{exchanged:?}");
        let auth = login.phases.auth.expect("decided");
        assert!((0.020..0.1).contains(&auth.wall_seconds), "{auth:?}");
        let pam = login.phases.pam.expect("PAM was asked");
        assert!(pam.wall_seconds > 0.0 && pam.wall_seconds < 0.01, "{pam:?}");
        let session = login.phases.session.expect("a session began");
        assert!(session.wall_seconds > 0.0 && session.cpu_seconds.is_none(), "{session:?}");

        let cpu = login.attempts[0].cpu_seconds.unwrap();
        let parts = [link, exchanged, auth].into_iter().filter_map(|phase| phase.cpu_seconds);
        assert!(parts.sum::<f64>() <= cpu + 1e-6, "phases are parts of the whole: {login:#?}");
    }
}

#[test]
fn a_session_is_told_when_it_begins_and_again_when_it_ends() {
    let mut bench = Bench::new(false);
    bench.world.login(&Made::new("password"));
    let events = bench.world.take();
    let told = bench.feed(events);
    let [Told::Begun(first, begun), Told::Ended { id, login, begun: true }] = &told[..] else {
        panic!("{told:#?}")
    };
    assert_eq!(first, id);
    assert_eq!((begun.end, begun.outcome), (None, Outcome::Accepted));
    let known = Login {
        end: login.end,
        duration_seconds: login.duration_seconds,
        exit_status: login.exit_status,
        ..begun.clone()
    };
    assert_eq!(&known, login, "nothing else has changed");
}

#[test]
fn the_name_of_a_login_that_failed_is_kept_only_where_it_is_wanted() {
    for failed_users in [false, true] {
        let mut bench = Bench::new(failed_users);
        let made = Made { succeeds: false, ..Made::new("password") };
        let login = bench.login(&made);
        assert_eq!(login.outcome, Outcome::Refused);
        assert_eq!(attempts(&login), [("password", "refused")]);
        let text = serde_json::to_string(&login).unwrap();
        assert_eq!(text.contains("alice"), failed_users, "{text}");
        assert_eq!(login.phases.session, None);
    }
}

#[test]
fn an_abort_is_told_with_how_far_it_came() {
    let made = Made { succeeds: false, ..Made::new("publickey") };
    for (frame, reason, tried) in [
        (8, "ended before or in the key exchange", &[][..]),
        (22, "ended after the key exchange", &[]),
        (25, "a method was begun, not decided", &[("publickey", "undecided")]),
    ] {
        let mut bench = Bench::new(false);
        // Frames are seen on this host, or the lack of one would mean nothing.
        bench.login(&Made::new("publickey"));
        let events = bench.cut(&made, frame, 255);
        let login = bench.one(events);
        assert_eq!((login.outcome, login.reason.as_deref()), (Outcome::Aborted, Some(reason)));
        assert_eq!(attempts(&login), tried);
        assert_eq!((login.user, login.exit_status), (None, Some(255)));
    }
}

#[test]
fn the_exit_status_tells_who_ran_out_of_time_and_who_was_refused() {
    for (tree, status, outcome) in [
        (Tree::V9, 1, Outcome::TimedOut),
        (Tree::V10, 3, Outcome::TimedOut),
        // It tells of an attempt; the frames tell that it was not refused.
        (Tree::V10, 5, Outcome::Aborted),
        (Tree::V10, 255, Outcome::Aborted),
        // These mean something else to the other program.
        (Tree::V9, 3, Outcome::Aborted),
        (Tree::V9, 5, Outcome::Aborted),
    ] {
        let mut bench = Bench::new(false);
        bench.login(&Made { tree, ..Made::new("publickey") });
        let made = Made { tree, succeeds: false, ..Made::new("publickey") };
        let events = bench.cut(&made, 25, status);
        assert_eq!(bench.one(events).outcome, outcome, "{tree:?} {status}");
    }
}

#[test]
fn a_key_that_sshd_does_not_know_is_refused_by_every_sshd_and_counts_once() {
    for (tree, status) in [(Tree::V9, 255), (Tree::V10, 5)] {
        let mut bench = Bench::new(false);
        bench.login(&Made { tree, ..Made::new("publickey") });
        let made = Made { tree, succeeds: false, ..Made::new("publickey") };
        let flags: Vec<_> = (0..10)
            .map(|_| {
                let mut events = bench.cut(&made, 25, status);
                for event in &mut events {
                    if let EventBody::Frame(frame) = &mut event.body
                        && frame.frame_type == 23
                    {
                        frame.verdict = Some(0);
                    }
                }
                let login = bench.one(events);
                assert_eq!(attempts(&login), [("publickey", "refused")], "{tree:?}");
                assert_eq!((login.outcome, login.reason), (Outcome::Refused, None));
                assert_eq!(login.phases.auth, None, "nothing was verified");
                login.guessing
            })
            .collect();
        assert_eq!((flags[8], flags[9]), (None, Some(Guessing::BruteForce)));
    }
}

#[test]
fn without_frames_the_exit_status_tells_of_an_attempt() {
    let mut bench = Bench::new(false);
    let made = Made { tree: Tree::V10, succeeds: false, ..Made::new("publickey") };
    let mut events = bench.cut(&made, 8, 5);
    events.retain(|event| !matches!(event.body, EventBody::Frame(_)));
    assert_eq!(bench.one(events).outcome, Outcome::Refused);
}

#[test]
fn what_was_lost_is_not_guessed() {
    let mut bench = Bench::new(false);
    bench.login(&Made::new("publickey"));
    let made = Made { succeeds: false, ..Made::new("password") };
    let mut events = bench.cut(&made, 13, 255);
    let rest = events.split_off(events.len() - 2);
    assert!(bench.feed(events).is_empty());
    bench.recorder.on_loss();
    let login = bench.one(rest);
    assert!(login.partial);
    assert_eq!(login.outcome, Outcome::Unknown);
    assert_eq!(login.reason.as_deref(), Some("records about it were lost"));
}

#[test]
fn without_frames_nothing_is_said_of_the_outcome() {
    let mut bench = Bench::new(false);
    let events = bench.cut(&Made::new("publickey"), 6, 255);
    let login = bench.one(events);
    assert_eq!(login.outcome, Outcome::Unknown);
    assert!(login.reason.unwrap().contains("not seen here"));
}

#[test]
fn a_connection_older_than_the_sensor_is_told_as_such() {
    let mut world = World::new();
    let monitor = world.fresh();
    world.fork(LISTENER, monitor, SSHD);
    world.take();
    let mut bench = Bench::after(world, false);
    bench.world.exit(monitor, BELOW, MS);
    let events = bench.world.take();
    let login = bench.one(events);
    assert_eq!(login.outcome, Outcome::Unknown);
    assert_eq!(login.reason.as_deref(), Some("it was open before the sensor started"));
}

#[test]
fn a_peer_that_guesses_is_flagged_also_when_it_is_let_in() {
    let mut bench = Bench::new(false);
    let made = Made { succeeds: false, ..Made::new("password") };
    let flags: Vec<_> = (0..11).map(|_| bench.login(&made).guessing).collect();
    assert_eq!(flags[8], None, "nine failures");
    assert_eq!(flags[9], Some(Guessing::BruteForce));
    assert_eq!(flags[10], Some(Guessing::BruteForce));
    let login = bench.login(&Made::new("password"));
    assert_eq!((login.outcome, login.guessing), (Outcome::Accepted, Some(Guessing::BruteForce)));
    bench.world.now += 601_000 * MS;
    assert_eq!(bench.login(&Made::new("password")).guessing, None, "it is forgotten");
}

#[test]
fn what_was_refused_counts_before_the_end_and_though_one_is_let_in() {
    let mut bench = Bench::new(false);
    // Its connections stay open.
    for round in 0..2 {
        let flow = bench.world.connect(Layout::One, false);
        for _ in 0..5 {
            bench.world.prove(flow, Way::Password, false);
        }
        if round == 1 {
            bench.world.prove(flow, Way::Password, true);
            bench.world.hand_over(flow);
            bench.world.session(flow, 1000);
        }
    }
    let events = bench.world.take();
    let told = bench.feed(events);
    let [Told::Begun(_, login)] = &told[..] else { panic!("{told:#?}") };
    assert_eq!((login.outcome, login.guessing), (Outcome::Accepted, Some(Guessing::BruteForce)));
}

#[test]
fn an_answer_that_comes_after_the_end_opens_nothing() {
    let mut bench = Bench::new(false);
    bench.world.login(&Made::new("publickey"));
    let mut seen = Vec::new();
    for event in bench.world.take() {
        bench.station.on_event(event, &mut |one| seen.push(one));
    }
    let mut late = seen.iter().rfind(|one| one.connection.is_some()).unwrap().clone();
    late.body = Body::Environment(Variable {
        name: "LD_PRELOAD".to_owned(),
        value: "/tmp/a.so".to_owned(),
        inherited: false,
        again: false,
        cut: false,
        late: false,
        libraries: Vec::new(),
        owners: Owners::Answered,
    });
    let told: Vec<_> = seen.iter().flat_map(|one| bench.recorder.note(one)).collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(bench.recorder.note(&late).is_empty());
    assert_eq!(bench.recorder.open(), 0);
}

#[test]
fn a_flood_of_connections_is_bounded_and_accounted_for() {
    let mut bench = Bench::new(false);
    let (connections, most) = (4200, 4096);
    for _ in 0..connections {
        let monitor = bench.world.fresh();
        bench.world.fork(LISTENER, monitor, SSHD);
        let peer = Some("192.0.2.7:1".parse().unwrap());
        bench.world.exec_as(monitor, LISTENER, SSHD_PATH, BELOW, 0, 0, peer);
    }
    let events = bench.world.take();
    let told = bench.feed(events);
    assert_eq!(bench.recorder.open(), most);
    assert_eq!(told.len(), connections - most);
    for told in told {
        let Told::Ended { login, .. } = told else { panic!("{told:?}") };
        assert_eq!((login.outcome, login.end), (Outcome::Unknown, None));
        assert!(login.reason.unwrap().contains("too many at once"));
    }
}

#[test]
fn a_replay_gives_the_same_logins() {
    let script = || {
        let mut bench = Bench::new(true);
        for method in ["publickey", "password"] {
            bench.world.login(&Made::new(method));
            bench.world.login(&Made { succeeds: false, ..Made::new(method) });
        }
        let events = bench.world.take();
        format!("{:?}", bench.feed(events))
    };
    assert_eq!(script(), script());
}

#[test]
fn the_form_of_a_login_is_the_interfaces() {
    let login: Login = serde_json::from_value(sample()).unwrap();
    assert_eq!(serde_json::to_value(login).unwrap(), sample());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_order_and_loss_of_records_is_survived(
        order in prop::collection::vec(0_usize..10_000, 0..400)
    ) {
        let mut bench = Bench::new(true);
        bench.world.login(&Made::new("publickey"));
        bench.world.login(&Made { tree: Tree::V10, succeeds: false, ..Made::new("password") });
        let events = bench.world.take();
        let shuffled = order.iter().map(|at| events[at % events.len()].clone()).collect();
        for told in bench.feed(shuffled) {
            let (Told::Begun(_, login) | Told::Ended { login, .. }) = told;
            let text = serde_json::to_string(&login).unwrap();
            prop_assert_eq!(serde_json::from_str::<Login>(&text).unwrap(), login);
        }
        prop_assert!(bench.recorder.open() <= 2 + order.len());
    }
}
