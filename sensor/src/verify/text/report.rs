//! What a check of a process's code found.

use std::fmt;

use serde::{Serialize, Serializer};

use super::super::report::{ModuleRef, Target};

/// The code of a process compared with the files it comes from.
#[derive(Serialize, Clone, Debug, Default)]
pub struct Text {
    /// Pages of executable file mappings that somebody made private by writing to them.
    pub private_pages: u64,
    /// Bytes that are not the file's, in stretches, explained ones included; our own probes are
    /// only counted.
    pub patches: Vec<Patch>,
    /// Stretches beyond those in `patches`.
    pub patches_left_out: u64,
    /// Places where our own probes sit.
    pub own_probes: u64,
    /// Pages that were written to and are equal to their file again, as hooks leave them that were
    /// removed.
    pub restored: Vec<RestoredPage>,
    /// Modules and mappings that contradict each other.
    pub strays: Vec<Stray>,
    /// The same, seen at both looks, where a thread may have been on its way through the loader at
    /// both: a library that is being loaded or unloaded looks like that.
    pub doubtful: Vec<Stray>,
    /// Executable memory that is no module's and no ELF file's: what just-in-time compilers use.
    pub loose: Vec<Loose>,
}

/// A stretch of code that is not what the file says.
#[derive(Serialize, Clone, Debug)]
pub struct Patch {
    /// Whose code; of the vDSO, the path is `[vdso]`.
    pub module: ModuleRef,
    /// Address in the process.
    pub addr: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Address in the file (virtual address); none where the file could not be understood.
    pub vaddr: Option<u64>,
    /// Nearest function at or below.
    pub symbol: Option<String>,
    /// Distance to its start.
    pub symbol_offset: Option<u64>,
    /// Bytes that it covers.
    pub length: u64,
    /// The file's bytes, hex; the first 64.
    #[serde(serialize_with = "hex")]
    pub expected: Vec<u8>,
    /// The bytes in memory, hex; as many.
    #[serde(serialize_with = "hex")]
    pub actual: Vec<u8>,
    /// The instructions of the file that it touches.
    pub expected_code: Vec<String>,
    /// The instructions that stand there now.
    pub actual_code: Vec<String>,
    /// Where the first changed instruction leads, if it is a jump or a call.
    pub leads_to: Option<Target>,
    /// What accounts for it; none for what has to be reported.
    pub explanation: Option<Explanation>,
}

/// What accounts for changed code.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Explanation {
    /// A user-space probe (uprobe) of somebody else.
    Probe {
        /// Who, for people.
        owner: String,
    },
    /// A debugger's breakpoint.
    Breakpoint {
        /// The tracer's process.
        tracer: u32,
        /// Its name.
        name: String,
    },
    /// The file was written to after the process started, so what the code was is not known.
    FileChanged,
}

/// A page that was written to and is equal to its file again.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct RestoredPage {
    /// Whose code.
    pub module: ModuleRef,
    /// Address in the process.
    pub addr: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Whether one of our own probes is or was in it.
    pub own_probe: bool,
}

/// A module or a mapping that the other side does not know.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// What contradicts.
    pub kind: StrayKind,
    /// The file, where there is one.
    pub module: Option<ModuleRef>,
    /// First address.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// What is there, for people.
    pub memory: String,
    /// Of replaced text: bytes that are not the file's.
    pub differing: Option<u64>,
}

/// Kinds of contradiction between the link map and the mappings.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum StrayKind {
    /// Code of an ELF file is mapped, and no link map has it.
    Unlisted,
    /// A link map has a module that is mapped from no file.
    Unmapped,
    /// The link map's address contradicts the module's file.
    Misplaced,
    /// A module's text is memory without a file.
    Replaced,
    /// A module's text is mapped from another file or another place of its own.
    Foreign,
    /// A part of a module's text is not mapped.
    Missing,
    /// The vDSO is not where the kernel put it.
    VdsoMoved,
}

