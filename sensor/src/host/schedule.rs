//! When processes are to be checked because something happened: once that has been quiet for a
//! while.

use std::collections::{BTreeSet, HashMap};

use super::observe::{CheckReason, ProcessId};

/// Processes waiting at once; beyond, the one due last is dropped and counted.
const WAITING_MAX: usize = 4096;
/// Longest that ever more seals can put a check off, in settle times. A check that comes too early
/// costs little and is repeated; one that comes after the verdict is late.
const PATIENCE: u64 = 5;

/// After a write that was told, others are not for this long.
const LATER_NS: u64 = 1_000_000_000;
/// Processes whose second look waits; beyond, there is the first only.
const LATER_MAX: usize = 256;

/// Pending checks by due time.
#[derive(Debug)]
pub(super) struct Schedule {
    settle_ns: u64,
    waiting: HashMap<ProcessId, Waiting>,
    due: BTreeSet<(u64, ProcessId)>,
    /// Second looks after writes, by due time.
    later: BTreeSet<(u64, ProcessId)>,
    dropped: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    due_ns: u64,
    latest_ns: u64,
    reason: CheckReason,
}

// === impl Schedule ===

impl Schedule {
    pub(super) fn new(settle_ns: u64) -> Self {
        Self {
            settle_ns,
            waiting: HashMap::new(),
            due: BTreeSet::new(),
            later: BTreeSet::new(),
            dropped: 0,
        }
    }

    /// A seal: the check is due once no other follows for the settle time.
    pub(super) fn sealed(&mut self, process: ProcessId, now_ns: u64) {
        self.put(process, now_ns, self.settle_ns, CheckReason::Sealed);
    }

    /// The seals of this process were not seen: give it time to link.
    pub(super) fn late(&mut self, process: ProcessId, now_ns: u64) {
        self.put(process, now_ns, self.settle_ns.saturating_mul(5), CheckReason::Late);
    }

    /// An authentication request: do not wait for anything but pending seals.
    pub(super) fn requested(&mut self, process: ProcessId, now_ns: u64) {
        if !self.waiting.contains_key(&process) {
            self.put(process, now_ns, 0, CheckReason::Request);
        }
    }

    /// Another process has written into its memory: check once that is quiet, and once more when
    /// writes that the kernel side did not tell, within a second of this one, are over.
    pub(super) fn written(&mut self, process: ProcessId, now_ns: u64) {
        self.put(process, now_ns, self.settle_ns, CheckReason::Written);
        self.look_later(process, now_ns);
    }

    /// It made memory of a file writable: check once it has been written to, as soon as it is sealed
    /// again, and a second later if it is not.
    pub(super) fn reopened(&mut self, process: ProcessId, now_ns: u64) {
        self.put(process, now_ns, self.settle_ns, CheckReason::Reopened);
        self.look_later(process, now_ns);
    }

    /// Code of a memfd was mapped: libraries that are put into a running process come so.
    pub(super) fn injected(&mut self, process: ProcessId, now_ns: u64) {
        self.put(process, now_ns, self.settle_ns, CheckReason::Memfd);
    }

    /// Each write that is told moves it: what follows untold within a second comes before it.
    fn look_later(&mut self, process: ProcessId, now_ns: u64) {
        let due = now_ns.saturating_add(LATER_NS).saturating_add(self.settle_ns);
        match self.later.iter().copied().find(|(_, waiting)| *waiting == process) {
            Some(before) if before.0 < due => drop(self.later.remove(&before)),
            Some(_) => return,
            None if self.later.len() >= LATER_MAX => {
                self.dropped += 1;
                return;
            }
            None => {}
        }
        self.later.insert((due, process));
    }

    pub(super) fn forget(&mut self, process: ProcessId) {
        if let Some(waiting) = self.waiting.remove(&process) {
            self.due.remove(&(waiting.due_ns, process));
        }
        self.later.retain(|(_, waiting)| *waiting != process);
    }

