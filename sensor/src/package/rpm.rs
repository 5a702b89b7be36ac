//! rpm: the `SQLite` database of Fedora, RHEL 9, SUSE and Amazon Linux 2023.

mod header;
mod sqlite;
mod wal;

use std::path::Path;

use self::header::Header;
use self::sqlite::{Bad, Database};
use super::database::version;
use super::history::{Action, Collector, PackageChange};
use super::index::{Builder, Package, Place};
use super::lines::Budget;
use super::path::Aliases;
use super::root::{Root, Stamp};
use super::{Built, Manager, PackageError, Record, full};

/// Where rpm keeps its database: since ever, Fedora 36 and SUSE, ostree.
const FOLDERS: [&str; 3] = ["var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"];
/// Databases of the same folders that are not read.
const UNSUPPORTED: [(&str, &str); 6] = [
    ("var/lib/rpm/Packages", "Berkeley DB"),
    ("var/lib/rpm/Packages.db", "ndb"),
    ("usr/lib/sysimage/rpm/Packages", "Berkeley DB"),
    ("usr/lib/sysimage/rpm/Packages.db", "ndb"),
    ("usr/share/rpm/Packages", "Berkeley DB"),
    ("usr/share/rpm/Packages.db", "ndb"),
];
const MAX_DATABASE: u64 = 1 << 30;

/// What changes when a package does; `None` where there is no rpm.
pub(super) fn stamps(root: &Root) -> Result<Option<Vec<Option<Stamp>>>, PackageError> {
    for folder in FOLDERS {
        if let Some(stamp) = root.stamp(&Path::new(folder).join("rpmdb.sqlite"))? {
            let wal = root.stamp(&Path::new(folder).join("rpmdb.sqlite-wal"))?;
            return Ok(Some(vec![Some(stamp), wal]));
        }
    }
    for (path, format) in UNSUPPORTED {
        if root.stamp(Path::new(path))?.is_some() {
            return Err(PackageError::Unsupported { manager: Manager::Rpm, format, path });
        }
    }
    Ok(None)
}

/// Reads all packages and the names of their files.
pub(super) fn build(
    root: &Root,
    mut builder: Builder,
    budget: &Budget,
) -> Result<Built, PackageError> {
    if let Some((database, path)) = open(root, budget)? {
        let bad = |bad: Bad| PackageError::malformed(&path, bad.0);
        let mut result = Ok(());
        database
            .each_row("Packages", |row, blob| {
                if result.is_ok() {
                    result = add(&mut builder, row, blob, budget);
                }
                result.is_ok()
            })
            .map_err(bad)?;
        result?;
    }
    Ok(Built { index: builder.finish(), diversions: Vec::new() })
}

/// Hands over when each package came, which is all that the database keeps of changes.
pub(super) fn changes(
    root: &Root,
    found: &mut Collector,
    budget: &Budget,
) -> Result<(), PackageError> {
    let Some((database, path)) = open(root, budget)? else { return Ok(()) };
    found.limit("rpm keeps when packages came, not which versions they replaced or which went");
    let mut result = Ok(());
    database
        .each_row("Packages", |row, blob| {
            result = budget.spend(0);
            let package = Header::parse(blob).and_then(|header| header.package(row));
            if let Some(package) = package
                && let Some(time) = package.since
            {
                found.add(PackageChange {
                    time,
                    manager: Manager::Rpm,
                    new: Some(version(&package)),
                    package: package.name.into(),
                    arch: Some(package.arch.into()),
                    action: Action::Recorded,
                    old: None,
                });
            }
            result.is_ok()
        })
        .map_err(|bad: Bad| PackageError::malformed(&path, bad.0))?;
    result
}

fn add(builder: &mut Builder, row: i64, blob: &[u8], budget: &Budget) -> Result<(), PackageError> {
    // Spent once more than the file's size at most: rows are parts of it.
    budget.spend(0)?;
    // A header that is none is left out, as a package's whose name is none.
    let Some(header) = Header::parse(blob) else { return Ok(()) };
    let Some(package) = header.package(row) else { return Ok(()) };
    let number = builder.package(package).map_err(|limit| full(FOLDERS[0], limit))?;
    for file in header.files() {
        builder.path(number, &file.path).map_err(|limit| full(FOLDERS[0], limit))?;
    }
    Ok(())
}

/// What `package` records of the file; `None` if it does not name it.
pub(super) fn record(
    root: &Root,
    package: &Package,
    aliases: &Aliases,
    canonical: &[u8],
    budget: &Budget,
) -> Result<Option<Record>, PackageError> {
    let Place::Rpm { row } = package.place else { return Ok(None) };
    let Some((database, path)) = open(root, budget)? else { return Ok(None) };
    let bad = |bad: Bad| PackageError::malformed(&path, bad.0);
    let Some(blob) = database.row("Packages", row).map_err(bad)? else { return Ok(None) };
    let Some(header) = Header::parse(&blob) else { return Ok(None) };
    if header.package(row).is_none_or(|found| found.name != package.name) {
        return Ok(None);
    }
    let algorithm = header.algorithm();
    let mut files = header.files();
    let found = files.find(|file| aliases.canonical(&file.path) == canonical);
    Ok(found.map(|file| file.record(algorithm)))
}

fn open(
    root: &Root,
    budget: &Budget,
) -> Result<Option<(Database, std::path::PathBuf)>, PackageError> {
    for folder in FOLDERS {
        let path = Path::new(folder).join("rpmdb.sqlite");
        let Some(file) = root.find(&path)? else { continue };
        let size = file.metadata().map_err(|error| PackageError::io(&path, error))?.len();
        if size > MAX_DATABASE {
            let (what, limit) = ("bytes", MAX_DATABASE);
            return Err(PackageError::TooLarge { path, what, limit });
        }
        budget.spend(0)?;
        let wal = root.find(&Path::new(folder).join("rpmdb.sqlite-wal"))?;
        let database =
            Database::open(file, wal).map_err(|bad| PackageError::malformed(&path, bad.0))?;
        return Ok(Some((database, path)));
    }
    Ok(None)
}

/// Reads one header as [`build`] and [`record`] do; how many files it names.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn read_header(blob: &[u8]) -> usize {
    let Some(header) = Header::parse(blob) else { return 0 };
    let (_, algorithm) = (header.package(1), header.algorithm());
    let mut read = 0;
    for file in header.files() {
        let _ = file.record(algorithm);
        read += 1;
    }
    read
}

#[cfg(test)]
mod tests;
