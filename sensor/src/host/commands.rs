//! The commands that sshd and PAM are configured to run before a verdict.
//!
//! Read from the configuration in force below the monitor's own root: `AuthorizedKeysCommand` and
//! `AuthorizedPrincipalsCommand` of `sshd_config` with its includes, and the programs of `pam_exec` in
//! PAM's service. Every `Match` block counts, whoever it is for. All of it is bounded; what is too
//! much, or cannot be followed, is "not known", which is not "none".

mod pam;
mod server;

use super::root::Root;
use super::variable::FoundLibrary;

/// Bytes of one configuration file.
pub(super) const FILE_MAX: u64 = 256 * 1024;
/// Files read for one server.
const FILES_MAX: usize = 128;
/// Commands of one server.
const COMMANDS_MAX: usize = 64;
/// Bytes of an interpreter's line (include/uapi/linux/binfmts.h `BINPRM_BUF_SIZE`).
const HEAD_MAX: u64 = 256;

/// Files below a root.
pub(super) trait Files {
    /// The bytes of a regular file, at most [`FILE_MAX`].
    fn read(&self, path: &str) -> Option<Vec<u8>>;
    /// The names in a directory; `None` where there are too many.
    fn list(&self, directory: &str) -> Option<Vec<String>>;
}

/// What a server may run before a verdict, with the files that it would run now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    all: Vec<Command>,
    kerberos: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Command {
    why: &'static str,
    file: FoundLibrary,
    script: Option<Script>,
}

/// A file that the kernel hands to an interpreter (`fs/binfmt_script.c`, `load_script`).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Script {
    interpreter: FoundLibrary,
    /// The first arguments that it gets then.
    head: Vec<String>,
}

/// A program that runs, to be compared.
pub(super) struct Runs<'a> {
    /// Inode of its executable.
    pub(super) ino: u64,
    /// Path of it as the monitor sees it.
    pub(super) path: &'a str,
    /// Its arguments; none where they could not be read.
    pub(super) cmdline: &'a [String],
    /// It runs another program by now, or none: its arguments were another's.
    pub(super) has_left: &'a dyn Fn() -> bool,
}

/// A command as a configuration names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    path: String,
    why: &'static str,
}

/// Reads within bounds, and knows when they were not enough.
struct Reader<'a> {
    files: &'a dyn Files,
    left: usize,
    /// Something could not be followed.
    partial: bool,
}

// === impl Commands ===

impl Commands {
    /// Of the server whose monitor is `tgid` and has these arguments; `None` where its configuration
    /// cannot be read as a whole.
    pub(super) fn read(tgid: u32, arguments: &[String]) -> Option<Self> {
        let root = Root::of(tgid)?;
        let (named, kerberos) = named(&root, arguments)?;
        let all = named.iter().filter_map(|named| Command::find(&root, named)).collect();
        Some(Self { all, kerberos })
    }

    /// What an earlier reading said, as far as there is room.
    pub(super) fn add(&mut self, earlier: &Self) {
        self.kerberos |= earlier.kerberos;
        for command in &earlier.all {
            if self.all.len() < 2 * COMMANDS_MAX && !self.all.contains(command) {
                self.all.push(command.clone());
            }
        }
    }

    /// Passwords may be checked by sshd's own Kerberos, before PAM is asked.
    pub(super) fn ask_kerberos(&self) -> bool {
        self.kerberos
    }

