//! Every hook as data: its mechanisms from the cheapest on, what each costs the host, and what
//! goes unseen without it.

use std::fmt;

use serde::Serialize;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// New processes.
    Fork,
    /// New programs.
    Exec,
    /// Processes that end.
    Exit,
    /// Executable mappings, RELRO seals and the end of linking.
    Memory,
    /// Frames between sshd's monitor and its child.
    Frames,
    /// Entries of guarded functions.
    Functions,
    /// Where a guarded program's start is busy.
    Samples,
    /// Writes into another process's memory.
    Writes,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fork => "fork",
            Self::Exec => "exec",
            Self::Exit => "exit",
            Self::Memory => "memory",
            Self::Frames => "frames",
            Self::Functions => "functions",
            Self::Samples => "samples",
            Self::Writes => "writes",
        })
    }
}

/// How a program is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// A tracepoint's own arguments.
    RawTracepoint,
    /// A trampoline at a kernel function's entry.
    Fentry,
    /// A breakpoint at a kernel function's entry.
    Kprobe,
    /// A system call's tracepoint: taxes every system call on the host.
    SyscallTracepoint,
    /// A breakpoint in a library.
    Uprobe,
    /// A clock of the CPU.
    PerfEvent,
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RawTracepoint => "raw tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::SyscallTracepoint => "syscall tracepoint",
            Self::Uprobe => "uprobe",
            Self::PerfEvent => "perf event",
        })
    }
}

/// Whether the sensor starts without a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It does not.
    Required,
    /// It does, and says what is not seen.
    Optional,
}

/// One program of a rung.
#[derive(Clone, Copy, Debug)]
pub struct Attachment {
    /// Name in the kernel object.
    pub program: &'static str,
    /// Where it goes: the first of these that the kernel has. A tracepoint is `category/name` or,
    /// raw, `name`.
    pub targets: &'static [&'static str],
    /// False where the rung works without it.
    pub required: bool,
}

/// One mechanism of a hook.
#[derive(Clone, Copy, Debug)]
pub struct Rung {
    /// Which.
    pub mechanism: Mechanism,
    /// All of its programs.
    pub programs: &'static [Attachment],
    /// What it costs whom.
    pub price: &'static str,
    /// True if it is only taken where the configuration allows it.
    pub on_request: bool,
    /// Its programs are those of this hook, which must have been attached by the same mechanism.
    pub served_by: Option<Hook>,
    /// True if its programs are deaf where the saved user registers cannot be found.
    pub needs_registers: bool,
}

/// One hook.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Which.
    pub hook: Hook,
    /// Whether the sensor starts without it.
    pub need: Need,
    /// From the cheapest on.
    pub rungs: &'static [Rung],
    /// What is not seen without it.
    pub unseen: &'static str,
}

