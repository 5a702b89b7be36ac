//! The database file: its tables, its versions, and what redb's errors mean here.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{
    Database, DatabaseError, ReadTransaction, ReadableTable, ReadableTableMetadata, StorageError,
    TableDefinition, TableError, WriteTransaction,
};

use super::entry::Entry;
use super::{Bounds, SCHEMA};

const SCHEMA_KEY: &str = "schema";
/// Bytes of all entries.
const BYTES_KEY: &str = "bytes";
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Schema 1: a baseline's JSON by subject.
pub(super) const SUBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("subjects");
/// By subject: of a guarded program; when it was last seen, seconds; bytes; checksum.
pub(super) const HEADS: TableDefinition<'_, &str, (bool, i64, u32, u32)> =
    TableDefinition::new("heads");
/// The bytes of an entry, in rows that fill a page each: a value of redb's takes a power of two of
/// pages, which would leave a third of the file empty.
pub(super) const ROWS: TableDefinition<'_, (&str, u16), &[u8]> = TableDefinition::new("rows");
/// A page, less what redb needs of it for one row.
const ROW: usize = 4096 - 64;
/// Bytes of a row at least, whatever its subject takes.
const ROW_MIN: usize = 512;
/// Where there are too many, so many of sixteen stay: looking for what goes costs a walk over all.
const KEPT_OF_SIXTEEN: u64 = 15;

/// Leads from one schema to the next; gives how many entries could not be understood.
type Migration = fn(&WriteTransaction) -> Result<u64, redb::Error>;
/// The first from schema 1.
const MIGRATIONS: [Migration; 1] = [pack_json];
const _: () = assert!(MIGRATIONS.len() as u64 + 1 == SCHEMA, "a way from every schema");

/// Baselines as JSON by subject.
type Subjects = Vec<(String, Vec<u8>)>;

/// Why a file cannot be used.
#[derive(Debug)]
pub(super) enum Broken {
    /// Somebody else has it open.
    InUse(String),
    /// Trying later may help.
    ForNow(String),
    /// The file itself is no good.
    Damaged(String),
    /// Written by a later version: it is of use to that one.
    Newer(u64),
}

/// Why an entry cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::baseline) enum Unread {
    /// It is not what was written.
    Damaged,
    /// Nothing can be read for now: it may be there, and as it was.
    ForNow,
}

impl From<redb::Error> for Broken {
    fn from(error: redb::Error) -> Self {
        let reason = error.to_string();
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                Self::InUse(reason)
            }
            error if is_damage(&error) => Self::Damaged(reason),
            _ => Self::ForNow(reason),
        }
    }
}

impl From<redb::Error> for Unread {
    fn from(error: redb::Error) -> Self {
        if is_damage(&error) { Self::Damaged } else { Self::ForNow }
    }
}

/// Not a database, one that ends too early, or one that contradicts itself.
fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Io(error) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::Corrupted(_)
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableIsNotMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => true,
        _ => false,
    }
}

/// redb checks every page when it opens a file for writing, and may panic over one that is changed
/// after that, or that is only read: damage like any other.
pub(super) fn caught<T, E: Into<redb::Error>>(
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, redb::Error> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(redb::Error::Corrupted("the store could not be understood".to_owned())),
    }
}

/// Opens a database by `open` and brings it to this schema; gives how many entries of an earlier one
/// could not be understood.
pub(super) fn open(
    open: impl FnOnce() -> Result<Database, DatabaseError>,
) -> Result<(Database, u64), Broken> {
    let db = caught(open)?;
    let unreadable = match caught(|| migrate(&db)) {
        Ok(Ok(unreadable)) => unreadable,
        Ok(Err(found)) if found > SCHEMA => return Err(Broken::Newer(found)),
        Ok(Err(found)) => return Err(Broken::Damaged(format!("there is no schema {found}"))),
        Err(error) => return Err(error.into()),
    };
    Ok((db, unreadable))
}

