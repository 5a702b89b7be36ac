use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::event::FileKey;
use crate::host::testing::{World, clock};
use crate::host::{Clock, FoundLibrary, Library, Ownership, Pipeline, Preloaded, Traced, Variable};
use crate::package::{Content, Origin, Owner};

/// An observation of a library as this process would map it.
pub(super) fn mapped(path: &Path) -> Observation {
    let mut world = World::new();
    let config = crate::config::Config::default();
    let fake = world.fake.clone();
    let mut station = Pipeline::new(&config, clock(), Box::new(fake.clone()), Box::new(fake));
    let tgid = std::process::id();
    world.fork(1, tgid, crate::event::Role::NONE);
    world.exec(tgid, 1, "/usr/bin/env", crate::event::Role::NONE, 0);
    world.map(tgid, "/usr/bin/env", path, crate::event::Role::NONE);
    let mut seen = Vec::new();
    for event in world.take() {
        station.on_event(event, &mut |one| seen.push(one));
    }
    let mut library = seen.pop().expect("a mapping");
    let metadata = fs::metadata(path).expect("stat");
    if let Body::Library(Library { file, .. }) = &mut library.body {
        *file = FileKey { ino: metadata.ino(), size: metadata.len(), ..FileKey::default() };
    }
    library
}

fn station() -> (Provenance, Receiver<Observation>) {
    let (send, found) = channel();
    let station = Provenance::start(Box::new(move |seen| send.send(seen).unwrap())).unwrap();
    (station, found)
}

/// The same process with a variable that names these files.
fn preloading(paths: &[&Path]) -> Observation {
    let library = |path: &&Path| {
        let inode = fs::metadata(path).expect("stat").ino();
        let path = path.to_str().unwrap().to_owned();
        let file = FoundLibrary { path, inode, set_uid: false, protected: true };
        Preloaded {
            name: "x".to_owned(),
            file: Some(file),
            unseen: false,
            owner: Ownership::Unknown,
        }
    };
    let variable = Variable {
        name: "LD_PRELOAD".to_owned(),
        value: "x".to_owned(),
        inherited: false,
        again: false,
        cut: false,
        late: false,
        libraries: paths.iter().map(library).collect(),
        owners: Owners::NotAsked,
    };
    Observation { body: Body::Environment(variable), ..mapped(paths[0]) }
}

fn origin(found: &Receiver<Observation>) -> Arc<Origin> {
    let seen = found.recv_timeout(Duration::from_mins(1)).expect("an answer");
    let Body::Traced(Traced { origin, .. }) = seen.body else { panic!("{:?}", seen.body) };
    origin
}

/// A library of a package on this machine; says so where there is none.
fn packaged() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.lines().find_map(|line| {
        let path = line.split_ascii_whitespace().nth(5)?;
        path.contains("/libc.so").then(|| PathBuf::from(path))
    });
    let database = Path::new("/var/lib/dpkg/status").exists();
    let found = libc.filter(|_| database);
    if found.is_none() {
        println!("not tried: no libc of a dpkg package in this process");
    }
    found
}

#[test]
fn what_changed_before_a_shift_is_answered_to_who_asked() {
    let (station, found) = self::station();
    let exe = fs::read_link("/proc/self/exe").unwrap();
    let dated = crate::host::Dated {
        question: 7,
        modules: vec![exe.display().to_string()],
        usual: None,
        answer: None,
    };
    let question = |dated, ktime_ns| {
        let body = Body::Dated(Box::new(dated));
        Observation { ktime_ns, body, ..mapped(&exe) }
    };
    // The one before waited for so long that whoever asked has gone on.
    let old = crate::host::Dated { question: 6, ..dated.clone() };
    assert!(station.asker().ask(question(old, 0)));
    assert!(station.asker().ask(question(dated, Clock::ktime_ns())));
    let seen = found.recv_timeout(Duration::from_mins(1)).expect("an answer");
    let Body::Dated(dated) = &seen.body else { panic!("{:?}", seen.body) };
    assert_eq!(dated.question, 7);
    let Some(crate::finding::Evidence::Since { usual, .. }) = dated.answer else {
        panic!("{dated:?}")
    };
    assert!(!usual);
    assert!(!station.asker().ask(seen), "an answer is no question");
}

#[test]
fn a_library_of_the_distribution_is_its_packages_and_unchanged() {
    let Some(libc) = packaged() else { return };
    let (station, found) = self::station();
    for _ in 0..2 {
        station.look(&mut mapped(&libc));
        let origin = origin(&found);
        let package = origin.package().expect("a package");
        assert_eq!(package.package, "libc6", "{origin:?}");
        assert_eq!(origin.content, Content::Matches, "{origin:?}");
    }
    assert_eq!(station.tally(), Tally { dropped: 0, answered: 2 });
}

#[test]
fn a_file_that_nobody_installed_is_nobodys() {
    if packaged().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("libx.so");
    fs::write(&path, "x").unwrap();
    let (station, found) = self::station();
    station.look(&mut mapped(&path));
    assert_eq!(origin(&found).owner, Owner::Nobody);
}

#[test]
fn a_file_that_is_gone_or_another_by_now_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("libx.so");
    fs::write(&path, "x").unwrap();
    let mut seen = mapped(&path);
    fs::remove_file(&path).unwrap();
    let (station, found) = self::station();
    station.look(&mut seen);
    assert!(matches!(origin(&found).owner, Owner::Unknown(_)));
    fs::write(&path, "another").unwrap();
    station.look(&mut seen);
    assert!(matches!(origin(&found).owner, Owner::Unknown(_)));
}

