//! The package databases as the inventory asks them.

use std::path::Path;

use super::owner::{Owner, Owners, Package};
use super::root::ProcRoot;
use crate::package::{Bounds, Packages, Root};
use crate::trouble::chain;

/// Answers from the databases of dpkg, apk and rpm of each root.
#[derive(Debug)]
pub struct Databases(Packages);

// === impl Databases ===

impl Databases {
    /// Has read nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Packages::new(Bounds::default()))
    }
}

impl Default for Databases {
    fn default() -> Self {
        Self::new()
    }
}

impl Owners for Databases {
    fn owner(&mut self, root: &ProcRoot, path: &Path) -> Owner {
        let root = match root.open().and_then(of_dir) {
            Ok(root) => root,
            Err(error) => return Owner::Unknown(format!("its root cannot be opened: {error}")),
        };
        match self.0.owner(&root, path) {
            Ok(Some(owned)) => Owner::Package(Package {
                manager: owned.manager.to_string(),
                purl: Some(owned.purl()),
                // An administrator may change a configuration file.
                recorded: owned.recorded.filter(|_| !owned.config),
                name: owned.package,
                version: Some(owned.version),
                arch: Some(owned.arch),
            }),
            Ok(None) => Owner::Unowned,
            Err(error) => Owner::Unknown(chain(&error)),
        }
    }
}

/// Mounts below the host's own root are part of it, those below a container's are not.
fn of_dir(dir: std::os::fd::OwnedFd) -> std::io::Result<Root> {
    let host = Root::host()?;
    let root = Root::from_fd(dir)?;
    Ok(if root.key() == host.key() { host } else { root })
}
