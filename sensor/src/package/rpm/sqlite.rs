//! Rows of a table in an `SQLite` file, read without `SQLite`: b-tree pages and overflow chains
//! (`fileformat2.html` of `SQLite`'s documentation, sections 1.3 to 1.6 and 2).

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use super::wal::Wal;

/// A b-tree of this depth has more rows than there are packages in the world.
const MAX_DEPTH: usize = 12;
/// The largest headers (kernel sources) have a few megabytes.
const MAX_ROW: usize = 64 << 20;
const MAX_COLUMNS: usize = 64;

const INTERIOR: u8 = 5;
const LEAF: u8 = 13;

/// What is wrong with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bad(pub(super) &'static str);

/// An open database; what its write-ahead log has committed counts.
#[derive(Debug)]
pub(super) struct Database {
    file: File,
    wal: Option<Wal>,
    page_size: usize,
    /// Bytes of a page that hold data.
    usable: usize,
    /// Pages there can be: a walk that meets more goes in circles.
    pages: u64,
}

/// A page of a table's b-tree.
struct Page {
    bytes: Vec<u8>,
    /// Where its b-tree header begins: 100 on the first page, after the file's own.
    start: usize,
}

/// What a walk does and has done.
struct Walk<'a> {
    /// Only this row, or all.
    only: Option<i64>,
    left: u64,
    each: &'a mut dyn FnMut(i64, &[u8]) -> bool,
}

/// One column's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Integer(i64),
    Bytes(&'a [u8]),
    Other,
}

type Step = Result<ControlFlow<()>, Bad>;

// === impl Database ===

impl Database {
    pub(super) fn open(file: File, wal: Option<File>) -> Result<Self, Bad> {
        let mut head = [0; 100];
        file.read_exact_at(&mut head, 0).map_err(|_| Bad("shorter than its header"))?;
        if !head.starts_with(b"SQLite format 3\0") {
            return Err(Bad("no SQLite file"));
        }
        let page_size = match usize::from(be16(&head, 16)?) {
            1 => 65_536,
            size if size.is_power_of_two() && size >= 512 => size,
            _ => return Err(Bad("an impossible page size")),
        };
        let reserved = usize::from(*head.get(20).ok_or(Bad("shorter than its header"))?);
        let usable = page_size - reserved;
        if usable < 480 {
            return Err(Bad("an impossible page size"));
        }
        let wal = wal.map(|wal| Wal::read(wal, page_size)).transpose()?.flatten();
        let size = file.metadata().map_err(|_| Bad("its size is not to be had"))?.len();
        let pages = size / page_size as u64 + wal.as_ref().map_or(0, Wal::pages) + 1;
        Ok(Self { file, wal, page_size, usable, pages })
    }

    /// Hands over the second column, a blob, of each row of a table, until it says false.
    pub(super) fn each_row(
        &self,
        table: &str,
        mut each: impl FnMut(i64, &[u8]) -> bool,
    ) -> Result<(), Bad> {
        self.walk_table(table, None, &mut |row, payload| match column(payload, 1) {
            Some(Value::Bytes(blob)) => each(row, blob),
            _ => true,
        })
    }

    /// The second column of one row.
    pub(super) fn row(&self, table: &str, row: i64) -> Result<Option<Vec<u8>>, Bad> {
        let mut found = None;
        self.walk_table(table, Some(row), &mut |_, payload| {
            if let Some(Value::Bytes(blob)) = column(payload, 1) {
                found = Some(blob.to_vec());
            }
            false
        })?;
        Ok(found)
    }

    fn walk_table(
        &self,
        table: &str,
        only: Option<i64>,
        each: &mut dyn FnMut(i64, &[u8]) -> bool,
    ) -> Result<(), Bad> {
        let root = self.root_of(table)?;
        let mut walk = Walk { only, left: self.pages, each };
        self.walk(root, 0, &mut walk).map(|_| ())
    }

    /// First page of a table, from `sqlite_schema`: type, name, `tbl_name`, rootpage, sql.
    fn root_of(&self, table: &str) -> Result<u32, Bad> {
        let mut root = None;
        let mut each = |_: i64, payload: &[u8]| {
            let is_table = column(payload, 0) == Some(Value::Bytes(b"table"));
            if is_table
                && column(payload, 1) == Some(Value::Bytes(table.as_bytes()))
                && let Some(Value::Integer(page)) = column(payload, 3)
            {
                root = Some(page);
            }
            root.is_none()
        };
        let mut walk = Walk { only: None, left: self.pages, each: &mut each };
        self.walk(1, 0, &mut walk).map(|_| ())?;
        let root = root.ok_or(Bad("the table is missing"))?;
        u32::try_from(root).map_err(|_| Bad("a negative page"))
    }

