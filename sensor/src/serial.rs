//! How values of foreign and borrowed types are written where observations are recorded, by serde's
//! `with`: each has a plain stand-in.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::event::{FileKey, Role, Usage};
use crate::package::digest::{Algorithm, Digest};

/// Text of this program's own. By this name it can be read back: serde would borrow what is written
/// as a reference from its input.
pub type Word = &'static str;

/// Different words that are read back at most, and the longest one, bytes: they stay for good.
const WORDS_MAX: usize = 4096;
const WORD_MAX: usize = 512;

/// A value with a stand-in that serde knows.
pub(crate) trait Foreign: Sized {
    /// What is written.
    type Plain: Serialize + DeserializeOwned;
    /// As it is written.
    fn plain(&self) -> Self::Plain;
    /// From what was written; the error is a clause.
    fn of(plain: Self::Plain) -> Result<Self, &'static str>;
}

/// A file path, which need not be text.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum PlainPath {
    Text(String),
    Bytes(Vec<u8>),
}

/// A value by itself.
pub(crate) mod one {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Foreign;

    pub(crate) fn serialize<T: Foreign, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.plain().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Foreign, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        T::of(T::Plain::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A value that may be missing.
pub(crate) mod option {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Foreign;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(crate) fn serialize<T: Foreign, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Foreign::plain).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Foreign, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let plain = Option::<T::Plain>::deserialize(deserializer)?;
        plain.map(T::of).transpose().map_err(D::Error::custom)
    }
}

/// A list of values.
pub(crate) mod list {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Foreign;

    pub(crate) fn serialize<T: Foreign, S: Serializer>(
        values: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(Foreign::plain))
    }

    pub(crate) fn deserialize<'de, T: Foreign, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<T>, D::Error> {
        let plain = Vec::<T::Plain>::deserialize(deserializer)?;
        plain.into_iter().map(T::of).collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}

/// A value, or why there is none.
pub(crate) mod either {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Foreign;

    pub(crate) fn serialize<T: Foreign, E: Foreign, S: Serializer>(
        value: &Result<T, E>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Foreign::plain).map_err(Foreign::plain).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Foreign, E: Foreign, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Result<T, E>, D::Error> {
        let plain = Result::<T::Plain, E::Plain>::deserialize(deserializer)?;
        match plain {
            Ok(value) => T::of(value).map(Ok),
            Err(why) => E::of(why).map(Err),
        }
        .map_err(D::Error::custom)
    }
}

/// The word that says this: the same one each time, kept for good.
fn word(text: &str) -> Option<Word> {
    static WORDS: Mutex<BTreeSet<Word>> = Mutex::new(BTreeSet::new());
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(word) = words.get(text) {
        return Some(word);
    }
    if words.len() >= WORDS_MAX || text.len() > WORD_MAX {
        return None;
    }
    let word: Word = Box::leak(Box::from(text));
    words.insert(word);
    Some(word)
}

// === impl Foreign ===

impl Foreign for Word {
    type Plain = String;

    fn plain(&self) -> String {
        (*self).to_owned()
    }

    fn of(plain: String) -> Result<Self, &'static str> {
        word(&plain).ok_or("a word too long, or one too many")
    }
}

impl Foreign for FileKey {
    /// Inode, device, generation, change time and size.
    type Plain = (u64, u32, u32, u64, u64);

    fn plain(&self) -> Self::Plain {
        (self.ino, self.dev, self.generation, self.ctime_s, self.size)
    }

    fn of((ino, dev, generation, ctime_s, size): Self::Plain) -> Result<Self, &'static str> {
        Ok(Self { ino, dev, generation, ctime_s, size })
    }
}

impl Foreign for Role {
    type Plain = u32;

    fn plain(&self) -> u32 {
        self.0
    }

    fn of(plain: u32) -> Result<Self, &'static str> {
        Ok(Self(plain))
    }
}

impl Foreign for Usage {
    /// CPU and waiting time, switches, faults.
    type Plain = (u64, u64, u64, u64);

    fn plain(&self) -> Self::Plain {
        (self.sum_exec_ns, self.run_delay_ns, self.voluntary_switches, self.minor_faults)
    }

    fn of(plain: Self::Plain) -> Result<Self, &'static str> {
        let (sum_exec_ns, run_delay_ns, voluntary_switches, minor_faults) = plain;
        Ok(Self { sum_exec_ns, run_delay_ns, voluntary_switches, minor_faults })
    }
}

impl Foreign for PathBuf {
    type Plain = PlainPath;

    fn plain(&self) -> PlainPath {
        match self.to_str() {
            Some(text) => PlainPath::Text(text.to_owned()),
            None => PlainPath::Bytes(self.as_os_str().as_bytes().to_vec()),
        }
    }

    fn of(plain: PlainPath) -> Result<Self, &'static str> {
        Ok(match plain {
            PlainPath::Text(text) => Self::from(text),
            PlainPath::Bytes(bytes) => Self::from(OsString::from_vec(bytes)),
        })
    }
}

impl Foreign for Digest {
    /// The algorithm and the digest, hex.
    type Plain = (Algorithm, String);

    fn plain(&self) -> Self::Plain {
        (self.algorithm(), self.to_string())
    }

    fn of((algorithm, hex): Self::Plain) -> Result<Self, &'static str> {
        Self::from_hex(algorithm, hex.as_bytes()).ok_or("no digest of its kind")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back<T: Foreign>(value: &T) -> T {
        let text = serde_json::to_string(&value.plain()).unwrap();
        T::of(serde_json::from_str(&text).unwrap()).unwrap()
    }

    #[test]
    fn paths_that_are_no_text_come_back_as_they_were() {
        for path in [&b"/usr/lib/libc.so.6"[..], b"", b"/tmp/\xff\x00\xc3"] {
            let path = PathBuf::from(OsString::from_vec(path.to_vec()));
            assert_eq!(back(&path), path);
        }
    }

    #[test]
    fn digests_keep_their_kind() {
        for (algorithm, len) in [
            (Algorithm::Md5, 16),
            (Algorithm::Sha1, 20),
            (Algorithm::Sha256, 32),
            (Algorithm::Sha512, 64),
        ] {
            let digest = Digest::from_bytes(algorithm, &vec![0xa7; len]).unwrap();
            assert_eq!(back(&digest), digest);
        }
        assert!(Digest::of((Algorithm::Sha1, "abc".to_owned())).is_err());
    }

    #[test]
    fn a_word_is_kept_once_and_words_are_bounded() {
        let once = word("lies in no file").unwrap();
        assert!(std::ptr::eq(once, word("lies in no file").unwrap()));
        assert_eq!(word(&"x".repeat(WORD_MAX + 1)), None);
        assert_eq!(back(&once), once);
    }
}
