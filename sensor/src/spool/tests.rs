//! Folders as commands, crashes, and others leave them.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use super::*;

static KIND: Kind = Kind { name: "wish", folder: "wishes", extension: "wish", length_max: 100 };
/// Nobody's.
const STRANGER: u32 = 65_534;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One with a folder, as a command makes it.
    fn made() -> Self {
        let place = Self::new();
        assert!(place.leave("first").withdraw());
        assert!(place.names().is_empty());
        place
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join(KIND.folder)
    }

    fn leave(&self, wish: &str) -> Left {
        Left::leave(self.0.path(), &KIND, &wish).unwrap()
    }

    fn take(&self, most: usize) -> Result<Vec<Taken<String>>, SpoolError> {
        let parse =
            |bytes: &[u8]| serde_json::from_slice(bytes).map_err(|_| "it is no wish".to_owned());
        Spool::new(self.0.path(), &KIND).take(most, parse)
    }

    /// What a turn finds, answered.
    fn work(&self) -> Vec<Result<String, String>> {
        let all = self.take(100).unwrap().into_iter().map(|(slip, asked)| {
            slip.answer(&"done").unwrap();
            asked
        });
        all.collect()
    }

    /// A file that no command has left.
    fn put(&self, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = self.folder().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder()).unwrap();
        let names = entries.map(|one| one.unwrap().file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("left out: only root gives files away");
    }
    root
}

#[test]
fn all_that_wait_are_taken_and_the_oldest_read_first() {
    let place = Place::new();
    let left: Vec<_> = ["a", "b", "c"].into_iter().map(|wish| place.leave(wish)).collect();
    let folder = place.folder();
    assert_eq!((mode(&folder), mode(&folder.join(&place.names()[0]))), (0o700, 0o600));
    let taken = place.take(2).unwrap();
    let wishes: Vec<_> = taken.iter().map(|(_, asked)| asked.clone().unwrap()).collect();
    assert_eq!(wishes, ["a", "b"]);
    assert!(left.iter().all(|one| !one.withdraw()), "taken, so not withdrawn");
    // Nothing was answered: the same again, and the others once there is room.
    assert_eq!(place.take(2).unwrap().len(), 2);
    assert_eq!(place.work().len(), 3);
    assert!(place.work().is_empty());
    for one in &left {
        assert_eq!(one.wait(Duration::ZERO).unwrap(), Came::Answered("done".to_owned()));
        assert_eq!(one.wait::<String>(Duration::ZERO).unwrap(), Came::Unanswered);
    }
    assert!(place.names().is_empty());
}

#[test]
fn what_is_withdrawn_in_time_is_not_taken() {
    let place = Place::new();
    let left = place.leave("a");
    assert!(matches!(left.wait::<String>(Duration::ZERO).unwrap(), Came::Waits(_)));
    assert!(left.withdraw());
    assert!(place.work().is_empty() && place.names().is_empty());
}

#[test]
fn what_is_no_order_is_told_once_and_set_aside() {
    let place = Place::made();
    let elsewhere = place.0.path().join("elsewhere");
    fs::write(&elsewhere, b"\"secret\"").unwrap();
    place.put("1.wish", b"{}", 0o600);
    place.put("2.wish", b"\"readable\"", 0o644);
    place.put("3.wish", &[b' '; 101], 0o600);
    symlink(&elsewhere, place.folder().join("4.wish")).unwrap();
    let fifo = place.folder().join("5.wish");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::create_dir_all(place.folder().join("6.taken/in it")).unwrap();
    place.put("7.wish", b"\"good\"", 0o600);
    let told = place.work();
    assert_eq!(told.last(), Some(&Ok("good".to_owned())));
    let reasons = ["no wish", "user alone", "larger than 100", "cannot be", "alone", "alone"];
    for (number, (one, reason)) in told.iter().zip(reasons).enumerate() {
        let id = number + 1;
        let said = one.as_ref().unwrap_err();
        assert!(said.contains(reason), "{id}: {said}");
        assert!(said.ends_with(&format!("set aside as wishes/{id}.refused)")), "{said}");
        assert!(fs::symlink_metadata(place.folder().join(format!("{id}.refused"))).is_ok());
        // A command that waits for it is told.
        assert!(place.folder().join(format!("{id}.answer")).is_file());
    }
    assert_eq!(told.len(), 7);
    assert!(place.work().is_empty(), "told once");
    assert_eq!(fs::read(&elsewhere).unwrap(), b"\"secret\"");
}

