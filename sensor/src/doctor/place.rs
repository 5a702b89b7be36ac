//! The configuration and the state directory.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat, statvfs};
use rustix::io::Errno;

use super::Check;
use crate::config::{Config, LoadError};

/// Less than this is soon full of baselines and incidents.
const FREE_MIN: u64 = 64 * 1024 * 1024;

pub(super) fn configuration(path: &Path, config: &Result<Config, LoadError>) -> Check {
    let shown = path.display();
    match config {
        Ok(_) if path.exists() => Check::ok("configuration", shown.to_string()),
        Ok(_) => Check::ok("configuration", format!("defaults; {shown} does not exist")),
        Err(error) => Check::missing("configuration", error.to_string())
            .remedy("correct the file: the sensor does not start with it"),
    }
}

pub(super) fn state_dir(path: &Path) -> Check {
    let shown = path.display();
    match access(path) {
        Ok(()) => match free_bytes(path) {
            Some(free) if free < FREE_MIN => Check::degraded(
                "state_dir",
                format!("{shown}: {} KiB are free", free / 1024),
            )
            .remedy("make room, or set `state_dir` elsewhere")
            .unseen("nothing yet; with a full disk, what is learnt and found is lost at a restart"),
            _ => Check::ok("state_dir", shown.to_string()),
        },
        Err(Errno::NOENT) => match path.parent().map(access) {
            Some(Ok(())) => Check::ok("state_dir", format!("{shown} will be created")),
            _ => Check::degraded("state_dir", format!("{shown} does not exist"))
                .remedy("create it, or set `state_dir`; the systemd unit creates its own"),
        },
        Err(Errno::ACCESS) => Check::unknown("state_dir", format!("{shown}: not for this user"))
            .remedy("run doctor as the user the sensor runs as"),
        Err(errno) => Check::missing("state_dir", format!("{shown}: {errno}"))
            .remedy("make it writable, or set `state_dir`")
            .unseen("baselines and incidents are not kept"),
    }
}

fn access(path: &Path) -> Result<(), Errno> {
    if !path.metadata().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?.is_dir()
    {
        return Err(Errno::NOTDIR);
    }
    accessat(CWD, path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
}

fn free_bytes(path: &Path) -> Option<u64> {
    statvfs(path).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}
