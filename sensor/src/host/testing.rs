//! A small imitation of a machine for tests: processes, files and sshd logins as the kernel side
//! would report them. Addresses hold their module's number, so that they can be located.

mod fake;
mod flow;
#[cfg(test)]
mod hanging;
mod login;
mod pam;

use std::path::{Path, PathBuf};

pub(crate) use self::fake::{Fake, build};
pub(crate) use self::flow::{Flow, Layout, Way};
#[cfg(test)]
pub(crate) use self::hanging::Hanging;
pub(crate) use self::pam::{CALL_CPU_NS, LIBPAM, PAM_FUNCTIONS};
use super::outside::Stat;
use super::watched::inode;
use super::{Clock, Commands};
use crate::event::{
    Caller, Env, Event, EventBody, Exec, Exit, FileFacts, FileKey, Fork, Frame, InodeKey, Link,
    Map, Opened, Role, Seal, SealAt, Stack, Usage, WalkedPath, Write,
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SSHD: Role = Role(Role::GUARDED.0 | Role::SSHD.0);
pub(crate) const BELOW: Role = Role(Role::GUARDED.0 | Role::SSHD.0 | Role::BELOW_SSHD.0);
/// Addresses from one module to the next.
pub(crate) const MODULE_SIZE: u64 = 1 << 24;
pub(crate) const LISTENER: u32 = 100;

pub(crate) fn clock() -> Clock {
    Clock { wall_minus_monotonic_ns: 1_700_000_000_000_000_000, boot_minus_monotonic_ns: 0 }
}

/// The machine: makes events and keeps time.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) fake: Fake,
    pub(crate) now: u64,
    pub(crate) events: Vec<Event>,
    next_tgid: u32,
    /// Pairs that the kernel side has reported.
    mapped: Vec<(InodeKey, InodeKey)>,
    random: u64,
    /// Whether sshd's processes call libpam where they have to.
    pub(crate) calls_libpam: bool,
}

/// One login to make.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) method: &'static str,
    pub(crate) succeeds: bool,
    /// Libraries linked, in relocation order; CPU of each, ns.
    pub(crate) libraries: Vec<(PathBuf, u64)>,
    /// Libraries opened while authenticating.
    pub(crate) opened: Vec<PathBuf>,
    /// Who asks for them: a file, or [`NOWHERE`].
    pub(crate) asker: PathBuf,
    /// Who calls `RSA_public_decrypt`.
    pub(crate) caller: PathBuf,
    /// By another function of the library.
    pub(crate) through: bool,
    /// The whole machine's speed, percent of the usual time.
    pub(crate) slow_percent: u64,
    /// Time that passes without CPU in each stretch of linking (in the run queue) and before the verdict.
    pub(crate) idle_ns: u64,
    /// CPU that the key exchange costs beyond the usual, and the check of the proof.
    pub(crate) exchange_ns: u64,
    pub(crate) verdict_ns: u64,
    /// Keys offered before the one that is used, or before the password.
    pub(crate) keys_refused: u32,
    /// Program run by the monitor before the verdict.
    pub(crate) helper: Option<PathBuf>,
    pub(crate) tree: Tree,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    V9,
    V10,
}

pub(crate) const SSHD_PATH: &str = "/usr/sbin/sshd";
pub(crate) const SESSION_PATH: &str = "/usr/lib/openssh/sshd-session";
pub(crate) const AUTH_PATH: &str = "/usr/lib/openssh/sshd-auth";
pub(crate) const LZMA: &str = "/usr/lib/x86_64-linux-gnu/liblzma.so.5.4.1";
pub(crate) const EVIL: &str = "/opt/lab/liblzma.so.5.4.1";
/// Code that lies in no file.
pub(crate) const NOWHERE: &str = "anonymous rwx";
/// PAM's helper, and a command that sshd may be configured to run; only root decides about them.
pub(crate) const CHKPWD: &str = "/usr/sbin/unix_chkpwd";
pub(crate) const FIND_KEYS: &str = "/usr/local/bin/find-keys";
pub(crate) const CRYPTO: &str = "/usr/lib/x86_64-linux-gnu/libcrypto.so.3";

