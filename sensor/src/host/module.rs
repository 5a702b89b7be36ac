//! What a mapped file is remembered by: its path and its build.

use serde::{Deserialize, Serialize};

use crate::event::FileKey;

/// Start of [`ModuleId::build`] of a file without a build-id, and of one that could not be read.
const INODE: &str = "inode:";
const UNREAD: &str = "unread:";

/// What the kernel appends to the path of a mapped file that has no name any more.
const DELETED: &str = " (deleted)";

/// Identity of a mapped file: what a baseline remembers a library by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModuleId {
    /// Path as the host sees it.
    pub path: String,
    /// GNU build-id, hex; where the file has none, `inode:`, and where it could not be read, `unread:`
    /// and numbers that tell this file from any other.
    pub build: String,
}

// === impl ModuleId ===

impl ModuleId {
    /// Last component of the path.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The build-id, where `build` is one.
    #[must_use]
    pub fn build_id(&self) -> Option<&str> {
        self.numbers().is_none().then_some(self.build.as_str())
    }

    /// Whether the file has a build-id, and which, is not known.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.build.starts_with(UNREAD)
    }

    /// Device and inode, where they stand for a build-id.
    fn numbers(&self) -> Option<&str> {
        let numbers = self.build.strip_prefix(INODE).or_else(|| self.build.strip_prefix(UNREAD))?;
        let end = numbers.match_indices(':').nth(2).map_or(numbers.len(), |(at, _)| at);
        numbers.get(..end)
    }

    /// The same file as far as can be told: where there is no build-id, path and inode decide, as
    /// not everyone who saw the file knows its times.
    #[must_use]
    pub fn same_file(&self, other: &Self) -> bool {
        self.path == other.path
            && (self.build == other.build
                || self.numbers().is_some_and(|own| other.numbers() == Some(own)))
    }

    /// The same file, or one of the same path where one of the two could not be read.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        let unread = self.is_unread() || other.is_unread();
        self.same_file(other) || (unread && self.path == other.path)
    }

    /// A file that has a name, not memory and not one that was deleted.
    #[must_use]
    pub fn is_mapped_file(&self) -> bool {
        self.path.starts_with('/') && !self.path.ends_with(DELETED)
    }

    /// Under the name it had before it was deleted.
    #[must_use]
    pub fn before_deletion(&self) -> Self {
        let path = self.path.strip_suffix(DELETED).unwrap_or(&self.path);
        Self { path: path.to_owned(), build: self.build.clone() }
    }

    /// A file that could not be read, by its numbers.
    #[must_use]
    pub fn unread(path: String, file: &FileKey) -> Self {
        let build = format!("{UNREAD}{}:{}:{}", inode_text(file), file.ctime_s, file.size);
        Self { path, build }
    }

    /// From a path, and a build-id if the file has one.
    #[must_use]
    pub fn new(path: String, build_id: Option<String>, file: &FileKey) -> Self {
        let build = build_id.unwrap_or_else(|| {
            format!("{INODE}{}:{}:{}", inode_text(file), file.ctime_s, file.size)
        });
        Self { path, build }
    }
}

/// `major:minor:inode`, as evidence shows it.
#[must_use]
pub fn inode_text(file: &FileKey) -> String {
    format!("{}:{}:{}", file.dev >> 20, file.dev & 0xf_ffff, file.ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_build_id_are_the_same_by_path_and_inode() {
        let full = FileKey { ino: 7, dev: (254 << 20) | 1, generation: 3, ctime_s: 9, size: 10 };
        let seen = |path: &str, file: &FileKey| ModuleId::new(path.to_owned(), None, file);
        let bare = FileKey { ino: 7, dev: full.dev, ..FileKey::default() };
        assert!(seen("/a", &full).same_file(&seen("/a", &bare)));
        assert!(!seen("/a", &full).same_file(&seen("/b", &full)));
        assert!(!seen("/a", &full).same_file(&seen("/a", &FileKey { ino: 71, ..full })));
        let built = |id: &str| ModuleId::new("/a".to_owned(), Some(id.to_owned()), &full);
        assert!(built("aa").same_file(&built("aa")) && !built("aa").same_file(&built("ab")));
        assert!(!built("aa").same_file(&seen("/a", &full)));
    }
}
