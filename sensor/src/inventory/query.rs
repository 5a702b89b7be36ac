//! Which files a person asked for.

use super::file::File;
use super::version;

/// What a file must be; nothing asked for is every file.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// File name, soname, name before `.so`, or package; with a `/` the path. May be a glob.
    pub name: Option<String>,
    /// Version of the package or in the file's name, or what it begins with. May be a glob.
    pub version: Option<String>,
    /// Name of the package. May be a glob.
    pub package: Option<String>,
    /// Build-id in hex, or what it begins with.
    pub build_id: Option<String>,
}

/// Whether a file is one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// It may be: all but its version is right, and that is not known.
    VersionUnknown,
}

// === impl Query ===

impl Query {
    /// Whether anything was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.name.is_none()
            && self.version.is_none()
            && self.package.is_none()
            && self.build_id.is_none()
    }

    /// Compares without regard to case.
    #[must_use]
    pub fn matches(&self, file: &File) -> Match {
        let package = file.owner.package();
        let of_package = |wanted: &String| package.is_some_and(|one| is_like(wanted, &one.name));
        let named = self.name.as_ref().is_none_or(|wanted| is_named(file, wanted));
        let packaged = self.package.as_ref().is_none_or(of_package);
        let built = self.build_id.as_ref().is_none_or(|wanted| {
            let begins = |id: &str| id.starts_with(&wanted.to_ascii_lowercase());
            file.build_id().is_some_and(begins)
        });
        if !(named && packaged && built) {
            return Match::No;
        }
        self.version.as_ref().map_or(Match::Yes, |wanted| is_version(file, wanted))
    }
}

fn is_named(file: &File, wanted: &str) -> bool {
    if wanted.contains('/') {
        return is_like(wanted, &file.path.to_string_lossy());
    }
    let name = file.name();
    let soname = file.soname();
    let package = file.owner.package().map(|package| package.name.as_str());
    let names = [Some(name.as_str()), soname, package].into_iter().flatten();
    let stems = [Some(name.as_str()), soname].into_iter().flatten().flat_map(version::stems);
    names.chain(stems).any(|name| is_like(wanted, name))
}

/// The name's version is often that of the interface, so it can prove a version but refute none.
fn is_version(file: &File, wanted: &str) -> Match {
    let package = file.owner.package().and_then(|package| package.version.as_deref());
    let name = file.name();
    let in_name = version::of_file_name(&name);
    let is = |version: Option<&str>| version.is_some_and(|one| version::is_version(one, wanted));
    match package {
        _ if is(package) => Match::Yes,
        // Interfaces have other numbers than releases: libssl.so.3 is not version 3 of a package.
        Some(_) if in_name.is_none_or(|version| !version.contains('.')) => Match::No,
        _ if is(in_name) => Match::Yes,
        Some(_) => Match::No,
        None => Match::VersionUnknown,
    }
}

fn is_like(wanted: &str, name: &str) -> bool {
    let (wanted, name) = (wanted.to_lowercase(), name.to_lowercase());
    wanted == name || wanted.contains(['*', '?']) && glob(&wanted, &name)
}

