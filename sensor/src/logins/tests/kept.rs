//! The ring and the file.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::host::{ConnectionId, ProcessId};

fn login(minute: u32, user: Option<&str>) -> Login {
    let mut value = sample();
    value["start"] = json!(format!("2026-11-21T10:{minute:02}:00Z"));
    value["user"] = json!(user);
    serde_json::from_value(value).unwrap()
}

fn id(tgid: u32) -> LoginId {
    LoginId::Connection(ConnectionId(ProcessId { tgid, start_ticks: 1 }))
}

fn minutes(page: &Page) -> Vec<String> {
    page.logins.iter().map(|login| format!("{:.0}", login.start)[14..16].to_owned()).collect()
}

#[test]
fn the_ring_forgets_the_oldest_and_tells_the_newest_first() {
    let kept = Kept::new(3, vec![login(1, None), login(2, None)]);
    kept.ended(id(3), login(3, Some("alice")));
    kept.begun(id(4), login(4, Some("bob")));
    kept.ended(id(5), login(5, None));
    assert_eq!(minutes(&kept.find(&Query::all())), ["05", "04", "03", "02"]);
    // The open one takes its place in the ring when it ends.
    kept.ended(id(4), login(4, Some("bob")));
    assert_eq!(minutes(&kept.find(&Query::all())), ["05", "04", "03"]);
    let of_bob = Query { user: Some("bob".to_owned()), ..Query::all() };
    assert_eq!(minutes(&kept.find(&of_bob)), ["04"]);
    let since = Query { since: Some(login(4, None).start), ..Query::all() };
    assert_eq!(minutes(&kept.find(&since)), ["05", "04"]);
    let page = kept.find(&Query { limit: 1, ..Query::all() });
    assert_eq!((minutes(&page), page.more), (vec!["05".to_owned()], true));
    assert!(!kept.find(&Query::all()).more);
}

#[test]
fn a_ring_of_nothing_keeps_nothing() {
    let kept = Kept::new(0, vec![login(1, None)]);
    kept.begun(id(1), login(2, None));
    kept.ended(id(1), login(2, None));
    assert!(kept.find(&Query::all()).logins.is_empty());
}

#[test]
fn an_answer_is_bounded_by_its_bytes() {
    let of = |kept: &Kept, most| -> Value {
        serde_json::from_slice(&kept.find(&Query::all()).json(most).unwrap()).unwrap()
    };
    let all = [1, 2, 3].map(|minute| login(minute, Some("a\"b")));
    let kept = Kept::new(3, all.to_vec());
    let [one, two, three] = all.map(|login| serde_json::to_value(login).unwrap());
    let each = one.to_string().len();
    assert_eq!(of(&kept, 9 * each), json!({"logins": [&three, &two, one], "more": false}));
    assert_eq!(of(&kept, 2 * each + each / 2), json!({"logins": [&three, &two], "more": true}));
    assert_eq!(of(&kept, 5), json!({"logins": [], "more": true}));
    assert_eq!(of(&Kept::new(0, Vec::new()), 5), json!({"logins": [], "more": false}));
}

#[test]
fn files_are_read_oldest_first_and_bad_lines_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let line = |minute| serde_json::to_string(&login(minute, None)).unwrap();
    let (current, rotated) = (folder.path().join(FILE), folder.path().join(format!("{FILE}.1")));
    fs::write(&rotated, format!("{}\n{}\n", line(1), line(2))).unwrap();
    let long = "x".repeat(200_000);
    fs::write(&current, format!("{}\n{long}\n\u{0}\n{}\n{{\"start\"", line(3), line(4))).unwrap();
    let past = read(folder.path(), 3, |_| true).unwrap();
    assert_eq!(past.logins, [login(2, None), login(3, None), login(4, None)]);
    assert!(past.cut);
    // The long line is more than one piece.
    assert!(past.unreadable >= 3, "{past:?}");
    let first = read(folder.path(), 1, |found| *found == login(1, None)).unwrap();
    assert_eq!(first.logins, [login(1, None)], "what is not wanted takes no room");
    assert!(!first.cut);
    fs::remove_file(&current).unwrap();
    assert_eq!(
        read(folder.path(), 9, |_| true).unwrap().logins.len(),
        2,
        "the rotated one alone will do"
    );
}

#[test]
fn no_file_and_no_regular_file_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let error = read(folder.path(), 9, |_| true).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    fs::create_dir(folder.path().join(FILE)).unwrap();
    assert!(read(folder.path(), 9, |_| true).is_err(), "a directory");
    fs::remove_dir(folder.path().join(FILE)).unwrap();
    symlink("/etc/passwd", folder.path().join(FILE)).unwrap();
    assert!(read(folder.path(), 9, |_| true).is_err(), "a link");
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), bytes).unwrap();
        let past = read(folder.path(), 9, |_| true).unwrap();
        prop_assert!(past.logins.len() <= 9);
    }
}
