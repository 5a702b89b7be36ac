//! Where the loader looks: the files whose change changes what every program loads.

use serde::{Deserialize, Serialize};

/// What a watched file is to the loader.
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
}

/// A watched path, as a program below the root writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Spot {
    pub(super) role: Role,
    pub(super) path: String,
}

/// Directory whose `*.conf` the distributions' ld.so.conf includes.
pub(super) const CONF_DIR: &str = "/etc/ld.so.conf.d";
/// Files of it that are watched by name; more are counted as one change of the last.
pub(super) const CONF_FILES_MAX: usize = 128;

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
        }
    }
}

// === impl Spot ===

impl Spot {
    fn new(role: Role, path: impl Into<String>) -> Self {
        Self { role, path: path.into() }
    }
}

/// The paths that are always looked at.
pub(super) fn fixed() -> Vec<Spot> {
    let mut spots = vec![
        Spot::new(Role::Preload, "/etc/ld.so.preload"),
        Spot::new(Role::Conf, "/etc/ld.so.conf"),
        Spot::new(Role::Cache, "/etc/ld.so.cache"),
    ];
    spots.extend(SEARCH_PATHS.map(|path| Spot::new(Role::SearchPath, path)));
    spots.extend(LOADERS.map(|path| Spot::new(Role::Loader, path)));
    spots
}

/// The spot of a file in [`CONF_DIR`], if ldconfig would read it.
pub(super) fn in_conf_dir(name: &[u8]) -> Option<Spot> {
    let name = std::str::from_utf8(name).ok()?;
    let read =
        name.strip_suffix(".conf").is_some_and(|stem| !stem.starts_with('.') && !stem.is_empty())
            && name.len() <= 255;
    read.then(|| Spot::new(Role::Conf, format!("{CONF_DIR}/{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldconfig_does_not_read_is_not_watched() {
        assert_eq!(in_conf_dir(b"x.conf").unwrap().path, "/etc/ld.so.conf.d/x.conf");
        for name in [b"x.conf.dpkg-new".as_slice(), b".x.conf", b"README", b"\xff.conf"] {
            assert_eq!(in_conf_dir(name), None);
        }
    }

    #[test]
    fn the_running_loader_is_among_the_watched() {
        let found = fixed().iter().any(|spot| {
            spot.role == Role::Loader && std::fs::metadata(&spot.path).is_ok_and(|m| m.is_file())
        });
        assert!(found, "no loader of this machine is watched");
    }
}
