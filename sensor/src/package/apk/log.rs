//! The changes that apk 3 writes to its log; its database has no times.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::super::history::{Action, Collector, PackageChange};
use super::super::index::word;
use super::super::lines::{Budget, Lines};
use super::super::root::Root;
use super::super::{Manager, PackageError};

const LOG: &str = "var/log/apk.log";
/// Of a longer log the end is read.
const MAX_LOG: u64 = 8 << 20;
/// Lines between two looks at the time that is left.
const LOOK_EVERY: u32 = 4096;

/// One line of the log (`src/print.c` and `src/commit.c` of apk-tools 3).
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    /// ``Running `apk upgrade` at 2026-11-21 10:00:00``, in universal time.
    Run(&'a str),
    /// `(1/3) Upgrading musl (1.2.5-r0 -> 1.2.5-r1)`, the verb and what follows.
    Change(&'a str, &'a str),
}

/// Hands over every change the log tells of.
pub(in super::super) fn changes(
    root: &Root,
    found: &mut Collector,
    budget: &Budget,
) -> Result<(), PackageError> {
    let path = Path::new(LOG);
    let Some(mut file) = root.find(path)? else {
        let written =
            super::INSTALLED.iter().filter_map(|path| root.stamp(Path::new(path)).ok()?);
        let written = written.filter_map(|stamp| Timestamp::from_second(stamp.mtime.0).ok()).max();
        let last = written.map(|time| format!("; the latest was at {time:.0}"));
        found.gap(format!("apk keeps no times of changes here{}", last.unwrap_or_default()));
        return Ok(());
    };
    let fail = |error| PackageError::io(path, error);
    let size = file.metadata().map_err(fail)?.len();
    let read = size.min(MAX_LOG);
    if read < size {
        found.cut();
    }
    file.seek(SeekFrom::Start(size - read)).map_err(fail)?;
    budget.spend(read)?;
    read_lines(Lines::new(file.take(read), path, read.saturating_add(1), read)?, found, budget)
}

fn read_lines<R: Read>(
    mut lines: Lines<R>,
    found: &mut Collector,
    budget: &Budget,
) -> Result<(), PackageError> {
    let (mut time, mut read) = (None, 0_u32);
    while let Some(line) = lines.next()? {
        read = read.wrapping_add(1);
        if read.is_multiple_of(LOOK_EVERY) {
            budget.spend(0)?;
        }
        match Line::parse(line) {
            Some(Line::Run(at)) => time = universal(at),
            Some(Line::Change(verb, what)) => {
                if let Some(change) = time.and_then(|time| change(time, verb, what)) {
                    found.add(change);
                }
            }
            None => {}
        }
    }
    Ok(())
}

