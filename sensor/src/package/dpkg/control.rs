//! Stanzas of dpkg's `status`, its journal and `status.d`.

use std::io::Read;

use super::super::PackageError;
use super::super::index::word;
use super::super::lines::Lines;

/// What is taken from one stanza. A field that is missing, too long or no plain word is `None`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stanza {
    /// Where it begins.
    pub(super) offset: u64,
    pub(super) name: Option<Box<str>>,
    pub(super) version: Option<Box<str>>,
    pub(super) arch: Option<Box<str>>,
    /// Whether the package's files are there: any state but `not-installed` and `config-files`.
    pub(super) present: bool,
    /// `Multi-Arch: same`: its files in `info` are named with the architecture.
    pub(super) same: bool,
}

/// The next stanza, `None` at the end.
pub(super) fn next<R: Read>(lines: &mut Lines<R>) -> Result<Option<Stanza>, PackageError> {
    let mut stanza = Stanza { present: true, ..Stanza::default() };
    let mut started = false;
    while let Some(line) = lines.next()? {
        if line.trim_ascii().is_empty() {
            if started {
                return Ok(Some(stanza));
            }
            continue;
        }
        stanza.take(line);
        if !started {
            started = true;
            stanza.offset = lines.offset();
        }
    }
    Ok(started.then_some(stanza))
}

/// Key and value of a field; `None` for a line that goes on with the field before.
pub(super) fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    if line.first().is_none_or(u8::is_ascii_whitespace) {
        return None;
    }
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (key, value) = line.split_at(colon);
    Some((key, value.get(1..)?.trim_ascii()))
}

// === impl Stanza ===

impl Stanza {
    fn take(&mut self, line: &[u8]) {
        let Some((key, value)) = field(line) else { return };
        let is = |name: &str| key.eq_ignore_ascii_case(name.as_bytes());
        if is("Package") {
            self.name = file_word(value);
        } else if is("Version") {
            self.version = word(value).map(Box::from);
        } else if is("Architecture") {
            self.arch = file_word(value);
        } else if is("Multi-Arch") {
            self.same = value == b"same";
        } else if is("Status") {
            let state = value.rsplit(u8::is_ascii_whitespace).next().unwrap_or_default();
            self.present = !matches!(state, b"not-installed" | b"config-files");
        }
    }
}

/// A word that becomes part of a file's name.
fn file_word(bytes: &[u8]) -> Option<Box<str>> {
    word(bytes).filter(|word| !word.contains('/') && !word.starts_with('.')).map(Box::from)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn stanzas(text: &[u8]) -> Vec<Stanza> {
        let mut lines = Lines::new(text, Path::new("status"), 1 << 20, 0).unwrap();
        let mut stanzas = Vec::new();
        while let Some(stanza) = next(&mut lines).unwrap() {
            stanzas.push(stanza);
        }
        stanzas
    }

    #[test]
    fn stanzas_are_read_with_their_state() {
        let text = b"\n\nPackage: liblzma5\nStatus: install ok installed\nMulti-Arch: same\n\
            Architecture: amd64\nDescription: x\n Package: fake\nVersion: 5.6.1-1\n\n\
            Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n\n\n";
        let found = stanzas(text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].name.as_deref(), Some("liblzma5"));
        assert_eq!(found[0].version.as_deref(), Some("5.6.1-1"));
        assert_eq!(found[0].offset, 2);
        assert!(found[0].present && found[0].same);
        assert!(!found[1].present && !found[1].same);
        assert!(text[usize::try_from(found[1].offset).unwrap()..].starts_with(b"Package: gone"));
    }

    #[test]
    fn a_name_that_is_a_path_is_none() {
        for name in ["../../etc/shadow", ".hidden", "a/b", "a b"] {
            let text = format!("Package: {name}\nArchitecture: /x\n");
            let found = stanzas(text.as_bytes());
            assert_eq!((&found[0].name, &found[0].arch), (&None, &None), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_total(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            stanzas(&text);
        }

        #[test]
        fn any_text_is_total(text in "(Package|Version|Status|[ a-z]{0,3}):? ?[a-z/.\n]{0,20}") {
            stanzas(text.as_bytes());
        }
    }
}
