//! Who else may decide what lies in a directory.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{View, Why};

/// Directories looked at above one.
const DEPTH_MAX: usize = 40;
const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// Owner and permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Mode, with or without type.
    pub mode: u32,
}

/// What a path leads to, where a directory is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directory {
    /// A directory.
    Is(Inode),
    /// Nothing, or no directory.
    Absent,
    /// It cannot be told without waiting, or not at all.
    Unknown,
}

/// Somebody who is neither root nor who owns or runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Writer {
    /// Every user.
    Everyone,
    /// This one.
    User(u32),
    /// The members of this group.
    Group(u32),
}

// === impl Writer ===

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("every user"),
            Self::User(uid) => write!(f, "user {uid}"),
            Self::Group(gid) => write!(f, "group {gid}"),
        }
    }
}

/// What is wrong with searching `directory`, if anybody but `own` may put a file there.
pub(super) fn judge(directory: &Path, own: &[u32], view: &dyn View) -> Option<Why> {
    let directory = plain(directory);
    // From the top: who may replace a directory decides about all below.
    let line: Vec<&Path> = directory.ancestors().take(DEPTH_MAX).collect();
    let mut above: Option<Inode> = None;
    for (at, path) in line.iter().rev().enumerate() {
        let inode = match view.directory(path) {
            Directory::Is(inode) => inode,
            Directory::Unknown => return None,
            Directory::Absent => {
                // Whoever may write above makes it; the sticky bit does not hinder that.
                return above.and_then(|above| writer(&above, own)).map(Why::Missing);
            }
        };
        if !own.contains(&inode.uid) {
            return Some(Why::Writable(Writer::User(inode.uid)));
        }
        let last = at + 1 == line.len();
        // With the sticky bit nobody moves what is not his own.
        if (last || inode.mode & STICKY == 0)
            && let Some(writer) = writer(&inode, own)
        {
            return Some(Why::Writable(writer));
        }
        above = Some(inode);
    }
    None
}

/// Who may make files in it.
fn writer(inode: &Inode, own: &[u32]) -> Option<Writer> {
    if !own.contains(&inode.uid) {
        Some(Writer::User(inode.uid))
    } else if inode.mode & OTHERS_WRITE != 0 {
        Some(Writer::Everyone)
    } else if inode.mode & GROUP_WRITES != 0 && inode.gid != 0 && inode.gid != inode.uid {
        // A user's group of his own has his number.
        Some(Writer::Group(inode.gid))
    } else {
        None
    }
}

/// Without `.` and `..`, as if there were no links: `$ORIGIN/../lib` begins at a path without any.
pub(super) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    plain
}