/// Executable memory of no module.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Loose {
    /// The kernel's name and permissions: `anonymous rwx`.
    pub memory: String,
    /// Areas of that kind.
    pub areas: u64,
    /// Their size together.
    pub bytes: u64,
}

fn hex<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(bytes))
}

/// `0f 1f 44`
pub(crate) fn shown(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(" ")
}

// === impl Text ===

impl Text {
    /// What has to be reported.
    pub fn unexplained(&self) -> impl Iterator<Item = &Patch> {
        self.patches.iter().filter(|patch| patch.explanation.is_none())
    }

    /// Executable bytes of no module.
    pub fn loose_bytes(&self) -> u64 {
        self.loose.iter().map(|loose| loose.bytes).sum()
    }

    /// Whether nothing has to be looked at a second time.
    pub(crate) fn is_quiet(&self) -> bool {
        self.unexplained().next().is_none() && self.strays.is_empty()
    }

    /// Keeps of this second look what the first one saw as well.
    pub(crate) fn confirm(&mut self, first: &Self) {
        let same_patch = |a: &Patch, b: &Patch| {
            (a.addr, &a.actual) == (b.addr, &b.actual) && a.module == b.module
        };
        self.patches.retain(|now| {
            now.explanation.is_some() || first.patches.iter().any(|then| same_patch(then, now))
        });
        let same_stray =
            |a: &Stray, b: &Stray| (a.kind, a.addr, &a.module) == (b.kind, b.addr, &b.module);
        self.strays.retain(|now| first.strays.iter().any(|then| same_stray(then, now)));
    }
}

// === impl Patch ===

impl Patch {
    /// `libc.so.6+0xd8410 (getppid+0x0)`
    pub fn place(&self) -> String {
        let at = self.vaddr.unwrap_or(self.offset);
        let place = format!("{}+{at:#x}", self.module.file_name());
        match (&self.symbol, self.symbol_offset) {
            (Some(symbol), Some(distance)) => format!("{place} ({symbol}+{distance:#x})"),
            _ => place,
        }
    }
}

// === impl StrayKind ===

impl StrayKind {
    /// The clause that ends "FILE …".
    #[must_use]
    pub fn clause(self) -> &'static str {
        match self {
            Self::Unlisted => "is mapped as code and in no list of the loader",
            Self::Unmapped => "is in the loader's list and mapped from no file",
            Self::Misplaced => "is not where the loader's list says",
            Self::Replaced => "has memory without a file where its code should be",
            Self::Foreign => "has other bytes mapped where its code should be",
            Self::Missing => "has a hole where its code should be",
            Self::VdsoMoved => "is not where the kernel put it",
        }
    }
}

// === impl Display ===

/// `libc.so.6+0xd8410 (getppid+0x0): expected b8 6e, actual e9 1b; leads to libevil.so+0x1139`
impl fmt::Display for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (expected, actual) = (shown(&self.expected), shown(&self.actual));
        write!(f, "{}: expected {expected}, actual {actual}", self.place())?;
        if let Some(target) = &self.leads_to {
            write!(f, "; leads to {target}")?;
        }
        match &self.explanation {
            Some(explanation) => write!(f, " ({explanation})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probe { owner } => write!(f, "a probe of {owner}"),
            Self::Breakpoint { tracer, name } => write!(f, "a breakpoint of {name}, {tracer}"),
            Self::FileChanged => f.write_str("its file was written to since the start"),
        }
    }
}

/// `libevil.so is mapped as code and in no list of the loader: 0x7f00+0x1000 (/tmp/libevil.so r-x)`
impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.module.as_ref().map_or("a module", ModuleRef::file_name);
        write!(f, "{name} {}: {:#x}+{:#x}", self.kind.clause(), self.addr, self.size)?;
        if !self.memory.is_empty() {
            write!(f, " ({})", self.memory)?;
        }
        match self.differing {
            Some(0) => f.write_str(", equal to the file"),
            Some(bytes) => write!(f, ", {bytes} bytes differ"),
            None => Ok(()),
        }
    }
}
