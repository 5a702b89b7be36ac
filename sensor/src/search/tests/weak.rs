//! Odd places among those that were asked.

use super::*;

fn weak(case: &Case, file: FileId) -> Vec<(Why, bool)> {
    case.explain(file).weak.iter().map(|weak| (weak.why, weak.hit)).collect()
}

#[test]
fn an_empty_or_relative_element_is_the_current_directory() {
    for list in ["/opt/a::/opt/b", ":/opt/b", "plugins:/opt/b", "./x:/opt/b"] {
        let mut case = Case::new(runpath(&["libx.so"], list));
        let library = case.library("/opt/b/libx.so");
        assert_eq!(weak(&case, library), [(Why::Current(None), false)], "{list}");
    }
    let mut case = Case::new(needs(&["libx.so"]));
    case.start.library_path = Some("/opt/lib:".to_owned());
    let library = case.library("/work/libx.so");
    assert_eq!(case.found_by(library), "LD_LIBRARY_PATH \"\"");
    assert_eq!(weak(&case, library), [(Why::Current(None), true)]);
    case.disk.make("/work", 0, 0o1777);
    assert_eq!(weak(&case, library), [(Why::Current(Some(Writer::Everyone)), true)]);
}

#[test]
fn an_empty_list_is_none() {
    let mut case = Case::new(runpath(&["libx.so"], ""));
    case.start.library_path = Some(String::new());
    let library = case.library("/usr/lib/libx.so");
    assert_eq!(weak(&case, library), []);
}

#[test]
fn places_after_the_one_that_had_it_are_not_asked() {
    let mut case = Case::new(runpath(&["libx.so"], "/opt/a:/tmp:relative"));
    case.disk.make("/tmp", 0, 0o1777);
    let library = case.library("/opt/a/libx.so");
    assert_eq!(weak(&case, library), []);
}

#[test]
fn a_place_that_others_can_write_to_is_told_and_by_whom() {
    for (uid, mode, writer) in [
        (0, 0o1777, Some(Writer::Everyone)),
        (0, 0o777, Some(Writer::Everyone)),
        (33, 0o755, Some(Writer::User(33))),
        (0, 0o755, None),
    ] {
        let mut case = Case::new(runpath(&["libx.so"], "/srv/lib"));
        let library = case.library("/srv/lib/libx.so");
        case.disk.make("/srv/lib", uid, mode);
        let wanted: Vec<_> = writer.map(|who| (Why::Writable(who), true)).into_iter().collect();
        assert_eq!(weak(&case, library), wanted, "{uid} {mode:o}");
    }
    let mut case = Case::new(runpath(&["libx.so"], "/srv/lib"));
    let library = case.library("/srv/lib/libx.so");
    case.disk.directories.insert("/srv/lib".into(), Inode { uid: 0, gid: 50, mode: 0o2775 });
    assert_eq!(weak(&case, library), [(Why::Writable(Writer::Group(50)), true)]);
}

#[test]
fn a_directory_above_decides_too_but_not_where_it_is_sticky() {
    let mut case = Case::new(runpath(&["libx.so"], "/srv/a/b"));
    let library = case.library("/srv/a/b/libx.so");
    case.disk.make("/srv/a", 0, 0o1777);
    assert_eq!(weak(&case, library), []);
    case.disk.make("/srv/a", 0, 0o777);
    assert_eq!(weak(&case, library), [(Why::Writable(Writer::Everyone), true)]);
}

#[test]
fn a_place_that_is_missing_belongs_to_who_may_make_it() {
    let mut case = Case::new(runpath(&["libx.so"], "/tmp/build/lib:/none/lib:/opt"));
    case.disk.make("/tmp", 0, 0o1777);
    let library = case.library("/opt/libx.so");
    assert_eq!(weak(&case, library), [(Why::Missing(Writer::Everyone), false)]);
    let text = case.explain(library).weak[0].to_string();
    assert_eq!(
        text,
        "RUNPATH /tmp/build/lib of /opt/app/bin/run leads to /tmp/build/lib, which does not exist \
         and every user may make; it was looked for there first"
    );
}

#[test]
fn what_a_users_own_program_brings_along_is_his() {
    // A virtual environment, a build tree, a browser's own directory.
    for euid in [1000, 0] {
        let mut case = Case::new(runpath(&["libx.so"], "$ORIGIN/../lib"));
        let library = case.library("/opt/app/lib/libx.so");
        for path in ["/opt/app", "/opt/app/lib", "/opt/app/bin"] {
            case.disk.make(path, 1000, 0o775);
        }
        case.start.euid = euid;
        case.start.modules[0].owner = Some(1000);
        assert_eq!(weak(&case, library), [], "run by {euid}");
        case.start.modules[0].owner = Some(0);
        let told = if euid == 0 { vec![(Why::Writable(Writer::User(1000)), true)] } else { vec![] };
        assert_eq!(weak(&case, library), told, "root's program, run by {euid}");
    }
}

#[test]
fn what_cannot_be_told_accuses_nobody() {
    struct Blind(FileId);
    impl View for Blind {
        fn file(&self, path: &Path) -> Option<FileId> {
            path.starts_with("/srv").then_some(self.0)
        }
        fn directory(&self, _: &Path) -> Directory {
            Directory::Unknown
        }
    }
    let mut case = Case::new(runpath(&["libx.so"], "/srv"));
    let library = case.library("/srv/libx.so");
    let found = case.start.explain(library, Path::new("/srv/libx.so"), &Blind(library));
    assert_eq!(
        (found.found_by().as_str(), found.weak.len()),
        ("RUNPATH /srv of /opt/app/bin/run", 0)
    );
}
