//! What dpkg keeps of one package: its list of files, their MD5 digests, its configuration files.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;

use super::super::PackageError;
use super::super::Record;
use super::super::digest::{Algorithm, Digest};
use super::super::index::{Package, Place};
use super::super::lines::{Budget, Lines};
use super::super::path::Aliases;
use super::super::root::Root;
use super::control::field;
use super::{INFO, STATUS, STATUS_D};

/// A list of a million files.
const MAX_LIST: u64 = 64 << 20;
/// A stanza with ten thousand configuration files.
const MAX_STANZA: u64 = 1 << 20;

/// Hands over every path the package names, in dpkg's spelling. Directories that are followed by
/// their content are left out.
pub(super) fn each_path(
    root: &Root,
    name: &str,
    arch: &str,
    place: &Place,
    budget: &Budget,
    mut path: impl FnMut(&[u8]) -> Result<(), PackageError>,
) -> Result<(), PackageError> {
    let Some(mut list) = List::open(root, name, arch, place, budget)? else { return Ok(()) };
    let mut before: Vec<u8> = Vec::new();
    while let Some(line) = list.next()? {
        let is_below =
            line.strip_prefix(before.as_slice()).is_some_and(|rest| rest.starts_with(b"/"));
        if !before.is_empty() && !is_below {
            path(&before)?;
        }
        before.clear();
        before.extend_from_slice(line);
    }
    if before.is_empty() { Ok(()) } else { path(&before) }
}

/// What `package` records of the file; `None` if it does not name it.
pub(in super::super) fn record(
    root: &Root,
    package: &Package,
    aliases: &Aliases,
    canonical: &[u8],
    budget: &Budget,
) -> Result<Option<Record>, PackageError> {
    let Package { name, arch, place, .. } = package;
    let Some(mut list) = List::open(root, name, arch, place, budget)? else { return Ok(None) };
    let written = list.written;
    loop {
        match list.next()? {
            Some(line) if aliases.canonical(line) == canonical => break,
            Some(_) => {}
            None => return Ok(None),
        }
    }
    let mut record = Record { digest: None, config: false, written };
    if let Some(mut sums) = Sums::open(root, name, arch, place, budget)? {
        record.digest = sums.find(aliases, canonical)?;
    }
    if let Place::Dpkg { stanza: Some(offset), .. } = place {
        let (config, digest) = conffile(root, name, *offset, aliases, canonical)?;
        record.config = config;
        record.digest = record.digest.or(digest);
    }
    Ok(Some(record))
}

/// Paths of a package: lines of its list or, where there are only digests, of those.
struct List {
    lines: Lines<File>,
    sums: bool,
    written: Option<Timestamp>,
}

/// Lines of an `md5sums` file.
struct Sums {
    lines: Lines<File>,
}

// === impl List ===

impl List {
    fn open(
        root: &Root,
        name: &str,
        arch: &str,
        place: &Place,
        budget: &Budget,
    ) -> Result<Option<Self>, PackageError> {
        for path in files(name, arch, place, "list") {
            let Some(file) = root.find(&path)? else { continue };
            let metadata = file.metadata().map_err(|error| PackageError::io(&path, error))?;
            budget.spend(metadata.len())?;
            let written = metadata.modified().ok().and_then(timestamp);
            let lines = Lines::new(file, &path, MAX_LIST, metadata.len())?;
            return Ok(Some(Self { lines, sums: false, written }));
        }
        let sums = Sums::open(root, name, arch, place, budget)?;
        Ok(sums.map(|sums| Self { lines: sums.lines, sums: true, written: None }))
    }

    fn next(&mut self) -> Result<Option<&[u8]>, PackageError> {
        let sums = self.sums;
        let line = self.lines.next()?;
        Ok(line.map(|line| if sums { sum(line).map_or(&b""[..], |(_, path)| path) } else { line }))
    }
}

// === impl Sums ===

impl Sums {
    fn open(
        root: &Root,
        name: &str,
        arch: &str,
        place: &Place,
        budget: &Budget,
    ) -> Result<Option<Self>, PackageError> {
        for path in files(name, arch, place, "md5sums") {
            if let Some(lines) = root.lines(&path, MAX_LIST, budget)? {
                return Ok(Some(Self { lines }));
            }
        }
        Ok(None)
    }

    fn find(
        &mut self,
        aliases: &Aliases,
        canonical: &[u8],
    ) -> Result<Option<Digest>, PackageError> {
        while let Some(line) = self.lines.next()? {
            if let Some((digest, path)) = sum(line)
                && aliases.canonical(path) == canonical
            {
                return Ok(Digest::from_hex(Algorithm::Md5, digest));
            }
        }
        Ok(None)
    }
}

