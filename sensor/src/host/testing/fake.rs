//! The imitated machine as `/proc` and the processes' maps would show it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{MODULE_SIZE, NOWHERE};
use crate::event::{FileKey, InodeKey, Stack};
use crate::host::outside::{BuildId, Locate, Outside, RootView, Stat, Unanswered, Unseen};
use crate::host::{Asked, Commands, FoundLibrary, Located, ModuleId};

/// What is shared with the fakes that the pipeline owns.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) processes: BTreeMap<u32, (Stat, PathBuf)>,
    pub(crate) cmdlines: BTreeMap<u32, Vec<String>>,
    pub(crate) cgroups: BTreeMap<u32, String>,
    pub(crate) libraries: BTreeMap<u32, Vec<PathBuf>>,
    /// Path → inode; also what builds the module's number.
    pub(crate) files: BTreeMap<PathBuf, u64>,
    pub(super) symbols: BTreeMap<u64, String>,
    pub(crate) environs: BTreeMap<u32, Vec<u8>>,
    /// Inodes whose build-id cannot be read, and those asked for without waiting.
    pub(crate) unread: Vec<u64>,
    pub(crate) not_waited_for: Vec<u64>,
    /// Addresses of code of programs that are gone, or that their processes have left by an exec.
    pub(crate) left: Vec<u64>,
    /// Processes that are gone before their addresses are asked about.
    pub(crate) gone: Vec<u32>,
    /// No question about a stack is answered in time.
    pub(crate) late: bool,
    pub(crate) roots: BTreeMap<u32, RootView>,
    pub(crate) root_keys: BTreeMap<u32, InodeKey>,
    /// Path as processes see it → whether only root decides about it.
    pub(crate) inside: BTreeMap<String, bool>,
    /// What sshd is configured to run, and how often that was read.
    pub(crate) commands: Option<Commands>,
    pub(crate) configs_read: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(pub(crate) Arc<Mutex<Shared>>);

impl Fake {
    pub(super) fn with<T>(&self, get: impl FnOnce(&mut Shared) -> T) -> T {
        get(&mut self.0.lock().unwrap())
    }
}

impl Shared {
    pub(crate) fn inode(&mut self, path: &Path) -> u64 {
        let next = self.files.len() as u64 + 1;
        *self.files.entry(path.to_owned()).or_insert(next)
    }

    pub(crate) fn file(&mut self, path: &Path) -> FileKey {
        // Containers of one image: below `/c1`, `/c2`, … lie the same files on devices of their own.
        let container = path.strip_prefix("/").ok().and_then(|path| {
            let first = path.components().next()?.as_os_str().to_str()?;
            Some((first.strip_prefix('c')?.parse::<u32>().ok()?, path.strip_prefix(first).ok()?))
        });
        let (dev, path) = match container {
            Some((number, below)) => (0x40 + number, Path::new("/image").join(below)),
            None => (0x800_0001, path.to_owned()),
        };
        FileKey { ino: self.inode(&path), dev, generation: 0, ctime_s: 1, size: 4096 }
    }
}

/// Build-id of the file with this inode.
pub(crate) fn build(inode: u64) -> String {
    format!("{inode:04x}{inode:036x}")
}

impl Outside for Fake {
    fn processes(&self) -> Vec<u32> {
        self.with(|shared| shared.processes.keys().copied().collect())
    }

    fn stat(&self, tgid: u32) -> Option<Stat> {
        self.with(|shared| shared.processes.get(&tgid).map(|(stat, _)| *stat))
    }

    fn exe(&self, tgid: u32) -> Option<(PathBuf, FileKey)> {
        self.with(|shared| {
            let path = shared.processes.get(&tgid)?.1.clone();
            let file = shared.file(&path);
            Some((path, file))
        })
    }

    fn cmdline(&self, tgid: u32) -> Vec<String> {
        self.with(|shared| shared.cmdlines.get(&tgid).cloned().unwrap_or_default())
    }

    fn cgroup(&self, tgid: u32) -> Option<String> {
        self.with(|shared| shared.cgroups.get(&tgid).cloned())
    }

