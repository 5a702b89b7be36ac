//! What a person makes part of a baseline: one exact object, with who, why and when.
//!
//! Learning refuses some things whatever happens: a slot that leads elsewhere, a foreign caller of a
//! guarded function, what runs below sshd before anybody has authenticated. There is no object for a
//! slot or for changed code, so that nothing can ever be approved of them: what is redirected is told
//! every time. A caller, an asker or a helper is approved only as itself: this function by this build of
//! this file, this library for this module, this very path. Nothing here stands for more than it names.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::shift::{CONSTRUCTOR, LINK, check};
use super::subject::{
    ASKERS_MAX, Baseline, CONSTRUCTORS, INSTRUMENTS_MAX, LIBRARIES_MAX, NAMES_MAX, Seen,
};
use crate::host::ModuleId;

/// Approvals remembered of one subject; beyond, none is taken.
pub(super) const APPROVALS_MAX: usize = 64;
/// Bytes of a name of anything, and of a reason.
pub(super) const TEXT_MAX: usize = 4096;
const WHO_MAX: usize = 128;
const WHY_MAX: usize = 1024;

/// Programs that run what they are told to. Who may run one before the login may run anything.
const INTERPRETERS: [&str; 28] = [
    "ash", "awk", "bash", "busybox", "csh", "dash", "env", "fish", "gawk", "java", "ksh", "lua",
    "mawk", "mksh", "nc", "ncat", "node", "perl", "php", "python", "ruby", "sh", "socat", "tclsh",
    "tcsh", "toybox", "xargs", "zsh",
];

/// One thing that may be approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Object {
    /// This build of a library.
    Library {
        /// The file.
        module: ModuleId,
    },
    /// This build of a library as a caller of a guarded function.
    Caller {
        /// The function.
        function: String,
        /// Who calls it.
        module: ModuleId,
    },
    /// This build of a library as the one that opens a library.
    Asker {
        /// Path of what is opened.
        library: String,
        /// Who asks.
        module: ModuleId,
    },
    /// A loader variable, with the library where it loads one.
    Variable {
        /// `NAME`, or `LD_PRELOAD=/path`.
        name: String,
    },
    /// A program that runs below sshd before the login.
    Helper {
        /// Its path.
        path: String,
    },
    /// Something that instruments the host.
    Instrument {
        /// As `baseline show` and the finding name it.
        key: String,
    },
    /// A stream of times is learned anew, from the next one on.
    Times {
        /// `link`, `constructors`, `check METHOD`.
        stream: String,
    },
}

/// What was approved, by whom and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// When.
    pub time: Timestamp,
    /// By whom, in their own words.
    pub who: String,
    /// Why.
    pub why: String,
    /// What.
    pub object: Object,
}

