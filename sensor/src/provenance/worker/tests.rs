//! Questions that come while a package manager is at work.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};

use tempfile::TempDir;

use super::super::tests::mapped;
use super::*;

const OLD: &str = "/usr/lib/liblzma.so.5.6.0";
const NEW: &str = "/usr/lib/liblzma.so.5.6.1";

/// A worker that knows of liblzma 5.6.0 in a root of its own, which has 5.6.1 since.
fn upgraded() -> (Worker, Receiver<Observation>, Arc<Root>, TempDir) {
    let (messages, _) = channel();
    let (send, found) = channel();
    let found_it: Found = Box::new(move |seen| send.send(seen).unwrap());
    let counts = Arc::new(Counts::default());
    counts.waiting.store(2, Ordering::Relaxed);
    let mut worker = Worker::new(messages, counts, found_it).unwrap();
    let folder = tempfile::tempdir().unwrap();
    has(&folder, "5.6.0-0.2", OLD);
    let root = Root::from_fd(OwnedFd::from(File::open(folder.path()).unwrap())).unwrap();
    let root = Arc::new(root);
    ask(&mut worker, &root, OLD);
    assert_eq!(version(&found).as_deref(), Some("5.6.0-0.2"));
    has(&folder, "5.6.1-1", NEW);
    (worker, found, root, folder)
}

fn has(folder: &TempDir, version: &str, path: &str) {
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    let status = format!(
        "Package: liblzma5\nStatus: install ok installed\nMulti-Arch: same\n\
         Architecture: amd64\nVersion: {version}\n\n"
    );
    write("var/lib/dpkg/status", &status);
    write("var/lib/dpkg/info/liblzma5:amd64.list", &format!("{path}\n"));
}

fn ask(worker: &mut Worker, root: &Arc<Root>, path: &str) {
    let place = Place { root: Arc::clone(root), path: PathBuf::from(path) };
    let exe = fs::read_link("/proc/self/exe").unwrap();
    let seen = Box::new(mapped(&exe));
    let way = Err("not asked".into());
    let file =
        FileKey { ino: path.len() as u64, size: u64::from(path == NEW), ..FileKey::default() };
    worker.trace(Some((place, file)), Asker::Library { seen, way });
}

/// Of the answer that has come, if one has.
fn version(found: &Receiver<Observation>) -> Option<String> {
    let seen = found.try_recv().ok()?;
    let Body::Traced(Traced { origin, .. }) = seen.body else { panic!("{:?}", seen.body) };
    Some(origin.package().map(|owned| owned.version.clone()).unwrap_or_default())
}

/// As if its time had come.
fn again(worker: &mut Worker) {
    for again in &mut worker.again {
        again.due = Instant::now();
    }
    worker.ask_again();
}

#[test]
fn a_library_of_a_package_that_is_being_upgraded_is_asked_about_again() {
    let (mut worker, found, root, _folder) = upgraded();
    ask(&mut worker, &root, NEW);
    assert_eq!((version(&found), worker.again.len()), (None, 1), "not told before it is known");
    worker.ask_again();
    assert_eq!((version(&found), worker.again.len()), (None, 1), "nor asked about before its time");
    worker.packages.rest();
    again(&mut worker);
    assert_eq!(version(&found).as_deref(), Some("5.6.1-1"));
    assert!(worker.again.is_empty());
}

#[test]
fn a_package_manager_that_does_not_come_to_an_end_is_not_waited_for() {
    let (mut worker, found, root, _folder) = upgraded();
    ask(&mut worker, &root, NEW);
    for _ in 0..AGAIN_TIMES - 1 {
        again(&mut worker);
        assert_eq!(version(&found), None);
    }
    again(&mut worker);
    assert_eq!(version(&found).as_deref(), Some(""), "told as unknown");
    assert!(worker.again.is_empty());
}