    fn libraries(&self, tgid: u32) -> Vec<(PathBuf, FileKey)> {
        self.with(|shared| {
            let paths = shared.libraries.get(&tgid).cloned().unwrap_or_default();
            paths.into_iter().map(|path| (path.clone(), shared.file(&path))).collect()
        })
    }

    fn file(&self, path: &Path) -> Option<FileKey> {
        self.with(|shared| shared.files.contains_key(path).then(|| shared.file(path)))
    }

    fn is_roots_own(&self, _holder: u32, _tgid: u32, path: &Path, file: &FileKey) -> bool {
        self.with(|shared| shared.files.get(path) == Some(&file.ino))
    }

    fn build_id(&self, _tgid: u32, _path: &Path, file: &FileKey) -> BuildId {
        let unread = self.with(|shared| shared.unread.contains(&file.ino));
        if unread { BuildId::Unread } else { BuildId::Id(build(file.ino)) }
    }

    fn build_id_later(&self, tgid: u32, path: &Path, file: &FileKey) -> BuildId {
        self.with(|shared| shared.not_waited_for.push(file.ino));
        self.build_id(tgid, path, file)
    }

    fn root(&self, tgid: u32) -> Option<RootView> {
        self.with(|shared| shared.roots.get(&tgid).cloned())
    }

    fn environ(&self, tgid: u32) -> Option<Vec<u8>> {
        self.with(|shared| shared.environs.get(&tgid).cloned())
    }

    fn look_inside(
        &self,
        _tgid: u32,
        _on_host: bool,
        path: &str,
    ) -> Result<Option<FoundLibrary>, Unanswered> {
        let library =
            |protected| FoundLibrary { path: path.to_owned(), inode: 1, set_uid: false, protected };
        Ok(self.with(|shared| shared.inside.get(path).copied().map(library)))
    }

    fn sshd_commands(&self, _tgid: u32, _arguments: &[String]) -> Result<Commands, Unanswered> {
        self.with(|shared| {
            shared.configs_read += 1;
            shared.commands.clone().ok_or(Unanswered)
        })
    }
}

impl Locate for Fake {
    fn locate(&mut self, tgid: u32, addresses: &[u64]) -> Vec<Option<Located>> {
        self.with(|shared| {
            let is_gone = shared.gone.contains(&tgid);
            addresses
                .iter()
                .map(|address| {
                    if is_gone {
                        return None;
                    }
                    let inode = address / MODULE_SIZE;
                    let path = shared.files.iter().find(|(_, known)| **known == inode)?.0;
                    let path = path.to_string_lossy().into_owned();
                    let file = FileKey { ino: inode, ..FileKey::default() };
                    let module = if shared.unread.contains(&inode) {
                        ModuleId::unread(path, &file)
                    } else {
                        ModuleId { path, build: build(inode) }
                    };
                    Some(Located {
                        module,
                        offset: address % MODULE_SIZE,
                        symbol: shared.symbols.get(address).map(|name| (name.clone(), 0)),
                    })
                })
                .collect()
        })
    }

    fn asker(&mut self, tgid: u32, stack: &Stack, code: &[u64]) -> Result<Asked, Unseen> {
        let elsewhere = |shared: &mut Shared| code.iter().any(|addr| shared.left.contains(addr));
        if self.with(elsewhere) {
            return Err(Unseen::Gone);
        }
        if self.with(|shared| shared.late) {
            return Err(Unseen::Unread);
        }
        let word = stack.words.iter().copied().find(|word| *word != 0).ok_or(Unseen::Unread)?;
        let memory = ModuleId { path: NOWHERE.to_owned(), build: "inode:none".to_owned() };
        let place = match word {
            u64::MAX => Located { module: memory, offset: word, symbol: None },
            word => self.locate(tgid, &[word]).pop().flatten().ok_or(Unseen::Unread)?,
        };
        Ok(Asked { place, unwound: true, through_libc: false })
    }

    fn callers(&mut self, tgid: u32, stack: &Stack) -> Vec<Located> {
        let words: Vec<u64> = stack.words.iter().copied().filter(|word| *word != 0).collect();
        self.locate(tgid, &words).into_iter().map_while(|found| found).collect()
    }
}
