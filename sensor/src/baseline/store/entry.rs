//! One baseline as bytes: small where baselines are large, and lossless.
//!
//! Libraries are most of a large baseline and build-ids most of a library. Those are random, so they
//! are kept as the bytes they stand for, behind everything else, which is deflated: what baselines
//! hold besides is JSON, the libraries follow by columns (paths, kinds of builds, times), since what
//! is alike deflates best side by side.
//!
//! ```text
//! entry   := 0x02  varint(length of deflated)  deflated  raw builds
//! inflated := varint(length of JSON) JSON  varint(libraries)
//!             (varint(length) path)*  (varint(n) | 0 varint(length) text)*  (varint varint)*
//! ```
//!
//! A build of `n` is the next n raw bytes as hexadecimal digits. Times are nanoseconds: the first one as
//! its distance from the first one of the library before, the last one from its own first.

use std::io::{Read, Write};

use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use jiff::Timestamp;

use crate::baseline::subject::{Baseline, Seen};
use crate::host::ModuleId;

/// First byte of an entry.
const PACKED: u8 = 2;
/// Bytes of an entry once inflated. More was not written by us.
const INFLATED_MAX: u64 = 32 * 1024 * 1024;

/// A baseline as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::baseline) struct Entry {
    /// Its program is a guarded one: it goes last where there are too many.
    pub(in crate::baseline) guarded: bool,
    /// When the program was last seen, seconds since 1970; the least recent goes first.
    pub(in crate::baseline) seen_s: i64,
    /// The baseline; no bytes are an empty one, which takes its subject out of the store.
    pub(in crate::baseline) body: Vec<u8>,
}

// === impl Entry ===

impl Entry {
    /// Packs a baseline. `None` where it is too large to be read again.
    ///
    /// The baseline is the same afterwards; it lends its libraries meanwhile.
    pub(in crate::baseline) fn of(baseline: &mut Baseline, guarded: bool) -> Option<Self> {
        if *baseline == Baseline::default() {
            return Some(Self { guarded, seen_s: 0, body: Vec::new() });
        }
        let libraries = std::mem::take(&mut baseline.libraries);
        let json = serde_json::to_vec(baseline).ok();
        let body = json.and_then(|json| pack(&json, &libraries));
        baseline.libraries = libraries;
        Some(Self { guarded, seen_s: seen_s(baseline), body: body? })
    }

    /// The baseline; `None` where the bytes are none.
    pub(in crate::baseline) fn baseline(&self) -> Option<Baseline> {
        if self.body.is_empty() { Some(Baseline::default()) } else { unpack(&self.body) }
    }

    /// From what schema 1 holds of a subject, and recordings. Whether its program is guarded is not in there;
    /// only of such are shares of link time kept.
    pub(super) fn of_json(json: &[u8]) -> Option<Self> {
        let mut old: Baseline = serde_json::from_slice(json).ok()?;
        let guarded = !old.shares.is_empty();
        Self::of(&mut old, guarded)
    }

    /// The baseline as JSON.
    pub(super) fn json(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(&self.baseline()?).ok()
    }

    /// Guards against bytes that have changed since; redb checks its own only when it opens the file.
    pub(super) fn checksum(&self, subject: &str) -> u32 {
        let mut crc = Crc::new();
        crc.update(subject.as_bytes());
        crc.update(&[u8::from(self.guarded)]);
        crc.update(&self.seen_s.to_le_bytes());
        crc.update(&self.body);
        crc.sum()
    }
}

/// A start, or a library where a program of sshd has had no login yet.
fn seen_s(baseline: &Baseline) -> i64 {
    let libraries = baseline.libraries.iter().map(|(_, seen)| seen.last);
    let latest = libraries.chain(baseline.last_seen).max();
    latest.map_or(0, Timestamp::as_second)
}

