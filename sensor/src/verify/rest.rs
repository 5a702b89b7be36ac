//! Whether a process's threads can be between two steps of the dynamic loader.
//!
//! glibc's `_dl_map_object_from_fd` (elf/dl-load.c) maps a library some system calls before it adds
//! it to the list, and `_dl_close_worker` (elf/dl-close.c) unmaps one some after it took it from the
//! list; `_r_debug.r_state` says nothing of either gap. It lasts microseconds of CPU time, but any
//! length of wall time on a busy machine. So a contradiction between list and mappings counts only
//! if no thread can have been in it at both looks.

use std::collections::BTreeMap;
use std::{fmt, fs};

/// Threads looked at; a process with more is never at rest.
const THREADS_MAX: usize = 1024;
/// CPU time within which the loader is through either gap, ns: many times what it takes.
const THROUGH_NS: u64 = 2_000_000;

/// What every thread of a process is at, at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Threads(Option<BTreeMap<u32, Thread>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thread {
    /// As `/proc/PID/stat` has it.
    state: char,
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
        Self(read(pid).filter(|threads| threads.len() <= THREADS_MAX))
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

/// What may keep a process from going on, for who finds its loader at work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its threads.
    pub threads: usize,
    /// Of them, those held by a signal or a debugger.
    pub stopped: usize,
    /// Of them, those that wait for a disk (or a file server), or that the freezer holds.
    pub waiting: usize,
    /// Of them, those that have ended.
    pub ended: usize,
    /// Who traces its first thread: thread group id and name.
    pub tracer: Option<(u32, String)>,
    /// It was forked and has executed no program since: its memory began as its parent's.
    pub forked: bool,
}

impl Standing {
    /// Reads `/proc/PID/task` and `TracerPid`; `None` if there is no such process.
    pub fn of(pid: u32) -> Option<Self> {
        let threads = read(pid)?;
        let count =
            |states: &str| threads.values().filter(|one| states.contains(one.state)).count();
        // Of one that was not looked at, it is not known that it cannot run.
        let more = usize::from(threads.len() > THREADS_MAX);
        Some(Self {
            threads: threads.len() + more,
            stopped: count("Tt"),
            waiting: count("D"),
            ended: count("ZXx"),
            tracer: super::text::tracer_of(pid),
            forked: is_forked(pid),
        })
    }

    /// No thread of it can run before somebody else does something: it does no harm, and may well be
    /// in the middle of its loader.
    pub fn is_still(&self) -> bool {
        self.threads > 0 && self.stopped + self.waiting + self.ended == self.threads
    }
}

/// `1 of 3 threads is stopped, 2 wait for a disk; gdb (17) traces it`; empty if nothing is odd.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = [
            (self.stopped, "stopped"),
            (self.waiting, "waiting for a disk"),
            (self.ended, "ended"),
        ];
        let parts = held.iter().filter(|(count, _)| *count > 0);
        let parts: Vec<String> = parts.map(|(count, what)| format!("{count} {what}")).collect();
        if !parts.is_empty() {
            write!(f, "of its {} threads {}", self.threads, parts.join(", "))?;
        }
        match &self.tracer {
            Some((pid, name)) if parts.is_empty() => write!(f, "{name} ({pid}) traces it"),
            Some((pid, name)) => write!(f, "; {name} ({pid}) traces it"),
            None => Ok(()),
        }
    }
}

/// `PF_FORKNOEXEC` of include/linux/sched.h, which exec clears, in field 9 of `/proc/PID/stat`.
fn is_forked(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    flags(&stat).is_some_and(|flags| flags & 0x40 != 0)
}

/// The name before them may contain anything.
fn flags(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(6)?.parse().ok()
}

/// All threads, or one more than are looked at.
fn read(pid: u32) -> Option<BTreeMap<u32, Thread>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let tid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let text = |name: &str| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{name}")).ok();
        // One that ended meanwhile maps nothing any more.
        let (Some(stat), Some(schedstat)) = (text("stat"), text("schedstat")) else { continue };
        threads.insert(tid, thread(&stat, &schedstat)?);
        if threads.len() > THREADS_MAX {
            break;
        }
    }
    (!threads.is_empty()).then_some(threads)
}

fn thread(stat: &str, schedstat: &str) -> Option<Thread> {
    // The name before it may contain anything.
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    let ran_ns = schedstat.split_whitespace().next()?.parse().ok()?;
    Some(Thread { state, sleeps: state == 'S', ran_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(each: &[(u32, bool, u64)]) -> Threads {
        let state = |sleeps| if sleeps { 'S' } else { 'R' };
        let thread = |(tid, sleeps, ran_ns)| (tid, Thread { state: state(sleeps), sleeps, ran_ns });
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
        assert_eq!(
            thread("1 (a) b) R 0", "17 3 4"),
            Some(Thread { state: 'R', sleeps: false, ran_ns: 17 })
        );
        assert_eq!(thread("1 (a", "17"), None);
        assert_eq!(thread("1 (a) S", ""), None);
    }

    #[test]
    fn only_who_cannot_run_at_all_stands_still() {
        let standing = |stopped, waiting, ended| Standing {
            threads: 3,
            stopped,
            waiting,
            ended,
            ..Standing::default()
        };
        assert!(standing(3, 0, 0).is_still() && standing(1, 1, 1).is_still());
        // A debugger that stops one thread lets the others do what they like.
        assert!(!standing(2, 0, 0).is_still() && !standing(0, 0, 0).is_still());
        assert!(!Standing::default().is_still());
        assert_eq!(standing(0, 0, 0).to_string(), "");
        assert_eq!(
            standing(1, 2, 0).to_string(),
            "of its 3 threads 1 stopped, 2 waiting for a disk"
        );
        let traced = Standing { tracer: Some((17, "gdb".to_owned())), ..standing(3, 0, 0) };
        assert_eq!(traced.to_string(), "of its 3 threads 3 stopped; gdb (17) traces it");
    }

    #[test]
    fn who_was_forked_and_has_executed_nothing_is_known_by_its_flags() {
        assert_eq!(flags("7 (a) b) S 1 7 7 0 -1 4194368 93 0"), Some(4_194_368));
        assert_eq!(flags("7 (a) S 1 7"), None);
        assert!(!is_forked(std::process::id()) && !is_forked(u32::MAX));
    }

    #[test]
    fn this_process_runs() {
        let own = Standing::of(std::process::id()).unwrap();
        assert!(own.threads > 0 && !own.is_still(), "{own:?}");
        assert_eq!(Standing::of(u32::MAX), None);
    }

    #[test]
    fn this_process_is_read_with_all_its_threads() {
        let own = Threads::of(std::process::id()).0.unwrap();
        assert!(own.values().any(|thread| !thread.sleeps && thread.ran_ns > 0), "{own:?}");
    }
}
