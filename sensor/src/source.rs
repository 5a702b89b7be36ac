//! The rings: reads records, decodes them, puts them in order. Nothing here waits for anything
//! downstream.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use sensor_common::Ring;
use serde::Serialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::decode::{DecodeError, decode};
use crate::event::Event;

/// Records taken from one ring before the other has its turn.
const TURN: usize = 8192;

/// Least time between two looks at the rings. What is written meanwhile wakes nobody: the kernel
/// tells of a record only when all before it were read.
const REST: Duration = Duration::from_millis(1);

/// Records read and refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceStats {
    /// Records taken out of the bulk ring, undecodable ones among them.
    pub bulk_consumed: u64,
    /// The same for the priority ring.
    pub priority_consumed: u64,
    /// Undecodable records, by [`DecodeError::REASONS`].
    pub undecodable: [u64; DecodeError::REASONS.len()],
}

impl SourceStats {
    /// Records taken out of a ring.
    pub fn consumed(&self, ring: Ring) -> u64 {
        match ring {
            Ring::Bulk => self.bulk_consumed,
            Ring::Priority => self.priority_consumed,
        }
    }

    fn count(&mut self, ring: Ring) {
        match ring {
            Ring::Bulk => self.bulk_consumed += 1,
            Ring::Priority => self.priority_consumed += 1,
        }
    }

    fn count_undecodable(&mut self, error: DecodeError) {
        let reason = error.reason();
        for (name, count) in DecodeError::REASONS.iter().zip(&mut self.undecodable) {
            if *name == reason {
                *count += 1;
            }
        }
    }
}

/// Both rings, read without waiting.
pub struct Rings {
    bulk: RingBuf<MapData>,
    priority: RingBuf<MapData>,
    stats: SourceStats,
}

impl std::fmt::Debug for Rings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rings").field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl Rings {
    pub(crate) fn new(bulk: RingBuf<MapData>, priority: RingBuf<MapData>) -> Self {
        Self { bulk, priority, stats: SourceStats::default() }
    }

    /// What was read so far.
    pub fn stats(&self) -> SourceStats {
        self.stats
    }

    /// Appends what is there, ordered by the time the hooks ran. True if there may be more.
    ///
    /// The bulk ring comes first: what led to a priority record is then in the same batch or an
    /// earlier one. Order across batches holds but for records written during the call.
    pub fn drain(&mut self, events: &mut Vec<Event>) -> bool {
        let start = events.len();
        let Self { bulk, priority, stats } = self;
        let more_bulk = take_turn(Ring::Bulk, bulk, stats, events);
        let more_priority = take_turn(Ring::Priority, priority, stats, events);
        if let Some(batch) = events.get_mut(start..) {
            put_in_order(batch);
        }
        more_bulk || more_priority
    }
}

/// By the time the hooks ran, and where that is the same, as the rings have it. In place: a stable sort
/// would take and give back memory for half of the batch each time.
fn put_in_order(batch: &mut [Event]) {
    if !batch.is_sorted_by_key(|event| event.ktime_ns) {
        let is_priority = |event: &Event| event.ring == Ring::Priority;
        batch.sort_unstable_by_key(|event| {
            (event.ktime_ns, is_priority(event), event.cpu, event.seq)
        });
    }
}

fn take_turn(
    ring: Ring,
    from: &mut RingBuf<MapData>,
    stats: &mut SourceStats,
    events: &mut Vec<Event>,
) -> bool {
    for _ in 0..TURN {
        let Some(record) = from.next() else { return false };
        stats.count(ring);
        match decode(ring, &record) {
            Ok(event) => events.push(event),
            Err(error) => {
                tracing::trace!(%error, "undecodable record");
                stats.count_undecodable(error);
            }
        }
    }
    true
}

/// Both rings, waited for: a priority record wakes at once, bulk records wait for the timer unless
/// they fill their ring.
#[derive(Debug)]
pub struct Source {
    rings: Rings,
    bulk_ready: AsyncFd<OwnedFd>,
    priority_ready: AsyncFd<OwnedFd>,
    timer: Interval,
    /// Not before this are the rings looked at again.
    rested: Instant,
    /// Something has told of records that were not read yet.
    due: bool,
}

impl Source {
    /// Must be called inside a tokio runtime with I/O and time enabled.
    pub fn new(rings: Rings, bulk_every: Duration) -> io::Result<Self> {
        let mut timer = tokio::time::interval(bulk_every);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            bulk_ready: readiness(&rings.bulk)?,
            priority_ready: readiness(&rings.priority)?,
            rings,
            timer,
            rested: Instant::now(),
            due: true,
        })
    }

    /// What was read so far.
    pub fn stats(&self) -> SourceStats {
        self.rings.stats()
    }

    /// Appends the next events, ordered within the call; waits until there is at least one.
    /// Dropping the future loses nothing.
    pub async fn next_batch(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        loop {
            if !self.due {
                self.wait().await?;
                self.due = true;
            }
            tokio::time::sleep_until(self.rested).await;
            let before = events.len();
            self.due = self.rings.drain(events);
            self.rested = Instant::now();
            if !self.due {
                self.rested += REST;
            }
            if events.len() > before {
                return Ok(());
            }
        }
    }

    async fn wait(&mut self) -> io::Result<()> {
        // Readiness is forgotten before the rings are read, so a record that arrives while they
        // are read makes them ready again.
        tokio::select! {
            ready = self.priority_ready.readable() => ready?.clear_ready(),
            ready = self.bulk_ready.readable() => ready?.clear_ready(),
            _ = self.timer.tick() => {}
        }
        Ok(())
    }
}

#[expect(
    deprecated,
    reason = "the replacement is an unsafe fn that asks for what an OwnedFd guarantees"
)]
fn readiness(ring: &RingBuf<MapData>) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(ring.as_fd().try_clone_to_owned()?, Interest::READABLE)
}
