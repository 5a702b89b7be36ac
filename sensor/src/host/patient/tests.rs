//! A FUSE file system whose server never answers, and a file of 200 GB.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use super::*;
use crate::config::Config;
use crate::event::{Event, EventBody, Role};
use crate::host::testing::{Fake, Hanging, World, clock};
use crate::host::{Body, Pipeline, Procfs};
use crate::symbol::{find_entry_offset, find_symbol_offset};

const DEADLINE: Duration = Duration::from_secs(20);
const FUSE: u32 = 0x6573_5546;

/// The exec of the program that lies there, and one of another, as the kernel side tells them.
fn events(hanging: &Hanging, fs_magic: Option<u32>) -> Vec<Event> {
    let mut world = World::new();
    let tgid = hanging.program.id();
    world.exec(tgid, 1, hanging.path().to_str().unwrap(), Role::GUARDED, 0);
    let own = std::process::id();
    world.exec(own, 1, "/usr/bin/sudo", Role::GUARDED, 0);
    let mut events = world.take();
    let EventBody::Exec(exec) = &mut events[0].body else { panic!("an exec") };
    (exec.exe, exec.fs_magic) = (hanging.file, fs_magic);
    events
}

#[test]
fn events_after_a_file_that_never_answers_are_told() {
    for fs_magic in [None, Some(FUSE)] {
        let Some(hanging) = Hanging::start() else { return };
        let outside = Box::new(Patient::new(Procfs));
        let locate = Box::new(PatientLocate::new(Fake::default));
        let mut station = Pipeline::new(&Config::default(), clock(), outside, locate);
        let (told, seen) = std::sync::mpsc::channel();
        let events = events(&hanging, fs_magic);
        let line = std::thread::spawn(move || {
            for event in events {
                station.on_event(event, &mut |one| {
                    if matches!(one.body, Body::Started) {
                        let _ = told.send(one.process.program.module.clone());
                    }
                });
            }
            station.tally().given_up
        });
        let first = seen.recv_timeout(DEADLINE).expect("the first start is told");
        assert!(first.is_unread(), "{first:?}");
        let second = seen.recv_timeout(DEADLINE).expect("the next start is told");
        assert_eq!(second.path, "/usr/bin/sudo");
        let given_up = line.join().unwrap();
        assert!(fs_magic.is_some() || given_up > 0, "nothing hung");
    }
}

#[test]
fn a_build_id_that_was_not_waited_for_is_there_later() {
    let own = std::process::id();
    let (path, file) = Procfs.exe(own).unwrap();
    let patient = Patient::new(Procfs);
    assert_eq!(patient.build_id_later(own, &path, &file), BuildId::Unread);
    let end = Instant::now() + DEADLINE;
    while patient.build_id_later(own, &path, &file) == BuildId::Unread {
        assert!(Instant::now() < end, "it never comes");
        std::thread::yield_now();
    }
    assert_eq!(patient.build_id_later(own, &path, &file), Procfs.build_id(own, &path, &file));
}

#[test]
fn a_file_of_200_gb_is_read_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("giant");
    fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
    let giant = File::options().read(true).write(true).open(&path).unwrap();
    if let Err(error) = giant.set_len(200 << 30) {
        println!("not tried: {error}");
        return;
    }
    let file = Procfs.file(&path).unwrap();
    assert_eq!(file.size, 200 << 30);
    let begun = std::thread::spawn({
        let path = path.clone();
        move || {
            let own = std::process::id();
            let found = Patient::new(Procfs).build_id(own, &path, &file);
            let giant = File::open(&path).unwrap();
            let entry = find_entry_offset(&giant).unwrap();
            let _ = find_symbol_offset(&giant, "no_such_function");
            (found, entry)
        }
    });
    let (found, entry) = begun.join().unwrap();
    assert!(matches!(found, BuildId::Id(_)) && entry.is_some(), "{found:?}");
    // Notes that claim to be all of it.
    let mut header = [0; 56];
    giant.read_exact_at(&mut header, 64).unwrap();
    for at in 0..16 {
        let place = 64 + at * 56;
        giant.write_all_at(&4_u32.to_le_bytes(), place).unwrap();
        giant.write_all_at(&(1_u64 << 30).to_le_bytes(), place + 8).unwrap();
        giant.write_all_at(&(199_u64 << 30).to_le_bytes(), place + 32).unwrap();
    }
    let own = std::process::id();
    assert_eq!(Patient::new(Procfs).build_id(own, &path, &file), BuildId::None);
    let _ = find_symbol_offset(&giant, "no_such_function");
    let _ = find_entry_offset(&giant);
}
