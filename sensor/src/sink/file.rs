//! JSON lines in a file that is rotated by size: `incidents.jsonl`, then `.1` (newest) to `.keep`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::Sink;

/// Appends lines to a file; each is on the disk before the next is taken.
#[derive(Debug)]
pub struct FileSink {
    name: &'static str,
    synced: bool,
    path: PathBuf,
    max_bytes: u64,
    keep: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Bytes of whole lines.
    len: u64,
    /// Device and inode: somebody else may rename the file away.
    identity: (u64, u64),
}

// === impl FileSink ===

impl FileSink {
    /// Opens nothing yet, so that a directory that is missing now is no reason not to start.
    #[must_use]
    pub fn new(path: PathBuf, max_bytes: u64, keep: u32) -> Self {
        Self { name: "file", synced: true, path, max_bytes, keep, open: None }
    }

    /// The same under another name, for lines that need not survive the machine's end: they are
    /// the kernel's when they are written, and on the disk when it says so.
    #[must_use]
    pub fn unsynced(name: &'static str, path: PathBuf, max_bytes: u64, keep: u32) -> Self {
        Self { name, synced: false, ..Self::new(path, max_bytes, keep) }
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) if open.is_still_at(&self.path) => open,
            _ => Open::at(&self.path)?,
        };
        let bytes = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if open.len > 0 && open.len.saturating_add(bytes) > self.max_bytes {
            drop(open);
            self.rotate()?;
            open = Open::at(&self.path)?;
        }
        open.append(line, self.synced)?;
        self.open = Some(open);
        Ok(())
    }

    /// Renames from the oldest to the newest: wherever it is cut off, no file is lost but the
    /// oldest, and the next attempt goes on.
    fn rotate(&self) -> io::Result<()> {
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        }
        for number in (1..=self.keep).rev() {
            let from = if number == 1 { self.path.clone() } else { self.numbered(number - 1) };
            match fs::rename(&from, self.numbered(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        sync_directory(&self.path)
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

impl Sink for FileSink {
    fn name(&self) -> &'static str {
        self.name
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.append(line).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        })
    }
}

// === impl Open ===

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        // NONBLOCK: opening a FIFO would wait for its reader. NOFOLLOW: whoever may write the
        // directory must not choose what root appends to.
        let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
        let file = OpenOptions::new()
            .append(true)
            .read(true)
            .create(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut open =
            Self { file, len: metadata.len(), identity: (metadata.dev(), metadata.ino()) };
        if open.len == 0 {
            sync_directory(path)?;
        } else {
            open.end_torn_line()?;
        }
        Ok(open)
    }

    /// A crash may have left part of a line; a reader must not glue the next one to it.
    fn end_torn_line(&mut self) -> io::Result<()> {
        let mut last = [0];
        self.file.read_exact_at(&mut last, self.len - 1)?;
        if last == *b"\n" { Ok(()) } else { self.append(b"\n", true) }
    }

    fn is_still_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == self.identity)
    }

    fn append(&mut self, line: &[u8], synced: bool) -> io::Result<()> {
        let sync = |()| if synced { self.file.sync_data() } else { Ok(()) };
        let written = (&self.file).write_all(line).and_then(sync);
        if written.is_err() {
            // A full disk takes half a line; taking it back keeps the file readable. Where even
            // that fails, opening the file again ends the line.
            let _ = self.file.set_len(self.len);
            return written;
        }
        self.len = self.len.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        Ok(())
    }
}

/// Makes a new name or a renaming survive a crash.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