/// Why something is not approved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotApproved {
    /// Nobody stands for it, or nothing is said.
    #[error("--{0} is empty, too long or holds control characters")]
    Words(&'static str),
    /// A name that is no name.
    #[error("{0:?} is empty, too long or holds control characters")]
    Name(String),
    /// Code that nobody can look at on a disk, or of which it is not known what it is.
    #[error("{0} is no file whose build is known: only such a file can be approved")]
    Homeless(String),
    /// Only files that the program has may call or ask.
    #[error("{0} is no library of this baseline in that build; approve the library first")]
    Unknown(String),
    /// A path that is none.
    #[error("{0:?} is no absolute path")]
    Relative(String),
    /// It would stand for everything it is told to run.
    #[error("{0} runs whatever it is told to: approving it would approve everything below sshd")]
    Interpreter(String),
    /// A variable that loads code has to name it.
    #[error("{0} loads code: name the library, as in {0}=/path/to/library.so")]
    Blanket(String),
    /// No such stream.
    #[error("{0:?} is no stream of times of this baseline; `baseline show` lists them")]
    NoStream(String),
    /// No room.
    #[error("the baseline holds as many {0} as it can")]
    Full(&'static str),
}

// === impl Object ===

impl Object {
    /// In a few words.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Library { module } => format!("library {} {}", module.path, module.build),
            Self::Caller { function, module } => {
                format!("{function} called by {} {}", module.path, module.build)
            }
            Self::Asker { library, module } => {
                format!("{library} opened by {} {}", module.path, module.build)
            }
            Self::Variable { name } => format!("variable {name}"),
            Self::Helper { path } => format!("{path} below sshd before the login"),
            Self::Instrument { key } => format!("instrumentation {key}"),
            Self::Times { stream } => format!("times of {stream} are learned anew"),
        }
    }

    /// Whether it is one exact thing that may be part of a baseline at all.
    fn check(&self) -> Result<(), NotApproved> {
        match self {
            Self::Library { module } => is_known_file(module),
            Self::Caller { function, module } => {
                name(function)?;
                is_known_file(module)
            }
            Self::Asker { library, module } => {
                absolute(library)?;
                is_known_file(module)
            }
            Self::Variable { name } => variable(name),
            Self::Helper { path } => helper(path),
            Self::Instrument { key } => name(key),
            Self::Times { stream } => name(stream),
        }
    }
}

// === impl Approval ===

impl Approval {
    /// Whether somebody stands for it and it is of a kind that may be approved.
    ///
    /// # Errors
    /// Where not: see the module.
    pub fn check(&self) -> Result<(), NotApproved> {
        for (what, text, most) in [("who", &self.who, WHO_MAX), ("why", &self.why, WHY_MAX)] {
            let said = text.trim();
            if said.is_empty() || text.len() > most || text.chars().any(char::is_control) {
                return Err(NotApproved::Words(what));
            }
        }
        self.object.check()
    }
}

// === impl Baseline ===

impl Baseline {
    /// Takes what was approved into the baseline, and who did. A second time changes nothing.
    ///
    /// # Errors
    /// Where it may not be approved; the baseline is then as it was.
    pub fn approve(&mut self, approval: &Approval) -> Result<(), NotApproved> {
        if self.approvals.contains(approval) {
            return Ok(());
        }
        approval.check()?;
        if self.approvals.len() >= APPROVALS_MAX {
            return Err(NotApproved::Full("approvals"));
        }
        match &approval.object {
            Object::Library { module } => self.approve_library(module, approval.time)?,
            Object::Caller { function, module } => self.approve_caller(function, module)?,
            Object::Asker { library, module } => self.approve_asker(library, module)?,
            Object::Variable { name } => {
                put(&mut self.environment, name, NAMES_MAX, "variables")?;
            }
            Object::Helper { path } => put(&mut self.helpers, path, NAMES_MAX, "helpers")?,
            Object::Instrument { key } => {
                put(&mut self.instruments, key, INSTRUMENTS_MAX, "hooks")?;
            }
            Object::Times { stream } => self.learn_anew(stream)?,
        }
        self.approvals.push(approval.clone());
        Ok(())
    }

    /// Nothing else is to be unlearned by it: a program that has settled stays so.
    fn approve_library(&mut self, module: &ModuleId, time: Timestamp) -> Result<(), NotApproved> {
        if self.has_library(module) {
            return Ok(());
        }
        if self.libraries.len() >= LIBRARIES_MAX {
            return Err(NotApproved::Full("libraries"));
        }
        self.libraries.push((module.clone(), Seen { first: time, last: time }));
        Ok(())
    }

    fn approve_caller(&mut self, function: &str, module: &ModuleId) -> Result<(), NotApproved> {
        self.must_have(module)?;
        if self.callers.len() >= NAMES_MAX && !self.callers.contains_key(function) {
            return Err(NotApproved::Full("functions"));
        }
        let callers = self.callers.entry(function.to_owned()).or_default();
        if callers.modules.len() >= NAMES_MAX {
            return Err(NotApproved::Full("callers of this function"));
        }
        callers.modules.insert(module.clone());
        Ok(())
    }

