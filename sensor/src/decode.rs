//! Wire records to events: total, so no byte sequence from a ring can stop the sensor.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use sensor_common::record::{self, Header, Kind, NO_VERDICT, Peer};
use sensor_common::{Ring, Role};
use thiserror::Error;
use zerocopy::FromBytes;

use crate::event::{
    Caller, Env, Event, EventBody, Exec, Exit, FileFacts, Fork, Frame, InodeKey, Link, Map,
    Modules, Opened, Sample, Seal, Stack, WalkedPath, Write,
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Why a record is not an event.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Not even a header.
    #[error("record of {got} bytes is shorter than a header")]
    Short {
        /// Bytes.
        got: usize,
    },
    /// A kind this agent does not know.
    #[error("unknown record kind {kind}")]
    UnknownKind {
        /// Wire number.
        kind: u16,
    },
    /// The kind is known, the length is not its own.
    #[error("{kind:?} record of {got} bytes, not {want}")]
    Length {
        /// Kind.
        kind: Kind,
        /// Bytes.
        got: usize,
        /// Bytes of that kind.
        want: usize,
    },
    /// A field contradicts its own bounds.
    #[error("{kind:?} record with an impossible {field}")]
    Field {
        /// Kind.
        kind: Kind,
        /// Name of the field.
        field: &'static str,
    },
}

impl DecodeError {
    /// A label with few values, for counting.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Short { .. } => "short",
            Self::UnknownKind { .. } => "unknown_kind",
            Self::Length { .. } => "length",
            Self::Field { .. } => "field",
        }
    }

    /// Every value of [`Self::reason`].
    pub const REASONS: [&'static str; 4] = ["short", "unknown_kind", "length", "field"];
}

/// Decodes one record that came through `ring`.
pub fn decode(ring: Ring, bytes: &[u8]) -> Result<Event, DecodeError> {
    let (header, _) =
        Header::read_from_prefix(bytes).map_err(|_| DecodeError::Short { got: bytes.len() })?;
    let kind =
        Kind::from_wire(header.kind).ok_or(DecodeError::UnknownKind { kind: header.kind })?;
    let body = body(kind, bytes)?;
    Ok(Event {
        ktime_ns: header.ktime_ns,
        seq: header.seq,
        ring,
        cpu: header.cpu,
        tgid: header.tgid,
        tid: header.tid,
        role: Role(header.role),
        body,
    })
}

fn body(kind: Kind, bytes: &[u8]) -> Result<EventBody, DecodeError> {
    Ok(match kind {
        Kind::Fork => EventBody::Fork(fork(&record(kind, bytes)?)),
        Kind::Exec => EventBody::Exec(Box::new(exec(&record(kind, bytes)?)?)),
        Kind::Exit => EventBody::Exit(exit(&record(kind, bytes)?)),
        Kind::Map => EventBody::Map(Box::new(map(&record(kind, bytes)?)?)),
        Kind::Link => EventBody::Link(Box::new(link(&record(kind, bytes)?)?)),
        Kind::Seal => EventBody::Seal(seal(&record(kind, bytes)?)),
        Kind::Frame => EventBody::Frame(frame(&record(kind, bytes)?)?),
        Kind::Caller => EventBody::Caller(caller(&record(kind, bytes)?)?),
        Kind::Env => EventBody::Env(env(&record(kind, bytes)?)?),
        Kind::Write => EventBody::Write(write(&record(kind, bytes)?)),
        Kind::Sample => EventBody::Sample(Sample { ip: record::<record::Sample>(kind, bytes)?.ip }),
        Kind::Opened => EventBody::Opened(Box::new(opened(&record(kind, bytes)?))),
        Kind::Modules => EventBody::Modules(Box::new(modules(&record(kind, bytes)?)?)),
    })
}

fn record<T: FromBytes>(kind: Kind, bytes: &[u8]) -> Result<T, DecodeError> {
    T::read_from_bytes(bytes).map_err(|_| DecodeError::Length {
        kind,
        got: bytes.len(),
        want: size_of::<T>(),
    })
}

fn fork(wire: &record::Fork) -> Fork {
    Fork {
        child_tgid: wire.child_tgid,
        child_role: Role(wire.child_role),
        child_start_ns: known(wire.child_start_ns),
        usage: wire.usage,
    }
}

fn exec(wire: &record::Exec) -> Result<Exec, DecodeError> {
    let peer = peer(&wire.peer);
    Ok(Exec {
        exe: wire.exe,
        path: path(Kind::Exec, &wire.path)?,
        usage: wire.usage,
        start_ns: known(wire.start_ns),
        parent_tgid: wire.parent_tgid,
        uid: wire.uid,
        euid: wire.euid,
        secure: wire.secure != 0,
        root: (wire.root_ino != 0).then_some(InodeKey {
            ino: wire.root_ino,
            dev: wire.root_dev,
            reserved: 0,
        }),
        fs_magic: (wire.fs_magic != 0).then_some(wire.fs_magic),
        peer,
        local_port: peer.map(|_| wire.peer.local_port),
    })
}

fn exit(wire: &record::Exit) -> Exit {
    Exit { usage: wire.usage, exit_code: wire.exit_code }
}

fn map(wire: &record::Map) -> Result<Map, DecodeError> {
    Ok(Map {
        exe: wire.exe,
        file: wire.file,
        path: path(Kind::Map, &wire.path)?,
        addr: wire.addr,
        len: wire.len,
        offset: wire.offset,
        prot: wire.prot,
        mode: wire.mode,
        uid: wire.uid,
        facts: FileFacts {
            owner: told(wire.owner),
            links: told(wire.links),
            mtime_s: known(wire.mtime_s),
            fs_magic: (wire.fs_magic != 0).then_some(wire.fs_magic),
        },
    })
}

