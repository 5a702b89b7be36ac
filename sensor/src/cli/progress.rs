//! Progress of long work on standard error, where a person watches it.

use std::io::{self, IsTerminal, Write};

/// What is being done, and how much of it is left.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    shown: bool,
}

impl Progress {
    /// Shows `what` at once; a quiet one shows nothing.
    pub(super) fn new(what: &'static str, quiet: bool) -> Self {
        let mut progress = Self { what, shown: !quiet && io::stderr().is_terminal() };
        progress.write(what);
        progress
    }

    pub(super) fn left(&mut self, left: usize) {
        if left.is_multiple_of(8) {
            let text = format!("{}: {left} left", self.what);
            self.write(&text);
        }
    }

    /// Names what of it is being done.
    pub(super) fn doing(&mut self, part: &str) {
        let text = format!("{}: {part}", self.what);
        self.write(&text);
    }

    pub(super) fn clear(&mut self) {
        self.write("");
    }

    /// Carriage return, the text, and clear to the end of the line.
    fn write(&mut self, text: &str) {
        if self.shown && write!(io::stderr(), "\r{text}\x1b[K").is_err() {
            self.shown = false;
        }
    }
}
