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

/// What was written.
#[derive(Debug, Default)]
pub struct Past {
    /// The latest that were wanted, in the order in which they ended.
    pub logins: VecDeque<Login>,
    /// There were more that were wanted.
    pub cut: bool,
    /// Lines that are no logins.
    pub unreadable: u64,
}

/// The latest `most` logins of a state directory that are wanted.
///
/// # Errors
/// A file is there and cannot be read; `NotFound` where there is none at all.
pub fn read(state_dir: &Path, most: usize, wanted: impl Fn(&Login) -> bool) -> io::Result<Past> {
    let mut past = Past::default();
    let rotated = read_file(&state_dir.join(format!("{FILE}.1")), most, &wanted, &mut past);
    let current = read_file(&state_dir.join(FILE), most, &wanted, &mut past);
    let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match (rotated, current) {
        (Err(first), Err(second)) if missing(&first) && missing(&second) => return Err(second),
        (first, second) => {
            for read in [first, second] {
                read.or_else(|error| if missing(&error) { Ok(()) } else { Err(error) })?;
            }
        }
    }
    Ok(past)
}

fn read_file(
    path: &Path,
    most: usize,
    wanted: &impl Fn(&Login) -> bool,
    past: &mut Past,
) -> io::Result<()> {
    let mut reader = BufReader::new(open(path)?.take(READ_MAX));
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        match serde_json::from_slice(&line) {
            Ok(login) if wanted(&login) => past.add(login, most),
            Ok(_) => {}
            // Also the part of a line that a crash has left.
            Err(_) => past.unreadable += 1,
        }
    }
}

// === impl Past ===

impl Past {
    fn add(&mut self, login: Login, most: usize) {
        self.logins.push_back(login);
        if self.logins.len() > most {
            self.logins.pop_front();
            self.cut = true;
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
