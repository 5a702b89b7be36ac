//! Observations: events together with what the host station knows of who did them.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::below::Below;
use super::coverage::Uncovered;
use super::crosscheck::Disagreement;
use super::marks::Marks;
use super::method::{KeyType, Method};
use super::module::ModuleId;
use super::opened::Opening;
use super::pam::PamCall;
use super::place::Placed;
use super::proof::Unproven;
use super::variable::{Owners, Variable};
use crate::event::{FileKey, Role};
use crate::finding::ProcessRef;

/// A process across PID reuse: its id and its start time. An exec changes neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Thread group id in the initial PID namespace.
    pub tgid: u32,
    /// Start since boot in units of 10 ms, the precision of `/proc/PID/stat`.
    pub start_ticks: u64,
}

/// An sshd connection. Unique within one boot: it is the process that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionId(pub ProcessId);

/// What findings are joined by: one sshd listener with everything below it, or one program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lineage {
    /// The listener; its connections share it.
    Sshd(ProcessId),
    /// Any other program, by its subject.
    Program(String),
}

/// A program as a baseline knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The executable.
    #[serde(with = "crate::serial::one")]
    pub file: FileKey,
    /// Path and build-id.
    pub module: ModuleId,
    /// What it means to the sensor, by configuration.
    #[serde(with = "crate::serial::one")]
    pub role: Role,
    /// Key of its baseline: path, a blank, build-id; in a container also which image it is from.
    pub subject: String,
    /// What of its linking is not seen.
    pub uncovered: Option<Uncovered>,
    /// Its process was gone before its root was looked at: that the baseline is its own is a guess.
    pub root_unseen: bool,
}

/// A process as it was when something was observed of it. Shared by its observations.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Which process.
    pub id: ProcessId,
    /// Its program.
    pub program: Arc<Program>,
    /// What findings on it join by.
    pub lineage: Lineage,
    /// As output shows it.
    pub shown: ProcessRef,
    /// Effective user id.
    pub euid: u32,
    /// It runs with more rights than who started it (`AT_SECURE`: set-uid, set-gid, capabilities),
    /// so its loader ignores most of its environment.
    pub secure: bool,
    /// Its environment puts code into it (`LD_PRELOAD`, `LD_AUDIT`), by whoever's hand.
    pub injected: bool,
    /// Loader variables (`NAME=value`) that were seen at its exec so far.
    pub variables: Arc<[String]>,
}

/// What is known of a connection at the moment of an observation.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each true from some moment on"
)]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connection {
    /// Which.
    pub id: ConnectionId,
    /// The monitor's program (sshd or sshd-session): whose baseline the login counts for.
    pub program: Arc<Program>,
    /// The client.
    pub peer: Option<SocketAddr>,
    /// User name, as asked for.
    pub user: Option<String>,
    /// Methods begun so far, in order of first use.
    pub attempted: Vec<Method>,
    /// The method that succeeded.
    pub method: Option<Method>,
    /// Type of the key that was looked up last.
    pub key: Option<KeyType>,
    /// Authentication has succeeded.
    pub authenticated: bool,
    /// A session has begun below it.
    pub session: bool,
    /// `CLOCK_MONOTONIC` of the accept (the fork of the listener), ns.
    pub accepted_ktime_ns: u64,
    /// Records about it may be missing: its sums do not hold.
    pub partial: bool,
    /// sshd went on as after a success, but no positive answer was seen.
    pub finished_unseen: bool,
    /// When its phases were over.
    pub marks: Marks,
    /// Frames are seen on this host at all, so that the lack of a verdict means something.
    pub watched: bool,
}

/// One observation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Observation {
    /// The event's clock, `CLOCK_MONOTONIC` ns.
    pub ktime_ns: u64,
    /// The same instant as wall time, by the offset fixed at start.
    pub time: Timestamp,
    /// Who.
    pub process: Arc<Process>,
    /// The sshd connection it belongs to.
    pub connection: Option<Arc<Connection>>,
    /// What.
    pub body: Body,
}

