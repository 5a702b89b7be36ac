//! The folder by its handle: who can have written there, what lies there, and files that are there whole
//! or not at all.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::{FILES_MAX, Kind, SpoolError};

pub(super) const TAKEN: &str = "taken";
pub(super) const ANSWER: &str = "answer";
pub(super) const REFUSED: &str = "refused";
pub(super) const WITHDRAWN: &str = "withdrawn";
const DRAFT: &str = "draft";
/// What is of use for a while only; `unfinished` is the draft of earlier versions.
const FLEETING: [&str; 4] = [ANSWER, WITHDRAWN, DRAFT, "unfinished"];
/// Bytes of an id.
const ID_MAX: usize = 64;

/// Names of a folder.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Ids of orders that nobody has taken, oldest first.
    pub(super) waiting: BTreeSet<String>,
    /// Ids of those that a sensor has taken.
    pub(super) taken: BTreeSet<String>,
    /// Ids of what was set aside.
    pub(super) refused: BTreeSet<String>,
    /// Whole names of what is of use for a while only.
    pub(super) fleeting: Vec<String>,
    /// Whole names that end like an order's, and that no command gives.
    pub(super) odd: Vec<Vec<u8>>,
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is not a file of the sensor's user alone")]
    Untrusted,
    #[error("is larger than {0} bytes")]
    Large(usize),
}

/// The folder of one kind of order.
#[derive(Debug)]
pub(super) struct Folder {
    dir: File,
    /// For messages.
    pub(super) path: PathBuf,
    pub(super) kind: &'static Kind,
    /// Whose the state directory is: the sensor's, as a rule.
    uid: u32,
    gid: u32,
}

// === impl Listed ===

impl Listed {
    pub(super) fn add(&mut self, name: &[u8], kind: &Kind) {
        let mut parts = name.rsplitn(2, |byte| *byte == b'.');
        let (Some(extension), Some(id)) = (parts.next(), parts.next()) else { return };
        let is = |known: &str| extension == known.as_bytes();
        let Some(id) = id_of(id) else {
            if is(kind.extension) || is(TAKEN) {
                self.odd.push(name.to_vec());
            }
            return;
        };
        if is(kind.extension) {
            self.waiting.insert(id.to_owned());
        } else if is(TAKEN) {
            self.taken.insert(id.to_owned());
        } else if is(REFUSED) {
            self.refused.insert(id.to_owned());
        } else if let Some(known) = FLEETING.into_iter().find(|known| is(known)) {
            self.fleeting.push(name_of(id, known));
        }
    }
}

/// An id as commands give them: short, and nothing that would be a path or change a terminal.
fn id_of(bytes: &[u8]) -> Option<&str> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits = (1..=ID_MAX).contains(&bytes.len()) && bytes.iter().all(plain);
    fits.then(|| std::str::from_utf8(bytes).ok()).flatten()
}

pub(super) fn name_of(id: &str, extension: &str) -> String {
    format!("{id}.{extension}")
}

// === impl Folder ===

