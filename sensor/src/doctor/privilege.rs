//! What this process may do, and whether it stands where it can see all others.

use std::fs;

use super::{Check, Host};

/// Bit numbers of `include/uapi/linux/capability.h`, and what `CAP_SYS_ADMIN` stands in for.
const NEEDED: [Needed; 5] = [
    Needed { name: "CAP_BPF", bit: 39, admin_will_do: true },
    Needed { name: "CAP_PERFMON", bit: 38, admin_will_do: true },
    Needed { name: "CAP_SYS_PTRACE", bit: 19, admin_will_do: false },
    Needed { name: "CAP_DAC_READ_SEARCH", bit: 2, admin_will_do: false },
    Needed { name: "CAP_CHECKPOINT_RESTORE", bit: 40, admin_will_do: true },
];
const SYS_ADMIN: u32 = 21;
/// `PROC_PID_INIT_INO` of `include/linux/proc_ns.h`.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

struct Needed {
    name: &'static str,
    bit: u32,
    admin_will_do: bool,
}

/// Names of the capabilities among those the sensor needs that this process lacks.
pub(crate) fn missing_capabilities() -> Vec<&'static str> {
    effective(&Host::this()).map_or_else(Vec::new, missing_of)
}

impl Host {
    pub(super) fn capabilities(&self) -> Check {
        let Some(effective) = effective(self) else {
            return Check::unknown("capabilities", "/proc/self/status does not tell");
        };
        let missing = missing_of(effective);
        if missing.is_empty() {
            let names: Vec<_> = NEEDED.iter().map(|needed| needed.name).collect();
            return Check::ok("capabilities", names.join(", "));
        }
        Check::missing("capabilities", format!("this user lacks {}", missing.join(", ")))
            .remedy("run as root, or start the systemd unit, which grants them")
    }

    pub(super) fn pid_namespace(&self) -> Check {
        let link = fs::read_link(self.at("/proc/self/ns/pid"));
        match link.map(|link| link.to_string_lossy().into_owned()) {
            Ok(link) if link == INITIAL_PID_NAMESPACE => Check::ok("pid_namespace", "the host's"),
            Ok(link) => Check::degraded("pid_namespace", format!("{link} is not the host's"))
                .remedy("start the container with the host's PID namespace (hostPID: true)")
                .unseen("processes outside this container can neither be named nor checked"),
            Err(error) => Check::unknown("pid_namespace", error.to_string()),
        }
    }

    /// Values: Documentation/admin-guide/LSM/Yama.rst.
    pub(super) fn ptrace_scope(&self) -> Check {
        match self.read("/proc/sys/kernel/yama/ptrace_scope").as_deref() {
            Ok("3") => Check::degraded("ptrace_scope", "3: nobody may read another's memory")
                .remedy("set kernel.yama.ptrace_scope to 2 or less at boot")
                .unseen("redirected slots and changed code (got_redirected, text_patched, scan)"),
            Ok(value) => Check::ok("ptrace_scope", value),
            Err(_) => Check::ok("ptrace_scope", "Yama is not in use"),
        }
    }
}

fn effective(host: &Host) -> Option<u64> {
    let status = host.read("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing_of(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    NEEDED
        .iter()
        .filter(|needed| !(has(needed.bit) || needed.admin_will_do && has(SYS_ADMIN)))
        .map(|needed| needed.name)
        .collect()
}