    /// The next process whose check is due.
    pub(super) fn pop(&mut self, now_ns: u64) -> Option<(ProcessId, CheckReason, u64)> {
        while let Some((due, process)) =
            self.later.first().copied().filter(|(due, _)| *due <= now_ns)
        {
            self.later.remove(&(due, process));
            if !self.waiting.contains_key(&process) {
                self.put(process, due, 0, CheckReason::Written);
            }
        }
        let (due_ns, process) = self.due.first().copied().filter(|(due, _)| *due <= now_ns)?;
        self.due.remove(&(due_ns, process));
        let waiting = self.waiting.remove(&process)?;
        Some((process, waiting.reason, due_ns))
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        let first = |queue: &BTreeSet<(u64, ProcessId)>| queue.first().map(|(due, _)| *due);
        first(&self.due).into_iter().chain(first(&self.later)).min()
    }

    /// Checks given up for want of room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn put(&mut self, process: ProcessId, now_ns: u64, wait_ns: u64, reason: CheckReason) {
        let before = self.waiting.remove(&process);
        if let Some(before) = before {
            self.due.remove(&(before.due_ns, process));
        } else if self.waiting.len() >= WAITING_MAX
            && let Some((_, last)) = self.due.pop_last()
        {
            self.waiting.remove(&last);
            self.dropped += 1;
        }
        let patience = self.settle_ns.saturating_mul(PATIENCE);
        let latest_ns = before.map_or(now_ns.saturating_add(patience), |w| w.latest_ns);
        let due_ns = now_ns.saturating_add(wait_ns).min(latest_ns).max(now_ns);
        self.waiting.insert(process, Waiting { due_ns, latest_ns, reason });
        self.due.insert((due_ns, process));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ProcessId = ProcessId { tgid: 1, start_ticks: 1 };
    const B: ProcessId = ProcessId { tgid: 2, start_ticks: 1 };

    #[test]
    fn a_check_waits_until_the_seals_are_quiet() {
        let mut schedule = Schedule::new(10);
        for now in [100, 105, 112] {
            schedule.sealed(A, now);
        }
        assert_eq!(schedule.pop(121), None);
        assert_eq!(schedule.next_due(), Some(122));
        assert_eq!(schedule.pop(122), Some((A, CheckReason::Sealed, 122)));
        assert_eq!(schedule.pop(1000), None);
    }

    #[test]
    fn endless_seals_cannot_put_a_check_off_for_ever() {
        let mut schedule = Schedule::new(10);
        let popped = (0..100).find_map(|step| {
            schedule.sealed(A, step * 5);
            schedule.pop(step * 5)
        });
        assert_eq!(popped, Some((A, CheckReason::Sealed, 50)));
    }

    #[test]
    fn a_request_waits_for_pending_seals_and_otherwise_not() {
        let mut schedule = Schedule::new(10);
        schedule.sealed(A, 100);
        schedule.requested(A, 101);
        schedule.requested(B, 101);
        assert_eq!(schedule.pop(101), Some((B, CheckReason::Request, 101)));
        assert_eq!(schedule.pop(110), Some((A, CheckReason::Sealed, 110)));
    }

    #[test]
    fn a_write_is_followed_by_a_second_look() {
        let mut schedule = Schedule::new(10);
        schedule.written(A, 100);
        schedule.written(A, 105);
        assert_eq!(schedule.pop(115), Some((A, CheckReason::Written, 115)));
        assert_eq!(schedule.pop(LATER_NS), None);
        let second = 115 + LATER_NS;
        assert_eq!(schedule.next_due(), Some(second));
        assert_eq!(schedule.pop(second), Some((A, CheckReason::Written, second)));
        assert_eq!((schedule.pop(u64::MAX), schedule.next_due()), (None, None));
        schedule.reopened(B, 5);
        schedule.forget(B);
        assert_eq!((schedule.pop(u64::MAX), schedule.next_due()), (None, None));
    }

    #[test]
    fn an_ended_process_is_not_checked() {
        let mut schedule = Schedule::new(10);
        schedule.sealed(A, 1);
        schedule.forget(A);
        assert_eq!((schedule.pop(100), schedule.next_due()), (None, None));
    }

    #[test]
    fn waiting_processes_are_bounded_and_counted() {
        let mut schedule = Schedule::new(10);
        for tgid in 0..5000 {
            schedule.sealed(ProcessId { tgid, start_ticks: 0 }, u64::from(tgid));
        }
        assert_eq!(schedule.waiting.len(), WAITING_MAX);
        assert_eq!(schedule.due.len(), WAITING_MAX);
        assert_eq!(schedule.dropped(), 5000 - WAITING_MAX as u64);
    }
}
