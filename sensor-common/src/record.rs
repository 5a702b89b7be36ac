//! The wire format: one fixed-size record per kind, each starting with a [`Header`].
//!
//! Sizes are fixed so that a program writes straight into reserved ring memory: a scratch buffer
//! would be shared by two tasks that preempt each other on one CPU. Ring memory is not zeroed, so
//! every byte is written.

mod answer;
mod link;
mod opened;
mod write;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use self::answer::{PERF_NAME_MAX, PerfEvent, SelfCheck};
pub use self::link::{Link, Seal, SealAt};
pub use self::opened::{MODULES_MAX, Modules, Opened, Placement, STACK_WORDS};
pub use self::write::{WRITE_MEM, WRITE_PTRACE, WRITE_VM, Write};

/// Longest path carried, as reversed components (see [`Path`]), bytes.
pub const PATH_MAX: usize = 512;
/// Longest single path component carried whole, bytes with its NUL.
pub const NAME_MAX: usize = 128;
/// Seals one link summary holds.
pub const SEALS_MAX: usize = 40;
/// Longest user name or type of a key carried from a frame, bytes.
pub const USER_MAX: usize = 64;
/// Longest `NAME=value` carried from the environment, bytes.
pub const ENV_MAX: usize = 256;
/// [`Frame::frame_type`] of the request that looks a key up: `MONITOR_REQ_KEYALLOWED` (OpenSSH
/// monitor.h).
pub const FRAME_KEY_ALLOWED: u8 = 22;
/// [`Frame::verdict`] of a frame that carries none. PAM's answers say -1 as well: see
/// [`Frame::has_verdict`].
pub const NO_VERDICT: u32 = u32::MAX;

/// A number that the kernel did not tell.
pub const UNKNOWN: u32 = u32::MAX;

/// What a record is. On the wire a u16: an unknown one is an error that decode counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Kind {
    /// [`Fork`]
    Fork = 1,
    /// [`Exec`]
    Exec = 2,
    /// [`Exit`]
    Exit = 3,
    /// [`Map`]
    Map = 4,
    /// [`Link`]
    Link = 5,
    /// [`Seal`]
    Seal = 6,
    /// [`Frame`]
    Frame = 7,
    /// [`Caller`]
    Caller = 8,
    /// [`Env`]
    Env = 9,
    /// [`Sample`]
    Sample = 10,
    /// [`Opened`]
    Opened = 11,
    /// [`Modules`]
    Modules = 12,
    /// [`Write`]
    Write = 13,
}

impl Kind {
    /// Every kind, in wire order.
    pub const ALL: [Self; 13] = [
        Self::Fork,
        Self::Exec,
        Self::Exit,
        Self::Map,
        Self::Link,
        Self::Seal,
        Self::Frame,
        Self::Caller,
        Self::Env,
        Self::Sample,
        Self::Opened,
        Self::Modules,
        Self::Write,
    ];

    /// The kind with this wire number.
    #[must_use]
    pub fn from_wire(wire: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == wire)
    }
}

/// First 32 bytes of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// `CLOCK_MONOTONIC` when the hook ran, ns.
    pub ktime_ns: u64,
    /// Position among this CPU's records of this ring, counted from 1, losses included.
    pub seq: u64,
    /// Process (initial PID namespace).
    pub tgid: u32,
    /// Thread (initial PID namespace).
    pub tid: u32,
    /// [`Kind`] as a number.
    pub kind: u16,
    /// CPU the hook ran on.
    pub cpu: u16,
    /// [`crate::Role`] of the process, as bits.
    pub role: u32,
}

/// A task's resource use, as the kernel has it at that moment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Usage {
    /// CPU time of this task, ns; stale by up to a tick while it runs.
    pub sum_exec_ns: u64,
    /// Time this task waited on a run queue, ns.
    pub run_delay_ns: u64,
    /// Voluntary context switches of this task.
    pub voluntary_switches: u64,
    /// Minor page faults of this task.
    pub minor_faults: u64,
}

/// Identity of a file that survives renames and tells a replaced or rewritten one.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct FileKey {
    /// Inode number.
    pub ino: u64,
    /// Device, kernel form: major << 20 | minor.
    pub dev: u32,
    /// Inode generation.
    pub generation: u32,
    /// Change time, seconds since the epoch; 0 where the kernel does not say.
    pub ctime_s: u64,
    /// Size, bytes.
    pub size: u64,
}

/// What `GUARDED` is keyed by: a file, whatever its times say.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct InodeKey {
    /// Inode number.
    pub ino: u64,
    /// Device, kernel form: major << 20 | minor.
    pub dev: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A path as its components, deepest first, each ending in NUL: `true\0bin\0usr\0` is
