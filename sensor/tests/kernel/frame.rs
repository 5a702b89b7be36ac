//! Frames of an imitated sshd monitor: a child of this test writes them on a socket pair.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use sensor::event::{Event, EventBody, Frame, Role};
use sensor::loader::probes::Hook;
use sensor_common::Ring;

use crate::harness::{Bench, same};

/// Set in the environment of the child: what it is to write, in hex, a write per line.
const SCRIPT: &str = "HALFSECOND_TEST_FRAMES";
const DIGITS: [char; 16] =
    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
pub const PASSWORD: &str = "correct-horse-battery";

/// The test binary starts itself with [`SCRIPT`] set and this test's name: then it is the monitor.
#[test]
fn imitate_a_monitor() {
    let Ok(script) = std::env::var(SCRIPT) else { return };
    // Descriptor 0 is this end of the socket pair.
    let socket = std::io::stdin();
    let mut go = [0];
    rustix::io::read(&socket, &mut go).expect("told to go on");
    for line in script.split(',') {
        let bytes: Vec<u8> = line
            .as_bytes()
            .chunks(2)
            .map(|pair| {
                u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex")
            })
            .collect();
        // One write(2) per line, as `atomicio(vwrite, …)` does.
        same("bytes written", rustix::io::write(&socket, &bytes), Ok(bytes.len()));
    }
}

pub fn frame(frame_type: u8, payload: &[u8]) -> Vec<Vec<u8>> {
    let len = u32::try_from(payload.len()).expect("small") + 1;
    let mut header = len.to_be_bytes().to_vec();
    header.push(frame_type);
    if payload.is_empty() { vec![header] } else { vec![header, payload.to_vec()] }
}

pub fn string(text: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).expect("small").to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Starts the imitation with a role, lets it write, and returns what was told of it.
pub fn play(bench: &mut Bench, writes: &[Vec<u8>], role: Role) -> Vec<Event> {
    let (ours, theirs) = UnixStream::pair().expect("socket pair");
    let hex = |bytes: &Vec<u8>| -> String {
        bytes
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|half| DIGITS[usize::from(half)])
            .collect()
    };
    let script: Vec<String> = writes.iter().map(hex).collect();
    let mut child = start(theirs, &script.join(","));
    // An exec takes a role away that was given before.
    bench.expect("an exec", child.id(), |event| {
        event.tgid == child.id() && matches!(event.body, EventBody::Exec(_))
    });
    bench.sensor.set_process_role(child.id(), role).expect("role");
    let mut ours = ours;
    ours.write_all(b"g").expect("go");
    let mut sent = vec![0; writes.iter().map(Vec::len).sum()];
    ours.read_exact(&mut sent).expect("the imitation writes");
    assert!(child.wait().expect("wait").success());
    bench.until_exit(child.id())
}

fn start(socket: UnixStream, script: &str) -> Child {
    Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "frame::imitate_a_monitor"])
        .env(SCRIPT, script)
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)))
        .stdout(Stdio::null())
        .spawn()
        .expect("spawn")
}

pub fn frames(events: &[Event]) -> Vec<&Frame> {
    events
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::Frame(frame) => Some(frame),
            _ => None,
        })
        .collect()
}

#[test]
fn a_login_is_told_by_type_user_and_verdict() {
    let Some(mut bench) = Bench::start() else { return };
    if !bench.serves(Hook::Frames) {
        return;
    }
    let writes = [
        frame(8, &string("alice")),
        frame(22, &string("a key blob of some length")),
        frame(23, &[0, 0, 0, 1, 9, 9]),
        frame(25, &[0, 0, 0, 0]),
        frame(47, &[0, 0, 0, 1]),
        frame(107, &[&[0; 4][..], &string("Password: ")].concat()),
        frame(107, &[0xff; 4]),
        frame(109, &[0xff; 4]),
        frame(109, &[0, 0, 0, 0]),
        // Too short for a word: none was read, which is not the same as -1.
        frame(109, &[0xff; 3]),
        frame(102, &[]),
        frame(103, &[0, 0, 0, 1]),
    ]
    .concat();
    let events = play(&mut bench, &writes, Role::SSHD.with(Role::GUARDED));
    let told: Vec<_> = frames(&events)
        .into_iter()
        .map(|frame| (frame.frame_type, frame.frame_len, frame.verdict, frame.user.clone()))
        .collect();
    same(
        "frames",
        told,
        vec![
            (8, 10, None, Some("alice".to_owned())),
            (22, 30, None, None),
            (23, 7, Some(1), None),
            (25, 5, Some(0), None),
            (47, 5, Some(1), None),
            (107, 19, Some(0), None),
            (107, 5, Some(u32::MAX), None),
            (109, 5, Some(u32::MAX), None),
            (109, 5, Some(0), None),
            (109, 4, None, None),
            (102, 1, None, None),
            (103, 5, Some(1), None),
        ],
    );
    for event in events.iter().filter(|event| matches!(event.body, EventBody::Frame(_))) {
        same("ring", event.ring, Ring::Priority);
    }
    let euid = rustix::process::geteuid().as_raw();
    assert!(frames(&events).iter().all(|frame| frame.euid == euid));
}

