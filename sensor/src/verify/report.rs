//! What a check found, and how it is told.

use std::fmt;

use serde::Serialize;

pub use super::elf::{Skipped, SlotCounts, SlotKind};
use super::text::Text;

/// The result of checking one process.
#[derive(Serialize, Clone, Debug)]
pub struct Report {
    /// The process (tgid).
    pub pid: u32,
    /// Its start since boot, clock ticks: which process had this PID.
    pub start_ticks: u64,
    /// Slots compared.
    pub slots_checked: u64,
    /// The same by kind.
    pub slots: SlotCounts,
    /// Relocations that are not compared, by rule.
    pub skipped: Skipped,
    /// Of these, slots accepted although the search order that the files prove names another
    /// definition: modules opened at run time (their order is read from the loader's memory, or any
    /// definition is accepted and [`Gap::SearchOrder`] says so), unique symbols, late binding.
    pub slots_lenient: u64,
    /// Of these, slots of IFUNCs: the resolver's answer cannot be computed, only bounded.
    pub slots_ifunc: u64,
    /// Modules in all link maps, vDSO excluded.
    pub modules: u32,
    /// Slots that hold something else than the loader would have written, stable over two reads
    /// unless [`Gap::Unconfirmed`] says that there was only one.
    pub mismatches: Vec<SlotMismatch>,
    /// What was not covered, and why.
    pub gaps: Vec<Gap>,
    /// False when the link map changed between the two reads of a check with mismatches.
    pub settled: bool,
    /// How the program was linked.
    pub linkage: Linkage,
    /// Modules that come before the program's own needs in the search order (`LD_PRELOAD`,
    /// `/etc/ld.so.preload`): they interpose legitimately, which is worth knowing.
    pub preloads: Vec<ModuleRef>,
    /// rtld-audit, where it is active and the loader shows it (glibc 2.35 and later).
    pub audit: Option<Audit>,
    /// Namespaces beside the program's own: of `dlmopen`, and of audit libraries (glibc 2.35 and
    /// later).
    pub namespaces: Vec<Namespace>,
    /// The code, compared with the files.
    pub text: Text,
}

/// Modules that the loader keeps apart from the program's own.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// `Lmid_t`; the program's own is 0.
    pub number: usize,
    /// In load order: what was asked for comes first.
    pub modules: Vec<ModuleRef>,
}

/// rtld-audit in a process: somebody is called back for what its loader does.
#[derive(Serialize, Clone, Debug)]
pub struct Audit {
    /// Audit libraries the loader counts (`_dl_naudit`).
    pub count: u32,
    /// Where the callbacks lead that may answer with another function (`la_symbind`).
    pub callbacks: Vec<Target>,
    /// Who asked for it; none, where nobody did.
    pub requested: Option<AuditRequest>,
}

/// How auditing is asked for.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum AuditRequest {
    /// `LD_AUDIT` in the environment.
    Environment,
    /// `DT_AUDIT` or `DT_DEPAUDIT` of the program itself.
    Program,
}

/// Which loader linked a process.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Linkage {
    /// glibc's `ld.so`.
    Glibc,
    /// musl.
    Musl,
    /// No loader: a static or static-pie program. Nothing to compare with.
    Static,
    /// A loader whose structures are not known.
    UnknownLoader,
    /// A 32-bit program of another machine than x86.
    ThirtyTwoBit,
}

/// A file mapped as a module.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct ModuleRef {
    /// Path as the kernel shows it for the mapping, control characters replaced.
    pub path: String,
    /// `st_dev` of the mapped file.
    pub dev: u64,
    /// Inode of the mapped file.
    pub ino: u64,
    /// GNU build-id in hex.
    pub build_id: Option<String>,
}

