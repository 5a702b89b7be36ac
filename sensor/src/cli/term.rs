//! Text for people: colour only on a terminal, tables, and nothing a hostile process could steer
//! the terminal with.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use crate::finding::Severity;

/// Columns of a table are not padded beyond this.
const COLUMN_MAX: usize = 60;

/// How to write to one stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    colour: bool,
}

/// Kinds of emphasis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// None.
    Plain,
    /// Headings.
    Bold,
    /// As it should be.
    Good,
    /// Less than it should be.
    Warn,
    /// Look now.
    Bad,
}

// === impl Style ===

impl Style {
    /// For standard output.
    #[must_use]
    pub fn stdout() -> Self {
        Self { colour: io::stdout().is_terminal() && wanted() }
    }

    /// For standard error.
    #[must_use]
    pub fn stderr() -> Self {
        Self { colour: io::stderr().is_terminal() && wanted() }
    }

    /// The text, made safe and emphasised.
    #[must_use]
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let text = clean(text);
        let code = match tone {
            _ if !self.colour => return text,
            Tone::Plain => return text,
            Tone::Bold => "1",
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31;1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Writes rows in columns; the last column is as long as it likes.
    pub fn table(self, out: &mut impl Write, rows: &[Vec<(Tone, String)>]) -> io::Result<()> {
        let mut widths: Vec<usize> = Vec::new();
        for row in rows {
            for (index, (_, text)) in row.iter().enumerate() {
                let width = clean(text).chars().count().min(COLUMN_MAX);
                match widths.get_mut(index) {
                    Some(widest) => *widest = width.max(*widest),
                    None => widths.push(width),
                }
            }
        }
        for row in rows {
            let last = row.len().saturating_sub(1);
            for (index, (tone, text)) in row.iter().enumerate() {
                write!(out, "{}", self.paint(*tone, text))?;
                if index < last {
                    let width = widths.get(index).copied().unwrap_or_default();
                    let fill = width.saturating_sub(clean(text).chars().count()) + 2;
                    write!(out, "{:fill$}", "")?;
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// Whether colour is wanted where it is possible: <https://no-color.org>.
fn wanted() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether a character moves a cursor or turns the writing direction.
fn steers(c: char) -> bool {
    // Bidirectional overrides and isolates, and invisible characters.
    let turns =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}');
    c.is_control() || turns
}

/// JSON text with the same characters written as escapes, so that it stays what it is and can be
/// looked at. Line feeds are left: in JSON they stand between values only.
#[must_use]
pub fn escape_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) && c != '\n' {
            // All of them are in the first plane: one unit of UTF-16.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// The text with everything that moves a cursor or turns the writing direction made visible.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

/// How a severity is shown.
#[must_use]
pub fn severity_tone(severity: Severity) -> Tone {
    match severity {
        Severity::Critical | Severity::High => Tone::Bad,
        Severity::Medium => Tone::Warn,
        Severity::Low | Severity::Info => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(
            clean("a\x1b[2Jb\r\n\u{9b}c\u{202e}d"),
            "a\u{fffd}[2Jb\u{fffd}\u{fffd}\u{fffd}c\u{fffd}d"
        );
    }

    #[test]
    fn json_keeps_its_meaning_without_steering() {
        let value = serde_json::json!({"a": "\u{9b}31m \u{202e}x\u{7f} \n ä"});
        let text = escape_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!text.chars().any(|c| steers(c) && c != '\n'), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn columns_line_up_without_colour_and_carry_none() {
        let rows = vec![
            vec![(Tone::Bold, "one".to_owned()), (Tone::Bad, "x".to_owned())],
            vec![(Tone::Plain, "longer".to_owned()), (Tone::Plain, "y".to_owned())],
        ];
        let mut text = Vec::new();
        Style::default().table(&mut text, &rows).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "one     x\nlonger  y\n");
        let mut text = Vec::new();
        Style { colour: true }.table(&mut text, &rows).unwrap();
        assert!(text.starts_with(b"\x1b[1mone\x1b[0m     \x1b[31;1mx"));
    }
}
