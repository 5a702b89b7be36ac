//! The changes that `dpkg.log` tells of, its rotated and compressed files included, and those that it
//! does not: a list of files that is newer than the log says was written with a package, too.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::super::PackageError;
use super::super::history::{Action, Collector, PackageChange};
use super::super::index::{Package, word};
use super::super::lines::{Budget, Lines};
use super::super::root::Root;
use super::super::{Manager, describe};
use super::info;
use super::log::{Entry, Verb, zone};

const FOLDER: &str = "var/log";
const NAME: &[u8] = b"dpkg.log";
const MAX_NAMES: usize = 20_000;
/// The newest rotated logs that are read; logrotate keeps twelve.
const MAX_LOGS: usize = 32;
/// Of a longer log the end is read.
const MAX_LOG: u64 = 8 << 20;
/// A compressed log, and what comes out of it: a month of upgrades is a megabyte.
const MAX_PACKED: u64 = 4 << 20;
const MAX_UNPACKED: u64 = 32 << 20;
/// Lines between two looks at the time that is left.
const LOOK_EVERY: u32 = 4096;
/// The log has when unpacking began; the list of files is written when it is over.
const UNPACKING: SignedDuration = SignedDuration::from_hours(1);
const SLACK: SignedDuration = SignedDuration::from_mins(1);

/// One of the log's files.
struct LogFile {
    path: PathBuf,
    file: File,
    written: Timestamp,
    size: u64,
    packed: bool,
}

/// When packages that are installed were last said to change, by name and architecture: a log may
/// name any number of others.
type Told = HashMap<String, Option<Timestamp>>;

/// Hands over every change the log tells of since then, and packages that came without its knowledge.
pub(in super::super) fn changes(
    root: &Root,
    found: &mut Collector,
    budget: &Budget,
) -> Result<(), PackageError> {
    let zone = zone(root);
    let installed = super::installed(root, budget).unwrap_or_else(|error| {
        found.gap(describe(&error));
        Vec::new()
    });
    let mut told: Told = installed.iter().map(|package| (key(package), None)).collect();
    match logs(root, found) {
        Ok(logs) if logs.is_empty() => {
            found.gap("there is no dpkg.log: versions before are not known".to_owned());
        }
        Ok(logs) => read_logs(logs, &zone, found, &mut told, budget),
        Err(error) => found.gap(describe(&error)),
    }
    untold(root, installed, &told, found, budget)
}

fn read_logs(
    logs: Vec<LogFile>,
    zone: &TimeZone,
    found: &mut Collector,
    told: &mut Told,
    budget: &Budget,
) {
    for log in logs {
        if log.written < found.since() {
            continue;
        }
        let path = log.path.clone();
        if let Err(error) = log.read(zone, found, told, budget) {
            found.gap(format!("{}: {}", path.display(), describe(&error)));
        }
    }
}

/// As the log names it.
fn key(package: &Package) -> String {
    format!("{}:{}", package.name, package.arch)
}

