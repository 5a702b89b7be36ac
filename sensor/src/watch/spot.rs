//! Where the loader and PAM look: the files whose change changes what programs load, and who is let
//! in.

use serde::{Deserialize, Serialize};

use crate::pam;

/// What a watched file is to the loader or to PAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// `/etc/ld.so.preload`: libraries that glibc's loader puts into every program.
    Preload,
    /// `/etc/ld.so.conf` and what it includes: directories that ldconfig fills the cache from.
    Conf,
    /// `/etc/ld.so.cache`: where glibc's loader finds libraries by name.
    Cache,
    /// `/etc/ld-musl-*.path`: directories that musl's loader searches.
    SearchPath,
    /// The loader itself, by the path that programs name as their interpreter.
    Loader,
    /// `/etc/pam.conf` and the files of `/etc/pam.d`: which modules decide about a login.
    PamService,
    /// A module of PAM where libpam looks for it by name.
    PamModule,
}

/// A watched path, as a program below the root writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Spot {
    pub(super) role: Role,
    pub(super) path: String,
}

/// A directory of which every file that counts is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    pub(super) role: Role,
    pub(super) path: &'static str,
    /// Files of it that are watched by name; more are counted as one change of the last.
    pub(super) files_max: usize,
}

/// The distributions' ld.so.conf includes `*.conf` of the first; for the services of PAM see
/// [`pam::SERVICE_DIRS`]; its modules are in what `_PAM_ISA` and `--enable-securedir` make of it in
/// Debian, Fedora, SUSE, Arch and Alpine. Of two that are one directory the first counts.
const FOLDERS: [Folder; 15] = [
    folder(Role::Conf, "/etc/ld.so.conf.d"),
    folder(Role::PamService, pam::SERVICE_DIRS[0]),
    folder(Role::PamService, pam::SERVICE_DIRS[1]),
    folder(Role::PamService, pam::SERVICE_DIRS[2]),
    folder(Role::PamModule, "/usr/lib/x86_64-linux-gnu/security"),
    folder(Role::PamModule, "/usr/lib/aarch64-linux-gnu/security"),
    folder(Role::PamModule, "/usr/lib/i386-linux-gnu/security"),
    folder(Role::PamModule, "/usr/lib64/security"),
    folder(Role::PamModule, "/usr/lib/security"),
    folder(Role::PamModule, "/lib/x86_64-linux-gnu/security"),
    folder(Role::PamModule, "/lib/aarch64-linux-gnu/security"),
    folder(Role::PamModule, "/lib/i386-linux-gnu/security"),
    folder(Role::PamModule, "/lib64/security"),
    folder(Role::PamModule, "/lib/security"),
    folder(Role::PamModule, "/usr/local/lib/security"),
];

/// Interpreters (`PT_INTERP`) of glibc and musl, native and 32-bit: glibc's
/// `sysdeps/unix/sysv/linux/*/ldd-rewrite.sed` and shlib-versions, musl's `configure`.
#[cfg(target_arch = "x86_64")]
const LOADERS: [&str; 5] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux.so.2",
    "/libx32/ld-linux-x32.so.2",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-i386.so.1",
];
#[cfg(target_arch = "aarch64")]
const LOADERS: [&str; 4] = [
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-linux-armhf.so.3",
    "/lib/ld-musl-aarch64.so.1",
    "/lib/ld-musl-armhf.so.1",
];
#[cfg(target_arch = "x86_64")]
const SEARCH_PATHS: [&str; 2] = ["/etc/ld-musl-x86_64.path", "/etc/ld-musl-i386.path"];
#[cfg(target_arch = "aarch64")]
const SEARCH_PATHS: [&str; 2] = ["/etc/ld-musl-aarch64.path", "/etc/ld-musl-armhf.path"];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const LOADERS: [&str; 0] = [];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const SEARCH_PATHS: [&str; 0] = [];

// === impl Role ===

impl Role {
    /// As output names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Preload => "preload list",
            Self::Conf => "library directories",
            Self::Cache => "library cache",
            Self::SearchPath => "search path",
            Self::Loader => "loader",
            Self::PamService => "PAM service",
            Self::PamModule => "PAM module",
        }
    }

    /// It belongs to PAM rather than to the loader.
    #[must_use]
    pub fn is_pam(self) -> bool {
        matches!(self, Self::PamService | Self::PamModule)
    }
}

