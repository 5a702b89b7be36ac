//! The worker with real files, and with a source that hangs as a dead mount would.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};

use super::*;

const DEADLINE: Duration = Duration::from_mins(1);

fn hasher(limits: Limits) -> (Hasher, Receiver<Answer>) {
    let (sender, receiver) = mpsc::channel();
    let answer = move |answer| {
        // The test may have ended.
        let _ = sender.send(answer);
    };
    (Hasher::start(limits, answer).unwrap(), receiver)
}

fn job(tag: u64, source: Source) -> Job {
    Job { tag, source, algorithm: Algorithm::Sha256, urgent: false }
}

/// A source that tells when it is opened and waits until its sender is dropped.
fn hanging() -> (Source, Receiver<()>, Sender<()>) {
    let (opened, is_opened) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let source = Source::with(move || {
        let _ = opened.send(());
        let _ = released.recv();
        File::open("/dev/null")
    });
    (source, is_opened, release)
}

fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        thread::yield_now();
    }
}

#[test]
fn a_file_is_hashed_once_and_remembered() {
    let (hasher, answers) = hasher(Limits::default());
    let mut digests = Vec::new();
    for tag in 0..2 {
        assert!(hasher.submit(job(tag, Source::path("/bin/sh".into()))));
        let answer = answers.recv_timeout(DEADLINE).unwrap();
        assert_eq!(answer.tag, tag);
        let Outcome::Digest(digest) = answer.outcome else { panic!("{:?}", answer.outcome) };
        digests.push(digest);
    }
    let file = File::open("/bin/sh").unwrap();
    let size = file.metadata().unwrap().len();
    let expected = Digest::of(Algorithm::Sha256, file, u64::MAX, |_| true).unwrap().unwrap();
    assert_eq!(digests, [expected, expected]);
    let health = hasher.health();
    assert_eq!((health.answered, health.cached, health.bytes), (2, 1, size));
}

#[test]
fn a_digest_of_a_file_just_written_is_not_remembered() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "one").unwrap();
    let stamp = Stamp::of(&file.path().metadata().unwrap());
    assert!(!is_settled(&stamp));
    let old = Stamp { ctime: (stamp.ctime.0 - 3, 0), ..stamp };
    assert!(is_settled(&old));
}

#[test]
fn what_is_refused_or_cannot_be_opened_is_said() {
    let (hasher, answers) = hasher(Limits::default());
    let giant = tempfile::tempfile().unwrap();
    giant.set_len(200 << 30).unwrap();
    assert!(hasher.submit(job(1, Source::file(giant))));
    assert!(hasher.submit(job(2, Source::path("/no/such/file".into()))));
    let first = answers.recv_timeout(DEADLINE).unwrap();
    let second = answers.recv_timeout(DEADLINE).unwrap();
    assert!(matches!(first.outcome, Outcome::Refused(Refusal::TooLarge { .. })), "{first:?}");
    assert!(
        matches!(&second.outcome, Outcome::Failed(error) if error.kind() == io::ErrorKind::NotFound)
    );
    assert_eq!(hasher.health().bytes, 0);
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (hasher, answers) = hasher(Limits { queue: 2, ..Limits::default() });
    let (source, opened, release) = hanging();
    assert!(hasher.submit(job(0, source)));
    opened.recv_timeout(DEADLINE).unwrap();
    for (tag, taken) in [(1, true), (2, true), (3, false), (4, false)] {
        assert_eq!(hasher.submit(job(tag, Source::path("/dev/null".into()))), taken, "{tag}");
    }
    assert_eq!((hasher.health().dropped, hasher.health().waiting), (2, 2));
    drop(release);
    let tags: Vec<_> = (0..3).map(|_| answers.recv_timeout(DEADLINE).unwrap().tag).collect();
    assert_eq!(tags, [0, 1, 2]);
}

#[test]
fn an_urgent_file_comes_next_and_is_not_held_back() {
    // At this rate no file here would ever end.
    let (hasher, answers) = hasher(Limits { bytes_per_second: 1, ..Limits::default() });
    let (source, is_opened, release) = hanging();
    assert!(hasher.submit(job(0, source)));
    is_opened.recv_timeout(DEADLINE).unwrap();
    assert!(hasher.submit(job(1, Source::path("/bin/sh".into()))));
    let urgent = Job { urgent: true, ..job(2, Source::path("/bin/ls".into())) };
    assert!(hasher.submit(urgent));
    drop(release);
    let tags = [(); 2].map(|()| answers.recv_timeout(DEADLINE).unwrap().tag);
    assert_eq!(tags, [0, 2]);
    assert!(answers.try_recv().is_err(), "what is not urgent waits its time");
}

