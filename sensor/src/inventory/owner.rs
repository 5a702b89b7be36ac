//! Which package a file belongs to, as a question that a package database answers.

use std::path::Path;

use super::root::ProcRoot;
use crate::package::digest::Digest;

/// Answers which package owns a file; asked once for every file and root directory.
pub trait Owners {
    /// `path` is absolute and as a process with this root sees it; the process may be gone.
    fn owner(&mut self, root: &ProcRoot, path: &Path) -> Owner;
}

/// Whom a file belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A package.
    Package(Package),
    /// The database was read, and no package has the file.
    Unowned,
    /// Nobody can tell, and why.
    Unknown(String),
}

/// A package as its database names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// `dpkg`, `rpm`, `apk`.
    pub manager: String,
    /// Name, without architecture.
    pub name: String,
    /// Version with epoch and revision as the manager writes it; `None` where the version that the
    /// database has is not the mapped file's.
    pub version: Option<String>,
    /// Architecture as the manager writes it.
    pub arch: Option<String>,
    /// Package URL: <https://github.com/package-url/purl-spec>.
    pub purl: Option<String>,
    /// The digest that it records of the file.
    pub recorded: Option<Digest>,
}

/// Knows no package database.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoOwners;

// === impl Owner ===

impl Owner {
    /// The package, if there is one.
    #[must_use]
    pub fn package(&self) -> Option<&Package> {
        match self {
            Self::Package(package) => Some(package),
            Self::Unowned | Self::Unknown(_) => None,
        }
    }

    /// What remains true of a file that is no longer the one at its path: the name of the package,
    /// not the version, which is that of the file that came after it.
    pub(super) fn of_an_earlier_file(self) -> Self {
        match self {
            Self::Package(package) => {
                Self::Package(Package { version: None, purl: None, recorded: None, ..package })
            }
            Self::Unowned => Self::Unknown("the file is no longer at its path".to_owned()),
            Self::Unknown(why) => Self::Unknown(why),
        }
    }
}

// === impl NoOwners ===

impl Owners for NoOwners {
    fn owner(&mut self, _: &ProcRoot, _: &Path) -> Owner {
        Owner::Unknown("package database not read".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installed_version_is_not_that_of_a_file_deleted_before() {
        let package = Package {
            manager: "dpkg".into(),
            name: "libssl3".into(),
            version: Some("3.0.13".into()),
            arch: Some("amd64".into()),
            purl: Some("pkg:deb/debian/libssl3@3.0.13".into()),
            recorded: None,
        };
        let kept = Owner::Package(package).of_an_earlier_file();
        let kept = kept.package().unwrap();
        assert_eq!((kept.name.as_str(), &kept.version, &kept.purl), ("libssl3", &None, &None));
        let unowned = Owner::Unowned.of_an_earlier_file();
        assert!(matches!(unowned, Owner::Unknown(_)), "it may have been owned before: {unowned:?}");
    }
}
