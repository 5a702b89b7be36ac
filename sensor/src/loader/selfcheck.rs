//! The offsets tried out on the agent itself before anything rests on them.

use std::fs;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::linux::fs::MetadataExt as _;

use aya::maps::{Array, MapData};
use aya::programs::raw_trace_point::RawTracePoint;
use aya::programs::{RawTracePointRunOptions, TestRun as _};
use sensor_common::record::{FileKey, SelfCheck};
use zerocopy::FromBytes as _;

use super::error::{LoadError, reason};

/// The value of the map `CHECK` as bytes.
pub(super) type Answer = [u8; size_of::<SelfCheck>()];

/// The number of the system call by which the check runs.
#[cfg(target_arch = "x86_64")]
const SYS_BPF: u32 = 321;
/// As above (asm-generic/unistd.h).
#[cfg(target_arch = "aarch64")]
const SYS_BPF: u32 = 280;

/// Start times may differ by clock ticks of 10 ms: /proc rounds.
const TICK_NS: u64 = 10_000_000;

/// Runs `check` about a descriptor of this process.
pub(super) fn run(
    program: &RawTracePoint,
    answer: &Array<MapData, Answer>,
    file: Option<BorrowedFd<'_>>,
) -> Result<SelfCheck, LoadError> {
    let failed = |what: String| LoadError::SelfCheckFailed { what };
    let mut options = RawTracePointRunOptions::new();
    options.args[0] =
        file.and_then(|file| u64::try_from(file.as_raw_fd()).ok()).unwrap_or(u64::MAX);
    program.test_run(options).map_err(|error| failed(reason(&error)))?;
    let bytes = answer.get(&0, 0).map_err(|error| failed(error.to_string()))?;
    SelfCheck::read_from_bytes(&bytes).map_err(|error| failed(error.to_string()))
}

/// True if the saved user registers were found.
pub(super) fn has_registers(check: &SelfCheck) -> bool {
    check.syscall == SYS_BPF
}

/// Compares what the programs read with what /proc says.
pub(super) fn compare(check: &SelfCheck) -> Result<(), LoadError> {
    let own = std::process::id();
    let helper = u32::try_from(check.pid_tgid >> 32).unwrap_or(0);
    if helper != own {
        return Err(LoadError::PidNamespace { helper, own });
    }
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    equal("tgid", check.tgid, own)?;
    equal("tid", u64::from(check.tid), check.pid_tgid & 0xffff_ffff)?;
    equal("parent", i64::from(check.parent_tgid), i64::from(parent))?;
    equal("uid", check.uid, rustix::process::getuid().as_raw())?;
    compare_start(check.start_ns)?;
    compare_exe(&check.exe)
}

fn equal<T: PartialEq + ToString + Copy>(
    field: &'static str,
    found: T,
    real: T,
) -> Result<(), LoadError> {
    if found == real {
        return Ok(());
    }
    Err(LoadError::SelfCheck { field, read: found.to_string(), real: real.to_string() })
}

/// Field 22 of /proc/thread-self/stat, in ticks since boot. In a time namespace /proc counts from another
/// start, so only hosts without one are compared.
fn compare_start(start_ns: u64) -> Result<(), LoadError> {
    if start_ns == 0 || !in_initial_time_namespace() {
        return Ok(());
    }
    let failed = |what: String| LoadError::SelfCheckFailed { what };
    let stat = fs::read_to_string("/proc/thread-self/stat")
        .map_err(|error| failed(format!("/proc/thread-self/stat: {error}")))?;
    let ticks: u64 = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| failed("/proc/thread-self/stat has no start time".to_owned()))?;
    let hertz = rustix::param::clock_ticks_per_second();
    let real = ticks.saturating_mul(1_000_000_000 / hertz.max(1));
    if real.abs_diff(start_ns) <= TICK_NS {
        return Ok(());
    }
    Err(LoadError::SelfCheck {
        field: "start time",
        read: start_ns.to_string(),
        real: real.to_string(),
    })
}

fn in_initial_time_namespace() -> bool {
    // The number of the initial one is fixed (include/linux/proc_ns.h PROC_TIME_INIT_INO); a
    // kernel without time namespaces has no such file.
    fs::read_link("/proc/self/ns/time")
        .map_or(true, |link| link.to_string_lossy() == "time:[4026531834]")
}

/// /proc/self/maps shows device and inode as the kernel has them, where `stat` may show those of
/// another layer (overlayfs, btrfs).
fn compare_exe(exe: &FileKey) -> Result<(), LoadError> {
    let failed = |what: String| LoadError::SelfCheckFailed { what };
    let path = "/proc/self/exe";
    let link = fs::read_link(path).map_err(|error| failed(format!("{path}: {error}")))?;
    let meta = fs::metadata(path).map_err(|error| failed(format!("{path}: {error}")))?;
    equal("size of the executable", exe.size, meta.st_size())?;
    if exe.ctime_s != 0 {
        let real = u64::try_from(meta.st_ctime()).unwrap_or(0);
        equal("change time of the executable", exe.ctime_s, real)?;
    }
    let maps = fs::read_to_string("/proc/self/maps")
        .map_err(|error| failed(format!("/proc/self/maps: {error}")))?;
    let Some((dev, ino)) = maps.lines().find_map(|line| mapping_of(line, &link.to_string_lossy()))
    else {
        return Err(failed(format!("/proc/self/maps has no {}", link.display())));
    };
    equal("device of the executable", exe.dev, dev)?;
    equal("inode of the executable", exe.ino, ino)
}

/// Device (`MKDEV` form) and inode of a line of maps that maps `path`.
fn mapping_of(line: &str, path: &str) -> Option<(u32, u64)> {
    let mut fields = line.splitn(6, ' ');
    let device = fields.nth(3)?;
    let inode = fields.next()?;
    if fields.next()?.trim_start() != path {
        return None;
    }
    let (major, minor) = device.split_once(':')?;
    let major = u32::from_str_radix(major, 16).ok()?;
    let minor = u32::from_str_radix(minor, 16).ok()?;
    Some((major << 20 | minor, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_gives_the_kernels_device_and_inode() {
        let line =
            "55d0c0a00000-55d0c0a02000 r--p 00000000 fe:01 1837                       /usr/bin/a b";
        assert_eq!(mapping_of(line, "/usr/bin/a b"), Some((0xfe << 20 | 1, 1837)));
        assert_eq!(mapping_of(line, "/usr/bin/a"), None);
        assert_eq!(mapping_of("", "/usr/bin/a"), None);
    }

    #[test]
    fn a_wrong_start_time_is_refused() {
        let error = compare_start(1).expect_err("refused");
        assert!(matches!(error, LoadError::SelfCheck { field: "start time", .. }), "{error}");
    }
}