#[test]
fn a_password_is_never_read() {
    let Some(mut bench) = Bench::start() else { return };
    if !bench.serves(Hook::Frames) {
        return;
    }
    // A payload of five bytes looks like a header, and one in pieces like several frames.
    let mut writes = [
        frame(12, &string(PASSWORD)),
        frame(12, &string("x")),
        frame(108, &string(PASSWORD)),
        frame(6, &string(PASSWORD)),
        // Of what PAM asks, only the word before its texts.
        frame(107, &[&[0; 4][..], &string(PASSWORD)].concat()),
    ]
    .concat();
    let mut pieces = frame(12, &string("12345678901"));
    let payload = pieces.pop().expect("a payload");
    pieces.extend(payload.chunks(5).map(<[u8]>::to_vec));
    writes.extend(pieces);
    writes.extend(frame(13, &[0, 0, 0, 1]));
    let events = play(&mut bench, &writes, Role::SSHD);
    let told: Vec<_> =
        frames(&events).into_iter().map(|frame| (frame.frame_type, frame.verdict)).collect();
    same(
        "frames",
        told,
        vec![
            (12, None),
            (12, None),
            (108, None),
            (6, None),
            (107, Some(0)),
            (12, None),
            (13, Some(1)),
        ],
    );
    for event in &events {
        if let EventBody::Frame(frame) = &event.body {
            same("user", frame.user.clone(), None);
        }
    }
    assert!(!format!("{:?}", bench.seen).contains(PASSWORD), "the password is in a record");
}

#[test]
fn a_long_or_hostile_user_name_stays_in_its_room() {
    let Some(mut bench) = Bench::start() else { return };
    if !bench.serves(Hook::Frames) {
        return;
    }
    let long = "n".repeat(200);
    // A name that claims more than its frame holds.
    let mut lying = u32::MAX.to_be_bytes().to_vec();
    lying.extend_from_slice(b"bob");
    let writes = [frame(8, &string(&long)), frame(8, &lying), frame(8, &[1])].concat();
    let events = play(&mut bench, &writes, Role::SSHD);
    let users: Vec<_> = frames(&events).into_iter().map(|frame| frame.user.clone()).collect();
    same("users", users, vec![Some("n".repeat(64)), Some("bob".to_owned()), None]);
}

/// What of a key must not be read.
const SECRET: &str = "the key itself";

/// A key that is looked up, as `mm_key_allowed` writes it.
fn look_up(whose: u32, user: &str, host: &str, key: &[u8]) -> Vec<u8> {
    let blob_len = u32::try_from(key.len()).expect("small").to_be_bytes();
    let parts = [&whose.to_be_bytes()[..], &string(user), &string(host), &blob_len, key, &[0; 4]];
    parts.concat()
}

#[test]
fn a_key_is_told_by_its_type_and_whose_it_is() {
    let Some(mut bench) = Bench::start() else { return };
    if !bench.serves(Hook::Frames) {
        return;
    }
    let key = |name: &str| [string(name), string(SECRET)].concat();
    let ed25519 = key("ssh-ed25519");
    let long = key(&"n".repeat(200));
    let lying = [&u32::MAX.to_be_bytes()[..], SECRET.as_bytes()].concat();
    let writes = [
        look_up(2, "", "", &ed25519),
        look_up(1, "alice", "client.example", &key("ssh-rsa")),
        look_up(2, "", "", &long),
        // A name that claims more than there is; nobody's key; nothing behind the word.
        look_up(2, "", "", &lying),
        look_up(3, "", "", &ed25519),
        2_u32.to_be_bytes().to_vec(),
        // A user that claims more than there is.
        [&2_u32.to_be_bytes()[..], &lying].concat(),
    ];
    let writes: Vec<Vec<u8>> = writes.iter().flat_map(|payload| frame(22, payload)).collect();
    let events = play(&mut bench, &writes, Role::SSHD);
    let told: Vec<_> =
        frames(&events).into_iter().map(|frame| (frame.verdict, frame.key_type.clone())).collect();
    let name = |name: &str| Some(name.to_owned());
    same(
        "keys",
        told,
        vec![
            (Some(2), name("ssh-ed25519")),
            (Some(1), name("ssh-rsa")),
            (Some(2), name(&"n".repeat(64))),
            (Some(2), None),
            (None, None),
            (Some(2), None),
            (Some(2), None),
        ],
    );
    let seen = format!("{:?}", frames(&events));
    for beyond in [SECRET, "alice", "client.example"] {
        assert!(!seen.contains(beyond), "{beyond} is in a record: {seen}");
    }
}

#[test]
fn a_process_without_the_role_sends_no_frames() {
    let Some(mut bench) = Bench::start() else { return };
    if !bench.serves(Hook::Frames) {
        return;
    }
    let events = play(&mut bench, &frame(8, &string("alice")), Role::GUARDED);
    same("frames", frames(&events).len(), 0);
}
