//! The guarded programs: which are here, and what of their linking is not seen.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use super::{Check, Host};
use crate::config::GuardedProgram;
use crate::host::Uncovered;

/// Programs named; the rest is counted.
const NAMED_MAX: usize = 8;

impl Host {
    /// Those of this host's own root; containers have others.
    pub(super) fn guarded(&self, programs: &[GuardedProgram]) -> Check {
        let here: Vec<(&Path, File)> = programs
            .iter()
            .filter_map(|program| {
                Some((program.path.as_path(), regular(&self.at(&program.path.to_string_lossy()))?))
            })
            .collect();
        let uncovered: Vec<String> = here
            .iter()
            .filter_map(|(path, file)| {
                Some(format!("{} is {}", path.display(), Uncovered::of(file)?))
            })
            .collect();
        let found = format!("{} of {} programs are here", here.len(), programs.len());
        if uncovered.is_empty() {
            return Check::ok("guarded", found);
        }
        let more = uncovered.len().saturating_sub(NAMED_MAX);
        let mut told = uncovered.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join("; ");
        if more > 0 {
            told = format!("{told}; and {more} more");
        }
        Check::degraded("guarded", found).unseen(told)
    }
}

/// Opened to be read, waiting for nobody.
fn regular(path: &Path) -> Option<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().is_ok_and(|meta| meta.is_file()).then_some(file)
}
