//! Records of every kind, and what is none.

use proptest::prelude::*;
use zerocopy::IntoBytes as _;

use super::*;

fn header(kind: Kind) -> Header {
    Header { kind: kind as u16, ktime_ns: 7, seq: 1, tgid: 2, tid: 3, ..Header::default() }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_return_address_that_reads_like_text_is_the_stacks_first_word_all_the_same() {
    let mut wire = <record::Caller as zerocopy::FromZeros>::new_zeroed();
    wire.return_address = 0x555c_5a3b_7467;
    let words = |wire: &record::Caller| caller(wire).expect("decodes").stack.words;
    assert!(words(&wire).is_empty());
    wire.sp = 8;
    assert_eq!(words(&wire)[..2], [0x555c_5a3b_7467, 0]);
    wire.words[0] = 0x555c_0000_7467;
    assert_eq!(words(&wire)[0], 0x555c_0000_7467);
}

#[test]
fn only_a_status_of_pam_passes_for_one() {
    let mut wire = <record::Caller as zerocopy::FromZeros>::new_zeroed();
    wire.header = header(Kind::Caller);
    for (told, status) in [(0, Some(0)), (7, Some(7)), (31, Some(31)), (record::UNKNOWN, None)] {
        wire.status = told;
        assert_eq!(caller(&wire).expect("decodes").status, status);
    }
    for told in [32, 256 + 7, record::PAM_STATUS_FLAGS, record::UNKNOWN - 1] {
        wire.status = told;
        assert_eq!(
            decode(Ring::Priority, wire.as_bytes()).expect_err("refused"),
            DecodeError::Field { kind: Kind::Caller, field: "status" }
        );
    }
}

#[test]
fn a_word_that_was_read_is_told_whatever_it_is() {
    let of = |verdict, has_verdict| {
        let mut wire = <record::Frame as zerocopy::FromZeros>::new_zeroed();
        (wire.verdict, wire.has_verdict) = (verdict, has_verdict);
        frame(&wire).expect("decodes").verdict
    };
    assert_eq!(of(NO_VERDICT, 0), None);
    assert_eq!(of(NO_VERDICT, 1), Some(u32::MAX), "PAM's -1");
    assert_eq!((of(0, 1), of(1, 0)), (Some(0), Some(1)), "with and without the mark");
}

fn wire_path(components: &[u8], len: u16) -> record::Path {
    let mut bytes = [0; record::PATH_MAX];
    bytes[..components.len()].copy_from_slice(components);
    record::Path { len, truncated: 0, reserved: 0, bytes }
}

fn wire_exec(path: &record::Path) -> record::Exec {
    let mut exec = record::Exec::read_from_bytes(&[0; size_of::<record::Exec>()])
        .expect("any bytes are an exec");
    exec.header = header(Kind::Exec);
    exec.path = *path;
    exec
}

#[test]
fn components_deepest_first_become_a_path() {
    let exec = wire_exec(&wire_path(b"true\0bin\0usr\0", 13));
    let event = decode(Ring::Bulk, exec.as_bytes()).expect("decodes");
    let EventBody::Exec(exec) = event.body else { panic!("not an exec: {event:?}") };
    assert_eq!(exec.path.path, PathBuf::from("/usr/bin/true"));
    assert!(!exec.path.truncated);
}

#[test]
fn bytes_of_a_name_that_are_not_utf8_survive() {
    let exec = wire_exec(&wire_path(b"\xff\xfe\0tmp\0", 7));
    let event = decode(Ring::Bulk, exec.as_bytes()).expect("decodes");
    let EventBody::Exec(exec) = event.body else { panic!("not an exec: {event:?}") };
    assert_eq!(exec.path.path.as_os_str().as_encoded_bytes(), b"/tmp/\xff\xfe");
}

#[test]
fn a_path_longer_than_its_room_is_an_error() {
    let exec = wire_exec(&wire_path(b"x\0", u16::MAX));
    assert_eq!(
        decode(Ring::Bulk, exec.as_bytes()).expect_err("refused"),
        DecodeError::Field { kind: Kind::Exec, field: "path length" }
    );
}

#[test]
fn a_short_record_is_an_error() {
    assert_eq!(decode(Ring::Bulk, &[0; 31]).expect_err("refused"), DecodeError::Short { got: 31 });
    assert_eq!(decode(Ring::Bulk, &[]).expect_err("refused"), DecodeError::Short { got: 0 });
}

#[test]
fn an_unknown_kind_is_an_error() {
    let header = Header { kind: 999, ..Header::default() };
    assert_eq!(
        decode(Ring::Bulk, header.as_bytes()).expect_err("refused"),
        DecodeError::UnknownKind { kind: 999 }
    );
}

#[test]
fn a_record_one_byte_short_or_long_is_an_error() {
    let exec = wire_exec(&wire_path(b"true\0", 5));
    let mut bytes = exec.as_bytes().to_vec();
    bytes.push(0);
    let want = size_of::<record::Exec>();
    for got in [want - 1, want + 1] {
        assert_eq!(
            decode(Ring::Bulk, &bytes[..got]).expect_err("refused"),
            DecodeError::Length { kind: Kind::Exec, got, want }
        );
    }
}

#[test]
fn a_link_that_claims_more_seals_than_it_holds_is_an_error() {
    let mut link = record::Link::read_from_bytes(&[0; size_of::<record::Link>()])
        .expect("any bytes are a link");
    link.header = header(Kind::Link);
    link.count = u32::try_from(record::SEALS_MAX).expect("small") + 1;
    assert_eq!(
        decode(Ring::Bulk, link.as_bytes()).expect_err("refused"),
        DecodeError::Field { kind: Kind::Link, field: "count" }
    );
}

#[test]
fn a_stack_is_not_shown_with_its_event() {
    let mut opened = record::Opened::read_from_bytes(&[0; size_of::<record::Opened>()])
        .expect("any bytes are one");
    opened.header = header(Kind::Opened);
    (opened.sp, opened.words[3]) = (0x7ffd_0000_1000, 4_919_131_752_989_213_764);
    let event = decode(Ring::Priority, opened.as_bytes()).expect("decodes");
    let EventBody::Opened(read) = &event.body else { panic!("not one: {event:?}") };
    assert_eq!(read.stack.words[3], opened.words[3]);
    for shown in [format!("{event:?}"), format!("{event:#x?}")] {
        assert!(!shown.contains("4919131752989213764") && !shown.contains("4444"), "{shown}");
    }
}

#[test]
fn a_mapped_ipv4_peer_is_shown_as_ipv4() {
    let mut exec = wire_exec(&wire_path(b"sshd\0", 5));
    exec.peer = Peer { family: AF_INET6, local_port: 22, port: 4000, ..Peer::default() };
    exec.peer.addr[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
    let event = decode(Ring::Priority, exec.as_bytes()).expect("decodes");
    let EventBody::Exec(exec) = event.body else { panic!("not an exec: {event:?}") };
    assert_eq!(exec.peer, Some("192.0.2.1:4000".parse().expect("an address")));
    assert_eq!(exec.local_port, Some(22));
}

#[test]
fn every_kind_has_a_decoder_for_its_own_size() {
    for kind in Kind::ALL {
        let header = header(kind);
        // A header alone is always too short for its kind, and the error says for which.
        let error = decode(Ring::Bulk, header.as_bytes()).expect_err("too short");
        assert!(
            matches!(error, DecodeError::Length { kind: named, got: 32, .. } if named == kind),
            "{kind:?}: {error}"
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(kind in 0u16..16, mut bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
        if let Some(at) = bytes.get_mut(24..26) {
            at.copy_from_slice(&kind.to_ne_bytes());
        }
        drop(decode(Ring::Bulk, &bytes));
    }

    #[test]
    fn no_content_of_a_right_length_panics(
        kind in 1u16..14,
        seed in proptest::collection::vec(any::<u8>(), 4300),
    ) {
        let sizes = [0, 80, 680, 72, 672, 1360, 80, 144, 2152, 296, 40, 4208, 2600, 64];
        let mut bytes = seed[..sizes[usize::from(kind)]].to_vec();
        bytes[24..26].copy_from_slice(&kind.to_ne_bytes());
        match decode(Ring::Priority, &bytes) {
            Ok(_) | Err(DecodeError::Field { .. }) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
