//! Exports: there and back, and what strangers may do to them.

use proptest::prelude::*;

use super::*;
use crate::host::{Method, ModuleId};

const SSHD: &str = "/usr/sbin/sshd ab";

fn now() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().unwrap()
}

fn learned() -> Baseline {
    let mut baseline = Baseline::default();
    let module = ModuleId { path: "/lib/a\u{2028}.so".to_owned(), build: "aa".to_owned() };
    for _ in 0..60 {
        baseline.add_start(Timestamp::UNIX_EPOCH, Some(Method::Publickey));
        baseline.add_library(&module, Timestamp::UNIX_EPOCH, false);
        baseline.add_caller("RSA_public_decrypt", &module);
        baseline.add_constructors(300_000);
    }
    baseline
}

fn export() -> Export {
    let baselines: BTreeMap<_, _> =
        [(SSHD.to_owned(), learned()), ("/usr/bin/cat cd".to_owned(), learned())].into();
    Export { head: Head::new("bastion".to_owned(), now(), 20, baselines.len()), baselines }
}

fn sealed(text: &str) -> Result<Sealed, ExchangeError> {
    Sealed::of(Path::new("x.jsonl"), text.as_bytes().to_vec())
}

fn problem(text: &str) -> String {
    sealed(text).and_then(|sealed| sealed.parse(now())).unwrap_err().to_string()
}

#[test]
fn an_export_comes_back_as_it_was_signed_or_not() {
    let key = PrivateKey::generate().unwrap();
    let text = export().write(Some(&key)).unwrap();
    let read = sealed(&format!("{text}\n")).unwrap();
    assert_eq!(read.seal(), &Seal::Valid(key.public()));
    assert_eq!(read.parse(now()).unwrap(), export());
    let read = sealed(&export().write(None).unwrap()).unwrap();
    assert_eq!(read.seal(), &Seal::Unsigned);
    assert_eq!(read.parse(now()).unwrap(), export());
}

#[test]
fn no_byte_of_a_signed_file_can_be_changed() {
    let key = PrivateKey::generate().unwrap();
    let text = export().write(Some(&key)).unwrap();
    let body = text.rfind('\n').unwrap();
    for at in (0..body).step_by(7) {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        if let Ok(sealed) = Sealed::of(Path::new("x"), bytes) {
            assert!(matches!(sealed.seal(), Seal::Wrong(_)), "byte {at}: {:?}", sealed.seal());
        }
    }
    // Another's signature, another's key, and a subject that is left out.
    let mut other = export();
    other.head.host = "other".to_owned();
    let other = other.write(Some(&PrivateKey::generate().unwrap())).unwrap();
    let (signed, last) = (&text[..body], &other[other.rfind('\n').unwrap()..]);
    let swapped = text.replace(&key.public().to_string(), &other_key(&other));
    let fewer: Vec<&str> =
        text.lines().enumerate().filter(|(at, _)| *at != 1).map(|l| l.1).collect();
    for text in [format!("{signed}{last}"), swapped, fewer.join("\n")] {
        let read = sealed(&text).unwrap();
        assert!(matches!(read.seal(), Seal::Wrong(_)), "{:?}", read.seal());
    }
}

fn other_key(text: &str) -> String {
    let at = text.rfind("ed25519:").unwrap();
    text[at..at + 72].to_owned()
}

#[test]
fn what_is_no_export_is_told_with_its_line() {
    let text = export().write(None).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let with = |at: usize, line: &str| {
        let mut lines = lines.clone();
        lines[at] = line;
        lines.join("\n")
    };
    let head = |from: &str, to: &str| with(0, &lines[0].replace(from, to));
    for (text, line, expected) in [
        (String::new(), 1, "no signature line"),
        ("{}".to_owned(), 1, "no export of baselines"),
        (lines[..3].join("\n"), 3, "no signature line"),
        (with(0, "[]"), 1, "no export of baselines"),
        (head("halfsecond-baselines", "x"), 1, "the format is no"),
        (head("\"version\":1", "\"version\":2"), 1, "version 2 is not read"),
        (head("\"subjects\":2", "\"subjects\":1"), 3, "more than the 1 subjects"),
        (head("\"subjects\":2", "\"subjects\":3"), 4, "2 of 3 subjects are there"),
        (head("\"subjects\":2", "\"subjects\":99999999"), 1, "more than 8192"),
        (head("bastion", "\\u001b[2J"), 1, "name is none"),
        (head("2026-11-21", "2026-11-29"), 1, "yet to come"),
        (with(1, lines[2]), 3, "is there twice"),
        (with(1, ""), 2, "no baseline"),
        (with(1, &format!("{{\"subject\":\"{}", "[".repeat(600_000))), 2, "longer than"),
        (with(1, &lines[1].replace("/usr/bin/cat cd", "cat")), 2, "no path with a build-id"),
        (with(1, &lines[1].replace("\"starts\":60", "\"starts\":9999999999999999")), 2, "count"),
        (
            with(2, &format!("{{\"subject\":\"/x y\",\"baseline\":{}", "[".repeat(400_000))),
            3,
            "no b",
        ),
    ] {
        let found = problem(&text);
        let at = format!("x.jsonl:{line}: ");
        let short: String = found.chars().take(200).collect();
        assert!(found.starts_with(&at) && found.contains(expected), "{expected}: {short}");
    }
}

#[test]
fn a_file_larger_than_any_export_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    File::create(&path).unwrap().set_len(FILE_MAX + 1).unwrap();
    assert!(matches!(Sealed::read(&path), Err(ExchangeError::Large { .. })));
    assert!(matches!(Sealed::read(folder.path()), Err(ExchangeError::Io { .. })));
    assert!(matches!(Sealed::read(Path::new("/dev/zero")), Err(ExchangeError::Large { .. })));
}

proptest! {
    #[test]
    fn any_bytes_are_an_export_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let text = [b"{\"a\":1}\n".to_vec(), bytes, b"\n{\"signature\":null}".to_vec()].concat();
        let read = Sealed::of(Path::new("x"), text).unwrap();
        prop_assert!(read.parse(now()).is_err());
    }
}