/// `DIGEST  PATH` or `DIGEST *PATH`.
fn sum(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (digest, path) = line.split_at_checked(32)?;
    match path {
        [b' ', b' ' | b'*', path @ ..] if !path.is_empty() => Some((digest, path)),
        _ => None,
    }
}

/// Whether the package says a file is its configuration, and the digest it gives it then.
fn conffile(
    root: &Root,
    name: &str,
    stanza: u64,
    aliases: &Aliases,
    canonical: &[u8],
) -> Result<(bool, Option<Digest>), PackageError> {
    let path = Path::new(STATUS);
    let fail = |error| PackageError::io(path, error);
    let Some(mut file) = root.find(path)? else { return Ok((false, None)) };
    file.seek(SeekFrom::Start(stanza)).map_err(fail)?;
    let mut lines = Lines::new(file, path, MAX_STANZA, 0)?;
    let (mut own, mut inside) = (false, false);
    while let Some(line) = lines.next()? {
        match field(line) {
            Some((b"Package", value)) => own = value == name.as_bytes(),
            Some((key, _)) => inside = key.eq_ignore_ascii_case(b"Conffiles"),
            None if line.is_empty() => break,
            None if own && inside => {
                let (path, digest) = conffile_line(line);
                if aliases.canonical(path) == canonical {
                    return Ok((true, Digest::from_hex(Algorithm::Md5, digest)));
                }
            }
            None => {}
        }
    }
    Ok((false, None))
}

/// ` PATH DIGEST`, and perhaps ` obsolete`, ` remove-on-upgrade` after it.
fn conffile_line(line: &[u8]) -> (&[u8], &[u8]) {
    let mut line = line.trim_ascii();
    for flag in [&b" obsolete"[..], b" remove-on-upgrade", b" obsolete"] {
        line = line.strip_suffix(flag).unwrap_or(line);
    }
    match line.iter().rposition(|byte| *byte == b' ') {
        Some(blank) => (&line[..blank], line.get(blank + 1..).unwrap_or_default()),
        None => (line, &[]),
    }
}

/// When the package's files were last unpacked: then its list of them is written.
pub(super) fn unpacked(root: &Root, package: &Package) -> Option<Timestamp> {
    let Package { name, arch, place, .. } = package;
    let mut found = files(name, arch, place, "list").into_iter();
    let (seconds, nanoseconds) = found.find_map(|path| root.stamp(&path).ok()?)?.mtime;
    Timestamp::new(seconds, i32::try_from(nanoseconds).ok()?).ok()
}

/// Where a file of the package may be, likeliest first.
fn files(name: &str, arch: &str, place: &Place, kind: &str) -> Vec<PathBuf> {
    match place {
        Place::Dpkg { qualified, .. } => {
            let mut files = vec![
                PathBuf::from(format!("{INFO}/{name}:{arch}.{kind}")),
                PathBuf::from(format!("{INFO}/{name}.{kind}")),
            ];
            if !qualified {
                files.reverse();
            }
            files
        }
        Place::Distroless { file } => vec![PathBuf::from(format!("{STATUS_D}/{file}.{kind}"))],
        Place::Apk { .. } | Place::Rpm { .. } => Vec::new(),
    }
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digests_are_told_from_their_paths() {
        let digest = b"af0e525fd86aa1ea0899f6152cd6a756";
        let line = [&digest[..], b"  usr/lib/a b"].concat();
        assert_eq!(sum(&line), Some((&digest[..], &b"usr/lib/a b"[..])));
        assert_eq!(sum(digest), None);
        assert_eq!(sum(b"short  x"), None);
    }

    #[test]
    fn configuration_files_may_be_obsolete_and_have_blanks() {
        for (line, expected) in [
            (" /etc/a b 0123", ("/etc/a b", "0123")),
            (" /etc/x 0123 obsolete", ("/etc/x", "0123")),
            (" /etc/x newconffile", ("/etc/x", "newconffile")),
            (" /etc/x 0123 remove-on-upgrade obsolete", ("/etc/x", "0123")),
            ("", ("", "")),
        ] {
            let (path, digest) = conffile_line(line.as_bytes());
            assert_eq!((path, digest), (expected.0.as_bytes(), expected.1.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn any_line_is_total(line in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (sum(&line), conffile_line(&line));
        }
    }
}