impl Login {
    pub(crate) fn new(method: &'static str) -> Self {
        let lib = |name: &str| PathBuf::from(format!("/usr/lib/x86_64-linux-gnu/{name}"));
        let mut libraries = vec![(lib("libresolv.so.2"), 900_000)];
        for name in ["libcap.so.2", "libz.so.1", "libcom_err.so.2", "libkrb5.so.3"] {
            libraries.push((lib(name), 150_000));
        }
        libraries.push((PathBuf::from(LZMA), 100_000));
        libraries.push((PathBuf::from(CRYPTO), 1_500_000));
        libraries.push((PathBuf::from(SSHD_PATH), 600_000));
        Self {
            method,
            succeeds: true,
            libraries,
            opened: vec![lib("security/pam_unix.so"), lib("libnss_systemd.so.2")],
            asker: PathBuf::from(SSHD_PATH),
            caller: PathBuf::from(SSHD_PATH),
            through: false,
            slow_percent: 100,
            idle_ns: 0,
            exchange_ns: 0,
            verdict_ns: 0,
            keys_refused: 0,
            helper: None,
            tree: Tree::V9,
        }
    }

    /// liblzma is another file, which takes this long to link.
    pub(crate) fn with_evil(mut self, burn_ns: u64) -> Self {
        for (path, cpu) in &mut self.libraries {
            if path == Path::new(LZMA) {
                *path = PathBuf::from(EVIL);
                *cpu += burn_ns;
            }
        }
        self.caller = PathBuf::from(EVIL);
        self
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self {
            fake: Fake::default(),
            now: 1_000 * MS,
            events: Vec::new(),
            next_tgid: 1000,
            mapped: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
            calls_libpam: false,
        };
        world.fake.with(|shared| {
            for path in [SSHD_PATH, SESSION_PATH, AUTH_PATH, LZMA, CRYPTO, "/usr/bin/bash"] {
                shared.inode(Path::new(path));
            }
            // Whoever serves was started with arguments that can be read, and configures nothing.
            shared.commands = Some(Commands::default());
            for path in [CHKPWD, FIND_KEYS, "/usr/bin/bash", "/usr/bin/true"] {
                shared.inside.insert(path.to_owned(), true);
            }
            let stat = |parent_tgid| Stat { parent_tgid, start_ticks: 1, uid: 0, euid: 0 };
            shared.processes.insert(1, (stat(0), PathBuf::from("/usr/lib/systemd/systemd")));
            shared.processes.insert(LISTENER, (stat(1), PathBuf::from(SSHD_PATH)));
        });
        world
    }

    pub(crate) fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// A new tgid that no process has had.
    pub(crate) fn fresh(&mut self) -> u32 {
        self.next_tgid += 1;
        self.next_tgid
    }

    fn noise(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }

    pub(crate) fn push(&mut self, tgid: u32, role: Role, body: EventBody) {
        self.now += 10_000;
        let event = Event {
            ktime_ns: self.now,
            seq: 0,
            ring: crate::event::Ring::Priority,
            cpu: 0,
            tgid,
            tid: tgid,
            role,
            body,
        };
        self.events.push(event);
    }

    pub(crate) fn usage(ns: u64) -> Usage {
        Usage { sum_exec_ns: ns, ..Usage::default() }
    }

    pub(crate) fn fork(&mut self, parent: u32, child: u32, role: Role) {
        let child_start_ns = Some(self.now + 10_000);
        let child_role = if role.contains(Role::SSHD) { BELOW } else { role };
        let fork = Fork { child_tgid: child, child_role, child_start_ns, usage: Self::usage(0) };
        self.fake.with(|shared| {
            let path = shared.processes.get(&parent).map(|p| p.1.clone()).unwrap_or_default();
            let found = Stat {
                parent_tgid: parent,
                start_ticks: (self.now + 10_000) / 10_000_000,
                uid: 0,
                euid: 0,
            };
            shared.processes.insert(child, (found, path));
        });
        self.push(parent, role, EventBody::Fork(fork));
    }

    pub(crate) fn exec(&mut self, tgid: u32, parent: u32, path: &str, role: Role, cpu_ns: u64) {
        self.exec_as(tgid, parent, path, role, cpu_ns, 0, None);
    }

