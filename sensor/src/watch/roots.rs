//! Which roots there are: every pair of a mount namespace and a root directory that a process has.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, open, statx};
use rustix::io::Errno;
use std::os::fd::AsFd;

use super::walk::{key, look};

/// A root across processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RootKey {
    /// Inode of the mount namespace.
    pub(super) namespace: u64,
    /// Device and inode of the root directory.
    pub(super) directory: (u64, u64),
}

// === impl RootKey ===

impl RootKey {
    /// The root of a process; `None` once it is gone.
    pub(super) fn of(tgid: u32) -> Option<Self> {
        let namespace = namespace(tgid)?;
        let flags = AtFlags::STATX_DONT_SYNC;
        let path = format!("/proc/{tgid}/root");
        let numbers = statx(CWD, path, flags, StatxFlags::INO).ok()?;
        Some(Self { namespace, directory: key(&numbers) })
    }

    /// Opens it through a process that has it. The handle keeps a mount busy: not for long.
    pub(super) fn open(self, tgid: u32) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(format!("/proc/{tgid}/root"), flags, Mode::empty())?;
        // The process may have another root by now, or its id another holder.
        let same =
            namespace(tgid) == Some(self.namespace) && key(&look(root.as_fd())?) == self.directory;
        if same { Ok(root) } else { Err(Errno::SRCH) }
    }
}

/// Every root with the oldest process (the lowest id) that has it.
pub(super) fn scan() -> BTreeMap<RootKey, u32> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir("/proc") else { return found };
    let processes = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for tgid in processes {
        if let Some(root) = RootKey::of(tgid) {
            let holder = found.entry(root).or_insert(tgid);
            *holder = tgid.min(*holder);
        }
    }
    found
}

/// Path of a root as this process sees it.
pub(super) fn path(tgid: u32) -> String {
    fs::read_link(format!("/proc/{tgid}/root"))
        .map_or_else(|_| "/".to_owned(), |path| path.to_string_lossy().into_owned())
}

/// `mnt:[4026531841]`.
fn namespace(tgid: u32) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{tgid}/ns/mnt")).ok()?;
    link.to_str()?.strip_prefix("mnt:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_root_that_can_be_opened() {
        let own = std::process::id();
        let root = RootKey::of(own).unwrap();
        assert!(root.open(own).is_ok());
        assert_eq!(path(own), "/");
        let other = RootKey { namespace: root.namespace + 1, ..root };
        assert_eq!(other.open(own).unwrap_err(), Errno::SRCH);
        assert!(scan().contains_key(&root));
        assert_eq!(RootKey::of(u32::MAX), None);
    }
}
