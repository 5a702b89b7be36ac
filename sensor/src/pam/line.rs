//! Lines of a service file, read as libpam reads them.

/// Lines taken from one file, and bytes of one line.
const LINES_MAX: usize = 256;
const LINE_MAX: usize = 2048;
/// Words of one line.
const WORDS_MAX: usize = 64;

/// What a module is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Facility {
    Auth,
    Account,
    Session,
    Password,
}

/// What is made of a module's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// The lines of another service, in this place.
    Include,
    /// The same, as one module: what ends it does not end the whole.
    Substack,
    /// An action for each kind of answer.
    Actions(Actions),
}

/// Actions for the three answers that matter here. libpam knows 32; those that are not told apart
/// have their `default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Actions {
    pub(crate) success: Action,
    pub(crate) ignore: Action,
    /// `auth_err`: a wrong password.
    pub(crate) refusal: Action,
}

/// See `pam.conf(5)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Ignore,
    Bad,
    Die,
    Ok,
    Done,
    Reset,
    /// Skips so many modules.
    Jump(u32),
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// `None` for `@include`, which is for all.
    pub(crate) facility: Option<Facility>,
    pub(crate) control: Control,
    /// The module, or the service of an `include`.
    pub(crate) module: String,
    pub(crate) arguments: Vec<String>,
}

/// The lines of a service file that say something, each with single blanks between its words.
///
/// `#` begins a comment that ends with the line, a backslash at the end joins a line with the next
/// (Linux-PAM 1.5, `libpam/pam_handlers.c`, `_pam_assemble_line`).
pub(crate) fn entries(bytes: &[u8]) -> Vec<String> {
    logical(bytes).map(|line| words(&line).join(" ")).collect()
}

fn logical(bytes: &[u8]) -> impl Iterator<Item = String> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let next = move || loop {
        let mut line = Vec::new();
        let mut more = lines.next()?;
        loop {
            let text = more.split(|byte| *byte == b'#').next().unwrap_or_default();
            // A comment ends the line, also one with a backslash at its end.
            let joined = text.len() == more.len();
            let Some(begun) = more.strip_suffix(b"\\").filter(|_| joined) else {
                line.extend_from_slice(text);
                break;
            };
            line.extend_from_slice(begun);
            line.push(b' ');
            let Some(rest) = lines.next() else { break };
            more = rest;
        }
        let line = line.trim_ascii();
        if !line.is_empty() {
            let line = line.get(..LINE_MAX).unwrap_or(line);
            return Some(shown(line));
        }
    };
    std::iter::from_fn(next).take(LINES_MAX)
}

