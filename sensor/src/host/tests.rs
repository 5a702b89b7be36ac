//! The station as a whole, driven by events.

mod below;
mod crosscheck;
mod openings;
mod proof;

use std::path::{Path, PathBuf};

use super::testing::{
    AUTH_PATH, BELOW, Fake, LISTENER, Login, MS, SESSION_PATH, SSHD, SSHD_PATH, Tree, World, clock,
};
use super::*;
use crate::config::Config;
use crate::event::{Event, EventBody, FileFacts, Role};

fn station(world: &mut World) -> Pipeline {
    let fake: Fake = world.fake.clone();
    let mut station =
        Pipeline::new(&Config::default(), clock(), Box::new(fake.clone()), Box::new(fake));
    station.start(world.now);
    station
}

fn run(station: &mut Pipeline, events: Vec<Event>) -> Vec<Observation> {
    let mut seen = Vec::new();
    for event in events {
        station.on_event(event, &mut |observation| seen.push(observation));
    }
    seen
}

fn verdicts(seen: &[Observation]) -> Vec<(Verdict, std::sync::Arc<Connection>)> {
    seen.iter()
        .filter_map(|one| match (&one.body, &one.connection) {
            (Body::Verdict(verdict), Some(connection)) => Some((*verdict, connection.clone())),
            _ => None,
        })
        .collect()
}

fn count(seen: &[Observation], wanted: impl Fn(&Body) -> bool) -> usize {
    seen.iter().filter(|one| wanted(&one.body)).count()
}

#[test]
fn a_login_to_9_2_is_one_connection_from_accept_to_end() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let monitor = world.login(&Login::new("publickey"));
    let seen = run(&mut station, world.take());

    let found = verdicts(&seen);
    assert_eq!(found.len(), 1, "one verdict: {found:?}");
    let (verdict, connection) = &found[0];
    assert!(verdict.accepted && verdict.method == Method::Publickey && verdict.earlier == 0);
    assert_eq!(connection.id.0.tgid, monitor);
    assert_eq!(connection.peer.unwrap().to_string(), "192.0.2.7:50022");
    assert_eq!(connection.user.as_deref(), Some("alice"));
    assert_eq!(connection.program.module.path, SSHD_PATH);
    assert!(!connection.partial && connection.watched);
    // Monitor and network child, but neither the listener nor the session.
    assert!((20 * MS..40 * MS).contains(&verdict.cpu_ns), "{} ns", verdict.cpu_ns);

    assert_eq!(count(&seen, |body| matches!(body, Body::Session)), 1);
    assert_eq!(count(&seen, |body| matches!(body, Body::Closed)), 1);
    let due = seen
        .iter()
        .filter(|one| one.process.id.tgid == monitor && matches!(one.body, Body::CheckDue(_)));
    assert_eq!(due.count(), 2, "once linked, and again before it verifies");
    let lineages: std::collections::BTreeSet<_> = seen
        .iter()
        .filter(|one| one.connection.is_some() && one.process.program.sshd())
        .map(|one| one.process.lineage.clone())
        .collect();
    let listener = ProcessId { tgid: LISTENER, start_ticks: 1 };
    assert_eq!(lineages.into_iter().collect::<Vec<_>>(), [Lineage::Sshd(listener)]);
    assert_eq!(station.tally().connections, 0);
}

#[test]
fn a_check_is_measured_from_the_question_for_the_user_and_where_one_proof_was_checked() {
    let check = |login: &Login| {
        let mut world = World::new();
        let mut station = station(&mut world);
        world.login(login);
        let (verdict, connection) = verdicts(&run(&mut station, world.take())).remove(0);
        let asked = connection.marks.asked.expect("asked");
        let since = verdict.cpu_ns - asked.cpu_ns;
        assert!(verdict.check_ns.is_none_or(|ns| ns == since), "{verdict:?} {asked:?}");
        verdict.check_ns
    };
    let key = || Login::new("publickey");
    let usual = check(&key()).expect("comparable");
    assert!((11 * MS..16 * MS).contains(&usual), "{usual} ns");
    // Neither linking nor the key exchange is in it.
    let mut burnt = Login { exchange_ns: 200 * MS, ..key() };
    burnt.libraries[0].1 += 300 * MS;
    assert!(check(&burnt).expect("comparable").abs_diff(usual) <= 2 * MS);
    let costly = Login { verdict_ns: 20 * MS, ..key() };
    assert_eq!(check(&costly), Some(usual + 20 * MS));
    assert!(check(&Login { tree: Tree::V10, ..key() }).is_some());
    for (refused, by_key, by_password) in
        [(0, true, true), (1, false, true), (2, false, false), (6, false, false)]
    {
        for (method, comparable) in [("publickey", by_key), ("password", by_password)] {
            let login = Login { keys_refused: refused, ..Login::new(method) };
            assert_eq!(check(&login).is_some(), comparable, "{refused} before {method}");
        }
    }
}