/// The log's files, oldest first.
fn logs(root: &Root, found: &mut Collector) -> Result<Vec<LogFile>, PackageError> {
    let mut logs = Vec::new();
    for name in root.names(Path::new(FOLDER), MAX_NAMES)? {
        let Some(rest) = name.strip_prefix(NAME) else { continue };
        let path = Path::new(FOLDER).join(OsStr::from_bytes(&name));
        let number = rest.strip_suffix(b".gz").unwrap_or(rest);
        let numbered = match number {
            [] => true,
            [b'.' | b'-', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
            _ => false,
        };
        if !numbered {
            found.gap(format!("{} is not read", path.display()));
            continue;
        }
        match LogFile::open(root, &path, rest.ends_with(b".gz")) {
            Ok(log) => logs.extend(log),
            Err(error) => found.gap(describe(&error)),
        }
    }
    logs.sort_by_key(|log| log.written);
    if logs.len() > MAX_LOGS {
        let mut older = logs.drain(..logs.len() - MAX_LOGS);
        if older.any(|log| log.written >= found.since()) {
            found.cut();
        }
    }
    Ok(logs)
}

/// Packages whose list of files was written when the log says nothing of them: it was not kept, or cut,
/// as in images of containers.
fn untold(
    root: &Root,
    installed: Vec<Package>,
    told: &Told,
    found: &mut Collector,
    budget: &Budget,
) -> Result<(), PackageError> {
    for package in installed {
        budget.spend(0)?;
        let Some(written) = info::unpacked(root, &package) else { continue };
        let known = told.get(&key(&package)).copied().flatten().is_some_and(|began| {
            let after = written.duration_since(began);
            after >= -SLACK && after <= UNPACKING
        });
        if known || written < found.since() {
            continue;
        }
        found.add(PackageChange {
            time: written,
            manager: Manager::Dpkg,
            package: package.name.into(),
            arch: Some(package.arch.into()),
            action: Action::Recorded,
            old: None,
            new: Some(package.version.into()),
        });
    }
    Ok(())
}

// === impl LogFile ===

impl LogFile {
    fn open(root: &Root, path: &Path, packed: bool) -> Result<Option<Self>, PackageError> {
        let Some(file) = root.find(path)? else { return Ok(None) };
        let metadata = file.metadata().map_err(|error| PackageError::io(path, error))?;
        let written = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        Ok(Some(Self {
            path: path.to_owned(),
            file,
            written: written.unwrap_or(Timestamp::MAX),
            size: metadata.len(),
            packed,
        }))
    }

    fn read(
        mut self,
        zone: &TimeZone,
        found: &mut Collector,
        told: &mut Told,
        budget: &Budget,
    ) -> Result<(), PackageError> {
        if self.packed {
            budget.spend(self.size.min(MAX_PACKED))?;
            let unpacked = MultiGzDecoder::new(self.file.take(MAX_PACKED));
            let lines = Lines::new(unpacked, &self.path, MAX_UNPACKED, 0)?;
            return read_lines(lines, zone, found, told, budget);
        }
        let read = self.size.min(MAX_LOG);
        if read < self.size {
            found.cut();
        }
        let fail = |error| PackageError::io(&self.path, error);
        self.file.seek(SeekFrom::Start(self.size - read)).map_err(fail)?;
        budget.spend(read)?;
        let lines = Lines::new(self.file.take(read), &self.path, read.saturating_add(1), read)?;
        read_lines(lines, zone, found, told, budget)
    }
}

fn read_lines<R: Read>(
    mut lines: Lines<R>,
    zone: &TimeZone,
    found: &mut Collector,
    told: &mut Told,
    budget: &Budget,
) -> Result<(), PackageError> {
    let mut read = 0_u32;
    while let Some(line) = lines.next()? {
        read = read.wrapping_add(1);
        if read.is_multiple_of(LOOK_EVERY) {
            budget.spend(0)?;
        }
        let Some(entry) = Entry::parse(line) else { continue };
        if let Some(change) = change(&entry, zone) {
            if let Some(last) = told.get_mut(entry.package) {
                *last = Some(change.time);
            }
            found.add(change);
        }
    }
    Ok(())
}

fn change(entry: &Entry<'_>, zone: &TimeZone) -> Option<PackageChange> {
    let (name, arch) = match entry.package.split_once(':') {
        Some((name, arch)) => (name, Some(word(arch.as_bytes())?.to_owned())),
        None => (entry.package, None),
    };
    let (old, new) = (version(entry.old), version(entry.new));
    let (action, old, new) = match entry.verb {
        // Where only configuration was left, its version is told as the old one.
        Verb::Install => (Action::Installed, None, Some(new?)),
        Verb::Upgrade if old == new => (Action::Reinstalled, old, Some(new?)),
        Verb::Upgrade => (Action::Replaced, old, Some(new?)),
        Verb::Remove => (Action::Removed, Some(old?), None),
    };
    Some(PackageChange {
        time: entry.at(zone)?,
        manager: Manager::Dpkg,
        package: word(name.as_bytes())?.to_owned(),
        arch,
        action,
        old: old.map(str::to_owned),
        new: new.map(str::to_owned),
    })
}

fn version(text: &str) -> Option<&str> {
    word(text.as_bytes()).filter(|text| *text != "<none>")
}

/// Reads a log's bytes as they are, then as if they were compressed; how many changes they tell of.
#[cfg(any(test, feature = "fuzzing"))]
pub(in super::super) fn read_log(bytes: &[u8]) -> usize {
    let budget = Budget::new(u64::MAX, std::time::Duration::from_mins(1));
    let mut found = Collector::new(Timestamp::MIN, 1000);
    let mut told = Told::new();
    let path = Path::new("dpkg.log");
    if let Ok(lines) = Lines::new(bytes, path, MAX_LOG, 0) {
        let _ = read_lines(lines, &TimeZone::UTC, &mut found, &mut told, &budget);
    }
    let unpacked = MultiGzDecoder::new(bytes.take(MAX_PACKED));
    if let Ok(lines) = Lines::new(unpacked, path, MAX_UNPACKED, 0) {
        let _ = read_lines(lines, &TimeZone::UTC, &mut found, &mut told, &budget);
    }
    found.finish().changes.len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn of_what_a_log_names_only_installed_packages_are_kept() {
        let line = |name: u32| format!("2026-11-20 06:10:02 upgrade p{name}:amd64 1 2\n");
        let log: String = (0..50_000).map(line).collect();
        let lines = Lines::new(log.as_bytes(), Path::new("dpkg.log"), MAX_LOG, 0).unwrap();
        let budget = Budget::new(u64::MAX, Duration::from_mins(1));
        let mut found = Collector::new(Timestamp::MIN, 10);
        let mut told = Told::from([("p7:amd64".to_owned(), None), ("x:amd64".to_owned(), None)]);
        read_lines(lines, &TimeZone::UTC, &mut found, &mut told, &budget).unwrap();
        let at = "2026-11-20T06:10:02Z".parse().unwrap();
        let expected =
            Told::from([("p7:amd64".to_owned(), Some(at)), ("x:amd64".to_owned(), None)]);
        assert_eq!(told, expected);
    }
}
