//! Digests of files: the kinds package databases record, and how a file's is computed.

mod source;
mod worker;

use std::fmt;
use std::io::{self, Read};

use md5::Md5;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

pub use self::source::{Refusal, Source};
pub use self::worker::{Answer, Hasher, Health, Job, Limits, Outcome, Stuck};

/// Read at once; between two of these the budget is kept.
const CHUNK: usize = 128 << 10;

/// How a digest is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// dpkg; no protection against a collision that was made with its author's help.
    Md5,
    /// apk 2, old rpm.
    Sha1,
    /// rpm, apk 3.
    Sha256,
    /// rpm, where so configured.
    Sha512,
}

/// A digest with its kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Digest {
    /// 128 bits.
    Md5([u8; 16]),
    /// 160 bits.
    Sha1([u8; 20]),
    /// 256 bits.
    Sha256([u8; 32]),
    /// 512 bits.
    Sha512([u8; 64]),
}

/// A digest being computed.
enum State {
    Md5(Md5),
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

// === impl Digest ===

impl Digest {
    /// From its bytes; `None` where their number is not the algorithm's.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        Some(match algorithm {
            Algorithm::Md5 => Self::Md5(bytes.try_into().ok()?),
            Algorithm::Sha1 => Self::Sha1(bytes.try_into().ok()?),
            Algorithm::Sha256 => Self::Sha256(bytes.try_into().ok()?),
            Algorithm::Sha512 => Self::Sha512(bytes.try_into().ok()?),
        })
    }

    /// From hexadecimal text of the algorithm's length.
    pub fn from_hex(algorithm: Algorithm, text: &[u8]) -> Option<Self> {
        if text.len() > 128 || !text.len().is_multiple_of(2) {
            return None;
        }
        let digit =
            |letter: u8| char::from(letter).to_digit(16).and_then(|it| u8::try_from(it).ok());
        let mut bytes = Vec::with_capacity(64);
        for pair in text.chunks_exact(2) {
            bytes.push(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?);
        }
        Self::from_bytes(algorithm, &bytes)
    }

    /// How it is computed.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Md5(_) => Algorithm::Md5,
            Self::Sha1(_) => Algorithm::Sha1,
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Md5(bytes) => bytes,
            Self::Sha1(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// Digest of all that `reader` gives, at most `limit` bytes. `pause` is told how many bytes
    /// were read after each portion and may take its time; it ends the reading with `false`, which
    /// gives `None`.
    pub(super) fn of(
        algorithm: Algorithm,
        reader: impl Read,
        limit: u64,
        mut pause: impl FnMut(u64) -> bool,
    ) -> io::Result<Option<Self>> {
        let mut reader = reader.take(limit);
        let mut state = State::new(algorithm);
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match reader.read(&mut chunk) {
                Ok(0) => return Ok(Some(state.finish())),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            state.update(chunk.get(..read).unwrap_or_default());
            if !pause(read as u64) {
                return Ok(None);
            }
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}:{self}", self.algorithm())
    }
}

// === impl State ===

impl State {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Md5 => Self::Md5(Md5::new()),
            Algorithm::Sha1 => Self::Sha1(Sha1::new()),
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Box::new(Sha512::new())),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(state) => state.update(bytes),
            Self::Sha1(state) => state.update(bytes),
            Self::Sha256(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        match self {
            Self::Md5(state) => Digest::Md5(state.finalize().into()),
            Self::Sha1(state) => Digest::Sha1(state.finalize().into()),
            Self::Sha256(state) => Digest::Sha256(state.finalize().into()),
            Self::Sha512(state) => Digest::Sha512(state.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(algorithm: Algorithm, bytes: &[u8]) -> String {
        Digest::of(algorithm, bytes, u64::MAX, |_| true).unwrap().unwrap().to_string()
    }

    #[test]
    fn digests_are_the_published_ones_of_abc() {
        // RFC 1321 and FIPS 180-2, appendices.
        for (algorithm, expected) in [
            (Algorithm::Md5, "900150983cd24fb0d6963f7d28e17f72"),
            (Algorithm::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (Algorithm::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                Algorithm::Sha512,
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
        ] {
            assert_eq!(digest(algorithm, b"abc"), expected);
            let parsed = Digest::from_hex(algorithm, expected.as_bytes()).unwrap();
            assert_eq!((parsed.to_string().as_str(), parsed.algorithm()), (expected, algorithm));
        }
    }

    #[test]
    fn a_pause_can_end_it() {
        let mut read = 0;
        let text = vec![0; CHUNK * 3];
        let stopped = Digest::of(Algorithm::Md5, &text[..], u64::MAX, |bytes| {
            read += bytes;
            read < 2 * CHUNK as u64
        });
        assert_eq!((stopped.unwrap(), read), (None, 2 * CHUNK as u64));
    }

    #[test]
    fn wrong_lengths_and_letters_are_no_digest() {
        for text in ["", "0", "zz", "900150983cd24fb0d6963f7d28e17f7", "newconffile"] {
            assert_eq!(Digest::from_hex(Algorithm::Md5, text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_total(text in proptest::collection::vec(any::<u8>(), 0..140)) {
            let _ = Digest::from_hex(Algorithm::Sha512, &text);
        }
    }
}