#[test]
fn names_that_no_command_gives_are_set_aside_under_others() {
    let place = Place::made();
    let long = "x".repeat(65);
    for stem in ["\u{1b}[2J\n", "", "a b", "a.b", "..", &long] {
        place.put(&format!("{stem}.wish"), b"\"hostile\"", 0o600);
    }
    let not_text = std::ffi::OsStr::from_bytes(b"\xff.taken");
    fs::write(place.folder().join(not_text), b"\"hostile\"").unwrap();
    let told = place.work();
    assert_eq!(told.len(), 7, "{told:#?}");
    for one in told {
        let said = one.unwrap_err();
        assert!(said.contains("a name that no command gives"), "{said}");
        assert!(said.chars().all(|c| !c.is_control()) && said.len() < 400, "{said:?}");
    }
    let plain = |name: &String| name.ends_with(".refused") && name.contains("-other-");
    assert!(place.names().iter().all(plain), "{:?}", place.names());
    assert!(place.work().is_empty(), "told once");
}

#[test]
fn of_what_is_set_aside_the_newest_are_kept() {
    let place = Place::made();
    for number in 0..40 {
        place.put(&format!("{number:03}.wish"), b"?", 0o600);
    }
    // Something has the name already that one would have.
    fs::create_dir_all(place.folder().join("039.refused/in it")).unwrap();
    assert_eq!(place.work().len(), 40);
    assert!(place.work().is_empty());
    let kept = |name: &&String| name.ends_with(".refused");
    let names = place.names();
    assert_eq!(names.iter().filter(kept).count(), 32, "{names:?}");
    assert!(!names.contains(&"000.refused".to_owned()), "{names:?}");
}

#[test]
fn a_folder_that_others_can_write_or_that_is_a_link_is_not_used() {
    let place = Place::new();
    drop(place.leave("a"));
    fs::set_permissions(place.folder(), fs::Permissions::from_mode(0o777)).unwrap();
    let refused = |place: &Place| {
        let error = place.take(9).unwrap_err();
        assert!(Left::leave(place.0.path(), &KIND, &"b").is_err());
        assert_eq!(place.names().len(), 1, "nothing was touched");
        error.to_string()
    };
    assert!(refused(&place).contains("others can write to it"));
    let moved = place.0.path().join("moved");
    fs::set_permissions(place.folder(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(place.folder(), &moved).unwrap();
    symlink(&moved, place.folder()).unwrap();
    assert!(refused(&place).contains("cannot open"));
    if is_root() {
        fs::remove_file(place.folder()).unwrap();
        fs::rename(&moved, place.folder()).unwrap();
        chown(place.folder(), Some(STRANGER), Some(STRANGER)).unwrap();
        assert!(refused(&place).contains("belongs to another user"));
    }
}

#[test]
fn an_order_of_another_user_is_set_aside() {
    if !is_root() {
        return;
    }
    let place = Place::made();
    let path = place.put("1.wish", b"\"hostile\"", 0o600);
    chown(path, Some(STRANGER), Some(STRANGER)).unwrap();
    assert!(place.work().remove(0).unwrap_err().contains("user alone"));
}

#[test]
fn what_root_leaves_belongs_to_whoever_has_the_state_directory() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    // As a command of before has made it: the sensor could not rename what lies there.
    fs::create_dir(place.folder()).unwrap();
    chown(place.0.path(), Some(STRANGER), Some(STRANGER)).unwrap();
    let left = place.leave("a");
    let owner = |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.gid())).unwrap();
    let order = place.folder().join(&place.names()[0]);
    assert_eq!(
        (owner(&place.folder()), owner(&order)),
        ((STRANGER, STRANGER), (STRANGER, STRANGER))
    );
    // Its sensor's answers are believed.
    let (slip, asked) = place.take(1).unwrap().remove(0);
    assert_eq!(asked.unwrap(), "a");
    slip.answer(&"done").unwrap();
    chown(order.with_extension("answer"), Some(STRANGER), Some(STRANGER)).unwrap();
    assert_eq!(left.wait(Duration::ZERO).unwrap(), Came::Answered("done".to_owned()));
}