    fn approve_asker(&mut self, library: &str, module: &ModuleId) -> Result<(), NotApproved> {
        self.must_have(module)?;
        if !self.has_path(library) {
            return Err(NotApproved::Unknown(library.to_owned()));
        }
        let askers = &mut self.openings.askers;
        if askers.len() >= LIBRARIES_MAX && !askers.contains_key(library) {
            return Err(NotApproved::Full("opened libraries"));
        }
        let known = askers.entry(library.to_owned()).or_default();
        if known.len() >= ASKERS_MAX {
            return Err(NotApproved::Full("modules that open this library"));
        }
        known.insert(module.clone());
        Ok(())
    }

    fn must_have(&self, module: &ModuleId) -> Result<(), NotApproved> {
        if self.has_library(module) {
            return Ok(());
        }
        Err(NotApproved::Unknown(module.path.clone()))
    }

    /// The reference goes with everything that it was made of, else the old times would come back.
    fn learn_anew(&mut self, stream: &str) -> Result<(), NotApproved> {
        let Some(shift) = self.shifts.get_mut(stream) else {
            return Err(NotApproved::NoStream(stream.to_owned()));
        };
        *shift = sensor_stats::Shift::default();
        self.usual_at.remove(stream);
        if stream == LINK {
            self.link = super::Samples::default();
            self.shares.retain(|key, _| key == CONSTRUCTORS);
        } else if stream == CONSTRUCTOR {
            self.shares.remove(CONSTRUCTORS);
        } else {
            self.auth.retain(|method, _| check(*method) != stream);
        }
        Ok(())
    }
}

fn put(
    set: &mut std::collections::BTreeSet<String>,
    name: &str,
    most: usize,
    what: &'static str,
) -> Result<(), NotApproved> {
    if set.len() >= most && !set.contains(name) {
        return Err(NotApproved::Full(what));
    }
    set.insert(name.to_owned());
    Ok(())
}

/// On a disk, under a name, and read.
fn is_known_file(module: &ModuleId) -> Result<(), NotApproved> {
    name(&module.path)?;
    name(&module.build)?;
    let memory = module.path.starts_with("/memfd:") || module.path.starts_with("/dev/shm/");
    if !module.is_mapped_file() || module.is_unread() || memory {
        return Err(NotApproved::Homeless(module.path.clone()));
    }
    Ok(())
}

fn name(text: &str) -> Result<(), NotApproved> {
    if text.is_empty() || text.len() > TEXT_MAX || text.chars().any(char::is_control) {
        return Err(NotApproved::Name(text.chars().take(64).collect()));
    }
    Ok(())
}

fn absolute(path: &str) -> Result<(), NotApproved> {
    name(path)?;
    let plain = path.starts_with('/') && !path.split('/').any(|part| part == ".." || part == ".");
    if plain { Ok(()) } else { Err(NotApproved::Relative(path.to_owned())) }
}

fn helper(path: &str) -> Result<(), NotApproved> {
    absolute(path)?;
    let file = path.rsplit('/').next().unwrap_or(path);
    // `python3.11`, `perl5.36`, `lua5.4`.
    let stem = file.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    if INTERPRETERS.contains(&stem) || INTERPRETERS.contains(&file) {
        return Err(NotApproved::Interpreter(path.to_owned()));
    }
    Ok(())
}

fn variable(text: &str) -> Result<(), NotApproved> {
    name(text)?;
    let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)));
    name(key)?;
    if !crate::detect::judge::injects(key) {
        // Of the others only the name is remembered.
        return if value.is_none() { Ok(()) } else { Err(NotApproved::Name(text.to_owned())) };
    }
    value.map_or_else(|| Err(NotApproved::Blanket(key.to_owned())), absolute)
}

#[cfg(test)]
mod tests;
