//! The packages of files, as this host's databases have them now.

use std::path::Path;

use crate::baseline::SubjectName;
use crate::package::{Packages, Root};

/// Looks packages up, as far as there are databases.
#[derive(Debug)]
pub(super) struct Owners {
    root: Option<Root>,
    packages: Packages,
}

impl Owners {
    /// Of a subject's files: what a container has is in its own databases, which are not asked.
    pub(super) fn of(subject: &str) -> Self {
        let on_host = SubjectName::of(subject).home.is_empty();
        let root = if on_host { Root::host().ok() } else { None };
        Self { root, packages: Packages::default() }
    }

    /// `name version`; `None` where no package has it, or nobody can tell.
    pub(super) fn package(&mut self, path: &str) -> Option<String> {
        let owned = self.packages.owner(self.root.as_ref()?, Path::new(path)).ok()??;
        Some(format!("{} {}", owned.package, owned.version))
    }
}