#[test]
fn a_library_says_by_which_rule_this_process_has_it() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.lines().find_map(|line| {
        let path = line.split_ascii_whitespace().nth(5)?;
        path.contains("/libc.so").then(|| PathBuf::from(path))
    });
    let Some(libc) = libc else { return println!("not tried: no libc.so in this process") };
    let (station, found) = self::station();
    let mut seen = mapped(&libc);
    station.look(&mut seen);
    assert!(matches!(&seen.body, Body::Library(library) if library.asked));
    let seen = found.recv_timeout(Duration::from_mins(1)).expect("an answer");
    let Body::Traced(Traced { way, .. }) = seen.body else { panic!("{:?}", seen.body) };
    let way = way.expect("a way");
    let how = way.found.found_by();
    assert!(how == "ld.so.cache" || how.starts_with("default directory"), "{how}");
    assert_eq!(way.on_host.as_deref(), Ok(libc.as_path()));
}

#[test]
fn a_variable_is_answered_when_the_owners_of_all_its_libraries_are_known() {
    let Some(libc) = packaged() else { return };
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("libjemalloc.so.2");
    fs::write(&own, "x").unwrap();
    let (station, found) = self::station();
    let mut seen = preloading(&[&libc, &own]);
    station.look(&mut seen);
    assert!(matches!(&seen.body, Body::Environment(it) if it.owners == Owners::Asked));
    let answer = found.recv_timeout(Duration::from_mins(1)).expect("an answer");
    let Body::Environment(variable) = answer.body else { panic!("{:?}", answer.body) };
    assert_eq!((variable.owners, answer.ktime_ns), (Owners::Answered, seen.ktime_ns));
    let [libc, own] = &variable.libraries[..] else { panic!("{variable:?}") };
    assert!(matches!(&libc.owner, Ownership::Package(it) if it.starts_with("libc6 ")), "{libc:?}");
    assert_eq!(own.owner, Ownership::Nobody);
}

#[test]
fn a_variable_whose_file_is_another_by_now_has_no_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("libx.so");
    fs::write(&path, "x").unwrap();
    let mut seen = preloading(&[&path]);
    if let Body::Environment(variable) = &mut seen.body {
        variable.libraries[0].file.as_mut().unwrap().inode += 1;
    }
    let (station, found) = self::station();
    station.look(&mut seen);
    let answer = found.recv_timeout(Duration::from_mins(1)).expect("an answer");
    let Body::Environment(variable) = answer.body else { panic!("{:?}", answer.body) };
    assert_eq!(variable.libraries[0].owner, Ownership::Unknown);
}

#[test]
fn what_is_no_library_is_not_asked_about() {
    let (station, found) = self::station();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("libx.so");
    fs::write(&path, "x").unwrap();
    station.look(&mut Observation { body: Body::Started, ..mapped(&path) });
    drop(station);
    assert!(found.recv_timeout(Duration::from_secs(5)).is_err());
}

/// The same process writes into its own program's memory, as a debugger whose file is `path`.
fn writing(path: &Path) -> Observation {
    let seen = mapped(path);
    let Body::Library(library) = &seen.body else { panic!("{:?}", seen.body) };
    let mut writer = crate::host::Process::clone(&seen.process);
    let mut program = crate::host::Program::clone(&writer.program);
    program.module.path = path.to_str().unwrap().to_owned();
    program.file = library.file;
    writer.program = Arc::new(program);
    let written = crate::host::Written {
        writer: Arc::new(writer),
        is_target: true,
        ways: vec!["ptrace"],
        count: 1,
        place: None,
        is_own: true,
        is_root_daemon: false,
        owners: Owners::NotAsked,
        origin: None,
    };
    Observation { body: Body::Written(Box::new(written)), ..seen }
}

#[test]
fn a_debugger_that_is_gone_is_known_by_its_file() {
    let Some(libc) = packaged() else { return };
    let folder = tempfile::tempdir().unwrap();
    let gdb = folder.path().join("gdb");
    fs::copy(libc, &gdb).unwrap();
    let (station, found) = self::station();
    let asked = |seen: Observation| {
        station.look(&mut seen.clone());
        let answer = found.recv_timeout(Duration::from_mins(1)).expect("an answer");
        let Body::Written(written) = answer.body else { panic!("{:?}", answer.body) };
        written.origin.expect("an answer").owner.clone()
    };
    let seen = writing(&gdb);
    assert_eq!(asked(seen.clone()), Owner::Nobody);
    fs::remove_file(&gdb).unwrap();
    assert_eq!(asked(seen.clone()), Owner::Nobody, "the one that was looked at");
    let mut other = seen;
    let Body::Written(written) = &mut other.body else { panic!() };
    let mut writer = crate::host::Process::clone(&written.writer);
    let mut program = crate::host::Program::clone(&writer.program);
    program.file.size += 1;
    writer.program = Arc::new(program);
    written.writer = Arc::new(writer);
    assert!(matches!(asked(other), Owner::Unknown(_)), "another file at that path");
}

#[test]
fn who_writes_is_looked_up_before_what_was_mapped() {
    let libc = Path::new("/proc/self/exe").canonicalize().unwrap();
    let (send, inbox) = channel();
    for seen in [mapped(&libc), mapped(&libc), writing(&libc)] {
        send.send(Message::Ask(Box::new(seen))).unwrap();
    }
    send.send(Message::End).unwrap();
    let mut line = line::Line::new(inbox);
    let mut next = || match line.next(Duration::from_millis(1)) {
        Ok(Message::Ask(seen)) => matches!(seen.body, Body::Written(_)),
        other => panic!("{:?}", other.err()),
    };
    assert_eq!([next(), next(), next()], [true, false, false]);
    assert!(matches!(line.next(Duration::from_millis(1)), Ok(Message::End)));
    drop(send);
    assert!(line.next(Duration::from_millis(1)).is_err());
}