/// `/usr/bin/true`. Seen from the root of the whole mount tree, so a chroot shows its host path.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Path {
    /// Bytes used of `bytes`.
    pub len: u16,
    /// 1 if the walk ended before the root (too deep, too long, or a read failed).
    pub truncated: u16,
    /// Explicit, so that the layout has no padding.
    pub reserved: u32,
    /// The components; zero after `len`.
    pub bytes: [u8; PATH_MAX],
}

/// The other end of a connection, zero where there is none.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Peer {
    /// `AF_INET` (2), `AF_INET6` (10) or 0.
    pub family: u16,
    /// Own port, host order.
    pub local_port: u16,
    /// Peer's port, host order.
    pub port: u16,
    /// Explicit, so that the layout has no padding.
    pub reserved: u16,
    /// Peer's address, network order; IPv4 in the first four bytes.
    pub addr: [u8; 16],
}

/// A new process (not a thread). The header is the parent's.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Fork {
    /// The parent.
    pub header: Header,
    /// The child's process id.
    pub child_tgid: u32,
    /// The child's [`crate::Role`] bits.
    pub child_role: u32,
    /// Child's start time since boot, ns; 0 where unknown.
    pub child_start_ns: u64,
    /// The parent's use.
    pub usage: Usage,
}

/// A process has a new program. Sent from `sched_process_exec`, so the exec has succeeded.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Exec {
    /// The process; its role is that of the new program.
    pub header: Header,
    /// The executable.
    pub exe: FileKey,
    /// Use so far (exec does not reset it).
    pub usage: Usage,
    /// Start time since boot, ns; exec does not change it.
    pub start_ns: u64,
    /// Parent.
    pub parent_tgid: u32,
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// 1 if the program runs with more rights than who started it (`AT_SECURE`), so its loader
    /// ignores most of its environment.
    pub secure: u32,
    /// Inode number of the process's root directory; 0 where the kernel does not say.
    pub root_ino: u64,
    /// Device of the process's root directory, kernel form; 0 where the kernel does not say.
    pub root_dev: u32,
    /// Kind of file system the executable lies on (include/uapi/linux/magic.h); 0 where the kernel
    /// does not say.
    pub fs_magic: u32,
    /// Peer of the TCP socket at descriptor 0, where there is one: sshd re-executes itself so.
    pub peer: Peer,
    /// The executable's path.
    pub path: Path,
}

/// A process has ended (its last thread).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Exit {
    /// The process.
    pub header: Header,
    /// Use of the thread that ended last.
    pub usage: Usage,
    /// Kernel's exit code: status << 8 | signal.
    pub exit_code: u32,
    /// Explicit, so that the layout has no padding.
    pub reserved: u32,
}

/// A file was mapped executable. Sent once per pair of program and file.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Map {
    /// The process.
    pub header: Header,
    /// Its executable.
    pub exe: FileKey,
    /// The mapped file.
    pub file: FileKey,
    /// Address asked for (0: the kernel chooses), or of the mapping where the hook knows it.
    pub addr: u64,
    /// Length, bytes.
    pub len: u64,
    /// Offset in the file, bytes.
    pub offset: u64,
    /// `PROT_*` bits.
    pub prot: u32,
    /// File mode, with type.
    pub mode: u32,
    /// Owner of the mapping process.
    pub uid: u32,
    /// Owner of the file, or [`UNKNOWN`].
    pub owner: u32,
    /// The file's change of content, seconds since the epoch; 0 where the kernel does not say.
    pub mtime_s: u64,
    /// Names the file has, or [`UNKNOWN`]; 0 for one that was deleted or never had any.
    pub links: u32,
    /// Kind of file system (include/uapi/linux/magic.h); 0 where the kernel does not say.
    pub fs_magic: u32,
    /// The mapped file's path.
    pub path: Path,
}

/// One frame between sshd's monitor and its unprivileged child: five header bytes, and for the
/// whitelisted types the verdict, the user name, or the type of a key and whose it is. Never the payload
/// of a type that can carry a password.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Frame {
    /// The sender.
    pub header: Header,
    /// The sender's use.
    pub usage: Usage,
    /// Length field of the frame (type byte included), bytes.
    pub frame_len: u32,
    /// First u32 of an answer's payload, or of a KEYALLOWED request's (1 a host's key, 2 a user's),
    /// host order, or [`NO_VERDICT`].
    pub verdict: u32,
    /// Sender's effective user id: the monitor is root.
    pub euid: u32,
    /// Frame type (OpenSSH monitor.h, `enum monitor_reqtype`).
    pub frame_type: u8,
    /// Bytes used of `text`.
    pub text_len: u8,
    /// 1 where `verdict` was read, whatever it is. Earlier versions always wrote 0.
    pub has_verdict: u16,
    /// User name of a PWNAM request, or name of a key's type of a KEYALLOWED request; zero after
    /// `text_len`.
    pub text: [u8; USER_MAX],
}

