//! What /proc tells of programs that run while something else is measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Time on a CPU of all threads of `pid` since they started (`/proc/PID/task/TID/schedstat`).
pub(super) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let Ok(schedstat) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let first = schedstat.split_whitespace().next().and_then(|word| word.parse().ok());
        nanoseconds += first.unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Of the times in /proc, for every program on Linux (`USER_HZ`, proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds on a CPU of `pid` and of all its descendants that have ended and been waited for.
pub(super) fn family_time(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = family_ticks(&stat).with_context(|| format!("process {pid} tells no times"))?;
    Ok(ticks / TICKS_PER_SECOND)
}

/// utime, stime, cutime and cstime: fields 14 to 17 of /proc/PID/stat, the name in field 2 being
/// whatever the process likes (`proc_pid_stat(5)`).
fn family_ticks(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let times: Vec<u32> =
        rest.split(' ').skip(11).take(4).map(str::parse).collect::<Result<_, _>>().ok()?;
    (times.len() == 4).then(|| times.into_iter().map(f64::from).sum())
}

/// Waits until `pid` has no child left.
pub(super) fn childless(pid: u32) -> Result<()> {
    let began = Instant::now();
    let file = format!("/proc/{pid}/task/{pid}/children");
    while !fs::read_to_string(&file).context("no list of children")?.trim().is_empty() {
        ensure!(began.elapsed() < PATIENCE, "children of process {pid} do not end");
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Between two looks at a process that is to come to rest.
const LOOK: Duration = Duration::from_millis(250);
/// Looks in a row that find it at rest: work that waits for more of its kind counts as work.
const LOOKS: u32 = 4;
/// Time on a CPU between two looks of a process at rest: 0.8 % of a core.
const AT_REST: Duration = Duration::from_millis(2);
/// Longer than any sensor needs for a machine it does not know.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `pid` has done what it does once after its start, such as reading the packages'
/// database, and gives the time on a CPU that it had since its start.
///
/// Errors: it is busy without end.
pub(super) fn settle(pid: u32) -> Result<Duration> {
    let began = Instant::now();
    let (mut before, mut at_rest) = (cpu_time(pid)?, 0);
    while at_rest < LOOKS {
        ensure!(began.elapsed() < PATIENCE, "process {pid} does not come to rest");
        thread::sleep(LOOK);
        let now = cpu_time(pid)?;
        at_rest = if now.saturating_sub(before) < AT_REST { at_rest + 1 } else { 0 };
        before = now;
    }
    Ok(before)
}

/// Resident memory of `pid` in bytes.
pub(super) fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("process {pid} tells no resident memory"))? * 1024)
}

/// Kernel memory of the BPF programs and maps that `pid` holds open, in bytes.
pub(super) fn bpf_memory(pid: u32) -> Result<u64> {
    let mut objects = BTreeMap::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed between the listing and the reading.
        let info = fs::read_to_string(descriptor?.path()).unwrap_or_default();
        objects.extend(bpf_object(&info));
    }
    Ok(objects.values().sum())
}

/// The BPF object behind a descriptor: its kind and number, and its size in bytes.
///
/// Format: `bpf_map_show_fdinfo` and `bpf_prog_show_fdinfo`, kernel/bpf/syscall.c at v6.12.
fn bpf_object(fdinfo: &str) -> Option<((&'static str, u64), u64)> {
    let field = |name: &str| -> Option<u64> {
        let value = fdinfo.lines().find_map(|line| line.strip_prefix(name))?;
        value.strip_prefix(':')?.trim().parse().ok()
    };
    let (kind, id) =
        ["map_id", "prog_id"].into_iter().find_map(|kind| Some((kind, field(kind)?)))?;
    Some(((kind, id), field("memlock")?))
}

/// Whether the file at `path` contains `text` by now.
pub(super) fn contains(path: &Path, text: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|content| content.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_family_are_read_behind_whatever_name_it_has() {
        let stat = "7 (a) R 1 (b) S 1 7 7 0 -1 4194560 2 3 4 5 100 20 3000 400 20 0 1 0 9";
        assert_eq!(family_ticks(stat), Some(3520.0));
        assert_eq!(family_ticks("7 (a) S 1 7"), None);
        assert!(family_time(std::process::id()).is_ok());
    }

    #[test]
    fn maps_and_programs_are_told_from_other_descriptors() {
        let map = "pos:\t0\nmap_type:\t5\nmemlock:\t426880\nmap_id:\t33\n";
        let program = "pos:\t0\nmemlock:\t4096\nprog_id:\t166\n";
        assert_eq!(bpf_object(map), Some((("map_id", 33), 426_880)));
        assert_eq!(bpf_object(program), Some((("prog_id", 166), 4096)));
        // A link names its program but is none.
        assert_eq!(bpf_object("link_type:\ttracing\nprog_id:\t166\n"), None);
        assert_eq!(bpf_object("pos:\t0\nflags:\t0100002\n"), None);
    }
}
