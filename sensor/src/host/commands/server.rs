//! `sshd_config(5)` as far as it names commands: servconf.c `process_server_config_line_depth`,
//! OpenSSH 8.4 to 10.2.

use super::{Named, Reader};

pub(super) const KEYS: &str = "sshd's AuthorizedKeysCommand is set to it";
const PRINCIPALS: &str = "sshd's AuthorizedPrincipalsCommand is set to it";
/// Where sshd looks without `-f`.
const DEFAULT: &str = "/etc/ssh/sshd_config";
/// What an `Include` that is no absolute path is relative to (`SSHDIR`).
const DIRECTORY: &str = "/etc/ssh";
/// `SERVCONF_MAX_DEPTH`.
const DEPTH_MAX: usize = 16;
/// Lines of one file; bytes of one line.
const LINES_MAX: usize = 8192;
const LINE_MAX: usize = 4096;
/// Words of one line.
const WORDS_MAX: usize = 64;
/// Options of sshd with a value, and those that matter here.
const WITH_VALUE: &str = "bCcEfghkopu";
/// The service whose configuration PAM takes where none is named.
const SERVICE: &str = "sshd";

/// What of a configuration matters.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) commands: Vec<Named>,
    /// PAM's services.
    pub(super) services: Vec<String>,
    /// `KerberosAuthentication` is switched on for somebody.
    pub(super) kerberos: bool,
}

/// `None` where the main file cannot be read.
pub(super) fn settings(reader: &mut Reader<'_>, arguments: &[String]) -> Option<Settings> {
    let mut found = Settings { services: vec![SERVICE.to_owned()], ..Settings::default() };
    let mut file = DEFAULT.to_owned();
    for (option, value) in options(arguments) {
        match option {
            'f' => file = value,
            'o' => line(reader, &value, DEPTH_MAX, &mut found),
            _ => {}
        }
    }
    let bytes = reader.read(&file)?;
    text(reader, &bytes, 0, &mut found);
    Some(found)
}

/// Options with their values, as getopt(3) takes them apart.
fn options(arguments: &[String]) -> Vec<(char, String)> {
    let mut found = Vec::new();
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            break;
        };
        let Some(at) = letters.find(|letter| WITH_VALUE.contains(letter)) else { continue };
        let Some(option) = letters.get(at..).and_then(|letters| letters.chars().next()) else {
            continue;
        };
        let value = letters.get(at + 1..).filter(|value| !value.is_empty()).map(str::to_owned);
        found.extend(value.or_else(|| rest.next().cloned()).map(|value| (option, value)));
    }
    found
}

fn text(reader: &mut Reader<'_>, bytes: &[u8], depth: usize, found: &mut Settings) {
    for (at, bytes) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if at >= LINES_MAX || bytes.len() > LINE_MAX {
            reader.partial = true;
            return;
        }
        line(reader, &String::from_utf8_lossy(bytes), depth, found);
    }
}

fn line(reader: &mut Reader<'_>, text: &str, depth: usize, found: &mut Settings) {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\r' | '\x0c' | '=' | '"');
    let text = text.trim_start_matches([' ', '\t', '"']);
    if text.starts_with('#') {
        return;
    }
    let end = text.find(blank).unwrap_or(text.len());
    let (keyword, rest) = text.split_at(end);
    let rest = rest.strip_prefix('"').unwrap_or(rest);
    let rest = rest.trim_start_matches([' ', '\t', '\r', '\x0c']);
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_matches([' ', '\t', '\r', '\x0c']);
    let mut command = |why| {
        let path = words(rest).into_iter().next().filter(|path| path.starts_with('/'));
        found.commands.extend(path.map(|path| Named { path, why }));
    };
    match keyword.to_ascii_lowercase().as_str() {
        "authorizedkeyscommand" => command(KEYS),
        "authorizedprincipalscommand" => command(PRINCIPALS),
        // Only this word switches it off (servconf.c `multistate_flag`).
        "kerberosauthentication" => {
            found.kerberos |=
                words(rest).first().is_some_and(|word| !word.eq_ignore_ascii_case("no"));
        }
        "pamservicename" => found.services.extend(words(rest).into_iter().next()),
        "include" => {
            for pattern in words(rest) {
                include(reader, &pattern, depth, found);
            }
        }
        _ => {}
    }
}

fn include(reader: &mut Reader<'_>, pattern: &str, depth: usize, found: &mut Settings) {
    if depth >= DEPTH_MAX {
        reader.partial = true;
        return;
    }
    let pattern = match pattern.strip_prefix('/') {
        Some(_) => pattern.to_owned(),
        None => format!("{DIRECTORY}/{pattern}"),
    };
    let Some((directory, name)) = pattern.rsplit_once('/') else { return };
    if directory.contains(['*', '?', '[']) {
        reader.partial = true;
        return;
    }
    let names = if name.contains(['*', '?', '[']) {
        let mut names = reader.list(directory);
        names.retain(|file| matches(name.as_bytes(), file.as_bytes()));
        names
    } else {
        vec![name.to_owned()]
    };
    for name in names {
        // sshd would not start without a file that it is told to include, but for a pattern's.
        if let Some(bytes) = reader.read(&format!("{directory}/{name}")) {
            text(reader, &bytes, depth + 1, found);
        }
    }
}

/// glob(3) within one directory. What stands for a set of characters matches everything from there
/// on: more commands are known then than are in force, never fewer.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut at, mut to) = (0, 0);
    let mut star = None;
    while to < name.len() {
        match pattern.get(at) {
            Some(b'[' | b'\\') => return true,
            Some(b'*') => {
                star = Some((at, to));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || Some(wanted) == name.get(to) => {
                at += 1;
                to += 1;
            }
            _ => {
                let Some((back, from)) = star else { return false };
                star = Some((back, from + 1));
                (at, to) = (back + 1, from + 1);
            }
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// Words as misc.c `argv_split` takes them apart: quotes of both kinds, and a backslash before a
/// quote, a backslash or a blank.
fn words(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', _) if letters.peek().is_some_and(|next| "'\"\\ ".contains(*next)) => {
                word.get_or_insert_default().extend(letters.next());
            }
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, Some(open)) if letter == open => quote = None,
            (' ' | '\t', None) => found.extend(word.take()),
            ('#', None) if word.is_none() => break,
            _ => word.get_or_insert_default().push(letter),
        }
        if found.len() >= WORDS_MAX {
            return found;
        }
    }
    found.extend(word);
    found
}
