//! Why the dynamic loader found a library where it did: its own search, done again from what the
//! process was started with, and who else could have put a file into the places it asked.
//!
//! [`Start::explain`] is a pure function of parsed inputs and of what paths lead to ([`View`]). It
//! does what glibc's elf/dl-load.c does (`_dl_map_object`, `fillin_rpath`, `decompose_rpath`,
//! `_dl_dst_substitute`; 2.28 to 2.41), and musl's ldso/dynlink.c (`load_library`, `fixup_rpath`;
//! 1.1.20 to 1.2.5). What it cannot know: the names that a program hands to `dlopen`, and a current
//! directory that was another when the loader ran.

mod expand;
mod follow;
mod gather;
mod order;
mod places;
mod tell;
mod writers;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::gather::Explained;
pub(crate) use self::gather::{Gatherer, Question, Remains, Unexplained};
pub use self::places::List;
pub use self::writers::Writer;
pub(crate) use self::writers::{Directory, Inode};

use self::follow::Search;
use self::order::Order;

/// A file, as far as all who tell of it agree: device numbers differ between a mapping and `stat` on
/// btrfs and overlays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Inode number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
}

/// What the dynamic section of a file says that matters to the search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `DT_NEEDED`, in order.
    pub needed: Vec<String>,
    /// `DT_SONAME`.
    pub soname: Option<String>,
    /// `DT_RPATH`.
    pub rpath: Option<String>,
    /// `DT_RUNPATH`.
    pub runpath: Option<String>,
    /// `DF_1_NODEFLIB`: the system's directories are not searched.
    pub no_default: bool,
}

/// A file that the process has mapped.
#[derive(Clone, Debug)]
pub struct Module {
    /// As the process sees it, links resolved.
    pub path: PathBuf,
    /// Which file.
    pub file: FileId,
    /// Its owner: whoever may write to it decides about the program anyway.
    pub owner: Option<u32>,
    /// What it says.
    pub names: std::sync::Arc<Names>,
}

/// Whose rules hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    /// glibc's.
    Glibc,
    /// musl's.
    Musl,
}

/// All that one start of a program's loader depended on.
#[derive(Clone, Debug)]
pub struct Start {
    /// Whose rules hold.
    pub loader: Loader,
    /// More rights than who started it: the environment does not count.
    pub secure: bool,
    /// Effective user.
    pub euid: u32,
    /// The program first; the others in no particular order.
    pub modules: Vec<Module>,
    /// The loader's own file.
    pub interpreter: Option<FileId>,
    /// `LD_LIBRARY_PATH`.
    pub library_path: Option<String>,
    /// Libraries that are loaded without being needed: by which list, and the name there.
    pub preloads: Vec<(Preload, String)>,
    /// Entries of `ld.so.cache`.
    pub cache: std::sync::Arc<HashMap<String, Vec<PathBuf>>>,
    /// Directories searched last: glibc's built-in ones, or those of musl's path file.
    pub system: Vec<PathBuf>,
    /// The current directory, as the process sees it.
    pub cwd: Option<PathBuf>,
}

/// A list of libraries to load before any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Preload {
    /// `LD_PRELOAD`.
    Variable,
    /// `/etc/ld.so.preload`.
    File,
    /// `LD_AUDIT`.
    Audit,
}

/// What paths lead to below the root of the process. No answer may keep the caller waiting.
pub trait View {
    /// The regular file that a path leads to, links followed.
    fn file(&self, path: &Path) -> Option<FileId>;
    /// The directory.
    fn directory(&self, path: &Path) -> Directory;
}

/// Who asked for the library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asked {
    /// The kernel: the program, or its loader.
    Kernel,
    /// A list.
    Preload(Preload),
    /// A module that needs it: its path.
    Needed(#[serde(with = "crate::serial::one")] PathBuf),
    /// Nobody at the start: the program itself, later.
    Opened,
}

/// How it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// It was named with a path.
    Path,
    /// A list of directories: the element as it is written there.
    Listed {
        /// Which list.
        list: List,
        /// Module whose list it is; `None` for the environment's.
        #[serde(with = "crate::serial::option")]
        of: Option<PathBuf>,
        /// The element.
        element: String,
    },
    /// `ld.so.cache`.
    Cache,
    /// A directory that is always searched.
    System(#[serde(with = "crate::serial::one")] PathBuf),
    /// By a name that leads nowhere now: a descriptor of the process's own.
    Lost,
    /// Its path does not lead to it now, so that no rule can be followed.
    Gone,
    /// By none of the rules, as far as they can be followed.
    Unknown,
}

/// A place that the loader asked, and that others than root and the program's owner decide about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weakness {
    /// Which list.
    pub list: List,
    /// Module whose list it is.
    #[serde(with = "crate::serial::option")]
    pub of: Option<PathBuf>,
    /// As it is written.
    pub element: String,
    /// What it stood for; `None` where that depends on a current directory that is not known.
    #[serde(with = "crate::serial::option")]
    pub directory: Option<PathBuf>,
    /// What is wrong.
    pub why: Why,
    /// The library was found here, not only looked for.
    pub hit: bool,
}

/// What is wrong with a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// It is the current directory or below it: whoever starts the program chooses.
    Current(Option<Writer>),
    /// Others may put files there.
    Writable(Writer),
    /// It does not exist, and others may make it.
    Missing(Writer),
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Who asked.
    pub asked: Asked,
    /// By which name.
    pub name: Option<String>,
    /// How it was found.
    pub rule: Rule,
    /// The path that the loader made of it.
    #[serde(with = "crate::serial::option")]
    pub path: Option<PathBuf>,
    /// Odd places, in the order in which they were asked, up to and with the one that had it.
    pub weak: Vec<Weakness>,
    /// It lies in the current directory.
    pub in_current: bool,
}

// === impl Start ===

impl Start {
    /// How the loader came to the file that lies at `path` for the process.
    #[must_use]
    pub fn explain(&self, file: FileId, path: &Path, view: &dyn View) -> Found {
        let is_program = self.modules.first().is_some_and(|program| program.file == file);
        if is_program || self.interpreter == Some(file) {
            return self.found(Asked::Kernel, None, Rule::Path, path);
        }
        let mut search = Search::new(self, file, view);
        if view.file(path) != Some(file) {
            return search
                .lost()
                .unwrap_or_else(|| self.found(Asked::Opened, None, Rule::Gone, path));
        }
        let order = Order::of(self);
        let own: Vec<&str> = search.names_of(path);
        let found = search
            .preloaded(&order)
            .or_else(|| search.needed(&order, &own))
            .or_else(|| search.opened(&order, &own));
        let mut found =
            found.unwrap_or_else(|| self.found(Asked::Opened, None, Rule::Unknown, path));
        found.in_current = self.cwd.is_some() && path.parent() == self.cwd.as_deref();
        found
    }

    fn found(&self, asked: Asked, name: Option<String>, rule: Rule, path: &Path) -> Found {
        let in_current = self.cwd.is_some() && path.parent() == self.cwd.as_deref();
        let path = (rule == Rule::Path).then(|| path.to_owned());
        Found { asked, name, rule, path, weak: Vec::new(), in_current }
    }
}

#[cfg(test)]
mod tests;
