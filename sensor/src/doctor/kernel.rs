//! What the running kernel offers.

use std::io::{ErrorKind, Read};

use super::{Check, Host};

/// Ring buffers came with 5.8; 5.10 is the oldest kernel that is tested.
const OLDEST: (u32, u32) = (5, 10);
/// `BTF_MAGIC` of include/uapi/linux/btf.h, in either byte order.
const BTF_MAGIC: [[u8; 2]; 2] = [[0x9f, 0xeb], [0xeb, 0x9f]];

impl Host {
    pub(super) fn kernel(&self) -> Check {
        let found = format!("{} on {}", self.release, self.machine);
        let mut numbers = self.release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
        let version = numbers.next().zip(numbers.next());
        if !matches!(self.machine.as_str(), "x86_64" | "aarch64") {
            return Check::missing("kernel", found).remedy("x86_64 and aarch64 are supported");
        }
        match version {
            Some(version) if version >= OLDEST => Check::ok("kernel", found),
            Some(_) => Check::missing("kernel", found).remedy("boot a kernel from 5.10 on"),
            None => Check::unknown("kernel", found),
        }
    }

    pub(super) fn btf(&self) -> Check {
        let path = "/sys/kernel/btf/vmlinux";
        let mut magic = [0; 2];
        let read = std::fs::File::open(self.at(path)).and_then(|mut it| it.read_exact(&mut magic));
        let all = "every event: the layout of kernel structures is not known";
        match read {
            Ok(()) if BTF_MAGIC.contains(&magic) => Check::ok("btf", path),
            Ok(()) => Check::missing("btf", format!("{path} holds no BTF")).unseen(all),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Check::missing("btf", format!("{path} does not exist"))
                    .remedy("boot a kernel with CONFIG_DEBUG_INFO_BTF=y; in a container, mount it")
                    .unseen(all)
            }
            Err(error) => Check::unknown("btf", format!("{path}: {error}")),
        }
    }

    /// Names of the states: security/lockdown/lockdown.c.
    pub(super) fn lockdown(&self) -> Check {
        let text = self.read("/sys/kernel/security/lockdown").unwrap_or_default();
        let state = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        match state.map(|(state, _)| state) {
            Some("confidentiality") => Check::missing("lockdown", "confidentiality")
                .remedy("boot with lockdown=integrity: this one forbids BPF to read memory")
                .unseen("every event"),
            Some("none") | None if text.is_empty() => {
                Check::ok("lockdown", "not built in, or securityfs is not mounted")
            }
            Some(state) => Check::ok("lockdown", state),
            None => Check::unknown("lockdown", text),
        }
    }

    pub(super) fn tracepoints(&self) -> Check {
        let places = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
        let mut refused = None;
        for place in places {
            match self.read(&format!("{place}/events/sched/sched_process_exec/id")) {
                Ok(_) => return Check::ok("tracepoints", place),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => refused = Some(place),
                Err(_) => {}
            }
        }
        match refused {
            Some(place) => Check::unknown("tracepoints", format!("{place} may not be read"))
                .remedy("run doctor as root"),
            None => Check::degraded("tracepoints", "no tracefs with sched_process_exec")
                .remedy("mount tracefs on /sys/kernel/tracing; needs CONFIG_FTRACE=y")
                .unseen("what only perf tracepoints tell; raw tracepoints need no tracefs"),
        }
    }

    pub(super) fn uprobes(&self) -> Check {
        self.probe_type("uprobe", "uprobes").unwrap_or_else(|check| {
            check
                .remedy("boot a kernel with CONFIG_UPROBE_EVENTS=y")
                .unseen("callers of guarded functions (foreign_caller)")
        })
    }

    pub(super) fn kprobes(&self) -> Check {
        self.probe_type("kprobe", "kprobes").unwrap_or_else(|check| {
            check.remedy("none needed where another mechanism of each probe loads")
        })
    }

    fn probe_type(&self, pmu: &str, name: &'static str) -> Result<Check, Check> {
        match self.read(&format!("/sys/bus/event_source/devices/{pmu}/type")) {
            Ok(_) => Ok(Check::ok(name, "supported")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Check::degraded(name, "this kernel has none"))
            }
            Err(error) => Ok(Check::unknown(name, error.to_string())),
        }
    }

    /// Containers are told by their cgroup, in either version: cgroups(7).
    pub(super) fn cgroup(&self) -> Check {
        match self.read("/proc/self/cgroup") {
            Ok(text) if text.starts_with("0::") => Check::ok("cgroup", "version 2"),
            Ok(_) => Check::ok("cgroup", "version 1"),
            Err(error) => Check::degraded("cgroup", format!("/proc/self/cgroup: {error}"))
                .remedy("boot a kernel with CONFIG_CGROUPS=y")
                .unseen("the container of a process"),
        }
    }
}
