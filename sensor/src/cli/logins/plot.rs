//! Distributions in the terminal: a line for each bin, before beside after.

use std::io::{self, Write};

use super::bins::{Bins, share, total};
use super::series::{Series, Split, summary};
use crate::cli::term::{Style, Tone};

/// Lines of one distribution at most.
const LINES: usize = 16;
/// Characters of the longest bar.
const WIDTH: u32 = 30;

/// What bars are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marks {
    /// Eighths of a block.
    Blocks,
    /// Where the terminal may not know them.
    Ascii,
}

// === impl Marks ===

impl Marks {
    /// By the locale's variables, the first that is set (locale(7)).
    pub(super) fn of_locale(variable: &impl Fn(&str) -> Option<String>) -> Self {
        let set = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| variable(name).filter(|value| !value.is_empty()));
        let utf8 = set.is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        if utf8 { Self::Blocks } else { Self::Ascii }
    }

    /// A bar of `length` characters, to an eighth; never nothing for something.
    fn bar(self, length: f64) -> String {
        const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        if length <= 0.0 {
            return String::new();
        }
        let limit = f64::from(WIDTH);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to eight times the width"
        )]
        let eighths = (length.min(limit) * 8.0).round().max(1.0) as usize;
        match self {
            Self::Ascii => "#".repeat(eighths.div_ceil(8)),
            Self::Blocks => {
                let part = PARTS.get(eighths % 8).copied().unwrap_or_default();
                "█".repeat(eighths / 8) + part
            }
        }
    }
}

pub(super) fn text(
    out: &mut impl Write,
    all: &[Series],
    split: Option<&Split>,
    marks: Marks,
    style: Style,
) -> io::Result<()> {
    if all.is_empty() {
        return writeln!(out, "No login with a measured time was let in at the first attempt.");
    }
    if let Some(split) = split {
        writeln!(out, "{}\n", style.paint(Tone::Plain, &format!("Split at {}.", split.text())))?;
    }
    for (number, series) in all.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        one(out, series, split.is_some(), marks, style)?;
    }
    Ok(())
}

fn one(
    out: &mut impl Write,
    series: &Series,
    split: bool,
    marks: Marks,
    style: Style,
) -> io::Result<()> {
    writeln!(out, "{}", style.paint(Tone::Bold, &series.heading()))?;
    let groups = [("before", &series.before), ("after", &series.after)];
    for (name, samples) in groups.into_iter().take(if split { 2 } else { 1 }) {
        let name = if split { name } else { "all" };
        writeln!(out, "  {name:<6}  {}", told(samples))?;
    }
    let Some(bins) = Bins::of(series, LINES) else { return Ok(()) };
    let heading = if split { "before" } else { "logins" };
    let columns = if split { "after" } else { "" };
    let gap = WIDTH as usize + 7;
    writeln!(out, "{}", format!("  {:>17}  {heading:<gap$}{columns}", "ms").trim_end())?;
    let scale = f64::from(WIDTH) / bins.tallest();
    let (all_before, all_after) = (total(&bins.before), total(&bins.after));
    for ((edges, before), after) in bins.edges.windows(2).zip(&bins.before).zip(&bins.after) {
        let [low, high] = edges else { continue };
        let cell = |count: u32, all: u32| {
            let bar = marks.bar(share(count, all) * scale);
            let number = if count > 0 { count.to_string() } else { String::new() };
            format!("{bar} {number}").trim_end().to_owned()
        };
        let (left, right) = (cell(*before, all_before), cell(*after, all_after));
        let fill = gap.saturating_sub(left.chars().count());
        let line = format!("  {low:>8.2}-{high:<8.2}  {left}{:fill$}{right}", "");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn told(samples: &[f64]) -> String {
    summary(samples).map_or_else(|| "no logins".to_owned(), |summary| summary.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::series;
    use super::*;

    fn drawn(marks: Marks) -> String {
        let times: Vec<f64> = (0..20).map(|at| if at < 12 { 30.0 } else { 36.5 }).collect();
        let logins = series::tests::logins(&times);
        let split = Split { at: logins[12].start, incident: Some("7f3a".to_owned()) };
        let all = series::of(&logins, Some(&split));
        let mut out = Vec::new();
        text(&mut out, &all, Some(&split), marks, Style::default()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn before_and_after_stand_side_by_side_with_their_numbers() {
        let text = drawn(Marks::Blocks);
        assert!(text.starts_with("Split at 2026-11-21T00:12:00Z (incident 7f3a).\n"), "{text}");
        assert!(text.contains("publickey: CPU time from accept to the verdict\n"), "{text}");
        assert!(text.contains("before  12 logins, median 30.00 ms"), "{text}");
        assert!(text.contains("after   8 logins, median 36.50 ms"), "{text}");
        let full = "█".repeat(WIDTH as usize);
        let lines: Vec<_> = text.lines().filter(|line| line.contains(&full)).collect();
        // Two bins of the one distribution, and the one bin of linking, which has both.
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].ends_with(" 12") && lines[1].ends_with(" 8"), "{text}");
        let column = |line: &str| line.chars().take_while(|c| *c != '█').count();
        assert!(column(lines[0]) < column(lines[1]), "{text}");
    }

    #[test]
    fn without_utf8_everything_is_ascii() {
        let text = drawn(Marks::Ascii);
        assert!(text.is_ascii() && text.contains(&"#".repeat(WIDTH as usize)), "{text}");
    }

    #[test]
    fn the_locale_tells_what_the_terminal_knows() {
        let locale = |set: &'static [(&str, &str)]| {
            Marks::of_locale(&|name: &str| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(locale(&[("LANG", "de_DE.UTF-8")]), Marks::Blocks);
        assert_eq!(locale(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")]), Marks::Ascii);
        assert_eq!(locale(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]), Marks::Blocks);
        assert_eq!(locale(&[]), Marks::Ascii);
    }

    #[test]
    fn a_bar_is_as_long_as_its_share_and_never_nothing() {
        assert_eq!(Marks::Blocks.bar(0.0), "");
        assert_eq!(Marks::Blocks.bar(0.01), "▏");
        assert_eq!(Marks::Blocks.bar(1.5), "█▌");
        assert_eq!(Marks::Ascii.bar(0.01), "#");
        assert_eq!(Marks::Blocks.bar(1e9).chars().count(), WIDTH as usize);
    }

    #[test]
    fn nothing_to_draw_is_said() {
        let mut out = Vec::new();
        text(&mut out, &[], None, Marks::Ascii, Style::default()).unwrap();
        assert!(String::from_utf8(out).unwrap().starts_with("No login with a measured time"));
    }
}
