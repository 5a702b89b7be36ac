//! When a package came to its version and which it had before: `dpkg.log`.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::super::PackageError;
use super::super::index::Package;
use super::super::lines::{Budget, Lines};
use super::super::root::Root;

/// Oldest first. Older ones are compressed.
const LOGS: [&str; 2] = ["var/log/dpkg.log.1", "var/log/dpkg.log"];
/// Only the end of a longer log is read.
const MAX_LOG: u64 = 8 << 20;
const MAX_ZONE: u64 = 64 << 10;

/// Writes into each package since when it has its version, and which it had before. A log that
/// cannot be read tells nothing, and what it tells is not needed.
pub(super) fn annotate(
    root: &Root,
    packages: &mut [Package],
    budget: &Budget,
) -> Result<(), PackageError> {
    let zone = zone(root);
    let numbers: HashMap<String, usize> = packages
        .iter()
        .enumerate()
        .map(|(number, package)| (format!("{}:{}", package.name, package.arch), number))
        .collect();
    for log in LOGS {
        let path = Path::new(log);
        let Ok(Some(mut file)) = root.find(path) else { continue };
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let read = size.min(MAX_LOG);
        if file.seek(SeekFrom::Start(size - read)).is_err() {
            continue;
        }
        budget.spend(read)?;
        let mut lines = Lines::new(file.take(read), path, read + 1, read)?;
        while let Ok(Some(line)) = lines.next() {
            let Some(entry) = Entry::parse(line) else { continue };
            let number = numbers.get(entry.package).copied();
            if let Some(package) = number.and_then(|number| packages.get_mut(number)) {
                entry.apply(package, &zone);
            }
        }
    }
    Ok(())
}

/// The log is written in local time; so is the zone of the root it belongs to.
pub(super) fn zone(root: &Root) -> TimeZone {
    let bytes = root.read(Path::new("etc/localtime"), MAX_ZONE).ok().flatten();
    bytes.and_then(|bytes| TimeZone::tzif("local", &bytes).ok()).unwrap_or(TimeZone::UTC)
}

/// `2025-06-24 14:36:25 upgrade libsystemd0:amd64 252.36-1~deb12u1 252.38-1~deb12u1`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    time: &'a str,
    /// Name and architecture.
    pub(super) package: &'a str,
    pub(super) verb: Verb,
    pub(super) old: &'a str,
    pub(super) new: &'a str,
}

/// What dpkg begins to do (`src/main/unpack.c` and `remove.c` of dpkg 1.22); a purge follows a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Upgrade,
    Install,
    Remove,
}

// === impl Entry ===

impl<'a> Entry<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let (time, rest) = line.split_at_checked(19)?;
        let mut words = rest.strip_prefix(' ')?.split(' ');
        let verb = match words.next()? {
            "upgrade" => Verb::Upgrade,
            "install" => Verb::Install,
            "remove" => Verb::Remove,
            _ => return None,
        };
        let (package, old, new) = (words.next()?, words.next()?, words.next()?);
        words.next().is_none().then_some(Self { time, package, verb, old, new })
    }

    /// When it began; the log has whole seconds.
    pub(super) fn at(&self, zone: &TimeZone) -> Option<Timestamp> {
        timestamp(self.time, zone)
    }

    /// A version that was installed again is there since it first was.
    fn apply(&self, package: &mut Package, zone: &TimeZone) {
        let upgrade = self.verb == Verb::Upgrade;
        if self.verb == Verb::Remove
            || self.new != &*package.version
            || (self.old == self.new && upgrade)
        {
            return;
        }
        let Some(time) = self.at(zone) else { return };
        package.since = Some(time);
        let old = super::super::index::word(self.old.as_bytes());
        package.previous = old.filter(|_| upgrade).map(Box::from);
    }
}

fn timestamp(time: &str, zone: &TimeZone) -> Option<Timestamp> {
    let time: DateTime = time.parse().ok()?;
    Some(time.to_zoned(zone.clone()).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::index::Place;
    use super::*;

    fn package(version: &str) -> Package {
        Package {
            name: "liblzma5".into(),
            version: version.into(),
            arch: "amd64".into(),
            epoch: None,
            place: Place::Dpkg { qualified: true, stanza: None },
            since: None,
            previous: None,
        }
    }

    #[test]
    fn the_last_change_to_the_installed_version_counts() {
        let mut package = package("5.6.1-1");
        for line in [
            "2024-02-01 10:00:00 install liblzma5:amd64 <none> 5.4.5-0.3",
            "2024-03-01 10:00:00 upgrade liblzma5:amd64 5.4.5-0.3 5.6.0-0.2",
            "2024-03-25 10:00:00 upgrade liblzma5:amd64 5.6.0-0.2 5.6.1-1",
            "2024-03-26 10:00:00 upgrade liblzma5:amd64 5.6.1-1 5.6.1-1",
            "2024-03-26 10:00:01 status installed liblzma5:amd64 5.6.1-1",
        ] {
            if let Some(entry) = Entry::parse(line.as_bytes()) {
                entry.apply(&mut package, &TimeZone::UTC);
            }
        }
        assert_eq!(package.since, Some("2024-03-25T10:00:00Z".parse().unwrap()));
        assert_eq!(package.previous.as_deref(), Some("5.6.0-0.2"));
    }

    #[test]
    fn local_time_becomes_universal_time() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let expected = "2024-03-25T08:00:00Z".parse().unwrap();
        assert_eq!(timestamp("2024-03-25 10:00:00", &zone), Some(expected));
        assert_eq!(timestamp("2024-13-25 10:00:00", &zone), None);
    }

    #[test]
    fn a_first_installation_has_no_version_before() {
        let mut package = package("1");
        let line = b"2024-03-25 10:00:00 install liblzma5:amd64 <none> 1";
        Entry::parse(line).unwrap().apply(&mut package, &TimeZone::UTC);
        assert!(package.since.is_some() && package.previous.is_none());
    }

    proptest! {
        #[test]
        fn any_line_is_total(line in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Entry::parse(&line);
        }

        #[test]
        fn any_time_is_total(line in "[-0-9 :]{19} (upgrade|install) [a-z: 0-9]{0,30}") {
            if let Some(entry) = Entry::parse(line.as_bytes()) {
                entry.apply(&mut package(entry.new), &TimeZone::UTC);
            }
        }
    }
}
