//! Who a process is, for a person: read from /proc, bounded, nothing trusted.

use std::fs::{self, File};
use std::io::{self, Read};

use serde::Serialize;

const CMDLINE_MAX: u64 = 4096;
const STATUS_MAX: u64 = 16 * 1024;

/// A process as its findings name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Who {
    pub(super) pid: u32,
    /// Empty where it cannot be told.
    pub(super) exe: String,
    /// Cut at 4 KiB.
    pub(super) cmdline: Vec<String>,
    /// Real user id.
    pub(super) uid: Option<u32>,
}

impl Who {
    pub(super) fn read(pid: u32) -> Self {
        let exe = fs::read_link(format!("/proc/{pid}/exe"));
        Self {
            pid,
            exe: exe.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
            cmdline: bounded(&format!("/proc/{pid}/cmdline"), CMDLINE_MAX)
                .map(|bytes| arguments(&bytes))
                .unwrap_or_default(),
            uid: bounded(&format!("/proc/{pid}/status"), STATUS_MAX)
                .ok()
                .and_then(|bytes| real_uid(&bytes)),
        }
    }
}

fn bounded(path: &str, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn arguments(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|byte| *byte == 0).map(|one| String::from_utf8_lossy(one).into_owned()).collect()
}

fn real_uid(status: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(status);
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_named() {
        let who = Who::read(std::process::id());
        assert_eq!(who.exe, std::env::current_exe().unwrap().to_str().unwrap());
        assert_eq!(who.uid, Some(rustix::process::getuid().as_raw()));
        assert!(!who.cmdline.is_empty());
    }

    #[test]
    fn arguments_end_with_their_zero() {
        assert_eq!(arguments(b"a\0\0b\0"), ["a", "", "b"]);
        assert_eq!(arguments(b""), Vec::<String>::new());
    }
}
