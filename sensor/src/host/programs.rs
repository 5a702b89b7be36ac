//! Programs and modules by file: build-ids are read once per file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::home::Home;
use super::module::ModuleId;
use super::observe::Program;
use super::outside::{BuildId, Outside};
use crate::event::{FileKey, Role, WalkedPath};
use crate::filesystem;

/// Files remembered; past that the whole memory starts again, which costs re-reading only.
const FILES_MAX: usize = 8192;

/// Remembers what a file is.
#[derive(Debug, Default)]
pub(super) struct Programs {
    executables: HashMap<(FileKey, String, Role, Home), Arc<Program>>,
    modules: HashMap<(FileKey, String), ModuleId>,
    /// The latest by inode number, device and generation.
    by_inode: HashMap<(u64, u32, u32), (FileKey, ModuleId)>,
}

/// A file and where it was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    /// A process that has it mapped.
    pub(super) tgid: u32,
    pub(super) path: &'a Path,
    pub(super) file: &'a FileKey,
    /// Another machine or program answers for it: it is not waited for.
    pub(super) far: bool,
}

// === impl Programs ===

impl Programs {
    pub(super) fn program(
        &mut self,
        outside: &dyn Outside,
        found: &Found<'_>,
        role: Role,
        home: &Home,
    ) -> Arc<Program> {
        let key = (*found.file, shown(found.path), role, home.clone());
        if let Some(known) = self.executables.get(&key) {
            return Arc::clone(known);
        }
        if self.executables.len() >= FILES_MAX {
            self.executables.clear();
        }
        let module = self.module(outside, found);
        let subject = home.subject(&module, found.file);
        let read = !module.is_unread();
        // A file that could not be read, or that somebody else answers for, is not opened for this.
        let uncovered = (read && !found.far)
            .then(|| outside.uncovered(found.tgid, found.path, found.file))
            .flatten();
        let root_unseen = *home == Home::Unseen;
        let file = *found.file;
        let program = Arc::new(Program { file, module, role, subject, uncovered, root_unseen });
        if read {
            self.executables.insert(key, Arc::clone(&program));
        }
        program
    }

    /// One that could not be read is asked for again next time.
    pub(super) fn module(&mut self, outside: &dyn Outside, found: &Found<'_>) -> ModuleId {
        let Found { tgid, path, file, far } = *found;
        let key = (*file, shown(path));
        if let Some(known) = self.modules.get(&key) {
            return known.clone();
        }
        if self.modules.len() >= FILES_MAX {
            self.modules.clear();
            self.by_inode.clear();
        }
        let inode = (file.ino, file.dev, file.generation);
        let build_id = if far {
            outside.build_id_later(tgid, path, file)
        } else {
            outside.build_id(tgid, path, file)
        };
        let build_id = match build_id {
            BuildId::Id(id) => Some(id),
            BuildId::None => None,
            BuildId::Unread => {
                let module = ModuleId::unread(key.1, file);
                self.by_inode.insert(inode, (*file, module.clone()));
                return module;
            }
        };
        let module = ModuleId::new(key.1.clone(), build_id, file);
        self.modules.insert(key, module.clone());
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

/// Files there may hang.
pub(super) fn is_far(fs_magic: Option<u32>) -> bool {
    fs_magic.is_some_and(|magic| filesystem::one_that_waits(magic.into()).is_some())
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
