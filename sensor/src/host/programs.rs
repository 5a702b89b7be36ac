//! Programs and modules by file: build-ids are read once per file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::observe::{ModuleId, Program};
use super::outside::Outside;
use crate::event::{FileKey, Role, WalkedPath};

/// Files remembered; past that the whole memory starts again, which costs re-reading only.
const FILES_MAX: usize = 8192;

/// Remembers what a file is.
#[derive(Debug, Default)]
pub(super) struct Programs {
    programs: HashMap<(FileKey, String, Role), Arc<Program>>,
    modules: HashMap<(FileKey, String), ModuleId>,
}

// === impl Programs ===

impl Programs {
    pub(super) fn program(
        &mut self,
        outside: &dyn Outside,
        tgid: u32,
        path: &Path,
        file: &FileKey,
        role: Role,
    ) -> Arc<Program> {
        let key = (*file, shown(path), role);
        if let Some(known) = self.programs.get(&key) {
            return Arc::clone(known);
        }
        if self.programs.len() >= FILES_MAX {
            self.programs.clear();
        }
        let module = self.module(outside, tgid, path, file);
        let subject = format!("{} {}", module.path, module.build);
        let uncovered = outside.uncovered(tgid, path, file);
        let program = Arc::new(Program { file: *file, module, role, subject, uncovered });
        self.programs.insert(key, Arc::clone(&program));
        program
    }

    pub(super) fn module(
        &mut self,
        outside: &dyn Outside,
        tgid: u32,
        path: &Path,
        file: &FileKey,
    ) -> ModuleId {
        let key = (*file, shown(path));
        if let Some(known) = self.modules.get(&key) {
            return known.clone();
        }
        if self.modules.len() >= FILES_MAX {
            self.modules.clear();
        }
        let build_id = outside.build_id(tgid, path, file);
        let module = ModuleId::new(key.1.clone(), build_id, file);
        self.modules.insert(key, module.clone());
        module
    }
}

/// A path as output shows it; a walk that ended early is marked.
pub(super) fn walked(path: &WalkedPath) -> std::path::PathBuf {
    if path.truncated {
        let tail = path.path.strip_prefix("/").unwrap_or(&path.path);
        Path::new("/...").join(tail)
    } else {
        path.path.clone()
    }
}

/// Control characters would reach a terminal.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
