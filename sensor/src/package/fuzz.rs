//! The databases of package managers for the fuzz target `cache`: bytes put where the manager has
//! its files, and read as those of a container.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{Packages, Root, apk, dpkg, rpm};

/// The file that is asked about.
const ASKED: &str = "/usr/bin/x";

/// 1: apk's `installed`. 2: dpkg's `status`, `x.list` and `x.md5sums`, apart by NUL. 3: rpm's
/// `rpmdb.sqlite`. 4: the same, the write-ahead log behind the number of bytes that a first `u16`
/// gives. 6: `dpkg.log`, as it is and compressed. 7: apk's log. Others: one rpm header. Tells whether the owner of a file was found, or how many files
/// the header names, or changes the log tells of.
pub(crate) fn database(format: u8, bytes: &[u8]) -> usize {
    let owned = match format {
        1 => owner("apk", &[("lib/apk/db/installed", bytes)]),
        2 => {
            let mut parts = bytes.splitn(3, |byte| *byte == 0);
            let mut part = || parts.next().unwrap_or_default();
            let files = [
                ("var/lib/dpkg/status", part()),
                ("var/lib/dpkg/info/x.list", part()),
                ("var/lib/dpkg/info/x.md5sums", part()),
            ];
            owner("dpkg", &files)
        }
        3 => owner("rpm", &[("var/lib/rpm/rpmdb.sqlite", bytes)]),
        4 => {
            let Some((size, rest)) = bytes.split_first_chunk::<2>() else { return 0 };
            let size = usize::from(u16::from_le_bytes(*size)).min(rest.len());
            let (database, log) = rest.split_at(size);
            let files =
                [("var/lib/rpm/rpmdb.sqlite", database), ("var/lib/rpm/rpmdb.sqlite-wal", log)];
            owner("rpm-wal", &files)
        }
        6 => return dpkg::read_log(bytes),
        7 => return apk::read_log(bytes),
        _ => return rpm::read_header(bytes),
    };
    owned.map_or(0, usize::from)
}

/// Whether the databases below a root of that name own the file.
fn owner(name: &str, files: &[(&str, &[u8])]) -> io::Result<bool> {
    let root = folder().join(name);
    for (path, bytes) in files {
        let path = root.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)?;
    }
    let root = Root::from_fd(OwnedFd::from(File::open(&root)?))?;
    Ok(Packages::default().owner(&root, Path::new(ASKED)).is_ok_and(|owned| owned.is_some()))
}

/// One for each thread of each process: nobody else writes there meanwhile.
fn folder() -> PathBuf {
    let thread = std::thread::current().id();
    std::env::temp_dir().join(format!("halfsecond-fuzz-{}-{thread:?}", std::process::id()))
}
