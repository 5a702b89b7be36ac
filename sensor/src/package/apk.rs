//! apk: `/lib/apk/db/installed` of Alpine and Wolfi.

mod log;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::digest::{Algorithm, Digest};
use super::index::{Builder, Package, Place, word};
use super::lines::{Budget, Lines};
use super::path::Aliases;
use super::root::{Root, Stamp};
use super::{Built, PackageError, Record, full};

pub(super) use self::log::changes;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use self::log::read_log;

/// apk 2, and apk 3 on a merged `/usr`.
const INSTALLED: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];
const MAX_INSTALLED: u64 = 256 << 20;
/// A stanza with three hundred thousand files.
const MAX_STANZA: u64 = 32 << 20;

/// What one line of a stanza says. Others (`C:`, `T:`, `D:`, `a:`…) are not needed.
enum Line<'a> {
    Name(&'a [u8]),
    Version(&'a [u8]),
    Arch(&'a [u8]),
    Folder(&'a [u8]),
    File(&'a [u8]),
    Digest(&'a [u8]),
    End,
    Other,
}

/// What changes when a package does; `None` where there is no apk.
pub(super) fn stamps(root: &Root) -> Result<Option<Vec<Option<Stamp>>>, PackageError> {
    let mut stamps = Vec::with_capacity(INSTALLED.len());
    for path in INSTALLED {
        stamps.push(root.stamp(Path::new(path))?);
    }
    Ok(stamps.iter().any(Option::is_some).then_some(stamps))
}

/// Reads all packages and the names of their files.
pub(super) fn build(
    root: &Root,
    mut builder: Builder,
    budget: &Budget,
) -> Result<Built, PackageError> {
    if let Some(file) = open(root)? {
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        budget.spend(size)?;
        read(Lines::new(file, Path::new(INSTALLED[0]), MAX_INSTALLED, size)?, &mut builder)?;
    }
    Ok(Built { index: builder.finish(), diversions: Vec::new() })
}

fn open(root: &Root) -> Result<Option<File>, PackageError> {
    for path in INSTALLED {
        if let Some(file) = root.find(Path::new(path))? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

fn read<R: Read>(mut lines: Lines<R>, builder: &mut Builder) -> Result<(), PackageError> {
    let (mut head, mut number) = (Head::default(), None);
    let mut folder = Vec::new();
    let mut path = Vec::new();
    loop {
        let Some(line) = lines.next()? else { return Ok(()) };
        match Line::of(line) {
            Line::Folder(name) => {
                folder = name.to_vec();
                if number.is_none()
                    && let Some(package) = head.package()
                {
                    let added = builder.package(package);
                    number = Some(added.map_err(|limit| full(INSTALLED[0], limit))?);
                }
            }
            Line::File(name) => {
                let Some(number) = number else { continue };
                join(&mut path, &folder, name);
                builder.path(number, &path).map_err(|limit| full(INSTALLED[0], limit))?;
            }
            Line::End => {
                // A package without files is a package too.
                if number.is_none()
                    && let Some(package) = head.package()
                {
                    builder.package(package).map_err(|limit| full(INSTALLED[0], limit))?;
                }
                (head, number) = (Head::default(), None);
                folder.clear();
            }
            line => {
                let is_first = head.started(&line);
                if is_first {
                    head.offset = lines.offset();
                }
            }
        }
    }
}

/// What `package` records of the file; `None` if it does not name it.
pub(super) fn record(
    root: &Root,
    package: &Package,
    aliases: &Aliases,
    canonical: &[u8],
) -> Result<Option<Record>, PackageError> {
    let Place::Apk { stanza } = package.place else { return Ok(None) };
    let path = Path::new(INSTALLED[0]);
    let Some(mut file) = open(root)? else { return Ok(None) };
    file.seek(SeekFrom::Start(stanza)).map_err(|error| PackageError::io(path, error))?;
    find(Lines::new(file, path, MAX_STANZA, 0)?, &package.name, aliases, canonical)
}

/// Looks for a file in the stanza that begins with the first line.
fn find<R: Read>(
    mut lines: Lines<R>,
    package: &str,
    aliases: &Aliases,
    canonical: &[u8],
) -> Result<Option<Record>, PackageError> {
    let (mut folder, mut path) = (Vec::new(), Vec::new());
    let mut record: Option<Record> = None;
    while let Some(line) = lines.next()? {
        match (Line::of(line), &mut record) {
            // The file changed since the index was built.
            (Line::Name(name), None) if name != package.as_bytes() => return Ok(None),
            (Line::End, _) | (Line::File(_) | Line::Folder(_), Some(_)) => break,
            (Line::Digest(digest), Some(record)) => record.digest = checksum(digest),
            (Line::Folder(name), None) => folder = name.to_vec(),
            (Line::File(name), None) => {
                join(&mut path, &folder, name);
                if aliases.canonical(&path) == canonical {
                    // apk protects what is below /etc: changed files stay when it upgrades.
                    let config = canonical.starts_with(b"etc/");
                    record = Some(Record { digest: None, config, written: None });
                }
            }
            _ => {}
        }
    }
    Ok(record)
}

fn join(path: &mut Vec<u8>, folder: &[u8], name: &[u8]) {
    path.clear();
    path.extend_from_slice(folder);
    path.push(b'/');
    path.extend_from_slice(name);
}

/// `Q1` and a base64 SHA-1, `Q2` and a base64 SHA-256 (apk-tools, `src/blob.c`,
/// `apk_blob_pull_digest`).
fn checksum(text: &[u8]) -> Option<Digest> {
    let (algorithm, text) = match text.split_at_checked(2)? {
        (b"Q1", text) => (Algorithm::Sha1, text),
        (b"Q2", text) => (Algorithm::Sha256, text),
        _ => return None,
    };
    Digest::from_bytes(algorithm, &base64(text)?)
}

/// Standard base64 with padding, of at most a digest's length.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    if text.len() > 96 {
        return None;
    }
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for letter in text {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// The head of a stanza as far as it is known.
#[derive(Default)]
struct Head {
    begun: bool,
    offset: u64,
    name: Option<Box<str>>,
    version: Option<Box<str>>,
    arch: Option<Box<str>>,
}

// === impl Line ===

impl<'a> Line<'a> {
    fn of(line: &'a [u8]) -> Self {
        match line {
            [] => Self::End,
            [b'P', b':', value @ ..] => Self::Name(value),
            [b'V', b':', value @ ..] => Self::Version(value),
            [b'A', b':', value @ ..] => Self::Arch(value),
            [b'F', b':', value @ ..] => Self::Folder(value),
            [b'R', b':', value @ ..] => Self::File(value),
            [b'Z', b':', value @ ..] => Self::Digest(value),
            _ => Self::Other,
        }
    }
}

// === impl Head ===

impl Head {
    /// Takes a line of the head; whether it is the stanza's first.
    fn started(&mut self, line: &Line<'_>) -> bool {
        match line {
            Line::Name(name) => self.name = word(name).map(Box::from),
            Line::Version(version) => self.version = word(version).map(Box::from),
            Line::Arch(arch) => self.arch = word(arch).map(Box::from),
            _ => {}
        }
        !std::mem::replace(&mut self.begun, true)
    }

    fn package(&mut self) -> Option<Package> {
        Some(Package {
            name: self.name.take()?,
            version: self.version.take()?,
            arch: self.arch.take()?,
            epoch: None,
            place: Place::Apk { stanza: self.offset },
            since: None,
            previous: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written after Alpine 3.20's; the digest is that of an empty file.
    const DATABASE: &[u8] = b"C:Q1hKWAuCr0WjBrcyHRa7xrEpyc3FQ=\nP:musl\nV:1.2.5-r1\nA:x86_64\n\
        S:407278\nt:1721850128\nc:0784374d\nF:lib\nR:ld-musl-x86_64.so.1\na:0:0:755\n\
        Z:Q12jmj7l5rSw0yVb/vlWAYkK/YBwk=\nR:libc.musl-x86_64.so.1\nF:etc\nR:ld.path\n\nP:meta\n\
        V:1-r0\nA:noarch\n\nC:Q1=\nP:zlib\nV:1.3.1-r1\nA:x86_64\nF:lib\nR:libz.so.1.3.1\nF:\n\
        R:.root\n\n";

    fn lines(text: &[u8]) -> Lines<&[u8]> {
        Lines::new(text, Path::new("installed"), 1 << 20, 0).unwrap()
    }

    #[test]
    fn packages_and_their_files_are_found() {
        let mut builder = Builder::new(Aliases::default());
        read(lines(DATABASE), &mut builder).unwrap();
        let index = builder.finish();
        let names: Vec<_> = index.packages.iter().map(|package| &*package.name).collect();
        assert_eq!(names, ["musl", "meta", "zlib"]);
        let find_in = |path: &[u8]| {
            let package = index.candidates(path).next()?;
            let Place::Apk { stanza } = package.place else { return None };
            let rest = &DATABASE[usize::try_from(stanza).unwrap()..];
            let record = find(lines(rest), &package.name, &Aliases::default(), path).unwrap()?;
            Some((package.name.clone(), record))
        };
        let (name, record) = find_in(b"lib/ld-musl-x86_64.so.1").unwrap();
        let empty = Digest::from_hex(Algorithm::Sha1, b"da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!((&*name, record.digest, record.config), ("musl", empty, false));
        let (name, record) = find_in(b"lib/libz.so.1.3.1").unwrap();
        assert_eq!((&*name, record.digest), ("zlib", None));
        assert!(find_in(b"etc/ld.path").unwrap().1.config);
        assert_eq!(&*find_in(b".root").unwrap().0, "zlib");
        assert!(find_in(b"lib/other").is_none());
    }

    #[test]
    fn a_stanza_that_moved_is_not_taken_for_another() {
        let found = find(lines(DATABASE), "zlib", &Aliases::default(), b"lib/libz.so.1.3.1");
        assert!(found.unwrap().is_none());
    }

    #[test]
    fn base64_is_decoded() {
        assert_eq!(base64(b"aGFsZg==").unwrap(), b"half");
        assert_eq!(base64(b"c2Vjb25k").unwrap(), b"second");
        assert_eq!(base64(b"a b"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_total(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(lines(&text), &mut Builder::new(Aliases::default()));
            let _ = find(lines(&text), "musl", &Aliases::default(), b"lib/x");
            let _ = checksum(&text);
        }

        #[test]
        fn any_order_of_lines_is_total(text in "([PVAFRZ]:[a-zQ1=/]{0,5}\n|\n){0,30}") {
            let _ = read(lines(text.as_bytes()), &mut Builder::new(Aliases::default()));
            let _ = find(lines(text.as_bytes()), "a", &Aliases::default(), b"a/a");
        }
    }
}
