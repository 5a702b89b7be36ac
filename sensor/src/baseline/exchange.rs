//! Baselines as a file for other hosts: JSON lines, signed with ed25519 (RFC 8032).
//!
//! ```text
//! {"format":"halfsecond-baselines","version":1,"host":…,"exported":…,"sensor":…,"observations":…,"subjects":N}
//! {"subject":"/usr/sbin/sshd 5f0e…","baseline":{…}}        N times, each subject once
//! {"signature":{"algorithm":"ed25519","key":HEX,"value":HEX}}   or {"signature":null}
//! ```
//!
//! Signed are the bytes of all lines before the last, line feeds included, after [`CONTEXT`]: nothing is
//! parsed or written again before it is verified, and a signature of ours means nothing elsewhere. A
//! baseline's keys are those of the store. Whoever reads bounds the file, its lines and their number, and
//! checks each baseline (`sound.rs`); `serde_json` bounds the depth (128).

mod key;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::sound::{self, Unsound};
use super::subject::Baseline;

pub use key::{KeyError, PrivateKey, PublicKey};

/// What a signature says before what it signs.
pub const CONTEXT: &[u8] = b"halfsecond baselines 1\n";
const FORMAT: &str = "halfsecond-baselines";
/// Raised when a reader of before would misunderstand.
const VERSION: u32 = 1;
/// Bytes of a file; a thousand programs with 200 libraries each take some 30 MB.
const FILE_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of one line.
pub(super) const LINE_MAX: usize = 512 * 1024;
const SUBJECTS_MAX: usize = 8192;
/// Bytes of the exporting host's name.
const HOST_MAX: usize = 253;
/// How far clocks of two hosts may be apart.
const SKEW: SignedDuration = SignedDuration::from_hours(24);

/// Why a file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is too large.
    #[error("{path} is larger than the {FILE_MAX} bytes that an export may have")]
    Large {
        /// The file.
        path: PathBuf,
    },
    /// A line is not what it should be.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong, and what to do.
        problem: String,
    },
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    format: String,
    version: u32,
    /// Name of the host that has learned it.
    pub host: String,
    /// When it was written.
    pub exported: Timestamp,
    /// Version of the sensor that wrote it.
    pub sensor: String,
    /// `learning.observations` there.
    pub observations: u32,
    /// Lines that follow, without the signature.
    pub subjects: usize,
}

#[derive(Serialize, Deserialize)]
struct Entry<B> {
    subject: String,
    baseline: B,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    signature: Option<Signed>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    algorithm: String,
    key: String,
    value: String,
}

/// How a file is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seal {
    /// Not at all.
    Unsigned,
    /// By the owner of this key. Whether that is somebody to trust is not said.
    Valid(PublicKey),
    /// There is a signature, and it is not one of this content.
    Wrong(String),
}

/// A file whose signature was looked at, and whose content was not.
#[derive(Debug)]
pub struct Sealed {
    path: PathBuf,
    body: Vec<u8>,
    seal: Seal,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// Its first line.
    pub head: Head,
    /// By subject.
    pub baselines: BTreeMap<String, Baseline>,
}

// === impl Head ===

impl Head {
    /// Of an export that this sensor makes.
    #[must_use]
    pub fn new(host: String, exported: Timestamp, observations: u32, subjects: usize) -> Self {
        let (format, sensor) = (FORMAT.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        Self { format, version: VERSION, host, exported, sensor, observations, subjects }
    }
}

// === impl Export ===

impl Export {
    /// Of these baselines, and which of them no other host would take, with the reason.
    #[must_use]
    pub fn of(
        host: String,
        exported: Timestamp,
        observations: u32,
        baselines: BTreeMap<String, Baseline>,
    ) -> (Self, Vec<(String, String)>) {
        let (mut taken, mut left) = (BTreeMap::new(), Vec::new());
        for (subject, baseline) in baselines {
            match writable(&subject, &baseline, exported) {
                Ok(()) if taken.len() < SUBJECTS_MAX => drop(taken.insert(subject, baseline)),
                Ok(()) => left.push((subject, format!("there are more than {SUBJECTS_MAX}"))),
                Err(reason) => left.push((subject, reason)),
            }
        }
        (
            Self { head: Head::new(host, exported, observations, taken.len()), baselines: taken },
            left,
        )
    }

    /// The file's text, signed where there is a key.
    ///
    /// # Errors
    /// Where something of it cannot be JSON, which nothing that was learned is.
    pub fn write(&self, key: Option<&PrivateKey>) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string(&self.head)?;
        text.push('\n');
        for (subject, baseline) in &self.baselines {
            let subject = subject.clone();
            text.push_str(&serde_json::to_string(&Entry { subject, baseline })?);
            text.push('\n');
        }
        let signature = key.map(|key| Signed {
            algorithm: "ed25519".to_owned(),
            key: key.public().to_string(),
            value: key.sign(&message(text.as_bytes())),
        });
        text.push_str(&serde_json::to_string(&Last { signature })?);
        Ok(text)
    }
}

// === impl Sealed ===

