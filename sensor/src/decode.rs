//! Wire records to events: total, so no byte sequence from a ring can stop the sensor.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use sensor_common::record::{self, FRAME_KEY_ALLOWED, Header, Kind, NO_VERDICT, Peer};
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
    let text = wire
        .text
        .get(..usize::from(wire.text_len))
        .ok_or(DecodeError::Field { kind: Kind::Frame, field: "text_len" })?;
    let text = (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned());
    let (user, key_type) =
        if wire.frame_type == FRAME_KEY_ALLOWED { (None, text) } else { (text, None) };
    // Recordings of earlier versions do not say whether it was read.
    let has_verdict = wire.has_verdict != 0 || wire.verdict != NO_VERDICT;
    Ok(Frame {
        usage: wire.usage,
        frame_type: wire.frame_type,
        frame_len: wire.frame_len,
        verdict: has_verdict.then_some(wire.verdict),
        euid: wire.euid,
        user,
        key_type,
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
mod tests;