fn pack(json: &[u8], libraries: &[(ModuleId, Seen)]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(json.len() + 40 * libraries.len());
    put_bytes(&mut plain, json);
    put(&mut plain, libraries.len() as u128);
    for (module, _) in libraries {
        put_bytes(&mut plain, module.path.as_bytes());
    }
    let mut builds = Vec::with_capacity(20 * libraries.len());
    for (module, _) in libraries {
        if let Some(raw) = raw_digits(&module.build) {
            put(&mut plain, raw.len() as u128);
            builds.extend(raw);
        } else {
            put(&mut plain, 0);
            put_bytes(&mut plain, module.build.as_bytes());
        }
    }
    let mut before = 0;
    for (_, Seen { first, last }) in libraries {
        let (first, last) = (first.as_nanosecond(), last.as_nanosecond());
        put(&mut plain, zigzag(first - before));
        put(&mut plain, zigzag(last - first));
        before = first;
    }
    if plain.len() as u64 > INFLATED_MAX {
        return None;
    }
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&plain).ok()?;
    let deflated = encoder.finish().ok()?;
    let mut body = Vec::with_capacity(deflated.len() + builds.len() + 8);
    body.push(PACKED);
    put_bytes(&mut body, &deflated);
    body.extend(builds);
    Some(body)
}

fn unpack(body: &[u8]) -> Option<Baseline> {
    let (&PACKED, body) = body.split_first()? else { return None };
    let mut builds = Cursor(body);
    let mut plain = Vec::new();
    let deflated = DeflateDecoder::new(builds.bytes()?);
    deflated.take(INFLATED_MAX).read_to_end(&mut plain).ok()?;
    let mut plain = Cursor(&plain);
    let mut baseline: Baseline = serde_json::from_slice(plain.bytes()?).ok()?;
    let count = usize::try_from(plain.number()?).ok()?;
    // Each takes a byte at least: a number that is a lie reserves no memory.
    if count > plain.0.len() {
        return None;
    }
    let mut paths = Vec::with_capacity(count);
    for _ in 0..count {
        paths.push(plain.text()?);
    }
    let mut modules = Vec::with_capacity(count);
    for path in paths {
        let build = match usize::try_from(plain.number()?).ok()? {
            0 => plain.text()?,
            raw => digits(builds.take(raw)?),
        };
        modules.push(ModuleId { path, build });
    }
    let mut before = 0_i128;
    let mut libraries = Vec::with_capacity(count);
    for module in modules {
        let first = before.checked_add(unzigzag(plain.number()?))?;
        let last = first.checked_add(unzigzag(plain.number()?))?;
        before = first;
        let time = |ns| Timestamp::from_nanosecond(ns).ok();
        libraries.push((module, Seen { first: time(first)?, last: time(last)? }));
    }
    baseline.libraries = libraries;
    Some(baseline)
}

/// The bytes that a build-id stands for; `None` for what else stands in its place.
fn raw_digits(build: &str) -> Option<Vec<u8>> {
    if build.is_empty() || !build.len().is_multiple_of(2) {
        return None;
    }
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    build.as_bytes().chunks_exact(2).map(|two| Some(digit(two[0])? << 4 | digit(two[1])?)).collect()
}

fn digits(raw: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let pairs = raw.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    pairs.map(|digit| char::from(DIGITS[usize::from(digit & 15)])).collect()
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put(to, bytes.len() as u128);
    to.extend_from_slice(bytes);
}

/// Seven bits each, the lowest first; the eighth says that more follow.
fn put(to: &mut Vec<u8>, mut number: u128) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or(0);
        number >>= 7;
        if number == 0 {
            return to.push(low);
        }
        to.push(low | 0x80);
    }
}

/// Small whatever its sign.
fn zigzag(number: i128) -> u128 {
    (number << 1 ^ number >> 127).cast_unsigned()
}

fn unzigzag(number: u128) -> i128 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// What is left to read.
struct Cursor<'a>(&'a [u8]);

// === impl Cursor ===

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u128> {
        let mut number = 0_u128;
        // 19 bytes hold 133 bits.
        for at in 0..19 {
            let byte = *self.take(1)?.first()?;
            let bits = u128::from(byte & 0x7f);
            if bits.leading_zeros() < 7 * at {
                return None;
            }
            number |= bits << (7 * at);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = usize::try_from(self.number()?).ok()?;
        self.take(count)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests;
