//! What a finding rests on, piece by piece.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Exposure;
use crate::package::history::PackageChange;
use crate::package::{Content, Origin, Owned};
use crate::search::Explained;

/// Odd places told of one search.
const ODD_MAX: usize = 8;

/// One piece of evidence: `kind` plus its own keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Evidence {
    /// A slot that leads elsewhere than the loader would have chosen.
    Slot {
        /// Module whose slot it is.
        module: String,
        /// Slot's address in that module's file (virtual address).
        slot: String,
        /// Relocation kind.
        slot_kind: String,
        /// Symbol with version.
        symbol: String,
        /// Where it should lead, `module+offset`.
        expected: String,
        /// Path of the module it should lead into; empty where that is not known, or was not told.
        #[serde(default)]
        expected_module: String,
        /// Where it leads, `module+offset`.
        actual: String,
        /// Path of the module it leads into.
        actual_module: String,
        /// Build-id of that module, hex.
        actual_build_id: Option<String>,
    },
    /// A guarded function's caller.
    Caller {
        /// The function.
        function: String,
        /// Module that called.
        caller_module: String,
        /// `module+offset` with the nearest symbol.
        caller: String,
        /// Modules that called it while learning.
        known: Vec<String>,
        /// The call's stack, the nearest caller first, each like `caller`; as far as it could be
        /// unwound, none for programs that are not guarded.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        stack: Vec<String>,
    },
    /// A file mapped executable.
    Library {
        /// Path as the host sees it.
        path: String,
        /// Build-id, hex.
        build_id: Option<String>,
        /// Device and inode, `major:minor:inode`.
        inode: String,
    },
    /// The file of the library before it, as its inode described it when it was mapped.
    File {
        /// Who else decides about it.
        exposure: Exposure,
        /// Permissions, octal.
        mode: String,
        /// Owner's user id.
        owner: Option<u32>,
        /// Names it had.
        links: Option<u32>,
        /// Last change of its content.
        modified: Option<Timestamp>,
    },
    /// Which package a file of the evidence before it belongs to, by the records of its root.
    Package {
        /// The file, as the evidence names it; empty in what earlier versions have written.
        #[serde(default)]
        path: String,
        /// `name version (architecture)`; empty where no package owns it.
        package: String,
        /// The package as a package URL.
        purl: Option<String>,
        /// Since when this version is installed.
        installed: Option<Timestamp>,
        /// The version it replaced, where that is still known.
        previous: Option<String>,
        /// `matches`, `differs`, `not_recorded`, or why it was not compared.
        content: String,
        /// The digest of the file, where it differs, with its kind.
        digest: Option<String>,
    },
    /// Why the loader found the library before it where it did.
    Search {
        /// The rule and where it stands: `RUNPATH $ORIGIN/../lib of /usr/sbin/x`, `ld.so.cache`;
        /// empty where that cannot be told.
        found_by: String,
        /// The module that needs it, and by which name.
        asked_by: Option<String>,
        /// Its path, as the process sees it.
        seen_as: String,
        /// Its path as this host sees it; empty where that cannot be told.
        on_host: String,
        /// Why something of this cannot be told.
        not_told: Option<String>,
        /// Places that were asked and that others than root and the program's owner decide about.
        odd: Vec<String>,
    },
    /// The loader's audit interface is in use though nobody asked for it.
    Audit {
        /// Libraries the loader calls back.
        count: u32,
        /// Where its callback for bound functions leads, `module+offset`.
        callback: String,
        /// Path of the module it leads into; empty where there is none.
        callback_module: String,
        /// Build-id of that module, hex.
        callback_build_id: Option<String>,
    },
    /// A library opened after the program's start.
    Opened {
        /// Its path.
        library: String,
        /// Module that asked for it, or what the kernel calls the memory; empty where nobody was
        /// seen.
        caller_module: String,
        /// Build-id of that module, hex.
        caller_build_id: Option<String>,
        /// `module+offset` with the nearest symbol.
        caller: String,
        /// Every frame up to the caller was unwound; otherwise it is the nearest word on the stack
        /// that looks like it.
        unwound: bool,
        /// libc opened it of its own accord, asked for something else.
        through_libc: bool,
        /// Modules that asked for it while learning.
        known: Vec<String>,
        /// The loader's namespace it was found in, where that is not the program's own (0).
        namespace: Option<u32>,
        /// Seconds from its mapping until it was linked, what it needs included.
        seconds: Option<f64>,
    },
    /// Code that is not what its file says.
    Code {
        /// Module whose code it is.
        module: String,
        /// Build-id of that module, hex.
        #[serde(default)]
        build_id: Option<String>,
        /// `module+address`, with the nearest function.
        place: String,
        /// That function; empty where there is none.
        function: String,
        /// Bytes that differ.
        length: u64,
        /// The file's bytes, hex; the first ones.
        expected: String,
        /// The bytes in memory, hex.
        actual: String,
        /// The file's instructions.
        expected_code: Vec<String>,
        /// The instructions in memory.
        actual_code: Vec<String>,
        /// Where they lead, `module+offset`; empty where they do not.
        leads_to: String,
        /// Path of the module they lead into, or what its memory is called.
        leads_to_module: String,
        /// Build-id of that module, hex.
        #[serde(default)]
        leads_to_build_id: Option<String>,
        /// What accounts for it: a probe, a breakpoint.
        explained_by: Option<String>,
    },
    /// Executable memory and the loader's list of modules contradict each other.
    Mapping {
        /// Path of the file or module; empty for memory without one.
        module: String,
        /// Build-id, hex.
        build_id: Option<String>,
        /// What contradicts, as a clause that follows the file's name.
        problem: String,
        /// First address; empty for several areas.
        address: String,
        /// Bytes.
        size: u64,
        /// The kernel's name for what is there, and its permissions.
        memory: String,
        /// Of replaced code: bytes that are not the file's.
        differing: Option<u64>,
    },
    /// A process that wrote into the memory of the one that the finding is about.
    Writer {
        /// Thread group id in the initial PID namespace.
        pid: u32,
        /// Path of its executable, as the host sees it.
        exe: String,
        /// Arguments, cut at a bound.
        cmdline: Vec<String>,
        /// Real user id.
        uid: u32,
        /// Executables of its ancestors, parent first.
        ancestors: Vec<String>,
        /// `ptrace`, `process_vm_writev`, `/proc/PID/mem`.
        ways: Vec<String>,
        /// Writes so far, about.
        times: u64,
        /// Where one of them went, `module+offset`; empty where that is not known.
        place: String,
    },
    /// A program made memory of a file writable after it had been linked.
    Protection {
        /// Path of the file.
        module: String,
        /// Where it begins, `module+offset`, with the nearest symbol.
        place: String,
        /// Bytes.
        length: u64,
        /// What was asked for: `rw-`, `rwx`.
        access: String,
        /// The loader had sealed it: RELRO.
        relro: bool,
    },
    /// A measured time against its baseline.
    Timing {
        /// What was measured, e.g. `link_cpu`, `auth_cpu` (since accept), `check_cpu` (of the proof).
        metric: String,
        /// Measured, seconds.
        seconds: f64,
        /// Baseline median, seconds.
        baseline_seconds: f64,
        /// Limit it crossed, seconds.
        limit_seconds: f64,
        /// Samples behind the baseline.
        samples: u64,
        /// Module that took the excess, where it can be told.
        module: Option<String>,
        /// That module's own share, seconds.
        module_seconds: Option<f64>,
    },
    /// What changed between the last usual time and the time of the evidence before it.
    Since {
        /// The beginning of that stretch.
        from: Timestamp,
        /// The time was as usual then; else nobody knows when it was, and `from` is a day before.
        usual: bool,
        /// Changes of packages whose files the program has mapped, newest first.
        packages: Vec<PackageSince>,
        /// Configuration that changed, newest first.
        files: Vec<FileSince>,
        /// Changes for which there was no room.
        omitted: u64,
        /// What may be missing, and why.
        not_told: Vec<String>,
    },
    /// An environment variable.
    Environment {
        /// Name.
        name: String,
        /// Value, cut at a bound.
        value: String,
    },
    /// A file that the loader reads has changed.
    LoaderConfig {
        /// Its path, as programs below that root see it.
        file: String,
        /// What it is to the loader: `preload list`, `library directories`, `library cache`,
        /// `search path`, `loader`.
        what: String,
        /// The root it stands in, as the host sees it.
        root: String,
        /// What was done: `created`, `written`, `renamed_into_place`, `mounted_over`, …; empty where
        /// only the difference was found.
        actions: Vec<String>,
        /// What it said before, in a few words.
        before: String,
        /// What it says now.
        after: String,
        /// Entries it has gained.
        added: Vec<String>,
        /// Entries it has lost.
        removed: Vec<String>,
        /// Entries it had for a moment only.
        meanwhile: Vec<String>,
    },
    /// A service of PAM or a module of it has changed.
    PamStack {
        /// Its path, as programs below that root see it.
        file: String,
        /// `PAM service` or `PAM module`.
        what: String,
        /// The root it stands in, as the host sees it.
        root: String,
        /// What was done: `created`, `written`, `renamed_into_place`, `mounted_over`, …; empty where
        /// only the difference was found.
        actions: Vec<String>,
        /// Its lines before, or the build-id of the module.
        before: String,
        /// The same now.
        after: String,
        /// Lines it has gained.
        added: Vec<String>,
        /// Lines it has lost.
        removed: Vec<String>,
        /// Lines it had for a moment only.
        meanwhile: Vec<String>,
        /// Services that have these lines: the file's own, and those that include it.
        services: Vec<String>,
        /// Those of them by which authentication succeeds now though every module that wants proof
        /// refuses, and did not before.
        opened: Vec<String>,
    },
    /// A program executed.
    Exec {
        /// Path.
        path: String,
        /// Arguments.
        cmdline: Vec<String>,
    },
    /// A session that nobody authenticated.
    Session {
        /// How it was noticed, as a clause.
        sign: String,
        /// What is missing, as a clause that follows "although".
        missing: String,
        /// User name, as the client asked for it.
        user: Option<String>,
        /// Real user id of the process; root's where it has not changed it yet.
        uid: u32,
    },
    /// A positive answer of sshd's monitor that its own libpam does not bear out.
    Libpam {
        /// What the monitor said, as a clause.
        verdict: String,
        /// What libpam was asked or has said, as a clause that follows "although".
        libpam: String,
        /// User name, as the client asked for it.
        user: Option<String>,
    },
    /// The sshd connection it happened on.
    Connection {
        /// Peer address and port.
        peer: Option<String>,
        /// Authentication method.
        method: Option<String>,
        /// Whether the authentication had finished when the evidence was taken.
        authenticated: bool,
        /// Seconds from accept to this evidence.
        since_accept_seconds: f64,
    },
    /// Something instruments the host or one of its files.
    Instrument {
        /// What it is: `uprobe`, `BPF program`, `kernel module`, …
        what: String,
        /// Its name.
        name: String,
        /// The file it sits in, of a uprobe.
        file: Option<String>,
        /// Where in that file, bytes, hex.
        offset: Option<String>,
        /// The function there, and how far in it.
        symbol: Option<String>,
        /// Executable of the process that holds it.
        owner: Option<String>,
        /// That executable's package.
        package: Option<String>,
        /// What else is known of it.
        details: Vec<String>,
    },
    /// The same was seen again; added where findings are joined.
    Repeated {
        /// How often in all.
        count: u64,
        /// The first time.
        first: Timestamp,
        /// The latest time.
        last: Timestamp,
    },
    /// Anything else worth a sentence.
    Note {
        /// The sentence.
        text: String,
    },
}