/// Whether `*` (any characters) and `?` (one character) make `text` of `pattern`. Takes at most
/// the product of both lengths.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut from) = (0, 0);
    // Where the last `*` is, and the character up to which it reaches for now.
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = text.get(from) {
        match (pattern.get(at), star) {
            (Some('*'), _) => {
                star = Some((at, from));
                at += 1;
            }
            (Some(wanted), _) if wanted == c || *wanted == '?' => {
                at += 1;
                from += 1;
            }
            (_, Some((place, reached))) => {
                star = Some((place, reached + 1));
                at = place + 1;
                from = reached + 1;
            }
            _ => return false,
        }
    }
    pattern.iter().skip(at).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::elf::ElfFacts;
    use super::super::owner::{Owner, Package};
    use super::*;

    fn file(path: &str, package: Option<(&str, Option<&str>)>) -> File {
        let elf = ElfFacts {
            build_id: Some("abcd1234".into()),
            soname: Some("liblzma.so.5".into()),
            interpreter: false,
        };
        File {
            path: path.into(),
            dev: 1,
            ino: 2,
            size: Some(3),
            memory: path.starts_with("/memfd:"),
            deleted: Some(false),
            replaced: Some(false),
            elf: Some(Arc::new(elf)),
            unread: None,
            owner: package.map_or(Owner::Unknown("not read".into()), |(name, version)| {
                Owner::Package(Package {
                    name: name.into(),
                    version: version.map(str::to_owned),
                    ..Package::default()
                })
            }),
            sha256: None,
            content: None,
            changed: None,
            link: None,
        }
    }

    fn named(name: &str) -> Query {
        Query { name: Some(name.to_owned()), ..Query::default() }
    }

    #[test]
    fn a_library_answers_to_all_its_names() {
        let lzma = file("/usr/lib/liblzma.so.5.4.1", Some(("xz-libs", Some("5.4.1-1"))));
        for name in [
            "liblzma",
            "LibLZMA",
            "liblzma.so.5",
            "liblzma.so.5.4.1",
            "liblzma*",
            "*lzma.so*",
            "xz-libs",
            "/usr/lib/liblzma.so.5.4.1",
            "/usr/*/liblzma*",
        ] {
            assert_eq!(named(name).matches(&lzma), Match::Yes, "{name}");
        }
        for name in ["lzma", "liblzm", "liblzma.so", "liblzma.so.5.4", "/usr/lib", "", "?"] {
            assert_eq!(named(name).matches(&lzma), Match::No, "{name}");
        }
        assert_eq!(named("liblzma").matches(&file("/memfd:liblzma.so.9", None)), Match::Yes);
        assert_eq!(Query::default().matches(&lzma), Match::Yes);
    }

    #[test]
    fn a_version_is_the_packages_or_the_names_or_not_known() {
        let asked = |file: &File, version: &str| {
            Query { version: Some(version.to_owned()), ..named("liblzma") }.matches(file)
        };
        let packaged = file("/l/liblzma.so.5.4.1", Some(("liblzma5", Some("5.4.1-0.2"))));
        assert_eq!(asked(&packaged, "5.4.1"), Match::Yes);
        assert_eq!(asked(&packaged, "5.6.1"), Match::No);
        let reverted = file("/l/liblzma.so.5.4.5", Some(("l", Some("5.6.1+really5.4.5-1"))));
        assert_eq!(asked(&reverted, "5.6.1"), Match::No);
        let alone = file("/l/liblzma.so.5.6.1", None);
        assert_eq!(asked(&alone, "5.6.1"), Match::Yes);
        assert_eq!(asked(&alone, "5.4.1"), Match::VersionUnknown);
        let stale = file("/l/liblzma.so.5", Some(("liblzma5", None)));
        assert_eq!(asked(&stale, "5.6.1"), Match::VersionUnknown);
        let interface = file("/l/liblzma.so.5", Some(("liblzma5", Some("1.2"))));
        assert_eq!(asked(&interface, "5"), Match::No);
    }

    #[test]
    fn package_and_build_id_are_conditions_of_their_own() {
        let lzma = file("/l/liblzma.so.5", Some(("liblzma5", Some("5"))));
        let package = |name: &str| Query { package: Some(name.into()), ..Query::default() };
        let build_id = |id: &str| Query { build_id: Some(id.into()), ..Query::default() };
        assert_eq!(package("LIBLZMA5").matches(&lzma), Match::Yes);
        assert_eq!(package("liblzma").matches(&lzma), Match::No);
        assert_eq!(build_id("ABCD").matches(&lzma), Match::Yes);
        assert_eq!(build_id("bcd").matches(&lzma), Match::No);
        assert_eq!(package("x").matches(&file("/l/x", None)), Match::No);
    }

    proptest! {
        #[test]
        fn a_glob_of_the_pieces_matches_the_whole(parts in prop::collection::vec("[a-c]{0,3}", 1..5), gap in "[a-c]{0,3}") {
            prop_assert!(glob(&parts.join("*"), &parts.join(&gap)));
        }

        #[test]
        fn a_glob_without_stars_is_equality(a in "[a-c]{0,4}", b in "[a-c]{0,4}") {
            prop_assert_eq!(glob(&a, &b), a == b);
        }
    }
}