const fn on(program: &'static str, targets: &'static [&'static str]) -> Attachment {
    Attachment { program, targets, required: true }
}

const fn maybe(program: &'static str, targets: &'static [&'static str]) -> Attachment {
    Attachment { program, targets, required: false }
}

const fn rung(mechanism: Mechanism, programs: &'static [Attachment], price: &'static str) -> Rung {
    Rung { mechanism, programs, price, on_request: false, needs_registers: false, served_by: None }
}

const fn with_registers(rung: Rung) -> Rung {
    Rung { needs_registers: true, ..rung }
}

const fn served_by(hook: Hook, rung: Rung) -> Rung {
    Rung { served_by: Some(hook), ..rung }
}

const fn on_request(rung: Rung) -> Rung {
    Rung { on_request: true, ..with_registers(rung) }
}

/// The program that looks at environments, and hands over to itself where they are long.
pub(super) const ENVIRONMENT: &str = "process_environ";

/// Prices measured on Linux 6.18 (`x86_64`).
pub const PROBES: &[Probe] = &[
    Probe {
        hook: Hook::Fork,
        need: Need::Required,
        rungs: &[rung(
            Mechanism::RawTracepoint,
            &[on("process_fork", &["sched_process_fork"])],
            "about 1 us per new process",
        )],
        unseen: "which process started which",
    },
    Probe {
        hook: Hook::Exec,
        need: Need::Required,
        rungs: &[rung(
            Mechanism::RawTracepoint,
            &[
                on("process_exec", &["sched_process_exec"]),
                maybe(ENVIRONMENT, &["sched_process_exec"]),
            ],
            "about 10 us per new program",
        )],
        unseen: "every new program",
    },
    Probe {
        hook: Hook::Exit,
        need: Need::Required,
        rungs: &[rung(
            Mechanism::RawTracepoint,
            &[on("process_exit", &["sched_process_exit"])],
            "about 1 us per process that ends",
        )],
        unseen: "the end of processes, and their CPU time",
    },
    Probe {
        hook: Hook::Memory,
        need: Need::Optional,
        rungs: MEMORY,
        unseen: "libraries as they are mapped, who opens them later, link time, RELRO seals",
    },
    Probe {
        hook: Hook::Frames,
        need: Need::Optional,
        rungs: FRAMES,
        unseen: "user, method and verdict of ssh logins",
    },
    Probe {
        hook: Hook::Functions,
        need: Need::Optional,
        rungs: &[rung(
            Mechanism::Uprobe,
            &[on("function_entry", &[])],
            "1 to 5 us per call of a guarded function, in guarded programs and in others",
        )],
        unseen: "who calls the guarded functions, and logins by sudo, su and login",
    },
    Probe {
        hook: Hook::Samples,
        need: Need::Optional,
        rungs: &[rung(
            Mechanism::PerfEvent,
            &[on("sample", &[])],
            "nothing, but while a guarded program's constructors take longer than 3 ms",
        )],
        unseen: "which library's constructor made a guarded program start slowly",
    },
    Probe {
        hook: Hook::Writes,
        need: Need::Optional,
        rungs: WRITES,
        unseen: "who writes into another program's memory",
    },
];

/// Executable mappings, seals and the end of linking go together: one without the others tells
/// half a story.
const MEMORY: &[Rung] = &[
    with_registers(rung(
        Mechanism::Fentry,
        &[
            on("memory_map_fentry", &["security_mmap_file"]),
            on("memory_protect_fentry", &["__x64_sys_mprotect", "__arm64_sys_mprotect"]),
            maybe("memory_pkey_fentry", &["__x64_sys_pkey_mprotect", "__arm64_sys_pkey_mprotect"]),
            on("memory_unmap_fentry", &["__x64_sys_munmap", "__arm64_sys_munmap"]),
        ],
        "some 20 ns per mmap, mprotect and munmap",
    )),
    rung(
        Mechanism::Kprobe,
        &[
            on("memory_map_kprobe", &["security_mmap_file"]),
            on("memory_protect_kprobe", &["__x64_sys_mprotect", "__arm64_sys_mprotect"]),
            on("memory_unmap_kprobe", &["__x64_sys_munmap", "__arm64_sys_munmap"]),
        ],
        "some 100 ns per mmap, mprotect and munmap",
    ),
    with_registers(rung(
        Mechanism::RawTracepoint,
        &[on("memory_lock", &["mmap_lock_start_locking"])],
        "about 0.1 us each time a process's address space is locked, some 50 times per new program; \
         more where the kernel then prints the cgroup's path (5.11 to 6.13)",
    )),
    on_request(rung(
        Mechanism::SyscallTracepoint,
        &[
            on("memory_map_tracepoint", &["syscalls/sys_enter_mmap"]),
            on("memory_protect_tracepoint", &["syscalls/sys_enter_mprotect"]),
            on("memory_unmap_tracepoint", &["syscalls/sys_enter_munmap"]),
        ],
        "some 50 ns on every system call of every process",
    )),
];

const FRAMES: &[Rung] = &[
    with_registers(rung(
        Mechanism::RawTracepoint,
        &[on("frame_sent", &["sock_send_length"])],
        "some 30 ns per message sent on a socket",
    )),
    with_registers(rung(
        Mechanism::Fentry,
        &[on("frame_fentry", &["security_socket_sendmsg"])],
        "some 30 ns per message sent on a socket",
    )),
    with_registers(rung(
        Mechanism::Kprobe,
        &[on("frame_kprobe", &["security_socket_sendmsg"])],
        "some 100 ns per message sent on a socket",
    )),
    on_request(rung(
        Mechanism::SyscallTracepoint,
        &[on("frame_tracepoint", &["syscalls/sys_enter_write"])],
        "some 50 ns on every system call of every process",
    )),
];

/// The three ways together: who is seen by one takes another.
const WRITES: &[Rung] = &[
    with_registers(rung(
        Mechanism::Fentry,
        &[
            on("write_ptrace_fentry", &["arch_ptrace"]),
            on("write_vm_fentry", &["pin_user_pages_remote"]),
            on("write_mem_fentry", &["access_remote_vm"]),
        ],
        "some 20 ns per ptrace request and per page read or written of another process's memory",
    )),
    with_registers(rung(
        Mechanism::Kprobe,
        &[
            on("write_ptrace_kprobe", &["arch_ptrace"]),
            on("write_vm_kprobe", &["pin_user_pages_remote"]),
            on("write_mem_kprobe", &["access_remote_vm"]),
        ],
        "some 100 ns per ptrace request and per page read or written of another process's memory",
    )),
    served_by(
        Hook::Memory,
        with_registers(rung(
            Mechanism::RawTracepoint,
            &[],
            "nothing beyond the memory probe's price; sees no writer in 32-bit code and none through \
             io_uring",
        )),
    ),
];

/// Every kernel function some rung may attach to.
pub fn kernel_functions() -> Vec<&'static str> {
    PROBES
        .iter()
        .flat_map(|probe| probe.rungs)
        .filter(|rung| matches!(rung.mechanism, Mechanism::Fentry | Mechanism::Kprobe))
        .flat_map(|rung| rung.programs)
        .flat_map(|attachment| attachment.targets)
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hook_stands_in_the_table_once() {
        let mut hooks: Vec<Hook> = PROBES.iter().map(|probe| probe.hook).collect();
        hooks.sort();
        let before = hooks.len();
        hooks.dedup();
        assert_eq!(hooks.len(), before);
        assert!(PROBES.iter().all(|probe| !probe.rungs.is_empty() && !probe.unseen.is_empty()));
    }

    #[test]
    fn nothing_that_taxes_every_system_call_is_taken_unasked() {
        for probe in PROBES {
            for rung in probe.rungs {
                assert_eq!(
                    rung.mechanism == Mechanism::SyscallTracepoint,
                    rung.on_request,
                    "{} by {}",
                    probe.hook,
                    rung.mechanism
                );
            }
        }
    }
}