/// Brings the file to this schema in one transaction, a new one as well; `Err` with its schema where
/// there is no way.
fn migrate(db: &Database) -> Result<Result<u64, u64>, redb::Error> {
    let write = db.begin_write()?;
    let found = write.open_table(META)?.get(SCHEMA_KEY)?.map(|found| found.value());
    let steps = match found {
        Some(SCHEMA) => {
            write.abort()?;
            return Ok(Ok(0));
        }
        Some(found @ 1..SCHEMA) => usize::try_from(found - 1).unwrap_or(0),
        Some(other) => {
            write.abort()?;
            return Ok(Err(other));
        }
        None => MIGRATIONS.len(),
    };
    write.open_table(HEADS)?;
    write.open_table(ROWS)?;
    let mut unreadable = 0;
    for step in MIGRATIONS.iter().skip(steps) {
        unreadable += step(&write)?;
    }
    write.open_table(META)?.insert(SCHEMA_KEY, SCHEMA)?;
    write.commit()?;
    Ok(Ok(unreadable))
}

/// From schema 1 to 2: JSON becomes packed entries.
fn pack_json(write: &WriteTransaction) -> Result<u64, redb::Error> {
    let mut unreadable = 0;
    for row in write.open_table(SUBJECTS)?.iter()? {
        let (subject, json) = row?;
        match Entry::of_json(json.value()) {
            Some(entry) => put(write, subject.value(), &entry)?,
            None => unreadable += 1,
        }
    }
    write.delete_table(SUBJECTS)?;
    Ok(unreadable)
}

/// Writes all changes or none, durably; gives how many entries were evicted for them.
pub(super) fn commit(
    db: &Database,
    changes: &[(&str, &Entry)],
    bounds: Bounds,
) -> Result<u64, redb::Error> {
    let write = db.begin_write()?;
    for (subject, entry) in changes {
        put(&write, subject, entry)?;
    }
    let evicted = evict(&write, bounds)?;
    write.commit()?;
    Ok(evicted)
}

fn put(write: &WriteTransaction, subject: &str, entry: &Entry) -> Result<(), redb::Error> {
    let bytes = u32::try_from(entry.body.len()).unwrap_or(u32::MAX);
    let head = (entry.guarded, entry.seen_s, bytes, entry.checksum(subject));
    let former = {
        let mut heads = write.open_table(HEADS)?;
        let former =
            if bytes == 0 { heads.remove(subject)? } else { heads.insert(subject, head)? };
        former.map_or(0, |head| head.value().2)
    };
    let mut rows = write.open_table(ROWS)?;
    let row = row_bytes(subject);
    for (at, chunk) in (0..).zip(entry.body.chunks(row)) {
        rows.insert((subject, at), chunk)?;
    }
    for at in row_count(bytes, row)..row_count(former, row) {
        rows.remove((subject, at))?;
    }
    let mut meta = write.open_table(META)?;
    let sum = meta.get(BYTES_KEY)?.map_or(0, |sum| sum.value());
    meta.insert(BYTES_KEY, sum.saturating_sub(former.into()).saturating_add(bytes.into()))?;
    Ok(())
}

/// Removes entries down to less than the bounds where they are exceeded: the least recently seen, of
/// guarded programs only once there is no other. Whoever starts new programs by the thousand must not
/// make the sensor forget sshd.
fn evict(write: &WriteTransaction, bounds: Bounds) -> Result<u64, redb::Error> {
    let mut heads = write.open_table(HEADS)?;
    let mut meta = write.open_table(META)?;
    let mut sum = meta.get(BYTES_KEY)?.map_or(0, |sum| sum.value());
    let mut count = heads.len()?;
    if count <= bounds.count && sum <= bounds.bytes {
        return Ok(0);
    }
    let mut order = Vec::new();
    for head in heads.iter()? {
        let (subject, head) = head?;
        let (guarded, seen_s, bytes, _) = head.value();
        order.push((guarded, seen_s, subject.value().to_owned(), bytes));
    }
    order.sort_unstable();
    let kept = |most: u64| most / 16 * KEPT_OF_SIXTEEN + most % 16 * KEPT_OF_SIXTEEN / 16;
    let mut rows = write.open_table(ROWS)?;
    let mut evicted = 0;
    for (_, _, subject, bytes) in order {
        if count <= kept(bounds.count).max(1) && sum <= kept(bounds.bytes) || count <= 1 {
            break;
        }
        heads.remove(subject.as_str())?;
        for at in 0..row_count(bytes, row_bytes(&subject)) {
            rows.remove((subject.as_str(), at))?;
        }
        sum = sum.saturating_sub(bytes.into());
        count -= 1;
        evicted += 1;
    }
    meta.insert(BYTES_KEY, sum)?;
    Ok(evicted)
}