// === impl Folder ===

impl Folder {
    /// The spot of a file in it, if it is read.
    pub(super) fn file(&self, name: &[u8]) -> Option<Spot> {
        let name = std::str::from_utf8(name).ok().filter(|name| name.len() <= 255)?;
        let read = match self.role {
            Role::Conf => {
                let stem = name.strip_suffix(".conf");
                stem.is_some_and(|stem| !stem.starts_with('.') && !stem.is_empty())
            }
            // Any name would do; those of package managers and editors are on their way to another.
            Role::PamService => {
                let kept =
                    [".dpkg-new", ".dpkg-tmp", ".dpkg-old", ".dpkg-dist", ".rpmnew", ".rpmsave"];
                let begun = name.contains(';') || name.starts_with('.') || name.ends_with('~');
                !begun && !kept.iter().any(|kept| name.ends_with(kept))
            }
            _ => name.strip_suffix(".so").is_some_and(|stem| !stem.is_empty()),
        };
        read.then(|| Spot::new(self.role, format!("{}/{name}", self.path)))
    }

    /// Its own.
    pub(super) fn spot(&self) -> Spot {
        Spot::new(self.role, self.path)
    }
}

// === impl Spot ===

impl Spot {
    fn new(role: Role, path: impl Into<String>) -> Self {
        Self { role, path: path.into() }
    }

    /// The directory that it stands for as a whole.
    pub(super) fn folder(&self) -> Option<&'static Folder> {
        FOLDERS.iter().find(|folder| folder.path == self.path)
    }

    /// It is a file of this directory.
    pub(super) fn is_in(&self, folder: &Folder) -> bool {
        let inside = self.path.strip_prefix(folder.path);
        self.role == folder.role && inside.is_some_and(|name| name.starts_with('/'))
    }
}

const fn folder(role: Role, path: &'static str) -> Folder {
    Folder { role, path, files_max: if matches!(role, Role::PamModule) { 256 } else { 128 } }
}

/// Every directory that is looked at.
pub(super) fn folders() -> &'static [Folder] {
    &FOLDERS
}

/// The paths that are always looked at.
pub(super) fn fixed() -> Vec<Spot> {
    let mut spots = vec![
        Spot::new(Role::Preload, "/etc/ld.so.preload"),
        Spot::new(Role::Conf, "/etc/ld.so.conf"),
        Spot::new(Role::Cache, "/etc/ld.so.cache"),
        Spot::new(Role::PamService, pam::CONF),
    ];
    spots.extend(SEARCH_PATHS.map(|path| Spot::new(Role::SearchPath, path)));
    spots.extend(LOADERS.map(|path| Spot::new(Role::Loader, path)));
    spots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_not_watched() {
        let [conf, service, .., module] = FOLDERS;
        assert_eq!(conf.file(b"x.conf").unwrap().path, "/etc/ld.so.conf.d/x.conf");
        for name in [b"x.conf.dpkg-new".as_slice(), b".x.conf", b"README", b"\xff.conf"] {
            assert_eq!(conf.file(name), None);
        }
        assert_eq!(service.file(b"sshd").unwrap().path, "/etc/pam.d/sshd");
        for name in [b"sshd.dpkg-new".as_slice(), b".sshd.swp", b"sshd~", b"sshd;5f0e"] {
            assert_eq!(service.file(name), None);
        }
        assert!(module.file(b"pam_x.so").is_some() && module.file(b"pam_x.so.dpkg-new").is_none());
    }

    #[test]
    fn a_folder_knows_its_files() {
        let [conf, service, ..] = FOLDERS;
        let file = service.file(b"sshd").unwrap();
        assert!(file.is_in(&service) && !file.is_in(&conf) && file.folder().is_none());
        assert_eq!(service.spot().folder(), Some(&FOLDERS[1]));
    }

    #[test]
    fn the_running_loader_is_among_the_watched() {
        let found = fixed().iter().any(|spot| {
            spot.role == Role::Loader && std::fs::metadata(&spot.path).is_ok_and(|m| m.is_file())
        });
        assert!(found, "no loader of this machine is watched");
    }
}
