//! Several guests at once, within the time that there is.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::kernel::{Kernel, Spec};
use super::qemu::{self, Outcome};

/// With less than this left a guest is not even started: it would hardly get through its first tests.
const LEAST: Duration = Duration::from_mins(4);

/// A kernel with everything that runs on it.
pub(super) struct Guest {
    pub(super) spec: Spec,
    pub(super) kernel: Kernel,
    /// The initramfs.
    pub(super) image: PathBuf,
}

/// How long guests may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// One guest; it fails beyond that.
    each: Duration,
    /// All of them, if whoever waits has no longer. What is not done then was not tested.
    until: Option<Instant>,
}

// === impl Limits ===

impl Limits {
    pub(crate) fn of(each: Duration) -> Self {
        Self { each, until: None }
    }

    pub(crate) fn until(self, until: Option<Instant>) -> Self {
        Self { until, ..self }
    }

    /// What a guest has that starts now, and whether it is less than one may take.
    fn left(self, now: Instant) -> (Duration, bool) {
        match self.until.map(|until| until.saturating_duration_since(now)) {
            Some(left) if left < self.each => (left, true),
            _ => (self.each, false),
        }
    }

    /// Whether it is no use to start a guest now.
    pub(super) fn hardly_any(self, now: Instant) -> bool {
        self.left(now).0 < LEAST && self.until.is_some()
    }
}

/// Boots all, as many at once as there are processors, and returns what became of each in the order
/// given.
///
/// # Errors
/// When the emulator cannot be started or read, after the other guests have ended.
pub(super) fn run(guests: Vec<Guest>, limits: Limits) -> Result<Vec<Outcome>> {
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(guests.len());
    let count = guests.len();
    let waiting: Mutex<VecDeque<(usize, Guest)>> =
        Mutex::new(guests.into_iter().enumerate().collect());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || -> Vec<(usize, Result<Outcome>)> {
        std::iter::from_fn(next).map(|(number, guest)| (number, one(&guest, limits))).collect()
    };
    let mut outcomes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
    });
    outcomes.sort_by_key(|(number, _)| *number);
    let outcomes: Result<Vec<_>> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    let outcomes = outcomes?;
    (outcomes.len() == count).then_some(outcomes).context("a guest's thread panicked")
}

fn one(guest: &Guest, limits: Limits) -> Result<Outcome> {
    let Guest { spec, kernel, .. } = guest;
    let now = Instant::now();
    if limits.hardly_any(now) {
        let outcome = Outcome::not_run(spec);
        println!("-- {outcome}");
        return Ok(outcome);
    }
    let (limit, short) = limits.left(now);
    println!("-- {spec}: Linux {} ({})", kernel.version, spec.arch.debian());
    let mut outcome = qemu::boot(guest, limit)?;
    if outcome.is_emulators_fault() {
        println!("-- {outcome}\n-- {spec}: this is the emulator's fault; once more");
        outcome = qemu::boot(guest, limits.left(Instant::now()).0)?;
    }
    if short && outcome.cut_short {
        outcome.verdict = Outcome::not_run(spec).verdict;
    }
    println!("-- {outcome}");
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_has_its_own_limit_or_what_is_left_for_all() {
        let now = Instant::now();
        let minutes = Duration::from_mins;
        let limits = Limits::of(minutes(30));
        assert_eq!(limits.left(now), (minutes(30), false));
        assert_eq!(limits.until(Some(now + minutes(40))).left(now), (minutes(30), false));
        assert_eq!(limits.until(Some(now + minutes(9))).left(now), (minutes(9), true));
        assert_eq!(limits.until(Some(now)).left(now + minutes(1)), (minutes(0), true));
        assert!(limits.until(Some(now + minutes(3))).hardly_any(now));
        assert!(!limits.until(Some(now + minutes(5))).hardly_any(now));
    }
}
