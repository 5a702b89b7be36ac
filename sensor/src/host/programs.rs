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
    executables: HashMap<(FileKey, String, Role), Arc<Program>>,
    modules: HashMap<(FileKey, String), ModuleId>,
    /// The latest by inode number, device and generation.
    by_inode: HashMap<(u64, u32, u32), (FileKey, ModuleId)>,
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
        if let Some(known) = self.executables.get(&key) {
            return Arc::clone(known);
        }
        if self.executables.len() >= FILES_MAX {
            self.executables.clear();
        }
        let module = self.module(outside, tgid, path, file);
        let subject = format!("{} {}", module.path, module.build);
        let program = Arc::new(Program { file: *file, module, role, subject });
        self.executables.insert(key, Arc::clone(&program));
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
            self.by_inode.clear();
        }
        let build_id = outside.build_id(tgid, path, file);
        let module = ModuleId::new(key.1.clone(), build_id, file);
        self.modules.insert(key, module.clone());
        let inode = (file.ino, file.dev, file.generation);
        self.by_inode.insert(inode, (*file, module.clone()));
        module
    }

    /// A file that was named before.
    pub(super) fn by_file(&self, file: &FileKey) -> Option<ModuleId> {
        let (known, module) = self.by_inode.get(&(file.ino, file.dev, file.generation))?;
        (known == file).then(|| module.clone())
    }

    /// The same by number, device and generation, with its size, bytes.
    pub(super) fn by_inode(&self, inode: (u64, u32, u32)) -> Option<(ModuleId, u64)> {
        self.by_inode.get(&inode).map(|(file, module)| (module.clone(), file.size))
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
