//! Text that others chose, as identities, keys and output take it.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// Bytes shown of one name.
pub(super) const NAME_MAX: usize = 256;
/// Bytes of a name's beginning that are shown where it is too long.
const HEAD_MAX: usize = 192;
/// Bytes of a digest that are kept: two names with the same one cannot be made.
const DIGEST: usize = 16;

/// Without control characters, and cut; for numbers, kinds and flags.
pub(super) fn bounded(text: &str) -> String {
    let text: String = text.chars().filter(|character| !character.is_control()).collect();
    let end = text.floor_char_boundary(NAME_MAX.min(text.len()));
    text.get(..end).unwrap_or_default().to_owned()
}

/// Without control characters; a long one as its beginning and a digest of all of it, so that two
/// different ones differ.
pub(super) fn shown(text: &str) -> String {
    let plain = !text.contains(char::is_control);
    if plain && text.len() <= NAME_MAX {
        return text.to_owned();
    }
    marked(text, text.as_bytes())
}

/// The same of a path, also of one that is no text.
pub(super) fn shown_path(path: &Path) -> String {
    match path.to_str() {
        Some(text) => shown(text),
        None => marked(&path.to_string_lossy(), path.as_os_str().as_bytes()),
    }
}

fn marked(text: &str, all: &[u8]) -> String {
    let head: String = text.chars().filter(|character| !character.is_control()).collect();
    let head = head.get(..head.floor_char_boundary(HEAD_MAX.min(head.len()))).unwrap_or_default();
    format!("{head}…{}", digest(all))
}

/// What stands for bytes of any length, hex.
pub(super) fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let kept = digest.iter().take(DIGEST).fold(0, |kept: u128, byte| kept << 8 | u128::from(*byte));
    format!("{kept:032x}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_differs_only_behind_the_bound_is_shown_differently() {
        let (one, other) = ("x".repeat(300) + "a", "x".repeat(300) + "b");
        assert_ne!(shown(&one), shown(&other));
        assert_ne!(shown("a\u{1}b"), shown("ab"));
        assert_eq!(shown("/lib/libpam.so.0"), "/lib/libpam.so.0");
    }

    proptest! {
        #[test]
        fn any_text_is_bounded(text in "(?s).{0,600}") {
            prop_assert!(bounded(&text).len() <= NAME_MAX);
            let shown = shown(&text);
            prop_assert!(shown.len() <= NAME_MAX && !shown.contains(char::is_control));
        }
    }
}