fn shown(line: &[u8]) -> String {
    let clean = |c: char| match c {
        '\t' | '\r' | '\x0b' | '\x0c' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    String::from_utf8_lossy(line).chars().map(clean).collect()
}

/// Words of a line: `[…]` at the beginning of a word is one, whatever stands in it but `]`, which a
/// backslash takes in as well (`_pam_tokenize`).
fn words(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && found.len() < WORDS_MAX {
        let (word, after) = if let Some(inside) = rest.strip_prefix('[') {
            bracketed(inside)
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            (word.to_owned(), after)
        };
        found.push(word);
        rest = after.trim_start();
    }
    found
}

fn bracketed(inside: &str) -> (String, &str) {
    let mut escaped = false;
    let end = inside.char_indices().find(|(_, c)| {
        let ends = *c == ']' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    let (text, after) = match end {
        Some((at, _)) => (inside.get(..at), inside.get(at + 1..)),
        None => (Some(inside), None),
    };
    let words: Vec<&str> = text.unwrap_or_default().split_whitespace().collect();
    (format!("[{}]", words.join(" ")), after.unwrap_or_default())
}

// === impl Line ===

impl Line {
    /// Understands an entry of [`entries`]; `None` where libpam would not, and have the service fail.
    pub(crate) fn parse(entry: &str) -> Option<Self> {
        let mut words = words(entry).into_iter();
        let first = words.next()?;
        if first == "@include" {
            let module = words.next()?;
            let arguments = Vec::new();
            return Some(Self { facility: None, control: Control::Include, module, arguments });
        }
        let facility = Some(Facility::parse(first.strip_prefix('-').unwrap_or(&first))?);
        let control = Control::parse(&words.next()?)?;
        let module = words.next()?;
        Some(Self { facility, control, module, arguments: words.collect() })
    }

    /// The same of an entry of `/etc/pam.conf`.
    pub(crate) fn parse_conf(entry: &str) -> Option<Self> {
        Self::parse(entry.split_once(' ')?.1)
    }

    /// The module, where it names one rather than a service.
    pub(crate) fn named_module(&self) -> Option<&str> {
        matches!(self.control, Control::Actions(_)).then_some(self.module.as_str())
    }
}

impl Facility {
    fn parse(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "auth" => Self::Auth,
            "account" => Self::Account,
            "session" => Self::Session,
            "password" => Self::Password,
            _ => return None,
        })
    }
}

impl Control {
    fn parse(word: &str) -> Option<Self> {
        // `_pam_parse_conf_line`: the old words stand for these actions.
        let (success, refusal) = match word.to_ascii_lowercase().as_str() {
            "required" => (Action::Ok, Action::Bad),
            "requisite" => (Action::Ok, Action::Die),
            "sufficient" => (Action::Done, Action::Ignore),
            "optional" => (Action::Ok, Action::Ignore),
            "include" => return Some(Self::Include),
            "substack" => return Some(Self::Substack),
            _ => return Actions::parse(word).map(Self::Actions),
        };
        Some(Self::Actions(Actions { success, ignore: Action::Ignore, refusal }))
    }
}

impl Actions {
    /// `[value=action …]`; what is not named is bad, unless `default` says otherwise.
    fn parse(word: &str) -> Option<Self> {
        let inside = word.strip_prefix('[')?.strip_suffix(']')?;
        let (mut success, mut ignore, mut refusal, mut default) = (None, None, None, None);
        for pair in inside.split_whitespace() {
            let (value, action) = pair.split_once('=')?;
            let action = Action::parse(action)?;
            match value.to_ascii_lowercase().as_str() {
                "success" => success = Some(action),
                "ignore" => ignore = Some(action),
                "auth_err" => refusal = Some(action),
                "default" => default = Some(action),
                _ => {}
            }
        }
        // Without a `default` what is not named is bad (`_pam_set_default_control`).
        let or = |action: Option<Action>| action.or(default).unwrap_or(Action::Bad);
        Some(Self { success: or(success), ignore: or(ignore), refusal: or(refusal) })
    }
}

impl Action {
    fn parse(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "ignore" => Self::Ignore,
            "bad" => Self::Bad,
            "die" => Self::Die,
            "ok" => Self::Ok,
            "done" => Self::Done,
            "reset" => Self::Reset,
            number => Self::Jump(number.parse().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_is_read_line_by_line_as_libpam_reads_it() {
        let text = b"# comment\n\nauth\trequired   pam_env.so # why\nauth [success=1\\\n  default=ignore] \
                     pam_unix.so nullok\n@include common-account\n-session optional pam_x.so [a b]\n";
        assert_eq!(
            entries(text),
            [
                "auth required pam_env.so",
                "auth [success=1 default=ignore] pam_unix.so nullok",
                "@include common-account",
                "-session optional pam_x.so [a b]",
            ]
        );
    }

    #[test]
    fn a_line_says_who_is_asked_and_what_comes_of_the_answer() {
        let line = Line::parse("auth [success=2 default=ignore] pam_unix.so nullok").unwrap();
        let actions =
            Actions { success: Action::Jump(2), ignore: Action::Ignore, refusal: Action::Ignore };
        assert_eq!(line.control, Control::Actions(actions));
        assert_eq!((line.named_module(), line.arguments.len()), (Some("pam_unix.so"), 1));
        let quiet = Line::parse("-AUTH Sufficient /opt/x.so").unwrap();
        assert_eq!((quiet.facility, quiet.module.as_str()), (Some(Facility::Auth), "/opt/x.so"));
        let include = Line::parse("@include common-auth").unwrap();
        assert_eq!((include.facility, include.named_module()), (None, None));
        let conf = Line::parse_conf("sshd auth required pam_unix.so").unwrap();
        assert_eq!(conf.module, "pam_unix.so");
    }

    #[test]
    fn what_libpam_refuses_is_not_understood() {
        for line in
            ["", "auth", "auth required", "author required x", "auth [a b] x", "auth [x=9k] x"]
        {
            assert_eq!(Line::parse(line), None, "{line}");
        }
    }

    #[test]
    fn this_machines_services_are_understood() {
        let Ok(dir) = std::fs::read_dir("/etc/pam.d") else {
            println!("skipped: this machine has no /etc/pam.d");
            return;
        };
        let mut understood = 0;
        for file in dir.flatten() {
            for entry in entries(&std::fs::read(file.path()).unwrap()) {
                assert!(Line::parse(&entry).is_some(), "{}: {entry}", file.path().display());
                understood += 1;
            }
        }
        assert!(understood > 0, "no line at all");
    }

    #[test]
    fn a_hostile_file_is_bounded() {
        assert_eq!(entries(&b"auth required x\n".repeat(4000)).len(), LINES_MAX);
        assert!(entries(&b"a".repeat(60_000))[0].len() <= LINE_MAX);
        assert!(entries(&b"x\\\n".repeat(20_000)).len() == 1);
        assert_eq!(entries(b"auth \x1b[2J x"), ["auth \u{fffd}[2J x"]);
        assert!(entries(b"\\").is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            for entry in entries(&bytes) {
                let _ = (Line::parse(&entry), Line::parse_conf(&entry));
            }
        }

        #[test]
        fn any_line_is_read_without_panic(
            line in r"(-?(auth|session)|@include|x) (required|\[[ a-z=0-9\\\]]{0,20}|include) [ -~]{0,40}"
        ) {
            for entry in &entries(line.as_bytes()) {
                prop_assert!(entry.len() <= LINE_MAX + 2);
                let _ = Line::parse(entry);
            }
        }
    }
}
