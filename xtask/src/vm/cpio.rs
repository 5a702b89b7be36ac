//! The "newc" cpio archive that the kernel unpacks as its first root file system.
//!
//! Format: Documentation/driver-api/early-userspace/buffer-format.rst at v6.12.

use std::io::{self, Write};

/// Directory, regular file, symbolic link and character device in `c_mode`, inode(7).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

const TRAILER: &str = "TRAILER!!!";

/// Writes entries in the order given; a folder must come before what is in it.
pub(super) struct Cpio<W> {
    out: W,
    /// Bytes written, for padding.
    written: usize,
    inode: u32,
}

struct Entry<'a> {
    /// Relative to the root, without a leading slash.
    name: &'a str,
    mode: u32,
    /// Major and minor number of a device.
    device: (u32, u32),
    data: &'a [u8],
}

impl<W: Write> Cpio<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, written: 0, inode: 0 }
    }

    pub(super) fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(&Entry { name, mode: DIRECTORY | 0o755, device: (0, 0), data: &[] })
    }

    pub(super) fn executable(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        self.entry(&Entry { name, mode: REGULAR | 0o755, device: (0, 0), data })
    }

    pub(super) fn symlink(&mut self, name: &str, to: &str) -> io::Result<()> {
        self.entry(&Entry { name, mode: SYMLINK | 0o777, device: (0, 0), data: to.as_bytes() })
    }

    pub(super) fn device(&mut self, name: &str, major: u32, minor: u32) -> io::Result<()> {
        self.entry(&Entry { name, mode: CHARACTER | 0o600, device: (major, minor), data: &[] })
    }

    /// Ends the archive and returns the writer.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry(&Entry { name: TRAILER, mode: 0, device: (0, 0), data: &[] })?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        self.inode += 1;
        let too_large = |_| io::Error::new(io::ErrorKind::FileTooLarge, entry.name.to_owned());
        let size = u32::try_from(entry.data.len()).map_err(too_large)?;
        let name_size = u32::try_from(entry.name.len() + 1).map_err(too_large)?;
        let (major, minor) = entry.device;
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor,
        // namesize, check: the time is fixed, so that the same files give the same archive.
        let fields = [self.inode, entry.mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.put(b"070701")?;
        for field in fields {
            self.put(format!("{field:08X}").as_bytes())?;
        }
        self.put(entry.name.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        self.put(entry.data)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    /// Names and data are padded so that the next part starts at a multiple of four.
    fn pad(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(4) - self.written;
        self.put(&[0; 3][..missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_starts_at_a_multiple_of_four() {
        let mut cpio = Cpio::new(Vec::new());
        cpio.directory("dev").unwrap();
        cpio.executable("init", b"odd length").unwrap();
        cpio.symlink("bin", "usr/bin").unwrap();
        let bytes = cpio.finish().unwrap();
        let starts: Vec<_> =
            (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"070701")).collect();
        assert_eq!(starts.len(), 4);
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
        assert!(bytes.len().is_multiple_of(4));
    }

    #[test]
    fn a_header_carries_mode_sizes_and_device_numbers() {
        let mut cpio = Cpio::new(Vec::new());
        cpio.device("dev/console", 5, 1).unwrap();
        let bytes = cpio.finish().unwrap();
        let header = std::str::from_utf8(&bytes[..110]).unwrap();
        assert_eq!(&header[14..22], "00002180", "mode");
        assert_eq!(&header[54..62], "00000000", "file size");
        assert_eq!(&header[78..94], "0000000500000001", "device");
        assert_eq!(&header[94..102], "0000000C", "name size with its NUL");
        assert_eq!(&bytes[110..122], b"dev/console\0");
    }
}
