//! PAM's stacks: where their rules and modules stand, and how rules are read (Linux-PAM 1.5,
//! `libpam/pam_handlers.c`); bounded, total.

use std::collections::BTreeSet;

use super::text;

/// Rules of all services, where there are no files per service.
pub(super) const CONF: &str = "/etc/pam.conf";
/// Files per service: the administrator's, the distribution's.
pub(super) const DIRS: [&str; 3] = ["/etc/pam.d", "/usr/etc/pam.d", "/usr/lib/pam.d"];
/// Files of one of them that are watched.
pub(super) const FILES_MAX: usize = 128;
/// Where the distributions build modules without a path to be looked for. With a merged `/usr` some
/// of them are the same.
pub(super) const MODULE_DIRS: [&str; 7] = [
    MULTIARCH,
    "/lib64/security",
    "/lib/security",
    MULTIARCH_USR,
    "/usr/lib64/security",
    "/usr/lib/security",
    "/usr/lib/pam",
];
/// Modules of one root that are watched.
pub(super) const MODULES_MAX: usize = 64;

#[cfg(target_arch = "aarch64")]
const MULTIARCH: &str = "/lib/aarch64-linux-gnu/security";
#[cfg(target_arch = "aarch64")]
const MULTIARCH_USR: &str = "/usr/lib/aarch64-linux-gnu/security";
#[cfg(not(target_arch = "aarch64"))]
const MULTIARCH: &str = "/lib/x86_64-linux-gnu/security";
#[cfg(not(target_arch = "aarch64"))]
const MULTIARCH_USR: &str = "/usr/lib/x86_64-linux-gnu/security";

/// What editors and package managers leave beside a file.
const LEFTOVERS: [&str; 12] = [
    "~",
    ".bak",
    ".dpkg-bak",
    ".dpkg-dist",
    ".dpkg-new",
    ".dpkg-old",
    ".dpkg-tmp",
    ".pam-new",
    ".pam-old",
    ".rpmnew",
    ".rpmsave",
    ".swp",
];

/// One rule, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule<'a> {
    /// `auth`, `account`, `password` or `session`, as it is written but for a leading `-`.
    pub facility: &'a str,
    /// `required`, `sufficient`, `[success=1 default=ignore]`, `include`, …
    pub control: &'a str,
    /// The module, or the file that is included.
    pub target: &'a str,
    /// Everything after it.
    pub arguments: &'a str,
}

// === impl Rule ===

impl<'a> Rule<'a> {
    /// From a line of [`rules`]; `None` for what is no rule: `@include`, nonsense.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        let (first, rest) = token(line);
        let (facility, rest) = match facility(first) {
            Some(found) => (found, rest),
            // pam.conf has the service in front.
            None => {
                let (second, rest) = token(rest);
                (facility(second)?, rest)
            }
        };
        let (control, rest) = token(rest);
        let (target, arguments) = token(rest);
        (!target.is_empty()).then_some(Self { facility, control, target, arguments })
    }

    /// It runs a module, rather than another file's rules.
    #[must_use]
    pub fn module(&self) -> Option<&'a str> {
        let includes = ["include", "substack"];
        let included = includes.iter().any(|word| self.control.eq_ignore_ascii_case(word));
        (!included).then_some(self.target)
    }
}

fn facility(word: &str) -> Option<&str> {
    let word = word.strip_prefix('-').unwrap_or(word);
    let known = ["auth", "account", "password", "session"];
    known.iter().any(|name| word.eq_ignore_ascii_case(name)).then_some(word)
}

/// The first word of normalized text, a pair of brackets being one word, and the rest.
fn token(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = if text.starts_with('[') {
        let mut escaped = false;
        let closing = text.char_indices().find(|(_, letter)| {
            let found = *letter == ']' && !escaped;
            escaped = *letter == '\\' && !escaped;
            found
        });
        closing.map_or(text.len(), |(at, _)| at + 1)
    } else {
        text.find(char::is_whitespace).unwrap_or(text.len())
    };
    let (word, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// Rules of a file, in order: `#` begins a comment, a backslash at the end of a line goes on with
/// the next, white space counts once.
pub(super) fn rules(bytes: &[u8]) -> Vec<String> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut goes_on = false;
    for line in text::lines(bytes) {
        let line = line.trim_ascii();
        let (line, more) = line.strip_suffix(b"\\").map_or((line, false), |line| (line, true));
        let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let mut plain = words.collect::<Vec<_>>().join(&b' ');
        match lines.last_mut() {
            Some(last) if goes_on => {
                if !last.is_empty() && !plain.is_empty() {
                    last.push(b' ');
                }
                last.append(&mut plain);
            }
            _ => lines.push(plain),
        }
        goes_on = more;
    }
    text::entries(lines.iter().map(Vec::as_slice))
}

/// Whether a name in a directory of services is one that PAM would be asked for.
pub(super) fn is_service(name: &str) -> bool {
    let plain = |letter: char| !letter.is_control() && letter != '/';
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && name.chars().all(plain)
        && !LEFTOVERS.iter().any(|end| name.ends_with(end))
        && !name.contains(".ucf-")
}

/// Modules that rules name, as they are written.
pub(super) fn modules<'a>(rules: impl IntoIterator<Item = &'a String>) -> BTreeSet<&'a str> {
    let named = rules.into_iter().filter_map(|rule| Rule::parse(rule)?.module());
    named.filter(|name| !name.contains("..") && name.len() <= 512).take(MODULES_MAX * 8).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rules_are_read_as_pam_reads_them() {
        let text = b"# all\n@include  common-auth\n\n-session\toptional \\\n   pam_systemd.so # x\n\
            auth [success=1 default=ignore] pam_unix.so   nullok\n";
        let found = rules(text);
        assert_eq!(
            found,
            [
                "@include common-auth",
                "-session optional pam_systemd.so",
                "auth [success=1 default=ignore] pam_unix.so nullok",
            ]
        );
        assert_eq!(Rule::parse(&found[0]), None);
        let unix = Rule::parse(&found[2]).unwrap();
        assert_eq!((unix.facility, unix.control), ("auth", "[success=1 default=ignore]"));
        assert_eq!((unix.module(), unix.arguments), (Some("pam_unix.so"), "nullok"));
        let named = modules(&found);
        assert_eq!(named.into_iter().collect::<Vec<_>>(), ["pam_systemd.so", "pam_unix.so"]);
    }

    #[test]
    fn a_service_in_front_and_includes_are_understood() {
        let rule = Rule::parse("sshd AUTH sufficient /opt/x.so a [b c]").unwrap();
        assert_eq!((rule.facility, rule.module()), ("AUTH", Some("/opt/x.so")));
        assert_eq!(rule.arguments, "a [b c]");
        assert_eq!(Rule::parse("auth include system-auth").unwrap().module(), None);
        assert_eq!(Rule::parse("auth required"), None);
    }

    #[test]
    fn leftovers_are_no_services() {
        for name in ["sshd", "common-auth", "su-l", "systemd-user"] {
            assert!(is_service(name), "{name}");
        }
        for name in ["sshd~", ".sshd.swp", "sshd.dpkg-new", "x.ucf-dist", "", "a\nb"] {
            assert!(!is_service(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let found = rules(&bytes);
            let _ = modules(&found);
        }

        #[test]
        fn any_text_is_taken_apart_without_panic(text: String) {
            let _ = Rule::parse(&text);
        }
    }
}