/// What was observed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Body {
    /// A program was started.
    Started,
    /// A file was mapped executable by a program that has not mapped it before.
    Library(Library),
    /// Where a library came from; made by the provenance station, after [`Body::Library`].
    Traced(Traced),
    /// What changed before a shift in time; a question of the analysis, and the provenance station's
    /// answer.
    Dated(Box<Dated>),
    /// Linking is over.
    Linked(LinkTiming),
    /// The constructors of a guarded program's libraries have run.
    Constructed(Constructed),
    /// A guarded process has settled: its slots should be checked now.
    CheckDue(CheckReason),
    /// The check of a [`Body::CheckDue`]; made by the analysis, never by the host station.
    Checked(Arc<crate::detect::CheckReport>),
    /// A guarded program opened a library after its start: told each time, after the
    /// [`Body::Library`] of one that is new to it.
    Opened(Opening),
    /// A guarded function was called.
    Called(Called),
    /// A guarded program other than sshd's has come further in a login through libpam; before the
    /// [`Body::Called`] of the same call.
    Pam(PamCall),
    /// A loader variable stood in the environment of the program started.
    Environment(Variable),
    /// The environment was too long for the kernel side; what loader variables it held further back
    /// was told from a later look, if `read`.
    LongEnvironment {
        /// The later look was possible.
        read: bool,
    },
    /// sshd's monitor answered an authentication request.
    Verdict(Verdict),
    /// A session has begun below a connection.
    Session,
    /// A session's process has appeared below a connection without a complete proof.
    Unproven(Unproven),
    /// sshd's monitor has said yes, and its libpam was not asked or said no.
    Disagreed(Disagreement),
    /// A program was executed below a connection before its authentication was proven; follows its
    /// [`Body::Started`].
    Below(Below),
    /// Another process wrote into this one's memory, or this one into an unknown one's.
    Written(Box<Written>),
    /// A guarded program made memory of a file writable, after linking.
    Reopened(Box<Reopened>),
    /// A file that the loader or PAM reads has changed.
    LoaderConfig(Box<crate::watch::LoaderConfig>),
    /// Something new instruments the host; made by the instrumentation station.
    Instrument(Box<crate::instrument::Seen>),
    /// A look at everything that instruments the host found nothing new.
    Surveyed,
    /// The process ended.
    Ended,
    /// The connection's last process ended.
    Closed,
}

/// See [`Body::Library`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Library {
    /// Path and build-id.
    pub module: ModuleId,
    /// The file.
    #[serde(with = "crate::serial::one")]
    pub file: FileKey,
    /// Mapped while the program was being linked (so no input can have asked for it).
    pub during_link: bool,
    /// Where it lies, and who else decides about it.
    pub placed: Placed,
    /// The provenance station was asked: [`Body::Traced`] follows, soon as a rule.
    pub asked: bool,
}

/// See [`Body::Traced`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Traced {
    /// The library.
    pub library: Library,
    /// Its package, and whether it is what the package brought.
    pub origin: Arc<crate::package::Origin>,
    /// How the loader found it, or why that cannot be told.
    pub way: Result<Arc<crate::search::Explained>, Arc<str>>,
    /// What was thought of it when it was mapped; the analysis remembers.
    #[serde(skip)]
    pub(crate) judged: Option<crate::detect::judge::Judged>,
}

/// See [`Body::Dated`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dated {
    /// Which finding waits for it.
    pub question: u64,
    /// Files that the program has mapped: their paths as the kernel walked them.
    pub modules: Vec<String>,
    /// When the time was last as usual, if anybody knows.
    pub usual: Option<Timestamp>,
    /// [`Evidence::Since`](crate::finding::Evidence::Since), once answered.
    pub answer: Option<crate::finding::Evidence>,
}

// === impl Dated ===

impl Dated {
    /// How long a finding waits for the answer, ns.
    pub(crate) const PATIENCE_NS: u64 = 2_000_000_000;
}

/// One module's part in a start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleShare {
    /// The module relocated in this stretch; `None` where the address could not be told.
    pub module: Option<ModuleId>,
    /// Wall time, ns.
    pub wall_ns: u64,
    /// Wall time less run-queue delay, ns: CPU time, unless `blocked`.
    pub cpu_ns: u64,
    /// The task slept in this stretch, so `cpu_ns` holds the sleep too.
    pub blocked: bool,
}

/// See [`Body::Linked`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkTiming {
    /// Exec to the last seal, wall, ns.
    pub wall_ns: u64,
    /// CPU of the stretches without sleep, ns.
    pub cpu_ns: u64,
    /// `cpu_ns` of the stretches with sleep, ns: an upper bound of their CPU.
    pub blocked_ns: u64,
    /// Minor faults.
    pub minor_faults: u32,
    /// Stretches in time order. The first holds the kernel's exec and the mapping of every file as
    /// well as the first module.
    pub shares: Vec<ModuleShare>,
    /// Seals that found no room in the record: shares are missing at the end.
    pub overflow: u32,
    /// Modules found at work, the busiest first, where it took so long that it was sampled.
    pub busy: Vec<(ModuleId, u32)>,
}

/// See [`Body::Constructed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constructed {
    /// Wall time, ns.
    pub wall_ns: u64,
    /// Wall time less run-queue delay, ns: CPU time, unless `blocked`.
    pub cpu_ns: u64,
    /// The task slept meanwhile.
    pub blocked: bool,
    /// Where it was found busy, most often first, where it was sampled.
    pub modules: Vec<(ModuleId, u32)>,
}