/// Flags that a program may add to the status it hands to `pam_end`: `PAM_DATA_SILENT` and
/// `PAM_DATA_REPLACE` (Linux-PAM, `_pam_types.h` and `pam_modules.h`).
pub const PAM_STATUS_FLAGS: u32 = 0x6000_0000;
/// One more than the last status of PAM: `_PAM_RETURN_VALUES` (`_pam_types.h`).
pub const PAM_STATUSES: u32 = 32;

/// Words of a stack one [`Caller`] holds.
pub const CALL_WORDS: usize = 256;

/// A guarded function was entered.
///
/// For guarded programs with what says who called into its library, by the rules of [`Opened`].
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Caller {
    /// The process.
    pub header: Header,
    /// Its use.
    pub usage: Usage,
    /// Address of the function.
    pub ip: u64,
    /// Return address: top of the stack (`x86_64`), link register (aarch64).
    pub return_address: u64,
    /// Stack pointer: address of the first of `words`; 0 where no stack is told.
    pub sp: u64,
    /// Frame pointer (rbp, x29), kept and dropped by the rules of `words`.
    pub fp: u64,
    /// The second argument where it reads as a status of PAM ([`PAM_STATUS_FLAGS`] taken off, less
    /// than [`PAM_STATUSES`]), which is what `pam_end` has there; else, and where no stack is told,
    /// [`UNKNOWN`]. So no pointer, text or large number passes; a small one of another function does,
    /// and is not looked at.
    pub status: u32,
    /// Explicit, so that the layout has no padding.
    pub reserved: u32,
    /// The stack from `sp` up, zero where a word was dropped or could not be read.
    pub words: [u64; CALL_WORDS],
}

/// A variable the dynamic loader obeys, found in a new program's environment.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Env {
    /// The process.
    pub header: Header,
    /// One of the `ENV_*` bits; [`ENV_TRUNCATED`] where there may be more that was not seen.
    pub variable: u32,
    /// Bytes used of `text`.
    pub len: u32,
    /// `NAME=value`, cut at [`ENV_MAX`]; zero after `len`.
    pub text: [u8; ENV_MAX],
}

/// A guarded process was found running somewhere, a millisecond of CPU time after the last time.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sample {
    /// The process.
    pub header: Header,
    /// Where, in user space.
    pub ip: u64,
}

/// `LD_PRELOAD`
pub const ENV_LD_PRELOAD: u32 = 1;
/// `LD_AUDIT`
pub const ENV_LD_AUDIT: u32 = 1 << 1;
/// `LD_LIBRARY_PATH`
pub const ENV_LD_LIBRARY_PATH: u32 = 1 << 2;
/// `GLIBC_TUNABLES`
pub const ENV_GLIBC_TUNABLES: u32 = 1 << 3;
/// `LD_DEBUG`, `LD_PROFILE`, `LD_BIND_NOT` and other switches that change how linking runs.
pub const ENV_LD_OTHER: u32 = 1 << 4;
/// `GCONV_PATH`: where glibc's iconv looks for code to load.
pub const ENV_GCONV_PATH: u32 = 1 << 5;
/// In [`Env::variable`], with no text: the environment could not be looked at to its end.
pub const ENV_TRUNCATED: u32 = 1 << 31;

const _: () = {
    assert!(size_of::<Header>() == 32);
    assert!(size_of::<Usage>() == 32);
    assert!(size_of::<FileKey>() == 32);
    assert!(size_of::<InodeKey>() == 16);
    assert!(size_of::<Path>() == 520);
    assert!(size_of::<Peer>() == 24);
    assert!(size_of::<Fork>() == 80);
    assert!(size_of::<Exec>() == 32 + 32 + 32 + 8 + 16 + 16 + 24 + 520);
    assert!(size_of::<Exit>() == 72);
    assert!(size_of::<Map>() == 32 + 64 + 24 + 32 + 520);
    assert!(size_of::<SealAt>() == 32);
    assert!(size_of::<Link>() == 32 + 32 + 16 + SEALS_MAX * 32);
    assert!(size_of::<Seal>() == 80);
    assert!(size_of::<Frame>() == 32 + 32 + 16 + USER_MAX);
    assert!(core::mem::offset_of!(Frame, text) == 80);
    assert!(size_of::<Caller>() == 104 + CALL_WORDS * 8);
    assert!(size_of::<Sample>() == 40);
    assert!(size_of::<Write>() == 64);
    assert!(size_of::<Env>() == 40 + ENV_MAX);
    assert!(size_of::<SelfCheck>() == 16 + 16 + 64 + 8 + 520);
    assert!(size_of::<PerfEvent>() == 32 + 32 + 8 + PERF_NAME_MAX);
    assert!(core::mem::offset_of!(Header, kind) == 24);
    // Ring records are 8-byte aligned; no type may ask for more.
    assert!(align_of::<Exec>() == 8 && align_of::<Map>() == 8 && align_of::<Link>() == 8);
};