    #[expect(clippy::too_many_arguments, reason = "a test's event has that many parts")]
    pub(crate) fn exec_as(
        &mut self,
        tgid: u32,
        parent: u32,
        path: &str,
        role: Role,
        cpu_ns: u64,
        uid: u32,
        peer: Option<std::net::SocketAddr>,
    ) {
        let (exe, start_ns) = self.fake.with(|shared| {
            let start = shared.processes.get(&tgid).map(|p| p.0.start_ticks * 10_000_000);
            if let Some(process) = shared.processes.get_mut(&tgid) {
                process.1 = PathBuf::from(path);
            }
            if [SSHD_PATH, SESSION_PATH].contains(&path) {
                let arguments = || vec![SSHD_PATH.to_owned(), "-D".to_owned()];
                shared.cmdlines.entry(tgid).or_insert_with(arguments);
            }
            (shared.file(Path::new(path)), start)
        });
        let exec = Exec {
            exe,
            path: WalkedPath { path: PathBuf::from(path), truncated: false },
            usage: Self::usage(cpu_ns),
            start_ns,
            parent_tgid: parent,
            uid,
            euid: uid,
            secure: false,
            root: self.fake.with(|shared| shared.root_keys.get(&tgid).copied()),
            fs_magic: None,
            peer,
            local_port: peer.map(|_| 22),
        };
        self.push(tgid, role, EventBody::Exec(Box::new(exec)));
    }

    pub(crate) fn exit(&mut self, tgid: u32, role: Role, cpu_ns: u64) {
        self.fake.with(|shared| shared.processes.remove(&tgid));
        self.push(tgid, role, EventBody::Exit(Exit { usage: Self::usage(cpu_ns), exit_code: 0 }));
    }

    /// Reports the pair only once, as the kernel side does.
    pub(crate) fn map(&mut self, tgid: u32, exe: &str, path: &Path, role: Role) {
        let facts = FileFacts { owner: Some(0), links: Some(1), ..FileFacts::default() };
        self.map_file(tgid, exe, path, role, (0o755, 0, facts));
    }

    /// The same with permissions, the mapping user, and what the inode says.
    pub(crate) fn map_file(
        &mut self,
        tgid: u32,
        exe: &str,
        path: &Path,
        role: Role,
        (mode, uid, facts): (u32, u32, FileFacts),
    ) {
        let (exe, file) = self.fake.with(|shared| (shared.file(Path::new(exe)), shared.file(path)));
        let pair = (inode(&exe), inode(&file));
        if self.mapped.contains(&pair) {
            return;
        }
        self.mapped.push(pair);
        let map = Map {
            exe,
            file,
            path: WalkedPath { path: path.to_owned(), truncated: false },
            addr: 0,
            len: 4096,
            offset: 0,
            prot: 5,
            mode: 0o100_000 | mode,
            uid,
            facts,
        };
        self.push(tgid, role, EventBody::Map(Box::new(map)));
    }

    /// A library opened after the start; the pair is reported once, the opening each time.
    pub(crate) fn open(&mut self, tgid: u32, exe: &str, path: &Path, asker: &Path) {
        let (file, inode) = self.fake.with(|shared| (shared.file(path), shared.inode(asker)));
        let from = if asker == Path::new(NOWHERE) { u64::MAX } else { inode * MODULE_SIZE + 7 };
        let words = Box::from([0, from]);
        let stack = Stack { ip: 1, sp: 8, fp: 0, lr: 0, words };
        let addr = file.ino * MODULE_SIZE;
        let opened = Opened { file, addr, len: 4096, stack };
        self.push(tgid, BELOW, EventBody::Opened(Box::new(opened)));
        self.map(tgid, exe, path, BELOW);
    }

    /// Data of a library that was opened is sealed.
    pub(crate) fn seal(&mut self, tgid: u32, path: &Path) {
        let inode = self.fake.with(|shared| shared.inode(path));
        let at = SealAt { addr: inode * MODULE_SIZE + 0x1000, ..SealAt::default() };
        let seal = Seal { at, len: 4096, prot: 1, after_link: true };
        self.push(tgid, BELOW, EventBody::Seal(seal));
    }

    /// What the app does with a directive.
    pub(crate) fn forget(&mut self, exe: FileKey, file: FileKey) {
        self.mapped.retain(|pair| *pair != (inode(&exe), inode(&file)));
    }

    pub(crate) fn forget_all(&mut self) {
        self.mapped.clear();
    }

    pub(crate) fn env(&mut self, tgid: u32, role: Role, text: &str) {
        let env = Env { variable: 1, text: text.to_owned(), truncated: false };
        self.push(tgid, role, EventBody::Env(env));
    }

    pub(crate) fn frame(&mut self, tgid: u32, kind: u8, verdict: Option<u32>, cpu_ns: u64) {
        let frame = Frame {
            usage: Self::usage(cpu_ns),
            frame_type: kind,
            frame_len: 5,
            verdict,
            euid: 0,
            user: (kind == 8).then(|| "alice".to_owned()),
            key_type: None,
        };
        self.push(tgid, BELOW, EventBody::Frame(frame));
    }