fn link(wire: &record::Link) -> Result<Link, DecodeError> {
    let count = usize::try_from(wire.count).unwrap_or(usize::MAX);
    let seals =
        wire.seals.get(..count).ok_or(DecodeError::Field { kind: Kind::Link, field: "count" })?;
    Ok(Link {
        exe: wire.exe,
        exec_ktime_ns: wire.exec_ktime_ns,
        seals: seals.to_vec(),
        overflow: wire.overflow,
    })
}

fn seal(wire: &record::Seal) -> Seal {
    Seal { at: wire.at, len: wire.len, prot: wire.prot, after_link: wire.after_link != 0 }
}

fn opened(wire: &record::Opened) -> Opened {
    let record::Opened { ip, sp, fp, lr, words, .. } = *wire;
    let words = if sp == 0 { Box::default() } else { Box::from(words) };
    Opened {
        file: wire.file,
        addr: wire.addr,
        len: wire.len,
        stack: Stack { ip, sp, fp, lr, words },
    }
}

fn modules(wire: &record::Modules) -> Result<Modules, DecodeError> {
    let count = usize::try_from(wire.count).unwrap_or(usize::MAX);
    let placed = wire
        .placed
        .get(..count)
        .ok_or(DecodeError::Field { kind: Kind::Modules, field: "count" })?;
    Ok(Modules { placed: placed.to_vec(), overflow: wire.overflow })
}

fn frame(wire: &record::Frame) -> Result<Frame, DecodeError> {
    let user = wire
        .user
        .get(..usize::from(wire.user_len))
        .ok_or(DecodeError::Field { kind: Kind::Frame, field: "user_len" })?;
    // Recordings of earlier versions do not say whether it was read.
    let has_verdict = wire.has_verdict != 0 || wire.verdict != NO_VERDICT;
    Ok(Frame {
        usage: wire.usage,
        frame_type: wire.frame_type,
        frame_len: wire.frame_len,
        verdict: has_verdict.then_some(wire.verdict),
        euid: wire.euid,
        user: (!user.is_empty()).then(|| String::from_utf8_lossy(user).into_owned()),
    })
}

fn caller(wire: &record::Caller) -> Result<Caller, DecodeError> {
    let record::Caller { usage, ip, return_address, sp, fp, words, .. } = *wire;
    let status = match told(wire.status) {
        Some(status) => Some(pam_status(status)?),
        None => None,
    };
    let mut words: Box<[u64]> = if sp == 0 { Box::default() } else { Box::from(words) };
    // On x86_64 the first word, told by itself: on the stack one address in a hundred reads like
    // text, and is dropped.
    if cfg!(target_arch = "x86_64")
        && let Some(first) = words.first_mut()
        && *first == 0
    {
        *first = return_address;
    }
    // On aarch64 the link register is where the function returns to.
    let lr = if cfg!(target_arch = "aarch64") { return_address } else { 0 };
    Ok(Caller { usage, ip, return_address, status, stack: Stack { ip, sp, fp, lr, words } })
}

/// The kernel side tells nothing else.
fn pam_status(status: u32) -> Result<u8, DecodeError> {
    let known = u8::try_from(status).ok().filter(|_| status < record::PAM_STATUSES);
    known.ok_or(DecodeError::Field { kind: Kind::Caller, field: "status" })
}

fn env(wire: &record::Env) -> Result<Env, DecodeError> {
    let len = usize::try_from(wire.len).unwrap_or(usize::MAX);
    let text = wire.text.get(..len).ok_or(DecodeError::Field { kind: Kind::Env, field: "len" })?;
    Ok(Env {
        variable: wire.variable,
        text: String::from_utf8_lossy(text).into_owned(),
        // The kernel side keeps room for the NUL, so a text that fills it was cut.
        truncated: len >= record::ENV_MAX - 1,
    })
}

fn write(wire: &record::Write) -> Write {
    Write {
        target_tgid: (wire.target_tgid != 0).then_some(wire.target_tgid),
        target_role: Role(wire.target_role),
        ways: wire.ways,
        asked: told(wire.asked),
        count: wire.count,
        addr: known(wire.addr),
    }
}

fn known(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

fn told(value: u32) -> Option<u32> {
    (value != record::UNKNOWN).then_some(value)
}

/// Turns the components, deepest first, into a path from the root.
fn path(kind: Kind, wire: &record::Path) -> Result<WalkedPath, DecodeError> {
    let bytes = wire
        .bytes
        .get(..usize::from(wire.len))
        .ok_or(DecodeError::Field { kind, field: "path length" })?;
    let mut path = Vec::with_capacity(bytes.len() + 1);
    for component in bytes.split(|&byte| byte == 0).rev().filter(|part| !part.is_empty()) {
        path.push(b'/');
        path.extend_from_slice(component);
    }
    Ok(WalkedPath { path: PathBuf::from(OsString::from_vec(path)), truncated: wire.truncated != 0 })
}

fn peer(wire: &Peer) -> Option<SocketAddr> {
    let [a, b, c, d, ..] = wire.addr;
    let ip = match wire.family {
        AF_INET => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(wire.addr)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, wire.port))
}

#[cfg(test)]
mod tests {
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
        for (told, status) in [(0, Some(0)), (7, Some(7)), (31, Some(31)), (record::UNKNOWN, None)]
        {
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
        assert_eq!(
            decode(Ring::Bulk, &[0; 31]).expect_err("refused"),
            DecodeError::Short { got: 31 }
        );
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
}