#[test]
fn what_crashes_leave_is_in_nobodys_way_and_cleared_up() {
    let place = Place::new();
    let left = place.leave("a");
    let order = place.folder().join(&place.names()[0]);
    let fleeting = ["draft", "unfinished", "withdrawn", "answer"];
    for extension in fleeting {
        place.put(&format!("old.{extension}"), b"half", 0o600);
        place.put(&format!("new.{extension}"), b"half", 0o600);
    }
    // A sensor that was killed while it wrote the answer.
    let id = order.file_stem().unwrap().to_str().unwrap();
    place.put(&format!("{id}.draft"), b"\"do", 0o400);
    let hours = Duration::from_hours(2);
    for (extension, time) in
        fleeting.iter().zip([SystemTime::now() - hours, SystemTime::now() + hours].iter().cycle())
    {
        let file = fs::File::open(place.folder().join(format!("old.{extension}"))).unwrap();
        file.set_modified(*time).unwrap();
    }
    assert_eq!(place.work(), [Ok("a".to_owned())]);
    assert_eq!(left.wait(Duration::ZERO).unwrap(), Came::Answered("done".to_owned()));
    assert_eq!(place.names(), ["new.answer", "new.draft", "new.unfinished", "new.withdrawn"]);
}

#[test]
fn a_second_order_of_one_name_waits_for_the_first() {
    let place = Place::made();
    place.put("1.taken", b"\"first\"", 0o600);
    place.put("1.wish", b"\"second\"", 0o600);
    assert_eq!(place.work(), [Ok("first".to_owned())]);
    assert_eq!(place.work(), [Ok("second".to_owned())]);
}

#[test]
fn an_answer_that_cannot_be_believed_or_read_is_an_error() {
    let place = Place::new();
    let left = place.leave("a");
    let id = place.names()[0].trim_end_matches(".wish").to_owned();
    let wrong: [(&[u8], u32, &str); 3] = [
        (b"\"x\"", 0o622, "user alone"),
        (&[b' '; 101], 0o600, "larger"),
        (b"{", 0o600, "is none"),
    ];
    for (bytes, mode, reason) in wrong {
        place.put(&format!("{id}.answer"), bytes, mode);
        let error = left.wait::<String>(Duration::ZERO).unwrap_err();
        assert!(matches!(error, SpoolError::Answer { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn size_and_number_are_bounded() {
    let place = Place::new();
    let error = Left::leave(place.0.path(), &KIND, &"x".repeat(99)).unwrap_err();
    assert!(matches!(error, SpoolError::Large { length: 101, length_max: 100 }), "{error}");
    assert!(!place.folder().exists());
    drop(place.leave("a"));
    for number in 1..WAITING_MAX {
        place.put(&format!("{number}.wish"), b"\"a\"", 0o600);
    }
    let error = Left::leave(place.0.path(), &KIND, &"b").unwrap_err();
    assert!(matches!(error, SpoolError::Full { .. }), "{error}");
    assert_eq!(place.names().len(), WAITING_MAX);
    for number in 0..=FILES_MAX - WAITING_MAX {
        place.put(&format!("{number}.else"), b"", 0o600);
    }
    let error = place.take(1).unwrap_err();
    assert!(matches!(error, SpoolError::Crowded { .. }), "{error}");
    fs::remove_file(place.folder().join("0.else")).unwrap();
    assert_eq!(place.take(1).unwrap().len(), 1);
}

#[test]
fn without_a_folder_there_is_nothing() {
    let place = Place::new();
    assert!(place.take(1).unwrap().is_empty());
    let absent = place.0.path().join("absent");
    let parse = |_: &[u8]| Ok(());
    assert!(Spool::new(&absent, &KIND).take(1, parse).unwrap().is_empty());
    let error = Left::leave(&absent, &KIND, &"a").unwrap_err();
    assert!(error.to_string().starts_with("cannot create"), "{error}");
    assert!(!place.folder().exists(), "who only looks makes nothing");
}

proptest! {
    #[test]
    fn no_name_leads_out_of_the_folder(
        names in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..8)
    ) {
        let names: Vec<_> = names.into_iter().map(|one| [&one[..], b".wish"].concat()).collect();
        prop_assert!(read_names(&KIND, &names.join(&0)) <= names.len());
    }
}
