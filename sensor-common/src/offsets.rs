//! Byte offsets of kernel struct members, resolved from BTF by the loader.
//!
//! rustc emits no CO-RE relocations, so the loader looks every member up and hands the table over
//! in a read-only global; the verifier then sees constants.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A member that this kernel does not have. Never 0: 0 is a legal offset.
pub const UNRESOLVED: u32 = u32::MAX;

macro_rules! kernel_offsets {
    ($( $(#[$doc:meta])* $name:ident: $need:ident $first:literal $(| $other:literal)* ; )*) => {
        /// One offset per member, in bytes from the start of its outer struct.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
        pub struct KernelOffsets {
            $( $(#[$doc])* pub $name: u32, )*
        }

        impl KernelOffsets {
            /// Every member unresolved.
            pub const NONE: Self = Self { $( $name: UNRESOLVED, )* };
        }

        /// Where to find each offset: the specification the loader works through.
        pub const MEMBERS: &[Member] = &[
            $( Member {
                name: stringify!($name),
                need: Need::$need,
                paths: &[$first $(, $other)*],
            }, )*
        ];
    };
}

/// Whether the sensor can do without a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Without it no program that matters works; start-up fails and names it.
    Required,
    /// Without it a field is missing, never the sensor.
    Optional,
}

/// One entry of [`MEMBERS`].
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The field of [`KernelOffsets`].
    pub name: &'static str,
    /// Whether start-up may go on without it.
    pub need: Need,
    /// `struct.member[.member…]`, newest name first; anonymous structs and unions are searched. With
    /// `#bit` at the end, the member may be a bit field and the offset is in bits.
    pub paths: &'static [&'static str],
}

kernel_offsets! {
    /// Thread id.
    task_pid: Required "task_struct.pid";
    /// Thread group id.
    task_tgid: Required "task_struct.tgid";
    /// Parent, as `getppid` sees it.
    task_real_parent: Required "task_struct.real_parent";
    /// Start time since boot, ns.
    task_start_boottime: Optional "task_struct.start_boottime" | "task_struct.real_start_time";
    /// CPU time, stale by up to a tick for a running task, ns.
    task_sum_exec: Required "task_struct.se.sum_exec_runtime";
    /// Time spent waiting on a run queue, ns (`CONFIG_SCHED_INFO`).
    task_run_delay: Optional "task_struct.sched_info.run_delay";
    /// Voluntary context switches.
    task_nvcsw: Required "task_struct.nvcsw";
    /// Minor page faults.
    task_min_flt: Required "task_struct.min_flt";
    /// Address space.
    task_mm: Required "task_struct.mm";
    /// Open files.
    task_files: Optional "task_struct.files";
    /// Root and working directory.
    task_fs: Optional "task_struct.fs";
    /// Root directory of a process.
    fs_root_dentry: Optional "fs_struct.root.dentry";
    /// Shared by the threads of a process.
    task_signal: Optional "task_struct.signal";
    /// Objective credentials.
    task_cred: Required "task_struct.cred";
    /// Exit status of a dying task.
    task_exit_code: Optional "task_struct.exit_code";
    /// Kernel stack, where user registers lie on kernels without `bpf_task_pt_regs`.
    task_stack: Optional "task_struct.stack";
    /// Per-task flags of the low-level entry code; bit 1 tells a 32-bit system call (x86).
    task_thread_status: Optional "task_struct.thread_info.status";
    /// Live threads of a process.
    signal_live: Optional "signal_struct.live";
    /// Real user id.
    cred_uid: Required "cred.uid";
    /// Effective user id.
    cred_euid: Required "cred.euid";
    /// Executable of an address space.
    mm_exe_file: Required "mm_struct.exe_file";
    /// The process an address space belongs to (`CONFIG_MEMCG`).
    mm_owner: Optional "mm_struct.owner";
    /// Where a new program's stack starts: `argc`, `argv` and the environment lie there.
    mm_start_stack: Optional "mm_struct.start_stack";
    /// Where the strings of the environment start.
    mm_env_start: Optional "mm_struct.env_start";
    /// Where the strings of the environment end.
    mm_env_end: Optional "mm_struct.env_end";
    /// Where the program's code starts.
    mm_start_code: Optional "mm_struct.start_code";
    /// Where it ends.
    mm_end_code: Optional "mm_struct.end_code";
    /// Where the heap ends.
    mm_brk: Optional "mm_struct.brk";
    /// Where the kernel places mappings, downwards as a rule.
    mm_mmap_base: Optional "mm_struct.mmap_base";
    /// File being executed.
    bprm_file: Required "linux_binprm.file";
    /// 1 if the program runs with more rights than who started it (`AT_SECURE`). In bits.
    bprm_secureexec: Optional "linux_binprm.secureexec#bit";
    /// Table of open files.
    files_fdt: Optional "files_struct.fdt";
    /// Array of `struct file *`.
    fdt_fd: Optional "fdtable.fd";
    /// Length of that array.
    fdt_max_fds: Optional "fdtable.max_fds";
    /// Dentry of an open file.
    file_dentry: Required "file.f_path.dentry";
    /// Mount of an open file (`struct vfsmount *`).
    file_mnt: Required "file.f_path.mnt";
    /// Inode of an open file.
    file_inode: Required "file.f_inode";
    /// `struct socket *` where the file is a socket.
    file_private_data: Optional "file.private_data";
    /// Inode number.
    inode_ino: Required "inode.i_ino";
    /// Mode with the file type.
    inode_mode: Required "inode.i_mode";
    /// Superblock.
    inode_sb: Required "inode.i_sb";
    /// Owner.
    inode_uid: Optional "inode.i_uid";
    /// Hard links; 0 where the last name is gone.
    inode_nlink: Optional "inode.i_nlink";
    /// Generation, tells a reused inode number.
    inode_generation: Required "inode.i_generation";
    /// Size in bytes.
    inode_size: Required "inode.i_size";
    /// Change time, whole seconds.
    inode_ctime: Optional "inode.i_ctime_sec" | "inode.__i_ctime" | "inode.i_ctime";
    /// Modification time, whole seconds.
    inode_mtime: Optional "inode.i_mtime_sec" | "inode.__i_mtime" | "inode.i_mtime";
    /// Kind of file system (linux/magic.h).
    sb_magic: Optional "super_block.s_magic";
    /// Device number, `MKDEV` form (major << 20 | minor).
    sb_dev: Required "super_block.s_dev";
    /// Parent directory.
    dentry_parent: Required "dentry.d_parent";
    /// What the name leads to.
    dentry_inode: Optional "dentry.d_inode";
    /// Name bytes.
    dentry_name: Required "dentry.d_name.name";
    /// The `struct vfsmount` inside a `struct mount`.
    mount_mnt: Required "mount.mnt";
    /// Mount this one sits on.
    mount_parent: Required "mount.mnt_parent";
    /// Directory this one sits on.
    mount_mountpoint: Required "mount.mnt_mountpoint";
    /// Root dentry of a mount.
    vfsmount_root: Required "vfsmount.mnt_root";
    /// `struct sock *` of a socket.
    socket_sk: Optional "socket.sk";
    /// Address family.
    sock_family: Optional "sock.__sk_common.skc_family";
    /// Peer port, network order.
    sock_dport: Optional "sock.__sk_common.skc_dport";
    /// Own port, host order.
    sock_num: Optional "sock.__sk_common.skc_num";
    /// Peer IPv4 address, network order.
    sock_daddr: Optional "sock.__sk_common.skc_daddr";
    /// Peer IPv6 address.
    sock_v6_daddr: Optional "sock.__sk_common.skc_v6_daddr";
    /// Kind of a perf event (`perf_event_attr.type`).
    perf_type: Optional "perf_event.attr.type";
    /// Its settings; bit 0 says that a uprobe or kprobe is one on the return.
    perf_config: Optional "perf_event.attr.config";
    /// What its tracepoint, uprobe or kprobe is (`struct trace_event_call *`).
    perf_tp_event: Optional "perf_event.tp_event";
    /// BPF program it runs.
    perf_prog: Optional "perf_event.prog";
    /// Everything of a BPF program that is not its code.
    bpf_prog_aux: Optional "bpf_prog.aux";
    /// Id of a BPF program.
    bpf_aux_id: Optional "bpf_prog_aux.id";
    /// The `struct bpf_link` inside a link to a perf event.
    perf_link_link: Optional "bpf_perf_link.link";
    /// The perf event of such a link, a file.
    perf_link_file: Optional "bpf_perf_link.perf_file";
    /// The `struct trace_event_call` inside a dynamic event.
    dynamic_call: Optional "trace_probe_event.call";
    /// List of the places of a dynamic event.
    dynamic_probes: Optional "trace_probe_event.probes";
    /// The list member of one of them.
    dynamic_list: Optional "trace_probe.list";
    /// The `struct trace_probe` inside a uprobe.
    uprobe_tp: Optional "trace_uprobe.tp";
    /// The directory entry of the file it sits in.
    uprobe_dentry: Optional "trace_uprobe.path.dentry";
    /// That file's path, as it was given.
    uprobe_filename: Optional "trace_uprobe.filename";
    /// Where in the file, bytes.
    uprobe_offset: Optional "trace_uprobe.offset";
    /// Where in the file its semaphore lies (USDT), bytes; 0 for none.
    uprobe_ref_ctr: Optional "trace_uprobe.ref_ctr_offset";
    /// The `struct trace_probe` inside a kprobe.
    kprobe_tp: Optional "trace_kprobe.tp";
    /// Name of the kernel function it sits in.
    kprobe_symbol: Optional "trace_kprobe.symbol";
    /// How far in it, bytes (32 bits).
    kprobe_offset: Optional "trace_kprobe.rp.kp.offset";
    /// Registers: system call number (`x86_64`).
    regs_orig_ax: Optional "pt_regs.orig_ax";
    /// Registers: system call number (aarch64).
    regs_syscallno: Optional "pt_regs.syscallno";
}

const _: () = assert!(size_of::<KernelOffsets>() == MEMBERS.len() * 4);
