//! What the host station asks of the world outside the event stream, as traits: so that a replay
//! and the tests answer from memory.

use std::path::{Path, PathBuf};

use super::commands::Commands;
use super::coverage::Uncovered;
use super::observe::Located;
use super::opened::Asked;
use super::variable::FoundLibrary;
use crate::event::{FileKey, InodeKey, Stack};

/// A process as `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Parent.
    pub parent_tgid: u32,
    /// Start since boot in units of 10 ms (field 22; the kernel's `USER_HZ` is 100).
    pub start_ticks: u64,
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
}

/// Nobody could look: the answer did not come in time, or the process was gone with its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered;

/// Why nobody can say who asked for a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// The process has ended, or executes another program by now: its memory is not the one that the
    /// stack is of.
    Gone,
    /// The stack leads to nobody, or the answer did not come in time.
    Unread,
}

/// What a file says of its build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildId {
    /// Its GNU build-id, hex.
    Id(String),
    /// It has none.
    None,
    /// It could not be read, or has not been yet.
    Unread,
}

/// The root directory of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootView {
    /// That of this host's init.
    Host,
    /// A directory of its parent's view: paths of its files show it.
    Chroot,
    /// A mount tree of its own.
    Own {
        /// What containers of one image have in common: a digest of the layers, hex; `None` where it
        /// does not consist of layers.
        image: Option<String>,
    },
}

/// What `/proc` and the files of this host tell. Every answer may be missing: processes end.
pub trait Outside {
    /// Every process (tgid), in no particular order.
    fn processes(&self) -> Vec<u32>;
    /// Parent, start and users.
    fn stat(&self, tgid: u32) -> Option<Stat>;
    /// Path and identity of the executable.
    fn exe(&self, tgid: u32) -> Option<(PathBuf, FileKey)>;
    /// Arguments, cut at a bound, control characters replaced.
    fn cmdline(&self, tgid: u32) -> Vec<String>;
    /// The text of `/proc/PID/cgroup`.
    fn cgroup(&self, tgid: u32) -> Option<String>;
    /// Files mapped executable.
    fn libraries(&self, tgid: u32) -> Vec<(PathBuf, FileKey)>;
    /// Identity of the file a path leads to now, if it is a regular one.
    fn file(&self, path: &Path) -> Option<FileKey>;
    /// The file at `path` below the root of the process `holder` is `file`, which belongs to root and
    /// to nobody else to write; or it has just been replaced, and `tgid` still runs it.
    fn is_roots_own(&self, holder: u32, tgid: u32, path: &Path, file: &FileKey) -> bool;
    /// Address in its file at which the program in this file begins, looked for as the build-id is.
    fn entry(&self, _tgid: u32, _path: &Path, _inode: InodeKey) -> Option<u64> {
        None
    }
    /// Build-id of the file with this identity, looked for at `path` and in the process.
    fn build_id(&self, tgid: u32, path: &Path, file: &FileKey) -> BuildId;
    /// The same without waiting: [`BuildId::Unread`] at first, and the answer when asked again.
    fn build_id_later(&self, _tgid: u32, _path: &Path, _file: &FileKey) -> BuildId {
        BuildId::Unread
    }
    /// What of the linking of the executable with this identity is not seen, looked for as the
    /// build-id is.
    fn uncovered(&self, _tgid: u32, _path: &Path, _file: &FileKey) -> Option<Uncovered> {
        None
    }
    /// The environment as it is now, at most 6 MB (more than the kernel takes at an exec).
    fn environ(&self, _tgid: u32) -> Option<Vec<u8>> {
        None
    }
    /// The process that `writer` writes to: `asked` is a process or thread id of its own PID
    /// namespace, or, `by_mem`, a descriptor of `/proc/PID/mem`.
    fn write_target(&self, _writer: u32, _by_mem: bool, _asked: u32) -> Option<u32> {
        None
    }
    /// The regular file at an absolute path below the process's root, or, `on_host` where the
    /// process is gone, below this host's.
    fn look_inside(
        &self,
        _tgid: u32,
        _on_host: bool,
        _path: &str,
    ) -> Result<Option<FoundLibrary>, Unanswered> {
        Err(Unanswered)
    }
    /// What the server whose monitor has these arguments is configured to run before a verdict.
    fn sshd_commands(&self, _tgid: u32, _arguments: &[String]) -> Result<Commands, Unanswered> {
        Err(Unanswered)
    }
    /// Devices (kernel form) of the file systems that this host itself runs from.
    fn host_devices(&self) -> Vec<u32> {
        Vec::new()
    }
    /// The root directory; `None` once the process is gone.
    fn root(&self, _tgid: u32) -> Option<RootView> {
        None
    }
    /// Questions that were given up because no answer came.
    fn given_up(&self) -> u64 {
        0
    }
}

/// Finds addresses in a process's maps.
pub trait Locate {
    /// One answer per address, in the same order; `None` where nothing is mapped there, or the
    /// process is gone.
    fn locate(&mut self, tgid: u32, addresses: &[u64]) -> Vec<Option<Located>>;
    /// The first code outside the loader and libc that this stack leads to. Nothing of the stack may
    /// be kept. `code` are addresses at which the program had its code when it was linked, by which it
    /// is known again.
    fn asker(&mut self, _tgid: u32, _stack: &Stack, _code: &[u64]) -> Result<Asked, Unseen> {
        Err(Unseen::Unread)
    }
    /// Where the callers of the function that the thread is in go on, the nearest first, as far as
    /// frames can be unwound. Nothing of the stack may be kept.
    fn callers(&mut self, _tgid: u32, _stack: &Stack) -> Vec<Located> {
        Vec::new()
    }
}

/// Finds nothing: for replays, where the processes are long gone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;

// === impl Nowhere ===

impl Locate for Nowhere {
    fn locate(&mut self, _tgid: u32, addresses: &[u64]) -> Vec<Option<Located>> {
        vec![None; addresses.len()]
    }
}

impl Outside for Nowhere {
    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }

    fn stat(&self, _tgid: u32) -> Option<Stat> {
        None
    }

    fn exe(&self, _tgid: u32) -> Option<(PathBuf, FileKey)> {
        None
    }

    fn cmdline(&self, _tgid: u32) -> Vec<String> {
        Vec::new()
    }

    fn cgroup(&self, _tgid: u32) -> Option<String> {
        None
    }

    fn libraries(&self, _tgid: u32) -> Vec<(PathBuf, FileKey)> {
        Vec::new()
    }

    fn file(&self, _path: &Path) -> Option<FileKey> {
        None
    }

    fn is_roots_own(&self, _holder: u32, _tgid: u32, _path: &Path, _file: &FileKey) -> bool {
        false
    }

    fn build_id(&self, _tgid: u32, _path: &Path, _file: &FileKey) -> BuildId {
        BuildId::Unread
    }
}