    /// Why this program belongs there.
    pub(super) fn has(&self, runs: &Runs<'_>) -> Option<&'static str> {
        self.all.iter().find(|command| command.is(runs)).map(|command| command.why)
    }

    /// Why this program may belong there: it is the interpreter of a script, and nobody can say any more
    /// of which.
    pub(super) fn may_have(&self, runs: &Runs<'_>) -> Option<&'static str> {
        self.all.iter().find(|command| command.may_be(runs)).map(|command| command.why)
    }

    /// For tests: a command with this inode.
    #[cfg(test)]
    pub(crate) fn of(ino: u64, script: Option<(u64, &[&str])>) -> Self {
        let file = |inode| {
            let path = format!("/opt/{inode}");
            FoundLibrary { path, inode, set_uid: false, protected: true }
        };
        let script = script.map(|(ino, head)| {
            let head = head.iter().map(|word| (*word).to_owned()).collect();
            Script { interpreter: file(ino), head }
        });
        Self { all: vec![Command { why: server::KEYS, file: file(ino), script }], kerberos: false }
    }

    /// For tests: nothing but Kerberos.
    #[cfg(test)]
    pub(crate) fn of_kerberos() -> Self {
        Self { all: Vec::new(), kerberos: true }
    }
}

// === impl Runs ===

impl Runs<'_> {
    /// An overlay may number its files otherwise than the kernel does inside; only root decides about
    /// the path.
    fn is(&self, file: &FoundLibrary) -> bool {
        file.inode == self.ino || file.path == self.path
    }
}

// === impl Command ===

impl Command {
    /// sshd refuses what others could have written (auth.c `safe_path`), and so does this.
    fn find(root: &Root, named: &Named) -> Option<Self> {
        let file = root.look(&named.path).filter(|file| file.protected)?;
        let head = root.read_at_most(&file.path, HEAD_MAX)?;
        let script = interpreter(&head).and_then(|words| {
            let interpreter = root.look(words.first()?)?;
            let head = words.into_iter().chain([named.path.clone()]).collect();
            Some(Script { interpreter, head })
        });
        Some(Self { why: named.why, file, script })
    }

    fn is(&self, runs: &Runs<'_>) -> bool {
        let Some(script) = &self.script else { return runs.is(&self.file) };
        runs.is(&script.interpreter) && runs.cmdline.starts_with(&script.head)
    }

    /// A script that hands over to another program at once cannot be asked any more.
    fn may_be(&self, runs: &Runs<'_>) -> bool {
        let interpreter = self.script.as_ref().is_some_and(|script| runs.is(&script.interpreter));
        interpreter && (runs.cmdline.is_empty() || (runs.has_left)())
    }
}

/// The interpreter of a script and its argument: all of the line after it is one.
fn interpreter(head: &[u8]) -> Option<Vec<String>> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim_matches([' ', '\t']);
    let (program, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let argument = argument.trim_start_matches([' ', '\t']);
    let words = [program, argument].into_iter().filter(|word| !word.is_empty());
    Some(words.map(str::to_owned).collect())
}

/// Every command that is named, and whether Kerberos is asked about passwords; `None` where not
/// everything could be followed.
fn named(files: &dyn Files, arguments: &[String]) -> Option<(Vec<Named>, bool)> {
    let mut reader = Reader { files, left: FILES_MAX, partial: false };
    let settings = server::settings(&mut reader, arguments)?;
    let mut found = settings.commands;
    found.extend(pam::programs(&mut reader, &settings.services));
    found.sort_unstable();
    found.dedup();
    let known = !reader.partial && found.len() <= COMMANDS_MAX;
    known.then_some((found, settings.kerberos))
}

/// For the fuzzer: how many commands these bytes name, as a configuration and as a service.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn configured(bytes: &[u8]) -> usize {
    struct Same<'a>(&'a [u8]);
    impl Files for Same<'_> {
        fn read(&self, _path: &str) -> Option<Vec<u8>> {
            Some(self.0.to_vec())
        }
        fn list(&self, _directory: &str) -> Option<Vec<String>> {
            Some(vec!["a.conf".to_owned()])
        }
    }
    let _ = interpreter(bytes);
    named(&Same(bytes), &[]).map_or(0, |(named, _)| named.len())
}

// === impl Reader ===

impl Reader<'_> {
    /// A file that need not be there; past the bounds nothing is.
    fn read(&mut self, path: &str) -> Option<Vec<u8>> {
        if self.left == 0 {
            self.partial = true;
            return None;
        }
        self.left -= 1;
        let bytes = self.files.read(path)?;
        // A file that is cut may say more.
        self.partial |= bytes.len() as u64 >= FILE_MAX;
        Some(bytes)
    }

    fn list(&mut self, directory: &str) -> Vec<String> {
        let names = self.files.list(directory);
        self.partial |= names.is_none();
        names.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