/// A change of a package, in [`Evidence::Since`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageSince {
    /// The change, with its keys.
    #[serde(flatten)]
    pub change: PackageChange,
    /// Files of the package that the program has mapped; some of them.
    pub files: Vec<String>,
}

/// A change of configuration, in [`Evidence::Since`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSince {
    /// The file, or a directory of which only entries came or went, as programs below that root see it.
    pub file: String,
    /// When its inode last changed, which nobody sets as he likes.
    pub changed: Timestamp,
}

// === impl Evidence ===

impl Evidence {
    /// [`Evidence::Search`] of how a library was found.
    pub(crate) fn of_search(told: &Result<Arc<Explained>, Arc<str>>) -> Self {
        let told = match told {
            Ok(told) => told,
            Err(reason) => {
                return Self::Search {
                    found_by: String::new(),
                    asked_by: None,
                    seen_as: String::new(),
                    on_host: String::new(),
                    not_told: Some(reason.to_string()),
                    odd: Vec::new(),
                };
            }
        };
        let (on_host, unknown) = match &told.on_host {
            Ok(path) => (path.display().to_string(), None),
            Err(reason) => (String::new(), Some((*reason).to_owned())),
        };
        Self::Search {
            found_by: told.found.found_by(),
            asked_by: told.found.asked_by(),
            seen_as: told.inside.display().to_string(),
            on_host,
            not_told: unknown,
            odd: told.found.odd().into_iter().take(ODD_MAX).collect(),
        }
    }

    /// [`Evidence::Package`] of what is known of a file's origin.
    pub(crate) fn of_origin(path: &str, origin: &Origin) -> Self {
        let package = origin.package();
        let (content, digest) = match &origin.content {
            Content::Matches => ("matches".to_owned(), None),
            Content::Differs { found, .. } => ("differs".to_owned(), Some(format!("{found:?}"))),
            Content::NotRecorded => ("not_recorded".to_owned(), None),
            Content::Unread(reason) => (reason.clone(), None),
        };
        Self::Package {
            path: path.to_owned(),
            package: package.map_or_else(String::new, |owned| {
                format!("{} {} ({})", owned.package, owned.version, owned.arch)
            }),
            purl: package.map(Owned::purl),
            installed: package.and_then(|owned| owned.installed),
            previous: package.and_then(|owned| owned.previous.clone()),
            content,
            digest,
        }
    }
}
