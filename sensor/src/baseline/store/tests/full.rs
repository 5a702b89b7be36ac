//! A real disk that is full, or may not be written.

use std::process::Command;

use super::*;

/// Mounted until dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// `None`, with the reason printed, where this user may not mount.
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "halfsecond-test"])
            .arg(dir.path())
            .output();
        match done {
            Ok(output) if output.status.success() => Some(Self(dir)),
            Ok(output) => {
                println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: mount: {error}");
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// An entry that takes room.
fn large(number: u8) -> Entry {
    Entry { guarded: false, seen_s: number.into(), body: vec![number; 65_536] }
}

#[test]
fn a_full_disk_is_counted_read_from_and_tried_again() {
    let Some(disk) = Tmpfs::new("4m") else { return };
    let dir = disk.0.path();
    let (mut store, opened) = Store::open(dir);
    assert_eq!(opened, Opened::Ready);
    write(&mut store, [1]).unwrap();
    let mut filled = 0;
    while fs::write(dir.join(format!("ballast{filled}")), vec![1; 65_536]).is_ok() {
        filled += 1;
    }
    let big: Vec<(String, Entry)> = (0..64).map(|n| (format!("big {n}"), large(n))).collect();
    let big: Vec<(&str, &Entry)> = big.iter().map(|(name, entry)| (name.as_str(), entry)).collect();
    assert!(store.write(&big).is_err(), "4 MiB do not fit");
    assert!(stored(&mut store, 1), "what is there can be read");
    assert!(store.write(&big).is_err());
    assert_eq!(store.tally().failures, 2);
    assert!(stored(&mut store, 1));
    for n in 0..=filled {
        fs::remove_file(dir.join(format!("ballast{n}"))).ok();
    }
    write(&mut store, [2]).unwrap();
    assert_eq!(numbers(dir), [1, 2], "the first one survived");
}

#[test]
fn a_file_that_may_not_be_written_is_read_and_left_as_it_is() {
    let Some(disk) = Tmpfs::new("4m") else { return };
    let (mut store, _) = Store::open(disk.0.path());
    write(&mut store, [1]).unwrap();
    drop(store);
    let remount = |how: &str| {
        let options = format!("remount,{how}");
        let done = Command::new("mount").args(["-o", &options]).arg(disk.0.path()).status();
        assert!(done.unwrap().success(), "{how}");
    };
    remount("ro");
    let (mut store, opened) = Store::open(disk.0.path());
    assert!(matches!(opened, Opened::InMemory { .. }), "{opened:?}");
    assert!(stored(&mut store, 1));
    assert!(write(&mut store, [2]).is_err());
    remount("rw");
    write(&mut store, [2]).unwrap();
    assert_eq!(numbers(disk.0.path()), [1, 2]);
}
