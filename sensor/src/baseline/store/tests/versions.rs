//! Files of earlier and of later versions.

use redb::{Database, ReadableDatabase, ReadableTableMetadata};

use super::disk::{Disk, Fault, Kind};
use super::*;
use crate::baseline::keep::Baselines;

/// A file as the first version wrote it: JSON by subject.
fn first_version(dir: &Path, subjects: &[(String, Vec<u8>)]) {
    let db = Database::create(dir.join(FILE)).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(file::META).unwrap().insert("schema", 1).unwrap();
    let mut table = write.open_table(file::SUBJECTS).unwrap();
    for (subject, json) in subjects {
        table.insert(subject.as_str(), json.as_slice()).unwrap();
    }
    drop(table);
    write.commit().unwrap();
}

fn json(number: u64) -> (String, Vec<u8>) {
    (name(number), serde_json::to_vec(&numbered(number)).unwrap())
}

/// A baseline of sshd as the first version stored it, with nothing that came later.
const OLD: &str = r#"{"starts":50,"since_new":50,"late":0,"methods":{"publickey":50},
    "first_seen":"2026-01-01T00:00:00Z","last_seen":"2026-02-01T00:00:00Z",
    "libraries":[[{"path":"/lib/libz.so.1","build":"0123456789abcdef0123456789abcdef01234567"},
        {"first":"2026-01-01T00:00:00Z","last":"2026-01-01T00:00:00.5Z"}]],
    "callers":{},"environment":[],"helpers":[],"link":{"total":3,"latest_us":[700,800,900]},
    "shares":{"/lib/libz.so.1":{"total":1,"latest_us":[90]}},"auth":{}}"#;

#[test]
fn a_file_of_the_first_version_is_migrated_with_all_that_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut subjects: Vec<_> = (0..300).map(json).collect();
    subjects.push(("/usr/sbin/sshd 01".to_owned(), OLD.as_bytes().to_vec()));
    subjects.push(("/broken".to_owned(), b"{\"starts\":".to_vec()));
    first_version(dir.path(), &subjects);
    let before = read_subjects(dir.path()).unwrap();
    assert_eq!(before.len(), 302, "a command reads it as it is");

    let (mut store, opened) = Store::open(dir.path());
    assert_eq!(opened, Opened::Ready);
    assert_eq!(store.tally(), StoreTally { unreadable: 1, ..StoreTally::default() });
    assert!((0..300).all(|number| stored(&mut store, number)));
    let sshd = store.read("/usr/sbin/sshd 01").unwrap().unwrap();
    assert!(sshd.guarded, "shares are of guarded programs only");
    let old: Baseline = serde_json::from_str(OLD).unwrap();
    assert_eq!(sshd.baseline(), Some(old.clone()));
    assert_eq!(store.read("/broken").unwrap(), None);
    let mut adopted = old;
    adopted.adopt();
    assert_eq!(*Baselines::new(store).get("/usr/sbin/sshd 01"), adopted);

    let after = read_subjects(dir.path()).unwrap();
    assert_eq!(after.len(), 301);
    let db = Database::open(dir.path().join(FILE)).unwrap();
    let read = db.begin_read().unwrap();
    assert_eq!(read.open_table(file::HEADS).unwrap().len().unwrap(), 301);
    assert_eq!(read.list_tables().unwrap().count(), 3, "the former table is gone");
}

#[test]
fn a_migration_that_fails_anywhere_leaves_the_former_file_and_is_done_later() {
    let dir = tempfile::tempdir().unwrap();
    let subjects: Vec<_> = (0..20).map(json).collect();
    first_version(dir.path(), &subjects);
    let old = fs::read(dir.path().join(FILE)).unwrap();
    let whole = Disk::holding(&old);
    drop(Store::at(Box::new(whole.clone())));
    let mut failed = 0;
    for at in 0..whole.operations() {
        for kind in [Kind::Full, Kind::Torn] {
            let disk = Disk::holding(&old);
            disk.break_by(Some(Fault { at, kind }));
            let (mut store, opened) = Store::at(Box::new(disk.clone()));
            failed += u64::from(opened != Opened::Ready);
            assert!(!matches!(opened, Opened::SetAside { .. }), "{kind:?} {at}: {opened:?}");
            assert!((0..20).all(|number| stored(&mut store, number)), "{kind:?} {at}");
            disk.break_by(None);
            write(&mut store, [20]).unwrap();
            assert!((0..21).all(|number| stored(&mut store, number)), "{kind:?} {at}");
        }
    }
    assert!(failed > 10, "{failed}");
}

/// Makes the file one of a later version, which it cannot be read as.
fn later_version(dir: &Path, schema: u64) -> Vec<u8> {
    let path = dir.join(FILE);
    let db = Database::create(&path).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(file::META).unwrap().insert("schema", schema).unwrap();
    write.commit().unwrap();
    drop(db);
    fs::read(path).unwrap()
}

#[test]
fn a_file_of_a_later_version_is_moved_away_whole_and_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=ASIDE_MAX {
        let later = later_version(dir.path(), SCHEMA + u64::from(round));
        let told = read_subjects(dir.path()).unwrap_err().to_string();
        assert!(told.contains("use the version that wrote it"), "{told}");
        let (mut store, opened) = Store::open(dir.path());
        let Opened::SetAside { moved_to, reason } = opened else { panic!("{opened:?}") };
        assert!(reason.contains(&format!("schema {}", SCHEMA + u64::from(round))), "{reason}");
        assert!(reason.contains("move it back"), "{reason}");
        assert!(moved_to.to_string_lossy().ends_with(&format!(".newer-{round}")), "{moved_to:?}");
        // Opening it has checked it, which is all that has changed in it.
        let kept = Database::open(&moved_to).unwrap();
        let found = kept.begin_read().unwrap().open_table(file::META).unwrap();
        assert_eq!(found.get("schema").unwrap().unwrap().value(), SCHEMA + u64::from(round));
        assert_eq!(fs::metadata(&moved_to).unwrap().len(), later.len() as u64);
        write(&mut store, [1]).unwrap();
        drop(store);
        fs::remove_file(dir.path().join(FILE)).unwrap();
    }
    let one_more = later_version(dir.path(), SCHEMA + 100);
    let (mut store, opened) = Store::open(dir.path());
    let Opened::InMemory { reason } = opened else { panic!("{opened:?}") };
    assert!(reason.contains("there are 16 already"), "{reason}");
    assert!(write(&mut store, [1]).is_err());
    assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().len(), one_more.len() as u64);
}

#[test]
fn a_schema_that_never_was_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    later_version(dir.path(), 0);
    let (_, opened) = Store::open(dir.path());
    let Opened::SetAside { moved_to, .. } = opened else { panic!("{opened:?}") };
    assert!(moved_to.to_string_lossy().ends_with(".corrupt-1"), "{moved_to:?}");
}
