//! Lines of a hostile text file: each kept up to a bound, all together up to another.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::PackageError;

/// What is kept of a line; the rest is read over. Longer ones (a package's list of what it
/// provides) hold nothing that is looked for, and no path is longer.
const MAX_LINE: u64 = 8 << 10;
/// Files are small and many: dpkg has three per package.
const BUFFER: u64 = 32 << 10;

/// What reading one database may cost.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: Cell<u64>,
    limit: u64,
    start: Instant,
    time: Duration,
}

/// Lines without their ends.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    path: PathBuf,
    left: u64,
    limit: u64,
    start: u64,
    position: u64,
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(limit: u64, time: Duration) -> Self {
        Self { bytes: Cell::new(limit), limit, start: Instant::now(), time }
    }

    /// Takes `bytes` off what may still be read.
    pub(super) fn spend(&self, bytes: u64) -> Result<(), PackageError> {
        if self.start.elapsed() > self.time {
            return Err(PackageError::TooSlow { seconds: self.time.as_secs() });
        }
        let left = self.bytes.get().checked_sub(bytes.max(64));
        let path = || PathBuf::from("the package database");
        self.bytes.set(left.ok_or_else(|| PackageError::TooLarge {
            path: path(),
            what: "bytes",
            limit: self.limit,
        })?);
        Ok(())
    }
}

// === impl Lines ===

impl<R: Read> Lines<R> {
    /// Lines of `reader`, whose name is `path` in errors. `size` is what is expected, at most
    /// `limit` is read.
    pub(super) fn new(reader: R, path: &Path, limit: u64, size: u64) -> Result<Self, PackageError> {
        if size > limit {
            return Err(PackageError::TooLarge { path: path.to_owned(), what: "bytes", limit });
        }
        let buffer = usize::try_from(size.clamp(64, BUFFER)).unwrap_or(64);
        Ok(Self {
            reader: BufReader::with_capacity(buffer, reader),
            line: Vec::new(),
            path: path.to_owned(),
            left: limit,
            limit,
            start: 0,
            position: 0,
        })
    }

    /// The next line, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, PackageError> {
        self.line.clear();
        self.start = self.position;
        match self.read_line() {
            Ok(0) if self.left == 0 && !self.at_end()? => {
                let (path, limit) = (self.path.clone(), self.limit);
                Err(PackageError::TooLarge { path, what: "bytes", limit })
            }
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(&self.line)),
            Err(error) => Err(PackageError::io(&self.path, error)),
        }
    }

    /// Offset of the line that was returned last.
    pub(super) fn offset(&self) -> u64 {
        self.start
    }

    /// The name of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes read; the line's end is cut off.
    fn read_line(&mut self) -> io::Result<u64> {
        let most = MAX_LINE.min(self.left);
        let kept = (&mut self.reader).take(most).read_until(b'\n', &mut self.line)? as u64;
        self.left -= kept;
        let mut read = kept;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if kept == most {
            let skipped = (&mut self.reader).take(self.left).skip_until(b'\n')? as u64;
            self.left -= skipped;
            read += skipped;
        }
        self.position += read;
        Ok(read)
    }

    fn at_end(&mut self) -> Result<bool, PackageError> {
        match self.reader.fill_buf() {
            Ok(rest) => Ok(rest.is_empty()),
            Err(error) => Err(PackageError::io(&self.path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(text: &[u8], limit: u64) -> Lines<&[u8]> {
        Lines::new(text, Path::new("text"), limit, 0).unwrap()
    }

    #[test]
    fn an_endless_line_is_cut_and_the_next_one_is_found() {
        let mut text = vec![b'a'; 100_000];
        text.extend(b"\nsecond");
        let mut lines = lines(&text, 1 << 20);
        assert_eq!(lines.next().unwrap().unwrap().len() as u64, MAX_LINE);
        assert_eq!(lines.next().unwrap().unwrap(), b"second");
        assert_eq!(lines.offset(), 100_001);
        assert!(lines.next().unwrap().is_none());
    }

    #[test]
    fn a_file_that_grows_past_its_bound_is_an_error_and_no_short_list() {
        let mut whole = lines(b"one\ntwo", 7);
        assert_eq!(whole.next().unwrap().unwrap(), b"one");
        assert_eq!(whole.next().unwrap().unwrap(), b"two");
        assert!(whole.next().unwrap().is_none());
        let mut grown = lines(b"one\ntwo\nthree", 8);
        assert!(grown.next().is_ok() && grown.next().is_ok());
        assert!(matches!(grown.next(), Err(PackageError::TooLarge { .. })));
    }

    #[test]
    fn a_budget_ends() {
        let budget = Budget::new(100, Duration::from_mins(1));
        assert!(budget.spend(90).is_ok());
        assert!(matches!(budget.spend(0), Err(PackageError::TooLarge { .. })));
        let late = Budget::new(100, Duration::ZERO);
        while late.start.elapsed().is_zero() {
            std::hint::spin_loop();
        }
        assert!(matches!(late.spend(1), Err(PackageError::TooSlow { .. })));
    }

    proptest! {
        #[test]
        fn lines_are_what_split_gives(text in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300)) {
            let mut lines = lines(&text, 1 << 20);
            let mut found = Vec::new();
            while let Some(line) = lines.next().unwrap() {
                found.push(line.to_vec());
            }
            let mut expected: Vec<_> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            if expected.last().is_some_and(Vec::is_empty) {
                expected.pop();
            }
            prop_assert_eq!(found, expected);
        }
    }
}
