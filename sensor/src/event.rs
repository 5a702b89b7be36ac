//! Decoded events: what a record says, owned and typed, before anything else is known about it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use sensor_common::record::{FileKey, InodeKey, Placement, SealAt, Usage};
pub use sensor_common::{Kind, Ring, Role};

/// One decoded record.
#[derive(Clone, Debug)]
pub struct Event {
    /// `CLOCK_MONOTONIC` when the hook ran, ns: the only clock detectors may use.
    pub ktime_ns: u64,
    /// Position among this CPU's records of this ring.
    pub seq: u64,
    /// Ring it travelled in.
    pub ring: Ring,
    /// CPU the hook ran on.
    pub cpu: u16,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// What the process meant to the kernel side at that moment.
    pub role: Role,
    /// What happened.
    pub body: EventBody,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum EventBody {
    /// The process made a child.
    Fork(Fork),
    /// The process has a new program.
    Exec(Box<Exec>),
    /// The process ended.
    Exit(Exit),
    /// The process mapped a file executable.
    Map(Box<Map>),
    /// The process has finished linking.
    Link(Box<Link>),
    /// A guarded process sealed memory.
    Seal(Seal),
    /// A frame between sshd's monitor and its child.
    Frame(Frame),
    /// A guarded function was entered.
    Caller(Caller),
    /// A loader variable stood in the new program's environment.
    Env(Env),
    /// A guarded process was found running at this address.
    Sample(Sample),
    /// A guarded process mapped a file executable after it had been linked.
    Opened(Box<Opened>),
    /// Where a guarded process has its code, now that it is linked.
    Modules(Box<Modules>),
    /// The process wrote into another's memory.
    Write(Write),
}

impl EventBody {
    /// The kind of record it was.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Fork(_) => Kind::Fork,
            Self::Exec(_) => Kind::Exec,
            Self::Exit(_) => Kind::Exit,
            Self::Map(_) => Kind::Map,
            Self::Link(_) => Kind::Link,
            Self::Seal(_) => Kind::Seal,
            Self::Frame(_) => Kind::Frame,
            Self::Caller(_) => Kind::Caller,
            Self::Env(_) => Kind::Env,
            Self::Sample(_) => Kind::Sample,
            Self::Opened(_) => Kind::Opened,
            Self::Modules(_) => Kind::Modules,
            Self::Write(_) => Kind::Write,
        }
    }
}

/// See [`sensor_common::record::Sample`].
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Address in user space.
    pub ip: u64,
}

/// See [`sensor_common::record::Write`].
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// Whose memory; `None` where the kernel does not say.
    pub target_tgid: Option<u32>,
    /// What it means to the kernel side.
    pub target_role: Role,
    /// `WRITE_*` bits since the last record of this pair.
    pub ways: u32,
    /// The target's id in the writer's PID namespace, or with `WRITE_MEM` the descriptor.
    pub asked: Option<u32>,
    /// Writes of this pair so far.
    pub count: u64,
    /// Where this one goes.
    pub addr: Option<u64>,
}

/// See [`sensor_common::record::Fork`].
#[derive(Clone, Copy, Debug)]
pub struct Fork {
    /// The child's process id.
    pub child_tgid: u32,
    /// The child's role.
    pub child_role: Role,
    /// Child's start since boot, ns; `None` where the kernel does not say.
    pub child_start_ns: Option<u64>,
    /// The parent's use.
    pub usage: Usage,
}

/// A path as the kernel walked it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct WalkedPath {
    /// From the root of the whole mount tree; a chroot or container shows its host path.
    pub path: PathBuf,
    /// The walk ended early: the leading components are missing.
    pub truncated: bool,
}

/// See [`sensor_common::record::Exec`].
#[derive(Clone, Debug)]
pub struct Exec {
    /// The executable.
    pub exe: FileKey,
    /// Its path.
    pub path: WalkedPath,
    /// Use so far.
    pub usage: Usage,
    /// Start since boot, ns; `None` where the kernel does not say.
    pub start_ns: Option<u64>,
    /// Parent.
    pub parent_tgid: u32,
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// It runs with more rights than who started it (`AT_SECURE`).
    pub secure: bool,
    /// The process's root directory; `None` where the kernel does not say.
    pub root: Option<InodeKey>,
    /// Kind of file system of the executable; `None` where the kernel does not say.
    pub fs_magic: Option<u32>,
    /// Peer of the TCP socket at descriptor 0.
    pub peer: Option<SocketAddr>,
    /// Own port of that socket.
    pub local_port: Option<u16>,
}

