//! Lines of another program's output, each with the time at which it came.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Instant, SystemTime};

use anyhow::{Result, bail};

/// One line, without its end.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// `CLOCK_REALTIME` when it was read.
    pub(super) realtime_ns: u64,
    pub(super) text: String,
}

/// The lines still to be looked at.
pub(super) struct Lines(Receiver<Line>);

// === impl Lines ===

impl Lines {
    /// Reads `stream` to its end, in a thread of its own.
    pub(super) fn follow(stream: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut bytes = Vec::new();
            while matches!(stream.read_until(b'\n', &mut bytes), Ok(count) if count > 0) {
                let realtime_ns = realtime_ns();
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                bytes.clear();
                if sender.send(Line { realtime_ns, text }).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// The next line; none at the deadline.
    ///
    /// # Errors
    /// When the stream has ended.
    pub(super) fn next(&self, deadline: Instant) -> Result<Option<Line>> {
        match self.0.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("no more output"),
        }
    }
}

/// `CLOCK_REALTIME`.
pub(super) fn realtime_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_come_in_order_and_their_end_is_told() {
        let lines = Lines::follow(Cursor::new("one\ntwo"));
        let deadline = Instant::now() + Duration::from_mins(1);
        let first = lines.next(deadline).unwrap().unwrap();
        let second = lines.next(deadline).unwrap().unwrap();
        assert_eq!((first.text.as_str(), second.text.as_str()), ("one", "two"));
        assert!(first.realtime_ns <= second.realtime_ns);
        assert!(lines.next(deadline).is_err());
    }
}