#[test]
fn a_login_to_10_0_is_one_connection_with_both_programs() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let login = Login { tree: Tree::V10, ..Login::new("publickey") };
    world.login(&login);
    let seen = run(&mut station, world.take());

    let (verdict, connection) = verdicts(&seen).remove(0);
    assert!(verdict.accepted);
    assert_eq!(connection.program.module.path, SESSION_PATH);
    let started: Vec<&str> = seen
        .iter()
        .filter(|one| matches!(one.body, Body::Started) && one.connection.is_some())
        .map(|one| one.process.program.module.path.as_str())
        .collect();
    assert_eq!(started, [SESSION_PATH, AUTH_PATH]);
    assert_eq!(station.tally().connections, 0);
}

#[test]
fn the_check_comes_due_before_the_verdict() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let monitor = world.login(&Login::new("publickey"));
    let seen = run(&mut station, world.take());
    let of_monitor: Vec<&Body> =
        seen.iter().filter(|one| one.process.id.tgid == monitor).map(|one| &one.body).collect();
    let check = of_monitor.iter().position(|body| matches!(body, Body::CheckDue(_))).unwrap();
    let verdict = of_monitor.iter().position(|body| matches!(body, Body::Verdict(_))).unwrap();
    assert!(check < verdict);
}

#[test]
fn interleaved_connections_do_not_share_cpu_time() {
    let alone = {
        let mut world = World::new();
        let mut station = station(&mut world);
        world.login(&Login::new("publickey"));
        verdicts(&run(&mut station, world.take()))[0].0.cpu_ns
    };
    let mut world = World::new();
    let mut station = station(&mut world);
    world.login(&Login::new("publickey"));
    let first = world.take();
    world.login(&Login::new("password"));
    let second = world.take();
    // Alternate the two, each in its own order; the clock of the merged stream is made to rise.
    let mut merged = Vec::new();
    let (mut a, mut b) = (first.into_iter(), second.into_iter());
    loop {
        let pair = (a.next(), b.next());
        if pair.0.is_none() && pair.1.is_none() {
            break;
        }
        merged.extend(pair.0.into_iter().chain(pair.1));
    }
    let seen = run(&mut station, merged);
    let found = verdicts(&seen);
    assert_eq!(found.len(), 2);
    let by = |method| found.iter().find(|(verdict, _)| verdict.method == method).unwrap();
    assert_eq!(by(Method::Publickey).0.cpu_ns, alone);
    assert!(by(Method::Password).0.cpu_ns >= 70 * MS);
    assert_ne!(by(Method::Publickey).1.id, by(Method::Password).1.id);
}

#[test]
fn a_connection_survives_the_loss_of_any_one_record() {
    let mut world = World::new();
    world.login(&Login::new("publickey"));
    let events = world.take();
    for lost in 0..events.len() {
        let mut world = World::new();
        let mut station = station(&mut world);
        world.login(&Login::new("publickey"));
        let mut events = world.take();
        let gone = events.remove(lost);
        // What is asked of /proc while the record is missing is what runs then.
        let seen = run(&mut station, events);
        let is_answer = matches!(&gone.body, EventBody::Frame(frame) if frame.frame_type == 25);
        let found = verdicts(&seen);
        assert_eq!(found.len(), usize::from(!is_answer), "without {lost}: {gone:?}");
        for (verdict, connection) in found {
            assert!(verdict.accepted, "without {gone:?}");
            assert_eq!(connection.program.module.path, SSHD_PATH, "without {gone:?}");
        }
    }
}

#[test]
fn a_reused_tgid_is_never_part_of_the_old_connection() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let monitor = world.login(&Login::new("publickey"));
    let mut events = world.take();
    // The monitor's exit is lost; much later another program gets its tgid.
    events.retain(|event| !(event.tgid == monitor && matches!(event.body, EventBody::Exit(_))));
    run(&mut station, events);
    assert_eq!(station.tally().connections, 1);
    world.now += 60_000 * MS;
    world.fork(1, monitor, Role::NONE);
    world.exec(monitor, 1, "/usr/bin/bash", Role::NONE, 0);
    let seen = run(&mut station, world.take());
    assert_eq!(count(&seen, |body| matches!(body, Body::Closed)), 1, "the old one is concluded");
    let last = seen.last().unwrap();
    assert!(matches!(last.body, Body::Started) && last.connection.is_none());
    assert_eq!(station.tally().connections, 0);
}

