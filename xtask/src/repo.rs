//! Where things are in the source tree and under `target/`.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    // xtask is only ever run from the tree it was built from, through the cargo alias.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Cargo's target directory, which also holds what xtask downloads and writes.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The integration tests of `sensor` by name: `tests/NAME.rs` and `tests/NAME/main.rs`, sorted.
///
/// # Errors
/// When the folder exists but cannot be read.
pub(crate) fn sensor_tests() -> std::io::Result<Vec<String>> {
    let folder = root().join("sensor/tests");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_test =
            path.extension().is_some_and(|ext| ext == "rs") || path.join("main.rs").is_file();
        if let (true, Some(stem)) = (is_test, path.file_stem().and_then(|stem| stem.to_str())) {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// What the tests of `sensor` compile or read: everything beside their own sources, sorted.
///
/// # Errors
/// When a folder cannot be read.
pub(crate) fn fixtures() -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root().join("sensor/tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_none_or(|ext| ext != "rs") {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}
