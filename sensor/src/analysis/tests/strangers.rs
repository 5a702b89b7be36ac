//! Failures of strangers, many and of every kind: what is normal stays what it was.

use std::collections::BTreeMap;

use super::*;
use crate::event::EventBody;
use crate::host::testing::{AUTH_PATH, Flow, Layout, SESSION_PATH, Way};

/// The sshd programs of the imitated machine.
fn subjects(bench: &mut Bench) -> Vec<String> {
    let inode = |path: &str| bench.world.fake.0.lock().unwrap().inode(Path::new(path));
    [SSHD_PATH, SESSION_PATH, AUTH_PATH].map(|path| format!("{path} {}", build(inode(path)))).into()
}

fn baselines(bench: &mut Bench) -> Vec<Baseline> {
    let subjects = subjects(bench);
    // When a time was last as usual says where a cause is looked for, not what is normal.
    let taught = |baseline: &Baseline| Baseline { usual_at: BTreeMap::new(), ..baseline.clone() };
    subjects.iter().map(|subject| taught(bench.analysis.baseline(subject))).collect()
}

/// A login that is broken off before anything is decided.
fn broken_off(bench: &mut Bench, login: &Login) {
    bench.world.login(login);
    let answers = |event: &Event| matches!(&event.body, EventBody::Frame(frame) if matches!(frame.frame_type, 13 | 25));
    bench.world.events.retain(|event| !answers(event));
    bench.run();
    bench.world.now += 200 * MS;
}

#[test]
fn brute_force_leaves_settled_baselines_as_they_were() {
    for tree in [Tree::V9, Tree::V10] {
        let mut bench = Bench::new();
        bench.learn(tree);
        let before = baselines(&mut bench);
        assert!(before.iter().any(|baseline| *baseline != Baseline::default()));
        for at in 0..150 {
            let method = ["password", "publickey"][at % 2];
            let mut login = Login { tree, succeeds: false, ..Login::new(method) };
            if at % 3 == 0 {
                broken_off(&mut bench, &login);
                continue;
            }
            // Slower by a little, as a machine is on which somebody tries many.
            login.slow_percent = 110;
            bench.login(&login);
        }
        assert_eq!(baselines(&mut bench), before, "{tree:?}");
        bench.login(&Login { tree, ..Login::new("publickey") });
        assert_ne!(baselines(&mut bench), before, "who is let in still teaches");
    }
}

#[test]
fn who_is_broken_off_teaches_nothing_before_anything_is_known() {
    let mut bench = Bench::new();
    for _ in 0..60 {
        broken_off(&mut bench, &Login { succeeds: false, ..Login::new("publickey") });
    }
    assert!(baselines(&mut bench).iter().all(|baseline| *baseline == Baseline::default()));
}

#[test]
fn a_connection_that_is_no_longer_followed_teaches_nothing() {
    for (arguments, teaches) in [
        (["sshd:", "-R"], false),
        // Seen late, with a title.
        (["sshd: alice [priv]", ""], false),
        (["sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups", ""], true),
    ] {
        let mut bench = Bench::new();
        let stranger = bench.world.fresh();
        let cmdline = arguments.map(str::to_owned).to_vec();
        bench.world.fake.0.lock().unwrap().cmdlines.insert(stranger, cmdline);
        let peer = Some("198.51.100.7:1".parse().unwrap());
        bench.world.fork(LISTENER, stranger, SSHD);
        bench.world.exec_as(stranger, LISTENER, SSHD_PATH, BELOW, 0, 0, peer);
        // More than are followed at once: the first is given up.
        for _ in 0..4100 {
            let other = bench.world.fresh();
            bench.world.fork(LISTENER, other, SSHD);
            bench.world.exec_as(other, LISTENER, SSHD_PATH, BELOW, 0, 0, peer);
        }
        bench.world.map(stranger, SSHD_PATH, Path::new("/tmp/lab/theirs.so"), BELOW);
        bench.world.link(stranger, SSHD_PATH, &Login::new("publickey"));
        bench.world.call(stranger, "RSA_public_decrypt", Path::new(EVIL));
        bench.world.exit(stranger, BELOW, 30 * MS);
        bench.run();
        let sshd = baselines(&mut bench).remove(0);
        assert_eq!(sshd != Baseline::default(), teaches, "{arguments:?}");
    }
}

/// A password that is right; what PAM says of the account then, and when the connection ends.
fn closed_account(bench: &mut Bench) {
    let (monitor, child) = (bench.world.fresh(), bench.world.fresh());
    let peer = Some("198.51.100.7:1".parse().unwrap());
    bench.world.fork(LISTENER, monitor, SSHD);
    bench.world.exec_as(monitor, LISTENER, SSHD_PATH, BELOW, 0, 0, peer);
    bench.world.link(monitor, SSHD_PATH, &Login::new("password"));
    bench.world.fork(monitor, child, BELOW);
    bench.world.frame(child, 8, None, MS);
    bench.world.frame(child, 12, None, MS);
    // Its slots are checked, and clean, before anything is decided.
    bench.run();
    bench.world.now += 2_000 * MS;
    bench.run();
    bench.world.frame(monitor, 13, Some(1), 20 * MS);
    bench.run();
    bench.world.frame(monitor, 103, Some(0), 21 * MS);
    bench.world.exit(child, BELOW, 2 * MS);
    bench.world.exit(monitor, BELOW, 22 * MS);
    bench.run();
}

#[test]
fn a_password_that_is_right_for_an_account_that_is_closed_teaches_nothing() {
    for unfinished in [false, true] {
        let mut bench = Bench::new();
        // A check that does not come to an end leaves the decision to the connection's end.
        bench.slots.0.lock().unwrap().2 = unfinished;
        closed_account(&mut bench);
        assert_eq!(baselines(&mut bench).remove(0), Baseline::default(), "{unfinished}");
    }
}

/// Followed up to the end of authentication.
fn let_in(bench: &mut Bench, layout: Layout, way: Way, pam: bool) -> Flow {
    let flow = bench.world.connect(layout, pam);
    bench.run();
    bench.world.now += 2_000 * MS;
    bench.run();
    bench.world.prove(flow, way, true);
    if pam {
        bench.world.account(flow, true);
    }
    bench.world.hand_over(flow);
    bench.run();
    flow
}

fn learned(bench: &mut Bench) -> bool {
    baselines(bench).iter().any(|baseline| *baseline != Baseline::default())
}

#[test]
fn who_is_let_in_teaches_when_a_session_runs_or_the_connection_is_over() {
    for layout in Layout::ALL {
        for (way, pam) in Way::ALL.into_iter().flat_map(|way| [(way, false), (way, true)]) {
            if way == Way::KeyboardInteractive && !pam {
                continue;
            }
            let case = format!("{layout:?} {way:?} {pam}");
            let mut bench = Bench::new();
            let flow = let_in(&mut bench, layout, way, pam);
            assert!(!learned(&mut bench), "{case}: no session yet");
            bench.world.session(flow, 1000);
            bench.run();
            // A password or a key that is asked about has the slots checked; for the others no
            // linking was seen here that would have.
            let checked = !matches!(way, Way::KeyboardInteractive | Way::Gssapi);
            assert_eq!(learned(&mut bench), checked, "{case}: a session runs");

            let mut bench = Bench::new();
            let flow = let_in(&mut bench, layout, way, pam);
            bench.world.exit(flow.monitor, BELOW, 22 * MS);
            bench.run();
            assert!(learned(&mut bench), "{case}: it ran nothing, and is over");
        }
    }
}
