//! The host's state as it was told last, in the state directory: what changes while no sensor runs
//! is found at its next start.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::spot::{Role, Spot};
use super::state::State;

/// Larger than any state we write.
const FILE_MAX: u64 = 16 << 20;
/// 2: with the files of PAM.
const VERSION: u32 = 2;

/// The file.
#[derive(Debug)]
pub(super) struct Keep {
    path: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    files: Vec<(Role, String, State)>,
}

// === impl Keep ===

impl Keep {
    pub(super) fn in_dir(state_dir: &Path) -> Self {
        Self { path: state_dir.join("loader-files.json") }
    }

    /// What was told last; `None` where nothing was kept, an error where it cannot be read.
    pub(super) fn load(&self) -> io::Result<Option<BTreeMap<Spot, State>>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut text = String::new();
        file.take(FILE_MAX).read_to_string(&mut text)?;
        let kept: Kept = serde_json::from_str(&text)?;
        if kept.version != VERSION {
            return Ok(None);
        }
        let files = kept.files.into_iter();
        Ok(Some(files.map(|(role, path, state)| (Spot { role, path }, state)).collect()))
    }

    /// Replaces it as a whole.
    pub(super) fn store(&self, told: &BTreeMap<Spot, State>) -> io::Result<()> {
        let files = told.iter().map(|(spot, state)| (spot.role, spot.path.clone(), state.clone()));
        let text = serde_json::to_vec(&Kept { version: VERSION, files: files.collect() })?;
        let new = self.path.with_extension("json.new");
        // For its user only, like all of the state.
        let mut open = OpenOptions::new();
        let mut file = open.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::spot;
    use super::super::state::{Content, Identity};
    use super::*;

    #[test]
    fn what_is_kept_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let keep = Keep::in_dir(folder.path());
        assert!(keep.load().unwrap().is_none());
        let file = Some(Identity { ino: 7, ctime_ns: i64::MAX, ..Identity::default() });
        let contents = [
            Content::Entries(vec!["/a \"b\"".to_owned()]),
            Content::Cache([1, u64::MAX].into()),
            Content::Loader { build_id: None, hash: 3 },
        ];
        let state =
            |content| State { links: vec!["x".to_owned()], file, content: Arc::new(content) };
        let told: BTreeMap<_, _> = spot::fixed().into_iter().zip(contents.map(state)).collect();
        keep.store(&told).unwrap();
        assert_eq!(keep.load().unwrap(), Some(told));
    }

    #[test]
    fn damage_is_an_error_and_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let keep = Keep::in_dir(folder.path());
        for text in ["", "{", "[]", "{\"version\":1}"] {
            fs::write(folder.path().join("loader-files.json"), text).unwrap();
            assert!(keep.load().is_err(), "{text}");
        }
    }
}