impl Folder {
    /// Of a state directory; `None` where nobody has left anything yet.
    pub(super) fn open(state_dir: &Path, kind: &'static Kind) -> Result<Option<Self>, SpoolError> {
        let owner = match fs::metadata(state_dir) {
            Ok(owner) => owner,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SpoolError::io("read", state_dir)(error)),
        };
        let path = state_dir.join(kind.folder);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
            Ok(dir) => File::from(dir),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(SpoolError::io("open", &path)(error.into())),
        };
        let found = Self { dir, path, kind, uid: owner.uid(), gid: owner.gid() };
        let metadata = found.metadata()?;
        if found.is_ours(&metadata) && metadata.mode() & 0o022 == 0 {
            return Ok(Some(found));
        }
        Err(SpoolError::Untrusted { path: found.path })
    }

    /// The same for a command: made if it is not there, and the sensor's to write.
    pub(super) fn make(state_dir: &Path, kind: &'static Kind) -> Result<Self, SpoolError> {
        let path = state_dir.join(kind.folder);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(SpoolError::io("create", &path)(error));
            }
            _ => {}
        }
        let absent = || SpoolError::io("open", &path)(io::ErrorKind::NotFound.into());
        let found = Self::open(state_dir, kind)?.ok_or_else(absent)?;
        found.give(&found.dir).map_err(SpoolError::io("give to the sensor", &path))?;
        Ok(found)
    }

    /// What lies there.
    pub(super) fn list(&self) -> Result<Listed, SpoolError> {
        let failed = |error: Errno| SpoolError::io("read", &self.path)(error.into());
        let mut listed = Listed::default();
        // The two that are in every directory.
        let most = FILES_MAX + 2;
        for (count, entry) in Dir::read_from(&self.dir).map_err(failed)?.enumerate() {
            if count >= most {
                return Err(SpoolError::Crowded { path: self.path.clone() });
            }
            listed.add(entry.map_err(failed)?.file_name().to_bytes(), self.kind);
        }
        Ok(listed)
    }

    /// All of a regular file that only root and the sensor's user can have written.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, Unread> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, name, flags, Mode::empty());
        let file = File::from(file.map_err(io::Error::from)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() || !self.is_ours(&metadata) || metadata.mode() & 0o077 != 0 {
            return Err(Unread::Untrusted);
        }
        let most = self.kind.length_max;
        let mut bytes = Vec::new();
        file.take(u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1))
            .read_to_end(&mut bytes)?;
        if bytes.len() > most { Err(Unread::Large(most)) } else { Ok(bytes) }
    }

    /// Writes a file that is on the disk when this returns.
    pub(super) fn write(&self, id: &str, extension: &str, bytes: &[u8]) -> Result<(), SpoolError> {
        let (draft, name) = (name_of(id, DRAFT), name_of(id, extension));
        let written = self.draft(&draft, bytes).and_then(|()| {
            rustix::fs::renameat(&self.dir, &draft, &self.dir, &name)?;
            self.dir.sync_all()
        });
        if written.is_err() {
            // The first error is the one to tell.
            let _ = self.remove(&draft);
        }
        written.map_err(SpoolError::io("write", &self.path.join(name)))
    }

    fn draft(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // Left by a crash.
        let _ = self.remove(name);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(rustix::fs::openat(&self.dir, name, flags, mode)?);
        self.give(&file)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Renames a file; false where it is gone.
    pub(super) fn rename(&self, from: &[u8], to: &str) -> Result<bool, SpoolError> {
        match rustix::fs::renameat(&self.dir, from, &self.dir, to) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => {
                Err(SpoolError::io("rename a file to", &self.path.join(to))(error.into()))
            }
        }
    }

    /// Removes a file, or a directory that is empty.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let removed = rustix::fs::unlinkat(&self.dir, name, AtFlags::empty());
        if removed == Err(Errno::ISDIR) {
            return Ok(rustix::fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR)?);
        }
        Ok(removed?)
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        self.touch(name).is_ok()
    }

    /// How far from now a file was written, also where the clock was set back since.
    pub(super) fn age(&self, name: &str) -> io::Result<Duration> {
        let written = self.touch(name)?.metadata()?.modified()?;
        Ok(SystemTime::now().duration_since(written).unwrap_or_else(|ahead| ahead.duration()))
    }

    /// A handle that reads nothing and follows no link.
    fn touch(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.dir, name, flags, Mode::empty())?.into())
    }

    /// Gives what root has made to whoever has the state directory.
    fn give(&self, file: &File) -> io::Result<()> {
        let metadata = file.metadata()?;
        if !rustix::process::geteuid().is_root() || metadata.uid() == self.uid {
            return Ok(());
        }
        fchown(file, Some(self.uid), Some(self.gid))
    }

    fn metadata(&self) -> Result<Metadata, SpoolError> {
        self.dir.metadata().map_err(SpoolError::io("read", &self.path))
    }

    /// Root's, this process' user's, or of whoever has the state directory and all stores in it.
    fn is_ours(&self, metadata: &Metadata) -> bool {
        let owner = metadata.uid();
        owner == 0 || owner == rustix::process::geteuid().as_raw() || owner == self.uid
    }
}
