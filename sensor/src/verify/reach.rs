//! Whether a mapped file may be touched: one on a file system that asks a server or a program may
//! never answer, and whoever looks at it would hang.
//!
//! The kernel's list of mounts tells, which asks nobody. A device that no list has is refused: a
//! process may have unmounted a file system that its own program answers for.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{MemfdFlags, major, memfd_create, minor};

use crate::inventory::mounts::{Device, Mounts, Reach};

/// A list of mounts is cut here.
const MOUNTINFO_MAX: u64 = 16 << 20;

/// The mounts that matter for one process, each list read when it is needed.
#[derive(Debug, Default)]
pub(crate) struct Reaches {
    own: OnceCell<Mounts>,
    process: OnceCell<Mounts>,
    parent: OnceCell<Mounts>,
}

impl Reaches {
    /// An error where files of the device are not to be opened. On a disk they always are.
    pub(crate) fn check(&self, pid: u32, device: Device) -> io::Result<()> {
        if device.0 != 0 {
            return Ok(());
        }
        let found = match self.own().reach(device) {
            Reach::Unknown => self.elsewhere(pid, device),
            known => known,
        };
        let reason = match found {
            Reach::Local => return Ok(()),
            Reach::Unknown if memory() == Some(device) => return Ok(()),
            Reach::Remote(kind) => format!("files on {kind} are not read, they may never answer"),
            Reach::Unknown => "it is on a mount that nobody can see any more".to_owned(),
        };
        Err(io::Error::other(reason))
    }

    fn own(&self) -> &Mounts {
        self.own.get_or_init(|| {
            let text = read("self");
            Mounts::parse(&text, Mounts::parse(&text, None).root())
        })
    }

    /// In a chroot a process sees few of its mounts; its parent may see more.
    fn elsewhere(&self, pid: u32, device: Device) -> Reach {
        let parse = |pid: u32| Mounts::parse(&read(&pid.to_string()), self.own().root());
        let process = self.process.get_or_init(|| parse(pid));
        match process.reach(device) {
            Reach::Unknown => {
                let parse = || parent(pid).map(parse).unwrap_or_default();
                self.parent.get_or_init(parse).reach(device)
            }
            known => known,
        }
    }
}

fn read(pid: &str) -> Vec<u8> {
    let mut text = Vec::new();
    if let Ok(file) = File::open(format!("/proc/{pid}/mountinfo")) {
        // What could be read counts; a device that is missing in it is refused.
        let _ = file.take(MOUNTINFO_MAX).read_to_end(&mut text);
    }
    text
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().filter(|parent| *parent != 0)
}

/// Device of memory files, which is mounted nowhere.
fn memory() -> Option<Device> {
    let file = File::from(memfd_create(c"reach", MemfdFlags::CLOEXEC).ok()?);
    let dev = file.metadata().ok()?.dev();
    Some((major(dev), minor(dev)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_and_memory_files_are_reached_and_unknown_devices_are_not() {
        let reaches = Reaches::default();
        let pid = std::process::id();
        assert!(reaches.check(pid, (254, 0)).is_ok());
        assert!(reaches.check(pid, memory().unwrap()).is_ok());
        let error = reaches.check(pid, (0, 0xf_fff0)).unwrap_err();
        assert!(error.to_string().contains("nobody can see"), "{error}");
    }

    #[test]
    fn what_is_mounted_here_and_local_is_reached() {
        let proc = fs::metadata("/proc/self/stat").unwrap().dev();
        let device = (major(proc), minor(proc));
        assert!(Reaches::default().check(std::process::id(), device).is_ok());
    }
}