    /// A key of this type is looked up; `host`: a host's.
    pub(crate) fn look_up(&mut self, network: u32, key_type: &str, host: bool) {
        let frame = Frame {
            usage: Self::usage(0),
            frame_type: 22,
            frame_len: 100,
            verdict: Some(if host { 1 } else { 2 }),
            euid: 0,
            user: None,
            key_type: Some(key_type.to_owned()),
        };
        self.push(network, BELOW, EventBody::Frame(frame));
    }

    /// A write into another process's memory; `None` where the kernel does not say whose.
    pub(crate) fn write(&mut self, writer: u32, target: Option<u32>, ways: u32, count: u64) {
        let addr = self.fake.with(|shared| shared.inode(Path::new(CRYPTO))) * MODULE_SIZE + 0x7490;
        let write = Write {
            target_tgid: target,
            target_role: Role::NONE,
            ways,
            asked: None,
            count,
            addr: Some(addr),
        };
        self.push(writer, Role::NONE, EventBody::Write(write));
    }

    /// Memory of this library made writable, `offset` bytes into it; none for anonymous memory.
    pub(crate) fn reopen(&mut self, tgid: u32, library: Option<&str>, offset: u64, prot: u32) {
        let inode = |path: &str| self.fake.with(|shared| shared.inode(Path::new(path)));
        let addr = library.map_or(9999, inode) * MODULE_SIZE + offset;
        let at = SealAt { addr, ..SealAt::default() };
        self.push(tgid, SSHD, EventBody::Seal(Seal { at, len: 4096, prot, after_link: true }));
    }

    /// Maps, seals and the link summary of one start; gives its CPU time.
    pub(crate) fn link(&mut self, tgid: u32, exe: &str, login: &Login) -> u64 {
        let exec_ktime_ns = self.now;
        let mut seals = Vec::new();
        let (mut wall, mut idle) = (0, 0);
        for (path, cpu) in &login.libraries {
            if path != Path::new(SSHD_PATH) {
                self.map(tgid, exe, path, BELOW);
            }
            let jitter = 97 + self.noise(7);
            wall += cpu * login.slow_percent / 100 * jitter / 100;
            idle += login.idle_ns;
            let inode = self.fake.with(|shared| shared.inode(path));
            let at = SealAt {
                addr: inode * MODULE_SIZE + 0x1000,
                wall_ns: wall + idle,
                run_delay_ns: idle,
                minor_faults: 295,
                voluntary_switches: 3,
            };
            // Counted since exec, but the fields start at 0 there.
            let at = SealAt { voluntary_switches: 0, ..at };
            seals.push(at);
            self.now = exec_ktime_ns + wall + idle;
            self.push(
                tgid,
                BELOW,
                EventBody::Seal(Seal { at, len: 4096, prot: 1, after_link: false }),
            );
        }
        let exe = self.fake.with(|shared| shared.file(Path::new(exe)));
        let link = Link { exe, exec_ktime_ns, seals, overflow: 0 };
        self.push(tgid, BELOW, EventBody::Link(Box::new(link)));
        wall
    }

    pub(crate) fn call(&mut self, tgid: u32, function: &str, caller: &Path) {
        let (ip, from) = self.fake.with(|shared| {
            let ip = shared.inode(Path::new(CRYPTO)) * MODULE_SIZE + 0x7490;
            shared.symbols.insert(ip, function.to_owned());
            (ip, shared.inode(caller) * MODULE_SIZE + 0x120f)
        });
        let stack = Stack::default();
        let usage = Self::usage(0);
        let caller = Caller { usage, ip, return_address: from, status: None, stack };
        self.push(tgid, BELOW, EventBody::Caller(caller));
    }

    /// The library's own code calls the function, on behalf of `behind`.
    pub(crate) fn call_through(&mut self, tgid: u32, function: &str, behind: &Path) {
        let (ip, from) = self.fake.with(|shared| {
            let ip = shared.inode(Path::new(CRYPTO)) * MODULE_SIZE + 0x7490;
            shared.symbols.insert(ip, function.to_owned());
            (ip, shared.inode(behind) * MODULE_SIZE + 0x3210)
        });
        let stack = Stack { ip, sp: 8, words: Box::from([0, from]), ..Stack::default() };
        let return_address = ip + 0x20;
        let caller = Caller { usage: Self::usage(0), ip, return_address, status: None, stack };
        self.push(tgid, BELOW, EventBody::Caller(caller));
    }
}