fn universal(text: &str) -> Option<Timestamp> {
    let time: DateTime = text.parse().ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn change(time: Timestamp, verb: &str, what: &str) -> Option<PackageChange> {
    let (name, versions) = what.strip_suffix(')')?.split_once(" (")?;
    // A name may be followed by the repository that it is pinned to.
    let name = name.split('@').next().unwrap_or(name);
    let (old, new) = match versions.split_once(" -> ") {
        Some((old, new)) => (Some(word(old.as_bytes())?), word(new.as_bytes())?),
        None => (None, word(versions.as_bytes())?),
    };
    let (action, old, new) = match (verb, old) {
        ("Installing", None) => (Action::Installed, None, Some(new)),
        ("Upgrading" | "Downgrading", Some(old)) => (Action::Replaced, Some(old), Some(new)),
        // Another build of the same version.
        ("Replacing", old) => (Action::Reinstalled, old.or(Some(new)), Some(new)),
        ("Reinstalling", None) => (Action::Reinstalled, Some(new), Some(new)),
        ("Purging", None) => (Action::Removed, Some(new), None),
        _ => return None,
    };
    Some(PackageChange {
        time,
        manager: Manager::Apk,
        package: word(name.as_bytes())?.to_owned(),
        arch: None,
        action,
        old: old.map(str::to_owned),
        new: new.map(str::to_owned),
    })
}

/// Reads a log's bytes; how many changes they tell of.
#[cfg(any(test, feature = "fuzzing"))]
pub(in super::super) fn read_log(bytes: &[u8]) -> usize {
    let budget = Budget::new(u64::MAX, std::time::Duration::from_mins(1));
    let mut found = Collector::new(Timestamp::MIN, 1000);
    if let Ok(lines) = Lines::new(bytes, Path::new(LOG), MAX_LOG, 0) {
        let _ = read_lines(lines, &mut found, &budget);
    }
    found.finish().changes.len()
}

// === impl Line ===

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        if let Some(run) = line.strip_prefix("Running `") {
            return run.rsplit_once("` at ").map(|(_, at)| Self::Run(at));
        }
        let (count, rest) = line.strip_prefix('(')?.split_once(") ")?;
        let (done, all) = count.split_once('/')?;
        let is_number = |text: &str| {
            let text = text.trim_ascii_start();
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !is_number(done) || !is_number(all) {
            return None;
        }
        rest.split_once(' ').map(|(verb, what)| Self::Change(verb, what))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written after apk-tools 3 of Alpine 3.23.
    const TEXT: &[u8] = b"\nRunning `apk add openssh-server@edge` at 2026-11-21 10:00:00\n\
        (1/2) Installing libcrypto3 (3.5.0-r0)\n( 2/10) Installing openssh-server@edge (10.0_p1-r7)\n\
        Executing busybox-1.37.0-r18.trigger\nOK: 12 MiB in 20 packages\n\n\
        Running `apk upgrade` at 2026-11-22 11:30:00\n(1/4) Upgrading musl (1.2.5-r9 -> 1.2.5-r10)\n\
        (2/4) Downgrading zlib (1.3.1-r2 -> 1.3.1-r1)\n(3/4) Purging xz (5.6.3-r1)\n\
        (4/4) Updating pinning vim (9-r0)\n(x/4) Installing fake (1)\n(1/1) Installing bad name (1)\n";

    fn history(text: &[u8]) -> Vec<PackageChange> {
        let mut found = Collector::new(Timestamp::MIN, 100);
        let budget = Budget::new(1 << 20, std::time::Duration::from_mins(1));
        let lines = Lines::new(text, Path::new(LOG), 1 << 20, 0).unwrap();
        read_lines(lines, &mut found, &budget).unwrap();
        found.finish().changes
    }

    #[test]
    fn runs_and_their_changes_are_read() {
        let told: Vec<_> = history(TEXT)
            .iter()
            .map(|change| format!("{} {}", change.time, change.clause(str::to_owned)))
            .collect();
        assert_eq!(
            told,
            [
                "2026-11-22T11:30:00Z xz 5.6.3-r1 was removed",
                "2026-11-22T11:30:00Z zlib 1.3.1-r2 was replaced by 1.3.1-r1",
                "2026-11-22T11:30:00Z musl 1.2.5-r9 was replaced by 1.2.5-r10",
                "2026-11-21T10:00:00Z openssh-server 10.0_p1-r7 was installed",
                "2026-11-21T10:00:00Z libcrypto3 3.5.0-r0 was installed",
            ]
        );
    }

    #[test]
    fn a_change_before_the_first_run_has_no_time_and_is_left_out() {
        assert!(history(b"(1/1) Installing musl (1)\n").is_empty());
        assert!(history(b"Running `x` at yesterday\n(1/1) Installing musl (1)\n").is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_total(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = history(&text);
        }

        #[test]
        fn any_order_of_lines_is_total(
            text in "(Running `a` at [-0-9 :]{0,19}\n|\\([0-9]/[0-9]\\) (Upgrading|Purging) [a-z@(0-9> )-]{0,9}\n){0,9}"
        ) {
            let _ = history(text.as_bytes());
        }
    }
}