/// One slot that does not hold what the loader would have written.
#[derive(Serialize, Clone, Debug)]
pub struct SlotMismatch {
    /// Whose slot it is.
    pub module: ModuleRef,
    /// Address of the slot in the module's file.
    pub slot_vaddr: u64,
    /// Address of the slot in the process.
    pub slot_addr: u64,
    /// The relocation.
    pub kind: SlotKind,
    /// What kind of deviation it is.
    pub category: Category,
    /// It lies in its module's RELRO, which is read-only: the loader is through with it.
    pub sealed: bool,
    /// Symbol the slot stands for; none for those that no symbol names.
    pub symbol: Option<String>,
    /// Version of the reference.
    pub version: Option<String>,
    /// Where it should lead.
    pub expected: Target,
    /// Where it leads.
    pub actual: Target,
}

/// Kinds of deviation.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// The slot leads elsewhere.
    Redirected,
    /// The slot leads into a module of an rtld-audit namespace, as `la_symbind` can do.
    AuditRedirect,
    /// An IFUNC slot whose target no resolver of the defining module would plausibly answer.
    IfuncRedirected,
    /// The file of a module involved was written to after the process started, so what the loader
    /// saw is no longer known.
    FileChanged,
}

/// An address with what it belongs to.
#[derive(Serialize, Clone, Debug)]
pub struct Target {
    /// Address in the process; 0 for "undefined weak symbol" and where nothing can be expected.
    pub addr: u64,
    /// Module whose mapping holds the address.
    pub module: Option<ModuleRef>,
    /// Address in the module's file (virtual address, not file offset).
    pub offset: Option<u64>,
    /// Nearest dynamic symbol at or below.
    pub symbol: Option<String>,
    /// Distance to that symbol.
    pub symbol_offset: Option<u64>,
    /// Memory without a module: the kernel's name for it and its permissions, such as
    /// `[heap] rw-` or `anonymous rwx`; `unmapped`.
    pub memory: Option<String>,
}

/// Something that was not covered.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "gap", rename_all = "snake_case")]
pub enum Gap {
    /// Of the 32-bit programs only those for x86 are covered.
    ThirtyTwoBit,
    /// The loader is neither glibc's nor musl's.
    UnknownLoader {
        /// Its path.
        path: String,
    },
    /// A program that the kernel started without a loader, and that has mapped memory over what its
    /// file was: packed ones unpack themselves.
    Packed,
    /// A module's file could not be opened or understood; its slots were not checked.
    Module {
        /// Its path, or its name in the link map.
        path: String,
        /// Why.
        reason: String,
    },
    /// A module is not mapped where its link map entry says; its slots were not checked.
    Layout {
        /// Its path.
        path: String,
        /// What contradicts.
        detail: &'static str,
    },
    /// Slots whose memory could not be read.
    SlotsUnread {
        /// Path of the module.
        path: String,
        /// How many.
        slots: u64,
    },
    /// Slots that lead into a module that could not be read and that may define the symbol.
    Unverifiable {
        /// Path of the module whose slots these are.
        path: String,
        /// How many.
        slots: u64,
    },
    /// Slots whose content cannot be told for certain: the loader's own functions are not known, or
    /// loaders differ.
    Uncertain {
        /// Path of the module whose slots these are.
        path: String,
        /// How many.
        slots: u64,
    },
    /// An executable file mapping that belongs to no module of any link map.
    Unlisted {
        /// Path of the mapping.
        path: String,
    },
    /// glibc's search lists of modules opened at run time could not be read or are not what the
    /// files give; there any module's definition was accepted (`slots_lenient`).
    SearchOrder,
    /// The link map's order is not the order the files' needs give; the files' order was used.
    LinkOrder,
    /// The loader's list of modules contradicts itself, or says that it is being changed; it was
    /// taken as far as it goes, because it says so at every look.
    List {
        /// What is wrong with it, as a clause that follows its name.
        detail: &'static str,
    },
    /// No slot was compared and no mapping with the list of modules: only the code was looked at.
    CodeOnly {
        /// Why, as a clause about the process.
        reason: String,
    },
    /// More modules or namespaces than are followed.
    Truncated {
        /// What was cut.
        what: &'static str,
    },
    /// The process ended before a second look at its deviations.
    Unconfirmed,
    /// Private pages of code that were not compared.
    TextUnread {
        /// Path of the mapping.
        path: String,
        /// Why.
        reason: String,
    },
    /// Private pages of code that the file itself lets be written to: nothing can be said of them.
    WritableCode {
        /// Path of the mapping.
        path: String,
    },
    /// The vDSO was not compared.
    Vdso {
        /// Why.
        reason: &'static str,
    },
    /// Whose probes there are could not all be read, and an unknown one was found.
    ProbesUnread {
        /// Why.
        reason: String,
    },
}

