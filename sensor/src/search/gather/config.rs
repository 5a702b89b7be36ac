//! The loader's own files below a root: `ld.so.preload`, `ld.so.cache`, musl's path file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::{Loader, Preload, Start};
use super::view::Below;
use crate::verify::bytes::printable;
use crate::verify::cache::Lru;
use crate::verify::process::FileKey;
use crate::watch::{cache, text};

/// Caches remembered; containers of one image share theirs.
const CACHES_MAX: usize = 16;

/// Where glibc looks last (`SYSTEM_DIRS`), by distribution.
const GLIBC: [&str; 8] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];
/// Where musl looks without a path file.
const MUSL: [&str; 3] = ["/lib", "/usr/local/lib", "/usr/lib"];
#[cfg(target_arch = "x86_64")]
const MUSL_PATH: &str = "/etc/ld-musl-x86_64.path";
#[cfg(not(target_arch = "x86_64"))]
const MUSL_PATH: &str = "/etc/ld-musl-aarch64.path";

type Cache = Arc<HashMap<String, Vec<PathBuf>>>;

/// Contents of `ld.so.cache`.
#[derive(Debug)]
pub(super) struct Caches(Lru<FileKey, Cache>);

// === impl Caches ===

impl Default for Caches {
    fn default() -> Self {
        Self(Lru::new(CACHES_MAX, CACHES_MAX))
    }
}

impl Caches {
    /// What a loader finds below the root.
    pub(super) fn add_to(&mut self, start: &mut Start, below: &Below) {
        let read = |path: &str, limit| below.open_own(Path::new(path))?.read(limit);
        match start.loader {
            Loader::Glibc => {
                start.system = GLIBC.iter().map(PathBuf::from).collect();
                start.cache = self.cache(below);
                let names = read("/etc/ld.so.preload", text::FILE_MAX);
                let names = names.map(|bytes| text::preload(&bytes)).unwrap_or_default();
                start.preloads.extend(names.into_iter().map(|name| (Preload::File, name)));
            }
            Loader::Musl => {
                let path = read(MUSL_PATH, text::FILE_MAX);
                start.system = match path {
                    Some(bytes) => {
                        text::search_path(&bytes).into_iter().map(PathBuf::from).collect()
                    }
                    None => MUSL.iter().map(PathBuf::from).collect(),
                };
            }
        }
    }

    fn cache(&mut self, below: &Below) -> Cache {
        let Some(file) = below.open_own(Path::new("/etc/ld.so.cache")) else {
            return Cache::default();
        };
        let key = file.key();
        if let Some(known) = self.0.get(&key) {
            return known;
        }
        let bytes = file.read(cache::FILE_MAX).unwrap_or_default();
        let mut names: HashMap<String, Vec<PathBuf>> = HashMap::new();
        for (name, path) in cache::entries(&bytes).unwrap_or_default() {
            names.entry(printable(name)).or_default().push(PathBuf::from(printable(path)));
        }
        let names = Arc::new(names);
        self.0.insert(key, Arc::clone(&names), 1);
        names
    }
}
