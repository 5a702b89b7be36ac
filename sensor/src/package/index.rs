//! Which packages name a path: hashes of all paths of a database, eight bytes each.

use std::hash::{BuildHasher, RandomState};

use jiff::Timestamp;

use super::path::Aliases;

/// Bits of an entry that say which package; the others are the path's hash.
const PACKAGE_BITS: u32 = 24;
const PACKAGE_MASK: u64 = (1 << PACKAGE_BITS) - 1;
/// Bounds of one database. The largest distribution has 70 000 packages to choose from, and a host
/// with everything of TeX Live, Haskell and Rust on it 1.5 million files.
const MAX_PACKAGES: usize = 100_000;
const MAX_PATHS: usize = 4_000_000;
/// Packages whose records are looked at for one path. Only directories and a hostile database
/// have more.
const MAX_CANDIDATES: usize = 64;

/// Names, versions and architectures are shorter in every distribution.
pub(super) const MAX_WORD: usize = 256;

/// One installed package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: Box<str>,
    pub(super) version: Box<str>,
    pub(super) arch: Box<str>,
    /// rpm keeps it apart from the version.
    pub(super) epoch: Option<u32>,
    pub(super) place: Place,
    /// Since when this version is there, and which was before, where the database or the log of
    /// its manager tells.
    pub(super) since: Option<Timestamp>,
    pub(super) previous: Option<Box<str>>,
}

/// Where the records of a package are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Files of dpkg's `info`, named with the architecture or not; offset of the stanza in
    /// `status`, if it is not in the journal.
    Dpkg { qualified: bool, stanza: Option<u64> },
    /// A file of dpkg's `status.d`, as images without a package manager have it.
    Distroless { file: Box<str> },
    /// Offset of the stanza in apk's `installed`.
    Apk { stanza: u64 },
    /// Row of rpm's `Packages`.
    Rpm { row: i64 },
}

/// The packages of one database and the paths they name.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) packages: Box<[Package]>,
    pub(super) aliases: Aliases,
    /// Sorted; each the hash of a path and the package that names it.
    entries: Box<[u64]>,
    hasher: RandomState,
}

/// An index being built.
#[derive(Debug)]
pub(super) struct Builder {
    packages: Vec<Package>,
    aliases: Aliases,
    entries: Vec<u64>,
    hasher: RandomState,
}

/// More packages or paths than any distribution has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) what: &'static str,
    pub(super) limit: u64,
}

// === impl Builder ===

impl Builder {
    pub(super) fn new(aliases: Aliases) -> Self {
        Self { packages: Vec::new(), aliases, entries: Vec::new(), hasher: RandomState::new() }
    }

    pub(super) fn aliases(&self) -> &Aliases {
        &self.aliases
    }

    /// Adds a package; the number is for [`Self::path`].
    pub(super) fn package(&mut self, package: Package) -> Result<u64, Full> {
        if self.packages.len() >= MAX_PACKAGES {
            return Err(Full { what: "packages", limit: MAX_PACKAGES as u64 });
        }
        self.packages.push(package);
        Ok(self.packages.len() as u64 - 1)
    }

    /// Adds a path that a package names, in the database's spelling.
    pub(super) fn path(&mut self, package: u64, path: &[u8]) -> Result<(), Full> {
        if self.entries.len() >= MAX_PATHS {
            return Err(Full { what: "paths", limit: MAX_PATHS as u64 });
        }
        let path = self.aliases.canonical(path);
        if !path.is_empty() {
            let hash = self.hasher.hash_one(path.as_ref());
            self.entries.push(hash & !PACKAGE_MASK | package & PACKAGE_MASK);
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Index {
        self.entries.sort_unstable();
        self.entries.dedup();
        Index {
            packages: self.packages.into_boxed_slice(),
            aliases: self.aliases,
            entries: self.entries.into_boxed_slice(),
            hasher: self.hasher,
        }
    }
}

// === impl Index ===

impl Index {
    /// Packages that may name a path in its one spelling. Hashes can agree by chance: the records
    /// decide.
    pub(super) fn candidates(&self, canonical: &[u8]) -> impl Iterator<Item = &Package> {
        let hash = self.hasher.hash_one(canonical) & !PACKAGE_MASK;
        let first = self.entries.partition_point(|entry| *entry < hash);
        let entries = self.entries.get(first..).unwrap_or_default();
        entries
            .iter()
            .take_while(move |entry| **entry & !PACKAGE_MASK == hash)
            .take(MAX_CANDIDATES)
            .filter_map(|entry| {
                self.packages.get(usize::try_from(entry & PACKAGE_MASK).unwrap_or(usize::MAX))
            })
    }

    /// Paths held.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Heap bytes, nearly.
    pub(super) fn bytes(&self) -> usize {
        let words = self.packages.iter().map(|package| {
            let previous = package.previous.as_ref().map_or(0, |previous| previous.len());
            package.name.len() + package.version.len() + package.arch.len() + previous
        });
        size_of_val(&*self.entries) + size_of_val(&*self.packages) + words.sum::<usize>()
    }
}

/// A word of a database as text: valid, short, printable and without blanks.
pub(super) fn word(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?.trim_ascii();
    let fits = !text.is_empty() && text.len() <= MAX_WORD;
    (fits && text.chars().all(|letter| letter.is_ascii_graphic())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str) -> Package {
        Package {
            name: name.into(),
            version: "1".into(),
            arch: "all".into(),
            epoch: None,
            place: Place::Apk { stanza: 0 },
            since: None,
            previous: None,
        }
    }

    #[test]
    fn a_path_leads_to_every_package_that_names_it() {
        let mut builder = Builder::new(Aliases::default());
        for name in ["one", "two", "three"] {
            let number = builder.package(package(name)).unwrap();
            builder.path(number, format!("/usr/{name}").as_bytes()).unwrap();
            builder.path(number, b"/usr/share").unwrap();
            builder.path(number, b"/usr/share").unwrap();
        }
        let index = builder.finish();
        let names =
            |path: &[u8]| index.candidates(path).map(|found| &*found.name).collect::<Vec<_>>();
        assert_eq!(names(b"usr/two"), ["two"]);
        assert_eq!(names(b"usr/share"), ["one", "two", "three"]);
        assert!(names(b"usr/four").is_empty());
        assert_eq!(index.len(), 6);
    }

    #[test]
    fn only_plain_words_are_taken() {
        assert_eq!(word(b" 5.6.1-1\n"), Some("5.6.1-1"));
        for bad in [&b""[..], b"a b", b"a\x1b[2J", b"\xff", &[b'a'; 300]] {
            assert_eq!(word(bad), None);
        }
    }
}
