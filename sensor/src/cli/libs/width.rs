//! How wide the terminal is, and texts that fit into it.

use std::env;
use std::io::{self, IsTerminal};

/// Narrower than this no table is readable; the text is then wider than the terminal.
const MIN_WIDTH: usize = 60;

/// Columns of the terminal on standard output; `None` where it is none, and nothing is cut.
pub(super) fn of_stdout() -> Option<usize> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let told = rustix::termios::tcgetwinsize(&out).ok().map(|size| usize::from(size.ws_col));
    let told = told.filter(|columns| *columns > 0);
    let columns = told.or_else(|| env::var("COLUMNS").ok()?.parse().ok());
    columns.map(|columns| columns.max(MIN_WIDTH))
}

/// The text in at most `room` characters, cut in the middle: both ends of a path matter.
pub(super) fn fit(text: &str, room: usize) -> String {
    let count = text.chars().count();
    if count <= room {
        return text.to_owned();
    }
    let keep = room.saturating_sub(1);
    let head = keep / 3;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - (keep - head)).collect();
    format!("{start}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_keeps_both_ends() {
        assert_eq!(fit("/usr/lib/x86_64-linux-gnu/liblzma.so.5", 20), "/usr/l…/liblzma.so.5");
        assert_eq!(fit("/äöü/ß", 6), "/äöü/ß");
        assert_eq!(fit("abc", 1), "…");
        assert_eq!(fit("abc", 0), "…");
    }
}