// === impl ModuleRef ===

impl ModuleRef {
    /// Last component of the path.
    pub fn file_name(&self) -> &str {
        let path = self.path.strip_suffix(" (deleted)").unwrap_or(&self.path);
        path.rsplit('/').next().unwrap_or(path)
    }
}

// === impl SlotMismatch ===

impl SlotMismatch {
    /// Whether both describe the same slot with the same wrong content.
    pub(crate) fn same_finding(&self, other: &Self) -> bool {
        self.slot_addr == other.slot_addr
            && self.actual.addr == other.actual.addr
            && self.module == other.module
    }
}

// === impl Target ===

impl Target {
    /// Whether there is memory at the address.
    pub(crate) fn leads_somewhere(&self) -> bool {
        self.module.is_some() || self.memory.as_deref().is_some_and(|memory| memory != "unmapped")
    }

    /// An address that nothing is known about.
    pub(crate) fn bare(addr: u64) -> Self {
        Self { addr, module: None, offset: None, symbol: None, symbol_offset: None, memory: None }
    }
}

// === impl Display ===

/// `sshd+0x134218 JUMP_SLOT RSA_public_decrypt@OPENSSL_3.0.0: expected libcrypto.so.3+0x277490,
/// actual liblzma.so.5+0x120f`
impl fmt::Display for SlotMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x} {}", self.module.file_name(), self.slot_vaddr, self.kind)?;
        if let Some(symbol) = &self.symbol {
            write!(f, " {symbol}")?;
        }
        if let Some(version) = &self.version {
            write!(f, "@{version}")?;
        }
        write!(f, ": expected {}, actual {}", self.expected, self.actual)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.module, self.offset, &self.memory) {
            (Some(module), Some(offset), _) => write!(f, "{}+{offset:#x}", module.file_name()),
            (Some(module), None, _) => f.write_str(module.file_name()),
            (None, _, Some(memory)) => write!(f, "{:#x} ({memory})", self.addr),
            (None, _, None) if self.addr == 0 => f.write_str("nothing"),
            (None, _, None) => write!(f, "{:#x}", self.addr),
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThirtyTwoBit => f.write_str("not covered: 32-bit, not x86"),
            Self::UnknownLoader { path } => write!(f, "not covered: loader {path}"),
            Self::Packed => {
                f.write_str("not covered: the program is not what its file has (packed?)")
            }
            Self::Module { path, reason } => write!(f, "{path}: not read: {reason}"),
            Self::Layout { path, detail } => write!(f, "{path}: not checked: {detail}"),
            Self::SlotsUnread { path, slots } => write!(f, "{path}: {slots} slots not readable"),
            Self::Unverifiable { path, slots } => {
                write!(f, "{path}: {slots} slots lead into a module that was not read")
            }
            Self::Uncertain { path, slots } => {
                write!(f, "{path}: {slots} slots have no certain content")
            }
            Self::Unlisted { path } => write!(f, "{path}: executable mapping in no link map"),
            Self::SearchOrder => f.write_str("the loader's search lists are not usable"),
            Self::LinkOrder => f.write_str("the link map is not in load order"),
            Self::List { detail } => write!(f, "the loader's list of modules {detail}"),
            Self::CodeOnly { reason } => write!(f, "only the code was compared: {reason}"),
            Self::Truncated { what } => write!(f, "too many {what}, the rest was left out"),
            Self::Unconfirmed => write!(f, "the process ended before a second look"),
            Self::TextUnread { path, reason } => write!(f, "{path}: code not read: {reason}"),
            Self::WritableCode { path } => write!(f, "{path}: its code may be written to"),
            Self::Vdso { reason } => write!(f, "vDSO not compared: {reason}"),
            Self::ProbesUnread { reason } => write!(f, "owners of probes not read: {reason}"),
        }
    }
}
