//! What a process means to the sensor, as it is inherited and lost.

use std::path::Path;
use std::process::Command;

use sensor::event::{Event, EventBody, Role};
use sensor_common::Ring;

use crate::harness::{Bench, same, skip};

const SHELL: &str = "/bin/sh";

fn server() -> Role {
    Role::SSHD.with(Role::GUARDED)
}

/// A shell in the place of an sshd, that starts another program.
fn serve(bench: &mut Bench) -> Option<(Vec<Event>, Vec<Event>)> {
    let shell = Path::new(SHELL);
    if !shell.exists() {
        skip("no /bin/sh");
        return None;
    }
    bench.guard(shell, server());
    let mut child = Command::new(shell).args(["-c", "/bin/true; :"]).spawn().expect("spawn");
    child.wait().expect("wait");
    let events = bench.until_exit(child.id());
    let below = events
        .iter()
        .find_map(|event| match event.body {
            EventBody::Fork(fork) => Some(fork.child_tgid),
            _ => None,
        })
        .expect("the shell forks");
    let of_child = bench.until_exit(below);
    same("role of the dead", bench.sensor.process_role(child.id()), Role::NONE);
    same("role of the dead", bench.sensor.process_role(below), Role::NONE);
    Some((events, of_child))
}

#[test]
fn a_child_of_a_server_is_the_server_until_it_executes_another_program() {
    let Some(mut bench) = Bench::start() else { return };
    let Some((server_events, child_events)) = serve(&mut bench) else { return };
    for event in &server_events {
        same("role", event.role, server());
        same("ring", event.ring, Ring::Priority);
    }
    let fork = server_events.iter().find_map(|event| match event.body {
        EventBody::Fork(fork) => Some(fork.child_role),
        _ => None,
    });
    same("role of the child", fork, Some(server().with(Role::BELOW_SSHD)));
    for event in &child_events {
        same("ring", event.ring, Ring::Priority);
        if matches!(event.body, EventBody::Exec(_) | EventBody::Exit(_)) {
            same("role below", event.role, Role::BELOW_SSHD);
        }
    }
    assert!(
        child_events.iter().any(|event| matches!(event.body, EventBody::Exec(_))),
        "no exec among {child_events:#?}"
    );
}

#[test]
fn a_cleared_role_is_not_inherited() {
    let Some(mut bench) = Bench::start() else { return };
    let own = std::process::id();
    bench.sensor.set_process_role(own, Role::SSHD).expect("role");
    bench.sensor.clear_process_role(own).expect("role");
    let mut child = Command::new("/bin/true").spawn().expect("spawn");
    child.wait().expect("wait");
    for event in bench.until_exit(child.id()) {
        same("role", event.role, Role::NONE);
        same("ring", event.ring, Ring::Bulk);
    }
}
