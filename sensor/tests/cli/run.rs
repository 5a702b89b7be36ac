use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use super::harness::{Place, as_stranger, exists, run};

#[test]
fn a_port_in_use_exits_2_before_anything_is_touched() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let place = Place::new(&format!("[http]\nlisten = \"{address}\"\n"));
    let ended = place.run(&["run"]).expect(2);
    assert_eq!(
        ended.stderr,
        format!(
            "error: `http.listen` = \"{address}\" is in use, perhaps by another halfsecond; stop \
             that program, or set `http.listen` to another port or to \"off\"\n"
        )
    );
    assert!(!exists(&place.path("state")), "the state directory was made");
}

#[test]
fn an_address_of_nobody_exits_2() {
    let place = Place::new("[http]\nlisten = \"192.0.2.1:9477\"\n");
    let ended = place.run(&["run"]).expect(2);
    assert!(ended.stderr.contains("is no address of this host"), "{ended:#?}");
}

#[test]
fn a_state_directory_that_is_a_file_exits_2() {
    let place = Place::new("");
    place.write("state", "");
    let ended = place.run(&["run"]).expect(2);
    assert!(ended.stderr.contains("`state_dir` = "), "{ended:#?}");
    assert!(ended.stderr.contains("make it a writable directory, or set another"), "{ended:#?}");
}

#[test]
fn a_state_directory_of_others_exits_3() {
    let place = Place::new("");
    place.open_to_all();
    fs::create_dir(place.path("state")).unwrap();
    fs::set_permissions(place.path("state"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = place.command(&["run"]);
    let Some(command) = as_stranger(&mut command) else { return };
    let ended = run(command).expect(3);
    assert!(ended.stderr.contains("`state_dir` = "), "{ended:#?}");
    assert!(ended.stderr.contains("Permission denied"), "{ended:#?}");
}

#[test]
fn a_port_for_root_exits_3() {
    let place = Place::new("[http]\nlisten = \"127.0.0.1:7\"\n");
    place.open_to_all();
    let unprivileged = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if unprivileged.is_ok_and(|start| start.trim().parse().is_ok_and(|start: u16| start <= 7)) {
        println!("skipped: this machine lets everybody open every port");
        return;
    }
    let mut command = place.command(&["run"]);
    let Some(command) = as_stranger(&mut command) else { return };
    let ended = run(command).expect(3);
    assert!(ended.stderr.contains("CAP_NET_BIND_SERVICE"), "{ended:#?}");
}
