//! Words for people: names, times and places, with whatever a process chose made harmless.

use jiff::Timestamp;

/// Characters of a name in a sentence.
const MAX_NAME: usize = 96;
/// Characters of a path or a value in a sentence.
const MAX_PATH: usize = 160;
/// Characters of a sentence that a detector wrote.
const MAX_SENTENCE: usize = 400;
/// Characters of a build-id in a sentence; all of it stands in the evidence.
const SHORT_BUILD_ID: usize = 12;

/// A file name, symbol or user.
pub(super) fn name(text: &str) -> String {
    quoted(&cut(text, MAX_NAME))
}

/// A path or a value.
pub(super) fn path(text: &str) -> String {
    quoted(&cut(text, MAX_PATH))
}

/// A sentence of a detector, without its full stop.
pub(super) fn clause(text: &str) -> String {
    let text: String = cut(text.trim(), MAX_SENTENCE).chars().map(harmless).collect();
    text.trim_end_matches('.').to_owned()
}

/// At most `most` characters, with an ellipsis where it was cut.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Whether `text` may stand in a shell command as it is.
pub(super) fn plain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_PATH
        && !text.starts_with('-')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-/@:=,~".contains(&byte))
}

/// Last component of a path.
pub(super) fn base(path: &str) -> &str {
    path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path)
}

/// Symbol without its version: `RSA_public_decrypt@OPENSSL_3.0.0`.
pub(super) fn symbol(text: &str) -> String {
    match text.split('@').find(|part| !part.is_empty()) {
        Some(bare) => name(bare),
        None => "an unnamed function".to_owned(),
    }
}

/// Module of a place `module+offset (symbol+distance)`: its file name.
pub(super) fn place_module(place: &str) -> &str {
    let (module, _) = split_place(place);
    base(module.rsplit_once("+0x").map_or(module, |(module, _)| module))
}

/// A place with its module's file name, and whatever else is known of the module in the brackets:
/// `liblzma.so.5.4.1+0x120f (xz_like_wrapper; build-id ab12…)`.
pub(super) fn place(text: &str, more: Option<String>) -> String {
    let (module, symbol) = split_place(text);
    let brackets: Vec<String> = symbol
        .map(|symbol| name(symbol.trim_end_matches("+0x0")))
        .into_iter()
        .chain(more)
        .collect();
    let module = name(base(module));
    if brackets.is_empty() { module } else { format!("{module} ({})", brackets.join("; ")) }
}

/// The first digits of a build-id.
pub(super) fn build_id(hex: &str) -> String {
    format!("build-id {}", name(&cut(hex, SHORT_BUILD_ID)))
}

/// Seconds as people read them: `0.304 s`.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds.abs() < 0.001 && seconds != 0.0 {
        format!("{seconds:.6} s")
    } else {
        format!("{seconds:.3} s")
    }
}

/// `2026-11-22 14:03:07 UTC`.
pub(super) fn moment(time: Timestamp) -> String {
    time.strftime("%F %T UTC").to_string()
}

/// The time of day, with the date where it is not `day`.
pub(super) fn clock(time: Timestamp, day: &str) -> String {
    if date(time) == day { time.strftime("%T").to_string() } else { moment(time) }
}

/// `2026-11-22`.
pub(super) fn date(time: Timestamp) -> String {
    time.strftime("%F").to_string()
}

/// First letter in upper case where the first word is one of ours; a function's name stays.
pub(super) fn sentence(text: &str) -> String {
    const OURS: [&str; 10] =
        ["authentication", "for", "in", "it", "its", "linking", "no", "something", "the", "what"];
    let first = text.split(' ').next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(letter) if OURS.contains(&first) => {
            format!("{}{}.", letter.to_ascii_uppercase(), chars.as_str())
        }
        _ => format!("{text}."),
    }
}

fn split_place(place: &str) -> (&str, Option<&str>) {
    match place.strip_suffix(')').and_then(|place| place.rsplit_once(" (")) {
        Some((module, symbol)) if symbol != "deleted" => (module, Some(symbol)),
        _ => (place, None),
    }
}

/// In quotation marks where it holds more than names are made of, so that it cannot pass for a
/// part of the sentence.
fn quoted(text: &str) -> String {
    let ordinary = |c: char| c.is_ascii_alphanumeric() || "._+-/@:=,[]~%#…".contains(c);
    if !text.is_empty() && text.chars().all(ordinary) {
        return text.to_owned();
    }
    let inner: String =
        text.chars().map(harmless).map(|c| if c == '"' { '\'' } else { c }).collect();
    format!("\"{inner}\"")
}

/// Replaces what moves a terminal's cursor or turns the direction of writing (Unicode: control,
/// line separators, bidirectional and invisible formatting).
fn harmless(c: char) -> char {
    let formatting = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}');
    if c.is_control() || formatting { '\u{fffd}' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_chose_cannot_leave_its_place() {
        assert_eq!(name("liblzma.so.5.4.1"), "liblzma.so.5.4.1");
        assert_eq!(name("all is well\n\"ok\""), "\"all is well\u{fffd}'ok'\"");
        assert_eq!(name("\u{202e}gpj.exe"), "\"\u{fffd}gpj.exe\"");
        assert_eq!(name("\u{1b}[2J"), "\"\u{fffd}[2J\"");
        assert_eq!(name(""), "\"\"");
        assert_eq!(name(&"x".repeat(500)).chars().count(), MAX_NAME + 1);
        assert!(!plain("/tmp/a;rm -rf x") && !plain("$(id)") && !plain("-rf") && plain("/usr/lib"));
    }

    #[test]
    fn places_show_module_offset_and_symbol() {
        let text = "/usr/lib/x/liblzma.so.5.4.1+0x120f (xz_like_wrapper+0x0)";
        assert_eq!(place(text, None), "liblzma.so.5.4.1+0x120f (xz_like_wrapper)");
        assert_eq!(place_module(text), "liblzma.so.5.4.1");
        assert_eq!(place("[anon]+0x10", None), "[anon]+0x10");
        assert_eq!(
            place("/memfd:x (deleted)+0x10 (f+0x4)", None),
            "\"memfd:x (deleted)+0x10\" (f+0x4)"
        );
        assert_eq!(place_module(""), "");
        assert_eq!(symbol("RSA_public_decrypt@OPENSSL_3.0.0"), "RSA_public_decrypt");
        assert_eq!(symbol("@@"), "an unnamed function");
    }

    #[test]
    fn sentences_begin_with_a_capital_unless_with_a_name() {
        for (text, told) in [
            ("what changed before cannot be told: x", "What changed before cannot be told: x."),
            ("no package of its files", "No package of its files."),
            ("it now has a line", "It now has a line."),
            ("sshd's slot leads to x", "sshd's slot leads to x."),
            ("whatever.so is new", "whatever.so is new."),
            ("", "."),
        ] {
            assert_eq!(sentence(text), told);
        }
    }

    #[test]
    fn seconds_are_short() {
        assert_eq!(seconds(0.304_13), "0.304 s");
        assert_eq!(seconds(0.000_4), "0.000400 s");
        assert_eq!(seconds(0.0), "0.000 s");
    }
}