impl Sealed {
    /// Reads a file and verifies its signature, before anything else in it is looked at.
    ///
    /// # Errors
    /// Where it cannot be read, is too large, or has no last line that is one.
    pub fn read(path: &Path) -> Result<Self, ExchangeError> {
        let failed = |source| ExchangeError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let mut bytes = Vec::new();
        file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(ExchangeError::Large { path: path.to_owned() });
        }
        Self::of(path, bytes)
    }

    /// The same of bytes that were read from `path`.
    pub(super) fn of(path: &Path, mut bytes: Vec<u8>) -> Result<Self, ExchangeError> {
        let end = bytes.iter().rposition(|byte| *byte != b'\n').map_or(0, |at| at + 1);
        bytes.truncate(end);
        let start = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let last = bytes.split_off(start);
        let short = Some(&last).filter(|last| last.len() <= LINE_MAX);
        let last: Last =
            short.and_then(|last| serde_json::from_slice(last).ok()).ok_or_else(|| {
                let line = bytes.split(|byte| *byte == b'\n').count();
                let problem = "no signature line: the file is cut, or is no export".to_owned();
                ExchangeError::Line { path: path.to_owned(), line, problem }
            })?;
        let seal = match last.signature {
            None => Seal::Unsigned,
            Some(signed) => verify(&signed, &bytes),
        };
        Ok(Self { path: path.to_owned(), body: bytes, seal })
    }

    /// How it is signed.
    #[must_use]
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// Reads and checks everything in it. `now`: no export is from much later.
    ///
    /// # Errors
    /// With the line, where something is not what this sensor could have written.
    pub fn parse(&self, now: Timestamp) -> Result<Export, ExchangeError> {
        let wrong = |line: usize, problem: String| ExchangeError::Line {
            path: self.path.clone(),
            line,
            problem,
        };
        let body = self.body.strip_suffix(b"\n").unwrap_or(&self.body);
        let mut lines = body.split(|byte| *byte == b'\n');
        let head =
            head(lines.next().unwrap_or_default(), now).map_err(|problem| wrong(1, problem))?;
        let mut baselines = BTreeMap::new();
        for (at, line) in lines.enumerate() {
            let fail = |problem| wrong(at + 2, problem);
            if at >= head.subjects {
                let told = head.subjects;
                return Err(fail(format!("there are more than the {told} subjects it tells of")));
            }
            let (subject, baseline) = entry(line, head.exported).map_err(fail)?;
            if baselines.insert(subject.clone(), baseline).is_some() {
                return Err(fail(format!("{subject:?} is there twice")));
            }
        }
        if baselines.len() < head.subjects {
            let problem = format!("{} of {} subjects are there", baselines.len(), head.subjects);
            return Err(wrong(baselines.len() + 2, problem));
        }
        Ok(Export { head, baselines })
    }
}

fn writable(subject: &str, baseline: &Baseline, exported: Timestamp) -> Result<(), String> {
    sound::subject(subject).map_err(|error| error.to_string())?;
    baseline.check(exported).map_err(|error| error.to_string())?;
    let line = serde_json::to_vec(baseline).map_err(|error| error.to_string())?;
    // Room for the subject, each of whose bytes may need six.
    if line.len() + 6 * subject.len() + 64 > LINE_MAX {
        return Err(format!("longer than {LINE_MAX} bytes"));
    }
    Ok(())
}

fn message(body: &[u8]) -> Vec<u8> {
    [CONTEXT, body].concat()
}

fn verify(signed: &Signed, body: &[u8]) -> Seal {
    if signed.algorithm != "ed25519" {
        let shown: String = signed.algorithm.chars().take(32).collect();
        return Seal::Wrong(format!("it is signed with {shown:?}, which is not read"));
    }
    let key = match PublicKey::parse(&signed.key) {
        Ok(key) => key,
        Err(error) => return Seal::Wrong(error.to_string()),
    };
    if key.verifies(&message(body), &signed.value) {
        return Seal::Valid(key);
    }
    Seal::Wrong(format!("the signature does not belong to this content and the key {key}"))
}

fn head(line: &[u8], now: Timestamp) -> Result<Head, String> {
    if line.len() > LINE_MAX {
        return Err(format!("longer than {LINE_MAX} bytes"));
    }
    let head: Head =
        serde_json::from_slice(line).map_err(|error| format!("no export of baselines: {error}"))?;
    if head.format != FORMAT {
        return Err(format!("the format is no {FORMAT}"));
    }
    if head.version != VERSION {
        let found = head.version;
        return Err(format!("version {found} is not read; export with a sensor of this version"));
    }
    if head.subjects > SUBJECTS_MAX {
        return Err(format!("it tells of {} subjects, more than {SUBJECTS_MAX}", head.subjects));
    }
    let plain = |text: &str, most| text.len() <= most && !text.chars().any(char::is_control);
    if head.host.is_empty() || !plain(&head.host, HOST_MAX) || !plain(&head.sensor, 64) {
        return Err("the host's or the sensor's name is none".to_owned());
    }
    if head.exported > now.saturating_add(SKEW).unwrap_or(Timestamp::MAX) {
        return Err(format!(
            "it is from {}, which is yet to come: check the clocks",
            head.exported
        ));
    }
    Ok(head)
}

fn entry(line: &[u8], exported: Timestamp) -> Result<(String, Baseline), String> {
    if line.len() > LINE_MAX {
        return Err(format!("longer than {LINE_MAX} bytes"));
    }
    let Entry { subject, baseline } = serde_json::from_slice::<Entry<Baseline>>(line)
        .map_err(|error| format!("no baseline: {error}"))?;
    let told = |error: Unsound| error.to_string();
    sound::subject(&subject).map_err(told)?;
    // Observations go on while it is written.
    let until = exported.saturating_add(SKEW).unwrap_or(Timestamp::MAX);
    baseline.check(until).map_err(|error| format!("{subject}: {error}"))?;
    Ok((subject, baseline))
}

#[cfg(test)]
mod tests;
