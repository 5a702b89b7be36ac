//! A loader variable as observations carry it, with the files it names.

use serde::{Deserialize, Serialize};

/// See [`Body::Environment`](super::Body::Environment).
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Variable {
    /// Name.
    pub name: String,
    /// Value, possibly cut.
    pub value: String,
    /// The program before it, or its parent's, had the same: it came from further up.
    pub inherited: bool,
    /// The same name stood further ahead in the environment: glibc obeys the last, musl the first.
    pub again: bool,
    /// The value is longer than what was read.
    pub cut: bool,
    /// Read from `/proc` when the program was running already: it may have changed it.
    pub late: bool,
    /// What it makes the loader load: `LD_PRELOAD` and `LD_AUDIT` only.
    pub libraries: Vec<Preloaded>,
    /// How far the question is whose these libraries are.
    pub owners: Owners,
}

/// A library that a variable names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preloaded {
    /// As the variable names it.
    pub name: String,
    /// The file, as far as it was found.
    pub file: Option<FoundLibrary>,
    /// Nobody could look for it everywhere: it may be there.
    pub unseen: bool,
    /// Who owns that file.
    pub owner: Ownership,
}

/// A file found for a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundLibrary {
    /// As the process sees it, symbolic links resolved.
    pub path: String,
    /// Inode number.
    pub inode: u64,
    /// Its set-uid bit is set: a loader of a program with more rights may load it.
    pub set_uid: bool,
    /// Root's, in directories that are root's, none of which anyone else may write to.
    pub protected: bool,
}

/// Whether the owners of the libraries that a variable names are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owners {
    /// Nobody was asked.
    #[default]
    NotAsked,
    /// The provenance station was: the same variable follows, with the answer.
    Asked,
    /// This is that answer.
    Answered,
}

/// What the distribution's database says of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ownership {
    /// It was not asked, or has no answer.
    Unknown,
    /// No package has it.
    Nobody,
    /// A package has it: name and version, as a person would write them.
    Package(String),
    /// A package has it, but it is not what that brought.
    Differs(String),
}
