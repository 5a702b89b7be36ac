//! Failures of strangers, many and of every kind: what is normal stays what it was.

use super::*;
use crate::event::EventBody;
use crate::host::testing::{AUTH_PATH, SESSION_PATH};

/// The sshd programs of the imitated machine.
fn subjects(bench: &mut Bench) -> Vec<String> {
    let inode = |path: &str| bench.world.fake.0.lock().unwrap().inode(Path::new(path));
    [SSHD_PATH, SESSION_PATH, AUTH_PATH].map(|path| format!("{path} {}", build(inode(path)))).into()
}

fn baselines(bench: &mut Bench) -> Vec<Baseline> {
    let subjects = subjects(bench);
    subjects.iter().map(|subject| bench.analysis.baseline(subject).clone()).collect()
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
    let mut bench = Bench::new();
    let stranger = bench.world.fresh();
    let arguments = ["sshd:", "-R"].map(str::to_owned).to_vec();
    bench.world.fake.0.lock().unwrap().cmdlines.insert(stranger, arguments);
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
    assert_eq!(sshd, Baseline::default());
}

#[test]
fn a_password_that_is_right_for_an_account_that_is_closed_teaches_nothing() {
    let mut bench = Bench::new();
    // Its check does not come to an end, so that nothing is believed before the connection ends.
    bench.slots.0.lock().unwrap().2 = true;
    let (monitor, child) = (bench.world.fresh(), bench.world.fresh());
    let peer = Some("198.51.100.7:1".parse().unwrap());
    bench.world.fork(LISTENER, monitor, SSHD);
    bench.world.exec_as(monitor, LISTENER, SSHD_PATH, BELOW, 0, 0, peer);
    bench.world.link(monitor, SSHD_PATH, &Login::new("password"));
    bench.world.fork(monitor, child, BELOW);
    bench.world.frame(child, 8, None, MS);
    bench.world.frame(child, 12, None, MS);
    bench.world.frame(monitor, 13, Some(1), 20 * MS);
    bench.world.frame(monitor, 103, Some(0), 21 * MS);
    bench.world.exit(child, BELOW, 2 * MS);
    bench.world.exit(monitor, BELOW, 22 * MS);
    bench.run();
    assert_eq!(baselines(&mut bench).remove(0), Baseline::default());
}