#[test]
fn a_daemon_that_forks_itself_is_a_listener_not_a_connection() {
    let mut world = World::new();
    let mut station = station(&mut world);
    // sshd started by an administrator: the parent ends, its fork listens.
    let (parent, daemon, monitor) = (world.fresh(), world.fresh(), world.fresh());
    world.fork(1, parent, Role::NONE);
    world.exec(parent, 1, SSHD_PATH, SSHD, 0);
    world.fork(parent, daemon, SSHD);
    world.exit(parent, SSHD, MS);
    world.now += 1000 * MS;
    world.fork(daemon, monitor, BELOW);
    let peer = Some("192.0.2.9:1".parse().unwrap());
    world.exec_as(monitor, daemon, SSHD_PATH, BELOW, MS, 0, peer);
    let seen = run(&mut station, world.take());
    let last = seen.last().unwrap();
    let connection = last.connection.as_ref().expect("the child of the daemon is served");
    assert_eq!(connection.id.0.tgid, monitor);
    let Lineage::Sshd(listener) = last.process.lineage else { panic!("{last:?}") };
    assert_eq!(listener.tgid, daemon);
}

#[test]
fn an_answer_from_the_network_child_is_no_verdict() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let (monitor, child) = (world.fresh(), world.fresh());
    world.fork(LISTENER, monitor, SSHD);
    world.exec_as(monitor, LISTENER, SSHD_PATH, BELOW, 0, 0, Some("192.0.2.1:1".parse().unwrap()));
    world.fork(monitor, child, BELOW);
    world.frame(child, 25, Some(0), 0);
    world.frame(child, 26, None, 0);
    let shell = world.fresh();
    world.fork(monitor, shell, BELOW);
    world.exec(shell, monitor, "/usr/bin/bash", Role::BELOW_SSHD, 0);
    let seen = run(&mut station, world.take());
    assert!(verdicts(&seen).is_empty());
    let last = seen.last().unwrap();
    let connection = last.connection.as_ref().expect("still below the connection");
    assert!(!connection.authenticated && connection.finished_unseen);
}

#[test]
fn a_session_leaves_the_connection_and_its_role() {
    let mut world = World::new();
    let mut station = station(&mut world);
    world.login(&Login::new("password"));
    let events = world.take();
    let shell = events
        .iter()
        .find_map(|event| match &event.body {
            EventBody::Exec(exec) if exec.path.path == Path::new("/usr/bin/bash") => {
                Some(event.tgid)
            }
            _ => None,
        })
        .unwrap();
    let seen = run(&mut station, events);
    let started = seen
        .iter()
        .find(|one| one.process.id.tgid == shell && matches!(one.body, Body::Started))
        .unwrap();
    assert!(started.connection.is_none());
    assert!(matches!(started.process.lineage, Lineage::Program(_)));
    let cleared = Directive::SetRole { tgid: shell, role: Role::NONE };
    assert!(station.directives().contains(&cleared));
}

#[test]
fn start_guards_what_runs_and_checks_it() {
    let mut world = World::new();
    world.fake.0.lock().unwrap().libraries.insert(
        LISTENER,
        vec![PathBuf::from("/usr/lib/libcrypto.so.3"), PathBuf::from("/usr/lib/libc.so.6")],
    );
    let mut station = station(&mut world);
    let directives = station.directives();
    assert!(directives.contains(&Directive::SetRole { tgid: LISTENER, role: SSHD }));
    let attached: Vec<&PathBuf> = directives
        .iter()
        .filter_map(|one| match one {
            Directive::Attach { path, what: Watch::Functions(_), .. } => Some(path),
            _ => None,
        })
        .collect();
    assert_eq!(attached, [Path::new("/usr/lib/libcrypto.so.3")]);
    assert!(directives.iter().any(|one| matches!(one, Directive::Guard { .. })));
    let due = station.next_due().expect("the running listener is to be checked");
    let mut seen = Vec::new();
    station.tick(due, &mut |one| seen.push(one));
    assert!(matches!(seen[0].body, Body::CheckDue(CheckReason::Late)));
}

#[test]
fn a_guarded_program_that_is_new_to_the_kernel_side_is_told_and_checked() {
    let mut world = World::new();
    let mut station = station(&mut world);
    station.directives();
    let tgid = world.fresh();
    world.fork(1, tgid, Role::NONE);
    // A container's own copy: the kernel side has no role for its inode yet.
    world.exec(tgid, 1, "/var/lib/merged/usr/sbin/sshd", Role::NONE, 0);
    run(&mut station, world.take());
    let directives = station.directives();
    assert!(directives.contains(&Directive::SetRole { tgid, role: SSHD }), "{directives:?}");
    assert!(
        directives.iter().any(|one| matches!(one, Directive::Guard { role, .. } if *role == SSHD))
    );
    assert!(station.next_due().is_some());
}

