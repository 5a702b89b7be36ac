//! One spelling for a path: `/lib/x` and `/usr/lib/x` are one file where `/lib` is a link.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Root;

/// Directories that distributions turned into links while their packages went on naming files
/// below them: usr-merge (Debian 12, Ubuntu, Fedora 17, Alpine 3.22), bin-merge (Fedora 42, Arch).
const MOVED: [&str; 16] = [
    "bin",
    "sbin",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "libo32",
    "usr/bin",
    "usr/sbin",
    "usr/lib32",
    "usr/lib64",
    "usr/libx32",
    "usr/tmp",
    "var/run",
    "var/lock",
    "opt",
];

/// Which of those directories are links here, and where to. Without leading slashes.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    links: Vec<(&'static [u8], Vec<u8>)>,
}

// === impl Aliases ===

impl Aliases {
    pub(super) fn read(root: &Root) -> Self {
        let mut links = Vec::new();
        for name in MOVED {
            let target = root.resolve(Path::new(name));
            let target = trim(target.as_os_str().as_bytes());
            if target != name.as_bytes() && !target.is_empty() {
                links.push((name.as_bytes(), target.to_vec()));
            }
        }
        Self { links }
    }

    /// The one spelling, without a leading slash: `/lib/x`, `./lib/x` and `lib/x` of a database
    /// all become `usr/lib/x` where `/lib` is a link to `/usr/lib`.
    pub(super) fn canonical<'a>(&self, path: &'a [u8]) -> Cow<'a, [u8]> {
        let path = trim(path);
        for (name, target) in &self.links {
            if let Some(rest) = path.strip_prefix(*name)
                && (rest.is_empty() || rest.first() == Some(&b'/'))
            {
                return Cow::Owned([target, rest].concat());
            }
        }
        Cow::Borrowed(path)
    }
}

/// Without what means nothing at either end.
fn trim(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"/").or_else(|| path.strip_prefix(b"./")) {
        path = rest;
    }
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    path
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_directories_that_are_links_here_have_two_names() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("usr/bin")).unwrap();
        fs::create_dir_all(folder.path().join("bin")).unwrap();
        symlink("usr/lib", folder.path().join("lib")).unwrap();
        symlink("bin", folder.path().join("usr/sbin")).unwrap();
        symlink("usr/sbin", folder.path().join("sbin")).unwrap();
        let root = Root::from_fd(OwnedFd::from(File::open(folder.path()).unwrap())).unwrap();
        let aliases = Aliases::read(&root);
        for (path, canonical) in [
            ("/lib/ld.so", "usr/lib/ld.so"),
            ("./lib/ld.so", "usr/lib/ld.so"),
            ("/usr/lib/ld.so", "usr/lib/ld.so"),
            ("/library/ld.so", "library/ld.so"),
            ("/bin/sh", "bin/sh"),
            ("/sbin/init", "usr/bin/init"),
            ("/usr/sbin/init", "usr/bin/init"),
            ("/lib", "usr/lib"),
            ("//etc//", "etc"),
            ("/.", "."),
        ] {
            assert_eq!(aliases.canonical(path.as_bytes()), canonical.as_bytes(), "{path}");
        }
    }
}