#[test]
fn a_worker_that_hangs_is_told_and_replaced() {
    let limits =
        Limits { stuck_after: Duration::from_millis(20), left_behind: 1, ..Limits::default() };
    let (hasher, answers) = hasher(limits);
    let (source, opened, release) = hanging();
    assert!(hasher.submit(job(7, source)));
    opened.recv_timeout(DEADLINE).unwrap();
    wait_until("the worker is replaced", || hasher.health().left_behind == 1);
    let answer = answers.recv_timeout(DEADLINE).unwrap();
    assert!(matches!((answer.tag, &answer.outcome), (7, Outcome::Stuck)), "{answer:?}");
    assert!(hasher.submit(job(8, Source::path("/dev/null".into()))));
    assert_eq!(answers.recv_timeout(DEADLINE).unwrap().tag, 8);

    // The second one stays, and is told with its job.
    let (source, opened, second) = hanging();
    assert!(hasher.submit(job(9, source)));
    opened.recv_timeout(DEADLINE).unwrap();
    wait_until("the worker is stuck", || hasher.health().stuck.is_some_and(|stuck| stuck.tag == 9));

    // Both come back: one is counted out and silent, the other answers.
    drop((release, second));
    assert_eq!(answers.recv_timeout(DEADLINE).unwrap().tag, 9);
    wait_until("the first has ended", || hasher.health().left_behind == 0);
    assert!(hasher.health().stuck.is_none());
    drop(hasher);
    let last = answers.recv_timeout(DEADLINE);
    assert!(matches!(last, Err(RecvTimeoutError::Disconnected)), "{last:?}");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_tried_again_and_given_up() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let size = 512 << 10;
    file.as_file().set_len(size).unwrap();
    // A portion at a time, so that there is time to change it.
    let (hasher, answers) = hasher(Limits { bytes_per_second: 4 << 20, ..Limits::default() });
    assert!(hasher.submit(job(1, Source::path(file.path().to_owned()))));
    let mut length = size;
    let answer = loop {
        length = if length == size { size - 1 } else { size };
        file.as_file().set_len(length).unwrap();
        match answers.try_recv() {
            Ok(answer) => break answer,
            Err(_) => thread::yield_now(),
        }
    };
    assert!(matches!(answer.outcome, Outcome::Refused(Refusal::Changing)), "{answer:?}");
    assert!(hasher.health().bytes > size, "it was tried once only");
}

#[test]
fn a_change_between_two_looks_is_seen() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "one").unwrap();
    let admitted = Source::path(file.path().to_owned()).admit(100).unwrap().unwrap();
    assert!(admitted.is_unchanged().unwrap());
    std::fs::write(file.path(), "other").unwrap();
    assert!(!admitted.is_unchanged().unwrap());
}

#[test]
fn a_hasher_that_is_dropped_ends_in_the_middle_of_a_file() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(200 << 20).unwrap();
    // An hour of work.
    let (hasher, answers) = hasher(Limits { bytes_per_second: 64 << 10, ..Limits::default() });
    assert!(hasher.submit(job(1, Source::file(file))));
    wait_until("it reads", || hasher.health().bytes > 0);
    drop(hasher);
    let last = answers.recv_timeout(DEADLINE);
    assert!(matches!(last, Err(RecvTimeoutError::Disconnected)), "{last:?}");
}

#[test]
fn a_containers_file_is_opened_below_its_root() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("lib.so"), "abc").unwrap();
    std::os::unix::fs::symlink("/lib.so", folder.path().join("link.so")).unwrap();
    let root = std::os::fd::OwnedFd::from(File::open(folder.path()).unwrap());
    let root = Arc::new(crate::package::Root::from_fd(root).unwrap());
    let (hasher, answers) = hasher(Limits::default());
    assert!(hasher.submit(job(1, Source::below(root, Path::new("/link.so").to_owned()))));
    let answer = answers.recv_timeout(DEADLINE).unwrap();
    let Outcome::Digest(digest) = answer.outcome else { panic!("{answer:?}") };
    assert!(digest.to_string().starts_with("ba7816bf"), "{digest}");
}
