//! Whether a process's threads can be between two steps of the dynamic loader.
//!
//! glibc's `_dl_map_object_from_fd` (elf/dl-load.c) maps a library some system calls before it adds
//! it to the list, and `_dl_close_worker` (elf/dl-close.c) unmaps one some after it took it from the
//! list; `_r_debug.r_state` says nothing of either gap. It lasts microseconds of CPU time, but any
//! length of wall time on a busy machine. So a contradiction between list and mappings counts only
//! if no thread can have been in it at both looks.

use std::collections::BTreeMap;
use std::fs;

/// Threads looked at; a process with more is never at rest.
const THREADS_MAX: usize = 1024;
/// CPU time within which the loader is through either gap, ns: many times what it takes.
const THROUGH_NS: u64 = 2_000_000;

/// What every thread of a process is at, at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Threads(Option<BTreeMap<u32, Thread>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thread {
    /// It waits for something that may never come. The loader itself waits for disks only, which
    /// is another state.
    sleeps: bool,
    /// Time on a CPU so far.
    ran_ns: u64,
}

// === impl Threads ===

impl Threads {
    /// Reads `/proc/PID/task/TID/{stat,schedstat}`.
    pub(super) fn of(pid: u32) -> Self {
        Self(read(pid))
    }

    /// Whether what was seen between `before` and `after` was no moment's state: each thread slept
    /// all the while, or has run for long enough since `self`, which was read at an earlier look.
    pub(super) fn moved_on(&self, before: &Self, after: &Self) -> bool {
        let (Some(earlier), Some(before), Some(after)) = (&self.0, &before.0, &after.0) else {
            return false;
        };
        before.iter().all(|(tid, thread)| {
            let slept = thread.sleeps && after.get(tid) == Some(thread);
            let ran = |then: &Thread| thread.ran_ns.saturating_sub(then.ran_ns);
            slept || earlier.get(tid).is_some_and(|then| ran(then) >= THROUGH_NS)
        })
    }
}

fn read(pid: u32) -> Option<BTreeMap<u32, Thread>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let tid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let text = |name: &str| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{name}")).ok();
        // One that ended meanwhile maps nothing any more.
        let (Some(stat), Some(schedstat)) = (text("stat"), text("schedstat")) else { continue };
        threads.insert(tid, thread(&stat, &schedstat)?);
        if threads.len() > THREADS_MAX {
            return None;
        }
    }
    (!threads.is_empty()).then_some(threads)
}

fn thread(stat: &str, schedstat: &str) -> Option<Thread> {
    // The name before it may contain anything.
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    let ran_ns = schedstat.split_whitespace().next()?.parse().ok()?;
    Some(Thread { sleeps: state == 'S', ran_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(each: &[(u32, bool, u64)]) -> Threads {
        let thread = |(tid, sleeps, ran_ns)| (tid, Thread { sleeps, ran_ns });
        Threads(Some(each.iter().copied().map(thread).collect()))
    }

    #[test]
    fn a_thread_that_slept_all_the_while_is_no_loader_at_work() {
        let then = threads(&[(1, false, 10)]);
        let now = threads(&[(1, true, 20)]);
        assert!(then.moved_on(&now, &now));
        let woken = threads(&[(1, true, 21)]);
        assert!(!then.moved_on(&now, &woken), "it ran between the two");
        assert!(!then.moved_on(&now, &threads(&[(1, false, 20)])), "it was about to run");
    }

    #[test]
    fn a_thread_that_waits_for_a_cpu_or_is_stopped_may_be_one() {
        let then = threads(&[(1, false, 10)]);
        assert!(!then.moved_on(&then, &then));
        let more = threads(&[(1, false, 10), (2, true, 5)]);
        assert!(!then.moved_on(&more, &more));
    }

    #[test]
    fn a_thread_that_ran_on_is_through() {
        let then = threads(&[(1, false, 10), (2, true, 5)]);
        let now = threads(&[(1, false, 10 + THROUGH_NS), (2, true, 5)]);
        assert!(then.moved_on(&now, &now));
        let new = threads(&[(1, false, 10 + THROUGH_NS), (3, false, THROUGH_NS)]);
        assert!(!then.moved_on(&new, &new), "a new thread may have begun to load");
    }

    #[test]
    fn what_cannot_be_read_is_never_at_rest() {
        let none = Threads::of(u32::MAX);
        assert_eq!(none, Threads(None));
        assert!(!none.moved_on(&none, &none));
        assert_eq!(thread("1 (a) b) R 0", "17 3 4"), Some(Thread { sleeps: false, ran_ns: 17 }));
        assert_eq!(thread("1 (a", "17"), None);
        assert_eq!(thread("1 (a) S", ""), None);
    }

    #[test]
    fn this_process_is_read_with_all_its_threads() {
        let own = Threads::of(std::process::id()).0.unwrap();
        assert!(own.values().any(|thread| !thread.sleeps && thread.ran_ns > 0), "{own:?}");
    }
}
