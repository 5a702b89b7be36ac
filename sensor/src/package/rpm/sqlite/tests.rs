//! Databases written by `SQLite` itself, read back and damaged.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

/// Runs SQL with the `sqlite3` program; `None`, said why, where there is none.
fn sqlite(database: &Path, sql: &str) -> Option<String> {
    let spawned =
        Command::new("sqlite3").arg(database).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        println!("skipped: no sqlite3 program on this machine");
        return None;
    };
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{sql}");
    Some(String::from_utf8(output.stdout).unwrap())
}

/// 700 rows of up to 20 kB: several levels of pages, and overflow chains.
fn rows(page_size: u32) -> String {
    format!(
        "PRAGMA page_size={page_size};
         CREATE TABLE noise(a TEXT, b);
         INSERT INTO noise VALUES('Packages', 7);
         CREATE TABLE Packages(hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
         INSERT INTO Packages SELECT i * 3, CAST(printf('%d:%.*c', i * 3, (i * 7919) % 20000, 'x')
         AS BLOB) FROM n;"
    )
}

fn open(path: &Path) -> Database {
    let wal = File::open(path.with_extension("sqlite-wal")).ok();
    Database::open(File::open(path).unwrap(), wal).unwrap()
}

fn read(database: &Database) -> Result<Vec<(i64, usize)>, Bad> {
    let mut found = Vec::new();
    database.each_row("Packages", |row, blob| {
        found.push((row, blob.len()));
        true
    })?;
    Ok(found)
}

fn expected(listing: &str) -> Vec<(i64, usize)> {
    let rows = listing.lines().map(|line| line.split_once('|').unwrap());
    rows.map(|(row, size)| (row.parse().unwrap(), size.parse().unwrap())).collect()
}

#[test]
fn rows_are_those_that_sqlite_wrote_at_every_page_size() {
    for page_size in [512, 4096, 65_536] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rpmdb.sqlite");
        let sql = rows(page_size) + "SELECT hnum, length(blob) FROM Packages;";
        let Some(listing) = sqlite(&path, &sql) else { return };
        let database = open(&path);
        assert_eq!(read(&database).unwrap(), expected(&listing), "{page_size}");
        for row in [3, 300, 2100] {
            let blob = database.row("Packages", row).unwrap().unwrap();
            assert!(blob.starts_with(format!("{row}:").as_bytes()), "{row}");
        }
        assert_eq!(database.row("Packages", 4).unwrap(), None);
        assert_eq!(database.row("Packages", 9999).unwrap(), None);
        assert_eq!(database.row("Missing", 3), Err(Bad("the table is missing")));
    }
}

/// A database with 350 rows deleted and one inserted in its log; its listing.
fn logged(path: &Path, checkpoint: u32) -> Option<Vec<(i64, usize)>> {
    let sql = rows(4096)
        + &format!(
            "PRAGMA journal_mode=wal;\n.dbconfig no_ckpt_on_close on\n\
             PRAGMA wal_autocheckpoint={checkpoint};
             DELETE FROM Packages WHERE hnum % 2;
             INSERT INTO Packages VALUES(7, 'new');
             SELECT hnum, length(blob) FROM Packages;"
        );
    let listing = sqlite(path, &sql)?;
    let listing: Vec<&str> = listing.lines().filter(|line| line.contains('|')).collect();
    Some(expected(&listing.join("\n")))
}

#[test]
fn what_the_log_has_committed_counts_and_what_it_has_not_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rpmdb.sqlite");
    let Some(expected) = logged(&path, 0) else { return };
    assert_eq!((read(&open(&path)).unwrap(), expected.len()), (expected, 351));
    // Cut short, it counts up to the commit before. SQLite fills up a sector with copies of the
    // last frame, so that takes a few.
    let log = path.with_extension("sqlite-wal");
    let bytes = fs::read(&log).unwrap();
    let mut found = Vec::new();
    for frames in 0..6 {
        fs::write(&log, &bytes[..bytes.len() - 1 - frames * (4096 + 24)]).unwrap();
        found.push(read(&open(&path)).unwrap().len());
    }
    assert!(found.iter().all(|rows| [351, 350, 700].contains(rows)), "{found:?}");
    assert!(found.contains(&350), "{found:?}");
    fs::write(&log, &bytes[..20]).unwrap();
    assert_eq!(read(&open(&path)).unwrap().len(), 700);
}

#[test]
fn frames_of_a_log_that_was_begun_anew_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rpmdb.sqlite");
    // What the deletion wrote is in the file already, and stale frames follow the insertion's.
    let Some(expected) = logged(&path, 1) else { return };
    assert_eq!((read(&open(&path)).unwrap(), expected.len()), (expected, 351));
}

#[test]
fn damage_is_an_error_or_other_rows_and_always_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rpmdb.sqlite");
    if sqlite(&path, &rows(512)).is_none() {
        return;
    }
    let whole = fs::read(&path).unwrap();
    let damaged = folder.path().join("damaged.sqlite");
    let mut errors = 0;
    for seed in 0..300_usize {
        let mut bytes = whole.clone();
        for step in 0..8 {
            // Mostly in the first pages and the pages' heads, where the structure is.
            let at = (seed * 7919 + step * 104_729) % 40_000;
            let at = if step % 2 == 0 { at / 512 * 512 + at % 12 } else { at };
            bytes[at] = u8::try_from((seed * 31 + step * 17) % 256).unwrap();
        }
        fs::write(&damaged, bytes).unwrap();
        let Ok(database) = Database::open(File::open(&damaged).unwrap(), None) else { continue };
        errors += u32::from(read(&database).is_err());
        let _ = database.row("Packages", 300);
    }
    assert!(errors > 0, "nothing was damaged");
}

#[test]
fn a_tree_that_leads_back_to_itself_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("circle");
    let mut page = vec![0_u8; 512];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16] = 2;
    page[100] = INTERIOR;
    page[111] = 1;
    fs::write(&path, &page).unwrap();
    let database = Database::open(File::open(&path).unwrap(), None).unwrap();
    assert_eq!(read(&database), Err(Bad("a b-tree that is no tree")));
}

#[test]
fn numbers_are_those_of_the_format() {
    for (bytes, value) in [
        (&[0x7f][..], 127),
        (&[0x81, 0x00], 128),
        (&[0xff; 9], -1),
        (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], 1),
    ] {
        assert_eq!(varint(bytes, 0), Some((value, bytes.len())));
    }
    assert_eq!(varint(&[0x80], 0), None);
    assert_eq!((integer(&[0xff]), integer(&[1, 0]), integer(&[])), (-1, 256, 0));
}

proptest! {
    #[test]
    fn any_bytes_are_total(bytes in proptest::collection::vec(any::<u8>(), 0..64), at in 0_usize..80) {
        let _ = (varint(&bytes, at), column(&bytes, at));
    }

    #[test]
    fn any_page_is_total(tail in proptest::collection::vec(any::<u8>(), 412..413)) {
        let mut page = vec![0_u8; 100];
        page[..16].copy_from_slice(b"SQLite format 3\0");
        page[16] = 2;
        page.extend(&tail);
        page[100] = if tail[0] & 1 == 0 { LEAF } else { INTERIOR };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&page).unwrap();
        let database = Database::open(file, None).unwrap();
        let _ = read(&database);
    }
}