/// The entry of a subject as it was written; `None` where there is none.
pub(super) fn read_one(read: &ReadTransaction, subject: &str) -> Result<Option<Entry>, Unread> {
    let heads = match read.open_table(HEADS) {
        Ok(heads) => heads,
        // A disk that is full keeps a file at the schema that it has.
        Err(TableError::TableDoesNotExist(_)) => return read_json(read, subject),
        Err(error) => return Err(redb::Error::from(error).into()),
    };
    let Some(head) = heads.get(subject).map_err(redb::Error::from)? else { return Ok(None) };
    let (guarded, seen_s, bytes, checksum) = head.value();
    let rows = read.open_table(ROWS).map_err(redb::Error::from)?;
    let mut body = Vec::new();
    for at in 0..row_count(bytes, row_bytes(subject)) {
        let row = rows.get((subject, at)).map_err(redb::Error::from)?.ok_or(Unread::Damaged)?;
        body.extend_from_slice(row.value());
    }
    let entry = Entry { guarded, seen_s, body };
    if entry.checksum(subject) == checksum { Ok(Some(entry)) } else { Err(Unread::Damaged) }
}

/// The same in a file of schema 1.
fn read_json(read: &ReadTransaction, subject: &str) -> Result<Option<Entry>, Unread> {
    let subjects = match read.open_table(SUBJECTS) {
        Ok(subjects) => subjects,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(redb::Error::from(error).into()),
    };
    let json = subjects.get(subject).map_err(redb::Error::from)?;
    json.map(|json| Entry::of_json(json.value()).ok_or(Unread::Damaged)).transpose()
}

/// Every baseline of a file of any schema up to this one, as JSON by subject; `Err` with its schema
/// where it is a later one. Entries that are damaged tell nothing; the sensor counts them.
pub(super) fn read_all(read: &ReadTransaction) -> Result<Result<Subjects, u64>, redb::Error> {
    let schema = match read.open_table(META) {
        Ok(meta) => meta.get(SCHEMA_KEY)?.map_or(0, |found| found.value()),
        // Begun, and killed before its first transaction.
        Err(TableError::TableDoesNotExist(_)) => return Ok(Ok(Vec::new())),
        Err(error) => return Err(error.into()),
    };
    let mut all = Vec::new();
    match schema {
        1 => {
            for row in read.open_table(SUBJECTS)?.iter()? {
                let (subject, json) = row?;
                all.push((subject.value().to_owned(), json.value().to_vec()));
            }
        }
        SCHEMA => {
            for head in read.open_table(HEADS)?.iter()? {
                let subject = head?.0;
                let entry = match read_one(read, subject.value()) {
                    Ok(entry) => entry,
                    Err(Unread::Damaged) => None,
                    Err(Unread::ForNow) => return Err(StorageError::PreviousIo.into()),
                };
                let json = entry.and_then(|entry| entry.json());
                all.extend(json.map(|json| (subject.value().to_owned(), json)));
            }
        }
        other => return Ok(Err(other)),
    }
    Ok(Ok(all))
}

fn row_bytes(subject: &str) -> usize {
    ROW.saturating_sub(subject.len()).max(ROW_MIN)
}

/// Rows that so many bytes take; what a baseline can be has far fewer than there are numbers.
fn row_count(bytes: u32, row: usize) -> u16 {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    u16::try_from(bytes.div_ceil(row)).unwrap_or(u16::MAX)
}