/// See [`sensor_common::record::Exit`].
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// Use of the thread that ended last.
    pub usage: Usage,
    /// status << 8 | signal.
    pub exit_code: u32,
}

/// See [`sensor_common::record::Map`].
#[derive(Clone, Debug)]
pub struct Map {
    /// The process's executable.
    pub exe: FileKey,
    /// The mapped file.
    pub file: FileKey,
    /// Its path.
    pub path: WalkedPath,
    /// Address asked for; 0 where the kernel chose.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// Bytes into the file.
    pub offset: u64,
    /// `PROT_*`.
    pub prot: u32,
    /// File mode with type.
    pub mode: u32,
    /// Real user id of the process.
    pub uid: u32,
    /// What else the kernel knows of the file.
    pub facts: FileFacts,
}

/// A file as its inode describes it; `None` where the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Owner.
    pub owner: Option<u32>,
    /// Names it has; 0 for one that was deleted or never had any.
    pub links: Option<u32>,
    /// Last change of its content, seconds since the epoch.
    pub mtime_s: Option<u64>,
    /// Kind of file system (include/uapi/linux/magic.h).
    pub fs_magic: Option<u32>,
}

/// See [`sensor_common::record::Link`].
#[derive(Clone, Debug)]
pub struct Link {
    /// The process's executable.
    pub exe: FileKey,
    /// `CLOCK_MONOTONIC` of the exec, ns.
    pub exec_ktime_ns: u64,
    /// In time order; values count from the exec.
    pub seals: Vec<SealAt>,
    /// Seals that found no room in the record.
    pub overflow: u32,
}

/// See [`sensor_common::record::Seal`].
#[derive(Clone, Copy, Debug)]
pub struct Seal {
    /// What and when.
    pub at: SealAt,
    /// Bytes.
    pub len: u64,
    /// `PROT_*`.
    pub prot: u32,
    /// Linking was over already.
    pub after_link: bool,
}

/// See [`sensor_common::record::Opened`].
#[derive(Clone, Debug)]
pub struct Opened {
    /// The mapped file.
    pub file: FileKey,
    /// Address asked for; 0 where the kernel chose.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// What says who asked.
    pub stack: Stack,
}

/// Addresses on a thread's stack. They never leave the host station and are neither shown nor kept.
#[derive(Clone, Default)]
pub struct Stack {
    /// Where the thread goes on.
    pub ip: u64,
    /// Address of the first word.
    pub sp: u64,
    /// Frame pointer.
    pub fp: u64,
    /// Link register; 0 where the architecture has none.
    pub lr: u64,
    /// From `sp` up; zero where a word is not told.
    pub words: Box<[u64]>,
}

/// See [`sensor_common::record::Modules`].
#[derive(Clone, Debug)]
pub struct Modules {
    /// In time order.
    pub placed: Vec<Placement>,
    /// Mappings that found no room in the record.
    pub overflow: u32,
}

/// See [`sensor_common::record::Frame`].
#[derive(Clone, Debug)]
pub struct Frame {
    /// The sender's use.
    pub usage: Usage,
    /// OpenSSH's `enum monitor_reqtype`.
    pub frame_type: u8,
    /// Length field, bytes.
    pub frame_len: u32,
    /// First word of an answer, or of the request that looks a key up.
    pub verdict: Option<u32>,
    /// Sender's effective user.
    pub euid: u32,
    /// User name of a PWNAM request.
    pub user: Option<String>,
    /// Name of the key's type of a KEYALLOWED request.
    pub key_type: Option<String>,
}

/// See [`sensor_common::record::Caller`].
#[derive(Clone, Debug)]
pub struct Caller {
    /// Use so far.
    pub usage: Usage,
    /// Address of the function.
    pub ip: u64,
    /// Where it returns to.
    pub return_address: u64,
    /// Its second argument, where that reads as a status of PAM: what `pam_end` has there.
    pub status: Option<u8>,
    /// What says who called into the library; without words where it is not told.
    pub stack: Stack,
}

/// See [`sensor_common::record::Env`].
#[derive(Clone, Debug)]
pub struct Env {
    /// One `ENV_*` bit; `ENV_TRUNCATED`, with no text, where there may be more that was not seen.
    pub variable: u32,
    /// `NAME=value`, possibly cut.
    pub text: String,
    /// The value was cut.
    pub truncated: bool,
}

// === impl Stack ===

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").finish_non_exhaustive()
    }
}
