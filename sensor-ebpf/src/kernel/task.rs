//! `struct task_struct` and what hangs off it.

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_get_current_task_btf};
use sensor_common::record::Usage;

use super::KernelPtr;
use super::file::File;
use crate::globals::{config, offset};

/// Where a process has what; 0 where the kernel does not say.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub start_code: u64,
    pub end_code: u64,
    pub brk: u64,
    pub mmap_base: u64,
    pub start_stack: u64,
}

/// A `struct task_struct *`.
#[derive(Clone, Copy)]
pub struct Task<const TYPED: bool = false>(KernelPtr<TYPED>);

impl Task {
    #[inline(always)]
    pub fn new(address: u64) -> Option<Self> {
        KernelPtr::new(address).map(Self)
    }
}

impl Task<true> {
    #[inline(always)]
    pub fn current() -> Option<Self> {
        let address = if config!(has_task_pt_regs) == 0 {
            // SAFETY: the helper has no arguments and cannot fail.
            unsafe { bpf_get_current_task() }
        } else {
            // SAFETY: as above; its result has a type.
            (unsafe { bpf_get_current_task_btf() }) as u64
        };
        KernelPtr::vouched_for(address).map(Self)
    }
}

impl<const TYPED: bool> Task<TYPED> {
    #[inline(always)]
    pub fn tid(self) -> Option<u32> {
        self.0.read(offset!(task_pid))
    }

    #[inline(always)]
    pub fn tgid(self) -> Option<u32> {
        self.0.read(offset!(task_tgid))
    }

    #[inline(always)]
    pub fn parent(self) -> Option<Self> {
        self.0.follow(offset!(task_real_parent)).map(Self)
    }

    /// 0 where the kernel does not say.
    #[inline(always)]
    pub fn start_ns(self) -> u64 {
        self.0.read_or_zero(offset!(task_start_boottime))
    }

    #[inline(always)]
    pub fn usage(self) -> Option<Usage> {
        Some(Usage {
            sum_exec_ns: self.0.read(offset!(task_sum_exec))?,
            run_delay_ns: self.0.read_or_zero(offset!(task_run_delay)),
            voluntary_switches: self.0.read(offset!(task_nvcsw))?,
            minor_faults: self.0.read(offset!(task_min_flt))?,
        })
    }

    #[inline(always)]
    pub fn uid(self) -> Option<u32> {
        self.0.follow(offset!(task_cred))?.read(offset!(cred_uid))
    }

    #[inline(always)]
    pub fn euid(self) -> Option<u32> {
        self.0.follow(offset!(task_cred))?.read(offset!(cred_euid))
    }

    #[inline(always)]
    pub fn exit_code(self) -> u32 {
        self.0.read_or_zero(offset!(task_exit_code))
    }

    /// False only where the kernel says that other threads of the process live on.
    #[inline(always)]
    pub fn is_last_thread(self) -> bool {
        self.0
            .follow(offset!(task_signal))
            .and_then(|signal| signal.read::<u32>(offset!(signal_live)))
            .is_none_or(|live| live == 0)
    }

    /// Address space, as a number to compare; 0 for a kernel thread.
    #[inline(always)]
    pub fn mm(self) -> u64 {
        self.0.read_or_zero(offset!(task_mm))
    }

    #[inline(always)]
    pub fn exe(self) -> Option<File<TYPED>> {
        self.0.follow(offset!(task_mm))?.follow(offset!(mm_exe_file)).map(File::from)
    }

    /// Of a program that has just started: the address of `argc` on its stack, and where the
    /// strings of its environment start and end.
    #[inline(always)]
    pub fn environ(self) -> Option<(u64, u64, u64)> {
        let mm = self.0.follow(offset!(task_mm))?;
        let stack = mm.read(offset!(mm_start_stack))?;
        Some((stack, mm.read(offset!(mm_env_start))?, mm.read(offset!(mm_env_end))?))
    }

    /// Without a branch at each: what cannot be read is zero.
    #[inline(always)]
    pub fn bounds(self) -> Bounds {
        let mm = self.0.follow(offset!(task_mm)).map_or(KernelPtr::NULL, KernelPtr::plain);
        Bounds {
            start_code: mm.read_or_zero(offset!(mm_start_code)),
            end_code: mm.read_or_zero(offset!(mm_end_code)),
            brk: mm.read_or_zero(offset!(mm_brk)),
            mmap_base: mm.read_or_zero(offset!(mm_mmap_base)),
            start_stack: mm.read_or_zero(offset!(mm_start_stack)),
        }
    }

    /// The open file behind a descriptor.
    #[inline(always)]
    pub fn file(self, fd: u64) -> Option<File> {
        let table = self.0.follow(offset!(task_files))?.follow(offset!(files_fdt))?;
        let room: u32 = table.read(offset!(fdt_max_fds))?;
        if fd >= u64::from(room) {
            return None;
        }
        table.follow(offset!(fdt_fd))?.plain().element(fd).map(File::from)
    }

    /// Inode number and device of the root directory; 0 where the kernel does not say.
    #[inline(always)]
    pub fn root(self) -> (u64, u32) {
        let step = |from: KernelPtr, offset| {
            KernelPtr::new(from.read_or_zero(offset)).unwrap_or(KernelPtr::NULL)
        };
        let fs = step(self.0.plain(), offset!(task_fs));
        let inode = step(step(fs, offset!(fs_root_dentry)), offset!(dentry_inode));
        let superblock = step(inode, offset!(inode_sb));
        (inode.read_or_zero(offset!(inode_ino)), superblock.read_or_zero(offset!(sb_dev)))
    }

    /// Kernel stack.
    #[inline(always)]
    pub fn stack(self) -> Option<KernelPtr> {
        self.0.follow(offset!(task_stack)).map(KernelPtr::plain)
    }

    /// Flags of the entry code; 0 where the architecture has none.
    #[inline(always)]
    pub fn thread_status(self) -> u32 {
        self.0.read_or_zero(offset!(task_thread_status))
    }
}