    fn walk(&self, number: u32, depth: usize, walk: &mut Walk<'_>) -> Step {
        if depth > MAX_DEPTH {
            return Err(Bad("a b-tree too deep"));
        }
        walk.left = walk.left.checked_sub(1).ok_or(Bad("a b-tree that is no tree"))?;
        let page = self.tree_page(number)?;
        let cells = page.cells()?;
        match page.kind() {
            LEAF => self.walk_leaf(&page, cells, walk),
            INTERIOR => {
                for cell in 0..cells {
                    let at = page.cell(cell, 12)?;
                    let (last, _) =
                        varint(&page.bytes, at + 4).ok_or(Bad("a key past its page"))?;
                    if walk.only.is_some_and(|only| only > last) {
                        continue;
                    }
                    let child = be32(&page.bytes, at)?;
                    if self.walk(child, depth + 1, walk)?.is_break() || walk.only.is_some() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                self.walk(be32(&page.bytes, page.start + 8)?, depth + 1, walk)
            }
            _ => Err(Bad("a page that is not of a table")),
        }
    }

    fn walk_leaf(&self, page: &Page, cells: usize, walk: &mut Walk<'_>) -> Step {
        for cell in 0..cells {
            let at = page.cell(cell, 8)?;
            let short = || Bad("a cell past its page");
            let (size, at) = varint(&page.bytes, at).ok_or_else(short)?;
            let (row, at) = varint(&page.bytes, at).ok_or_else(short)?;
            if walk.only.is_some_and(|only| only != row) {
                continue;
            }
            let size = usize::try_from(size).map_err(|_| short())?;
            let payload = self.payload(page, at, size, walk)?;
            if !(walk.each)(row, &payload) {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A cell's content: on its page and, beyond a bound, on a chain of others (section 1.6).
    fn payload(
        &self,
        page: &Page,
        at: usize,
        size: usize,
        walk: &mut Walk<'_>,
    ) -> Result<Vec<u8>, Bad> {
        if size > MAX_ROW {
            return Err(Bad("a row that is too large"));
        }
        let short = Bad("a cell past its page");
        let most = self.usable - 35;
        if size <= most {
            return Ok(page.bytes.get(at..at + size).ok_or(short)?.to_vec());
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let fitting = least + (size - least) % (self.usable - 4);
        let local = if fitting <= most { fitting } else { least };
        let mut payload = page.bytes.get(at..at + local).ok_or(short)?.to_vec();
        let mut next = be32(&page.bytes, at + local)?;
        while payload.len() < size {
            walk.left = walk.left.checked_sub(1).ok_or(Bad("a chain of pages without end"))?;
            let page = self.page(next)?;
            let room = (self.usable - 4).min(size - payload.len());
            payload.extend_from_slice(page.get(4..4 + room).ok_or(Bad("a page too short"))?);
            next = be32(&page, 0)?;
        }
        Ok(payload)
    }

    fn tree_page(&self, number: u32) -> Result<Page, Bad> {
        Ok(Page { bytes: self.page(number)?, start: if number == 1 { 100 } else { 0 } })
    }

    /// Pages are numbered from 1; what the log has replaces what the file has.
    fn page(&self, number: u32) -> Result<Vec<u8>, Bad> {
        let index = number.checked_sub(1).ok_or(Bad("page 0"))?;
        let mut bytes = vec![0; self.page_size];
        let (file, offset) = match self.wal.as_ref().and_then(|wal| wal.page(number)) {
            Some(place) => place,
            None => (&self.file, u64::from(index) * self.page_size as u64),
        };
        file.read_exact_at(&mut bytes, offset).map_err(|_| Bad("a page past the end"))?;
        Ok(bytes)
    }
}

// === impl Page ===

impl Page {
    fn kind(&self) -> u8 {
        self.bytes.get(self.start).copied().unwrap_or_default()
    }

    fn cells(&self) -> Result<usize, Bad> {
        be16(&self.bytes, self.start + 3).map(usize::from)
    }

    /// Where a cell begins; the array of these follows a header of `header` bytes.
    fn cell(&self, cell: usize, header: usize) -> Result<usize, Bad> {
        be16(&self.bytes, self.start + header + 2 * cell).map(usize::from)
    }
}

/// A column of a record: a header of types, then their values (section 2.1).
fn column(record: &[u8], number: usize) -> Option<Value<'_>> {
    let (header, mut types) = varint(record, 0)?;
    let header = usize::try_from(header).ok()?;
    let mut value = header;
    for column in 0..MAX_COLUMNS {
        if types >= header {
            return None;
        }
        let (kind, next) = varint(record, types)?;
        types = next;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => usize::try_from(kind).ok()?,
            5 => 6,
            6 | 7 => 8,
            _ => usize::try_from((kind.checked_sub(12)?) / 2).ok()?,
        };
        if column == number {
            let bytes = record.get(value..value.checked_add(size)?)?;
            return Some(match kind {
                1..=6 => Value::Integer(integer(bytes)),
                8 => Value::Integer(0),
                9 => Value::Integer(1),
                12.. => Value::Bytes(bytes),
                _ => Value::Other,
            });
        }
        value = value.checked_add(size)?;
    }
    None
}

/// Big-endian, signed, of one to eight bytes.
fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    bytes.iter().fold(if negative { -1 } else { 0 }, |value, byte| value << 8 | i64::from(*byte))
}

/// A number of one to nine bytes at `at`, and where the next thing begins (section 1.6).
fn varint(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let mut value = 0_i64;
    for (index, byte) in bytes.get(at..)?.iter().take(9).enumerate() {
        if index == 8 {
            return Some((value << 8 | i64::from(*byte), at + 9));
        }
        value = value << 7 | i64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, at + index + 1));
        }
    }
    None
}

pub(super) fn be32(bytes: &[u8], at: usize) -> Result<u32, Bad> {
    let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or(Bad("a number past its page"))
}

fn be16(bytes: &[u8], at: usize) -> Result<u16, Bad> {
    let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    bytes.map(|bytes| u16::from_be_bytes(*bytes)).ok_or(Bad("a number past its page"))
}

#[cfg(test)]
mod tests;
