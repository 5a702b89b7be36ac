//! The logins that a sensor has written: JSON lines in the state directory, and one rotated file.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use super::Login;

/// Name of the file in the state directory; the rotated one has `.1` at its end.
pub const FILE: &str = "logins.jsonl";
/// Longer than any login we write.
const LINE_MAX: u64 = 64 * 1024;
/// Bytes of one file that are read: more than the sensor lets it grow to.
const READ_MAX: u64 = 1 << 30;

/// The latest `most` logins of a state directory, the newest last, and how many lines are none.
///
/// # Errors
/// A file is there and cannot be read; `NotFound` where there is none at all.
pub fn read(state_dir: &Path, most: usize) -> io::Result<(Vec<Login>, u64)> {
    let mut latest = VecDeque::new();
    let mut unreadable = 0;
    let rotated = read_file(&state_dir.join(format!("{FILE}.1")), most, &mut latest);
    let current = read_file(&state_dir.join(FILE), most, &mut latest);
    let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match (rotated, current) {
        (Err(first), Err(second)) if missing(&first) && missing(&second) => return Err(second),
        (first, second) => {
            for read in [first, second] {
                match read {
                    Ok(lines) => unreadable += lines,
                    Err(error) if missing(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok((latest.into(), unreadable))
}

/// Adds to `latest`; gives the number of lines that are no logins.
fn read_file(path: &Path, most: usize, latest: &mut VecDeque<Login>) -> io::Result<u64> {
    let mut reader = BufReader::new(open(path)?.take(READ_MAX));
    let (mut line, mut unreadable) = (Vec::new(), 0);
    loop {
        line.clear();
        if reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(unreadable);
        }
        match serde_json::from_slice(&line) {
            Ok(login) => {
                if latest.len() >= most {
                    latest.pop_front();
                }
                if most > 0 {
                    latest.push_back(login);
                }
            }
            // Also the part of a line that a crash has left.
            Err(_) => unreadable += 1,
        }
    }
}

/// Never waits for the other end of a FIFO, nor follows a link.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        let text = format!("{} is not a regular file", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(file)
}