/// See [`Body::Written`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Written {
    /// Who wrote.
    pub writer: Arc<Process>,
    /// The observation's process is whose memory it was; if not, that is not known, and the
    /// observation's process is the writer.
    pub is_target: bool,
    /// `ptrace`, `process_vm_writev`, `/proc/PID/mem`.
    #[serde(with = "crate::serial::list")]
    pub ways: Vec<&'static str>,
    /// Writes of this pair so far, about.
    pub count: u64,
    /// Where one of them went.
    pub place: Option<Located>,
    /// The writer, or its parent, has started the target.
    pub is_own: bool,
    /// The target runs as root, and its parent is the first process.
    pub is_root_daemon: bool,
    /// Whether it is asked which package the writer belongs to.
    pub owners: Owners,
    /// That package, once answered.
    pub origin: Option<Arc<crate::package::Origin>>,
}

/// See [`Body::Reopened`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reopened {
    /// The file and where in it.
    pub place: Located,
    /// Bytes.
    pub len: u64,
    /// `PROT_*`.
    pub prot: u32,
    /// It had been sealed: RELRO.
    pub relro: bool,
}

/// Why a check is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckReason {
    /// The seals settled.
    Sealed,
    /// The process became guarded after its start.
    Late,
    /// An authentication request came in before the seals had settled, or long after.
    Request,
    /// Another process wrote into its memory.
    Written,
    /// It made memory of a file writable.
    Reopened,
    /// It mapped code of a memfd.
    Memfd,
    /// A guarded process's turn in a round.
    Patrol,
    /// A root daemon's turn, as far as the allowance for rounds goes.
    Daemon,
    /// Any other's; only the slots of imports count.
    Other,
}

/// An address in a process, found in its maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The mapped file; its path is the kernel's name for memory without a file.
    pub module: ModuleId,
    /// Address in the module's file.
    pub offset: u64,
    /// Nearest dynamic symbol at or below, and the distance, bytes.
    pub symbol: Option<(String, u64)>,
}

/// See [`Body::Called`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Called {
    /// The function.
    pub function: String,
    /// Library that holds it.
    pub library: Option<ModuleId>,
    /// Where it returns to; `None` where the process was gone.
    pub caller: Option<Located>,
    /// Where its callers go on, the nearest first, as far as unwinding led; none for programs that
    /// are not guarded.
    pub frames: Vec<Located>,
}

/// See [`Body::Verdict`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Of which method.
    pub method: Method,
    /// Type of the key that was used.
    pub key: Option<KeyType>,
    /// The answer.
    pub accepted: bool,
    /// CPU time of all the connection's processes since accept, ns.
    pub cpu_ns: u64,
    /// Minor page faults of all of them.
    pub minor_faults: u64,
    /// Of `cpu_ns`, since the network child asked for the user ([`Marks::asked`]), ns: what checking the
    /// proof cost, without start-up and key exchange, but for what the kernel had not yet accounted for
    /// then, up to a tick of each process that ran. `None` where that moment was not seen, or the
    /// client has had more checked than this one proof (`tries.rs`), so that it is no measure.
    pub check_ns: Option<u64>,
    /// Answers that came before on this connection.
    pub earlier: u32,
}

// === impl Called ===

impl Called {
    /// Whose call it is.
    #[must_use]
    pub fn by(&self) -> Option<&Located> {
        self.behind().or(self.caller.as_ref())
    }

    /// Who called into the library, where its own code is the caller: the first code outside it;
    /// `None` where the frames do not lead there.
    #[must_use]
    pub fn behind(&self) -> Option<&Located> {
        let library = self.library.as_ref()?;
        let is_inside = |located: &Located| located.module == *library;
        self.caller.as_ref().filter(|caller| is_inside(caller))?;
        self.frames.iter().find(|frame| !is_inside(frame))
    }
}

// === impl Program ===

impl Program {
    /// The executable's file name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.module.name()
    }

    /// A program to protect.
    #[must_use]
    pub fn guarded(&self) -> bool {
        self.role.contains(Role::GUARDED)
    }

    /// A program of an OpenSSH server.
    #[must_use]
    pub fn sshd(&self) -> bool {
        self.role.contains(Role::SSHD)
    }
}

// === impl Observation ===

impl Observation {
    /// Seconds from the connection's accept to this observation.
    #[must_use]
    pub fn since_accept(&self) -> Option<f64> {
        let accepted = self.connection.as_ref()?.accepted_ktime_ns;
        Some(seconds(self.ktime_ns.saturating_sub(accepted)))
    }
}

/// Nanoseconds as seconds, rounded to a microsecond so that output stays short.
#[must_use]
pub fn seconds(ns: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
    let micros = (ns / 1000) as f64;
    micros / 1e6
}