#[test]
fn a_hard_link_does_not_take_the_guard_off_a_file() {
    let mut world = World::new();
    let mut station = station(&mut world);
    station.directives();
    let tgid = world.fresh();
    world.fork(1, tgid, Role::NONE);
    world.exec(tgid, 1, "/tmp/innocent", SSHD, 0);
    let seen = run(&mut station, world.take());
    assert!(seen.last().unwrap().process.program.guarded());
    // Its role is known: only its entry, by its inode, is asked for if it is new.
    let asked = station.directives();
    let entry = |one: &Directive| matches!(one, Directive::Attach { what: Watch::Entry, .. });
    assert!(asked.iter().all(entry), "{asked:?}");
}

#[test]
fn ancestors_and_container_are_told() {
    let mut world = World::new();
    let id = "0123456789abcdef".repeat(4);
    world.fake.0.lock().unwrap().cgroups.insert(LISTENER, format!("0::/docker/{id}"));
    let mut station = station(&mut world);
    world.login(&Login::new("publickey"));
    let seen = run(&mut station, world.take());
    let process = &seen.iter().find(|one| matches!(one.body, Body::Linked(_))).unwrap().process;
    assert_eq!(process.shown.ancestors, [SSHD_PATH, "/usr/lib/systemd/systemd"]);
    assert_eq!(process.shown.container.as_deref(), Some(id.as_str()));
}

#[test]
fn an_exec_read_before_its_fork_is_one_process() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let tgid = world.fresh();
    world.fork(1, tgid, Role::NONE);
    world.exec(tgid, 1, SSHD_PATH, SSHD, 0);
    let mut events = world.take();
    events.swap(0, 1);
    let before = station.tally().processes;
    let seen = run(&mut station, events);
    assert_eq!(station.tally().processes, before + 1);
    assert_eq!(seen.len(), 1);
}

#[test]
fn a_replay_gives_the_same_observations() {
    let script = || {
        let mut world = World::new();
        let mut station = station(&mut world);
        for method in ["publickey", "password", "publickey"] {
            world.login(&Login::new(method));
        }
        format!("{:?}", run(&mut station, world.take()))
    };
    assert_eq!(script(), script());
}

#[test]
fn lost_records_make_open_connections_partial() {
    let mut world = World::new();
    let mut station = station(&mut world);
    world.login(&Login::new("publickey"));
    let mut events = world.take();
    let rest = events.split_off(events.len() / 2);
    run(&mut station, events);
    station.on_loss();
    let seen = run(&mut station, rest);
    assert!(verdicts(&seen)[0].1.partial);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn any_order_and_loss_of_records_is_survived(
        order in proptest::collection::vec(0_usize..10_000, 0..400)
    ) {
        let mut world = World::new();
        let mut station = station(&mut world);
        world.login(&Login::new("publickey"));
        world.login(&Login { tree: Tree::V10, ..Login::new("password") });
        let events = world.take();
        let shuffled: Vec<Event> = order.iter().map(|at| events[at % events.len()].clone()).collect();
        run(&mut station, shuffled);
        let tally = station.tally();
        proptest::prop_assert!(tally.connections <= 2 + order.len());
    }
}

#[test]
fn a_guarded_program_is_looked_at_in_every_round_though_nothing_happens() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let mut rounds = 0;
    // Ten rounds and the first look.
    let end = world.now + 11 * 60_000 * MS;
    while let Some(due) = station.next_due().filter(|due| *due <= end) {
        station.tick(due, &mut |one| {
            let of_listener = one.process.id.tgid == LISTENER;
            rounds +=
                u32::from(of_listener && matches!(one.body, Body::CheckDue(CheckReason::Patrol)));
        });
    }
    assert_eq!(rounds, 10);
}

#[test]
fn code_of_a_memfd_in_a_running_program_is_a_reason_to_look_at_it() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let tgid = world.fresh();
    world.fork(1, tgid, Role::NONE);
    world.exec(tgid, 1, "/usr/bin/backup", Role::NONE, 0);
    run(&mut station, world.take());
    let facts = FileFacts { owner: Some(0), links: Some(0), ..FileFacts::default() };
    let mut looked_at = |world: &mut World, path: &str| {
        world.map_file(tgid, "/usr/bin/backup", Path::new(path), Role::NONE, (0o777, 0, facts));
        let mut seen = run(&mut station, world.take());
        let due = world.now + 1000 * MS;
        world.now = due;
        station.tick(due, &mut |one| seen.push(one));
        count(&seen, |body| matches!(body, Body::CheckDue(CheckReason::Memfd)))
    };
    assert_eq!(looked_at(&mut world, "/memfd:frida-agent-64.so"), 1);
    assert_eq!(looked_at(&mut world, "/tmp/deleted.so"), 0);
}
