//! Monitor frames, written by the test itself in the role of sshd.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use sensor::event::{EventBody, Frame, Role};

use crate::harness::{Bench, same, skip};

const SECRET: &str = "correct-horse-battery-staple";

/// Writes as OpenSSH's `mm_request_send` does: header and payload in a `write` each.
fn send(to: impl AsFd, frame_type: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len() + 1).expect("short payload");
    let mut header = length.to_be_bytes().to_vec();
    header.push(frame_type);
    same("header", rustix::io::write(&to, &header), Ok(5));
    if !payload.is_empty() {
        same("payload", rustix::io::write(&to, payload), Ok(payload.len()));
    }
}

/// A string as sshd packs it.
fn string(text: &str) -> Vec<u8> {
    let mut packed = u32::try_from(text.len()).expect("short text").to_be_bytes().to_vec();
    packed.extend(text.as_bytes());
    packed
}

/// This process as an sshd; `None` where frames cannot be seen.
fn sshd() -> Option<(Bench, UnixStream, UnixStream)> {
    let mut bench = Bench::start()?;
    if let Some(reason) = bench.missing("frames") {
        skip(&reason);
        return None;
    }
    bench.sensor.set_process_role(std::process::id(), Role::SSHD).expect("set the role");
    let (ours, theirs) = UnixStream::pair().expect("socket pair");
    Some((bench, ours, theirs))
}

fn expect_frame(bench: &mut Bench, frame_type: u8) -> Frame {
    let own = std::process::id();
    let event = bench.expect(&format!("a frame of type {frame_type}"), own, |event| {
        event.tgid == own
            && matches!(&event.body, EventBody::Frame(frame) if frame.frame_type == frame_type)
    });
    let EventBody::Frame(frame) = event.body else { unreachable!() };
    frame
}

#[test]
fn a_password_login_tells_user_and_verdict_and_never_the_password() {
    let Some((mut bench, sshd, _peer)) = sshd() else { return };
    send(&sshd, 8, &string("alice"));
    send(&sshd, 12, &string(SECRET));
    send(&sshd, 13, &[0, 0, 0, 1, 0, 0, 0, 0]);

    let name = expect_frame(&mut bench, 8);
    same("user", name.user.as_deref(), Some("alice"));
    same("verdict of a request", name.verdict, None);
    let request = expect_frame(&mut bench, 12);
    same("length", usize::try_from(request.frame_len), Ok(SECRET.len() + 5));
    same("user of a password request", request.user, None);
    same("verdict of a password request", request.verdict, None);
    let answer = expect_frame(&mut bench, 13);
    same("verdict", answer.verdict, Some(1));
    same("sender", answer.euid, rustix::process::geteuid().as_raw());

    let told = format!("{:?}", bench.seen);
    assert!(!told.contains(SECRET), "the password is in an event");
    assert!(!told.contains("horse"), "a part of the password is in an event");
}

#[test]
fn a_payload_that_looks_like_a_header_is_no_frame() {
    let Some((mut bench, sshd, _peer)) = sshd() else { return };
    // The five bytes of the payload would be a PWNAM header of their own.
    send(&sshd, 12, &[0, 0, 0, 9, 8]);
    send(&sshd, 26, &[]);
    expect_frame(&mut bench, 26);
    let types: Vec<u8> = bench
        .seen
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::Frame(frame) if event.tgid == std::process::id() => Some(frame.frame_type),
            _ => None,
        })
        .collect();
    same("types", types, vec![12, 26]);
}

#[test]
fn an_answer_written_in_pieces_keeps_its_verdict() {
    let Some((mut bench, sshd, _peer)) = sshd() else { return };
    same("header", rustix::io::write(&sshd, &[0, 0, 0, 13, 25]), Ok(5));
    same("first piece", rustix::io::write(&sshd, &[0, 0, 0, 0, 1, 2, 3]), Ok(7));
    same("second piece", rustix::io::write(&sshd, &[0, 0, 0, 2, 25]), Ok(5));
    send(&sshd, 26, &[]);
    same("verdict", expect_frame(&mut bench, 25).verdict, Some(0));
    expect_frame(&mut bench, 26);
}

#[test]
fn a_long_user_name_is_cut() {
    let Some((mut bench, sshd, _peer)) = sshd() else { return };
    let name = "u".repeat(200);
    send(&sshd, 8, &string(&name));
    same("user", expect_frame(&mut bench, 8).user.as_deref(), name.get(..64));
}

#[test]
fn a_process_that_is_no_sshd_sends_no_frames() {
    let Some((mut bench, sshd, _peer)) = sshd() else { return };
    let own = std::process::id();
    bench.sensor.clear_process_role(own).expect("clear the role");
    send(&sshd, 13, &[0, 0, 0, 1]);
    bench.sensor.set_process_role(own, Role::SSHD).expect("set the role");
    send(&sshd, 25, &[0, 0, 0, 1]);
    expect_frame(&mut bench, 25);
    let seen = bench
        .seen
        .iter()
        .any(|event| matches!(&event.body, EventBody::Frame(frame) if frame.frame_type == 13));
    assert!(!seen, "a frame of a process without the role");
}
