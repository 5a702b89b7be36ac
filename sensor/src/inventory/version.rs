//! What the name of a library's file says: its stem and its version.

/// Where a version was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VersionSource {
    /// The package database.
    Package,
    /// The file's name; for a soname link's target this is the interface's version.
    FileName,
}

// === impl VersionSource ===

impl VersionSource {
    /// For output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::FileName => "file name",
        }
    }
}

/// The name before `.so`, and what follows it: `("liblzma", "5.4.1")` of `liblzma.so.5.4.1`.
fn split(name: &str) -> Option<(&str, &str)> {
    let at = name.match_indices(".so").map(|(at, _)| at).find(|at| {
        let rest = name.get(at + 3..).unwrap_or_default();
        *at > 0 && (rest.is_empty() || rest.starts_with('.'))
    })?;
    let rest = name.get(at + 3..)?;
    Some((name.get(..at)?, rest.strip_prefix('.').unwrap_or(rest)))
}

/// Whether this is how a library's file is called.
pub(super) fn is_library_name(name: &str) -> bool {
    split(name).is_some()
}

/// `5.4.1` of `liblzma.so.5.4.1`, `2.31` of `libc-2.31.so`.
pub(super) fn of_file_name(name: &str) -> Option<&str> {
    let (stem, after) = split(name)?;
    if after.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(after);
    }
    split_stem(stem).map(|(_, version)| version).filter(|_| after.is_empty())
}

/// Names a person may mean by `liblzma`: the one before `.so`, with and without a version in it.
pub(super) fn stems(name: &str) -> impl Iterator<Item = &str> {
    let stem = split(name).map(|(stem, _)| stem);
    stem.into_iter().chain(stem.and_then(split_stem).map(|(stem, _)| stem))
}

/// `libc-2.31` as `libc` and `2.31`.
fn split_stem(stem: &str) -> Option<(&str, &str)> {
    let (name, version) = stem.rsplit_once('-')?;
    let is_version = version.starts_with(|c: char| c.is_ascii_digit());
    (is_version && !name.is_empty()).then_some((name, version))
}

/// Whether `version` is `wanted`, begins with it, or matches it as a glob; its epoch counts
/// where `wanted` has one. A version ends where a number does: 5.6.1 is not 5.6.10. What Debian calls
/// `5.6.1+really5.4.5-1` is 5.4.5.
pub(super) fn is_version(version: &str, wanted: &str) -> bool {
    let version = version.rsplit_once("+really").map_or(version, |(_, really)| really);
    let bare = version.split_once(':').map_or(version, |(_, rest)| rest);
    let version = if wanted.contains(':') { version } else { bare };
    if wanted.contains(['*', '?']) {
        return super::query::glob(wanted, version);
    }
    version.strip_prefix(wanted).is_some_and(|rest| {
        let digit = |c: char| c.is_ascii_digit();
        !(wanted.ends_with(digit) && rest.starts_with(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_tell_their_version() {
        for (name, version) in [
            ("liblzma.so.5.4.1", Some("5.4.1")),
            ("libc.so.6", Some("6")),
            ("libc-2.31.so", Some("2.31")),
            ("libfoo-bar.so", None),
            ("libx.so", None),
            ("libx.so.debug", None),
            ("_ssl.cpython-311-x86_64-linux-gnu.so", None),
            ("bash", None),
            (".so.1", None),
            ("lib.some.so.2", Some("2")),
        ] {
            assert_eq!(of_file_name(name), version, "{name}");
        }
    }

    #[test]
    fn a_name_has_a_stem_with_and_without_its_version() {
        assert_eq!(stems("liblzma.so.5.4.1").collect::<Vec<_>>(), ["liblzma"]);
        assert_eq!(stems("libc-2.31.so").collect::<Vec<_>>(), ["libc-2.31", "libc"]);
        assert_eq!(stems("sshd").count(), 0);
    }

    #[test]
    fn a_version_ends_where_a_number_does() {
        for (version, wanted, is) in [
            ("5.6.1-1", "5.6.1", true),
            ("5.6.10-1", "5.6.1", false),
            ("5.6.1", "5.6", true),
            ("5.60", "5.6", false),
            ("1:5.6.1-1", "5.6.1", true),
            ("1:5.6.1-1", "1:5.6.1", true),
            ("1:5.6.1-1", "1", false),
            ("5.6.1+really5.4.5-1", "5.6.1", false),
            ("5.6.1+really5.4.5-1", "5.4.5", true),
            ("5.6.1-1ubuntu2", "5.6.*", true),
            ("5.4.1", "5.6.*", false),
            ("3.0.11", "3.0.1?", true),
        ] {
            assert_eq!(is_version(version, wanted), is, "{version} {wanted}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_total(name in ".{0,60}", wanted in ".{0,20}") {
            let _ = of_file_name(&name);
            let _ = stems(&name).count();
            let _ = is_version(&name, &wanted);
        }
    }
}
