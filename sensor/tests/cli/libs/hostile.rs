//! Names made to steer a terminal or to break a list. The files are copies of a harmless library.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::fixture::{Library, Running, libs, row_of};
use crate::harness::{Place, assert_plain};

#[test]
fn names_cannot_steer_a_terminal_nor_forge_a_row() {
    let library = Library::build();
    for name in [
        &b"libnew\n{\"kind\":\"mapping\"}\n.so.1"[..],
        b"libesc\x1b[2J\x1b]0;owned\x07.so.1",
        b"libutf\xff\xfe.so.1",
        "libc1\u{9b}31m.so.1".as_bytes(),
        "libturn\u{202e}so.1".as_bytes(),
        b"libback\\012slash.so.1",
    ] {
        let path = library.folder().join(OsStr::from_bytes(name));
        fs::copy(&library.path, &path).unwrap();
        let sleeper = Running::with_any(&path);
        let json = libs(&["--build-id", &library.build_id]).expect(1);
        let row = row_of(&json, sleeper.pid());
        assert_plain(&json.stdout);
        assert!(!json.stdout.contains('\u{202e}'), "{json:#?}");
        match path.to_str() {
            Some(text) => assert_eq!((&row["path"], &row["path_hex"]), (&text.into(), &().into())),
            None => assert_eq!(row["path_hex"], hex(path.as_os_str().as_bytes())),
        }
        assert_eq!(row["deleted"], false, "{row:#}");
        for arguments in [&["libs"][..], &["libs", "--build-id", &library.build_id]] {
            let text = Place::new("").run(arguments);
            assert_plain(&text.stdout);
            assert!(!text.stdout.contains('\u{202e}'), "{text:#?}");
        }
        fs::remove_file(&path).unwrap();
        let row = row_of(&libs(&["--build-id", &library.build_id]).expect(1), sleeper.pid());
        assert_eq!((&row["deleted"], &row["replaced"]), (&true.into(), &false.into()), "{row:#}");
    }
}

#[test]
fn a_file_that_lies_about_its_headers_is_listed() {
    let library = Library::build();
    let sleeper = Running::with(&library.path);
    // The mapping is private and already made; the process does not read its headers again.
    let mut bytes = fs::read(&library.path).unwrap();
    bytes[32..64].fill(0xff);
    fs::write(&library.path, &bytes).unwrap();
    let row = row_of(&libs(&[&library.stem]).expect(1), sleeper.pid());
    assert_eq!((&row["build_id"], &row["unread"]), (&().into(), &().into()), "{row:#}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
