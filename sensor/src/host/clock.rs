//! Kernel clocks as wall time, by offsets fixed once: a recording replays to the same bytes.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Offsets between the clocks, taken at start or from a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// `CLOCK_REALTIME` - `CLOCK_MONOTONIC`, ns.
    pub wall_minus_monotonic_ns: i64,
    /// `CLOCK_BOOTTIME` - `CLOCK_MONOTONIC`, ns: the time spent suspended.
    pub boot_minus_monotonic_ns: i64,
}

impl Clock {
    /// The offsets as they are now.
    #[must_use]
    pub fn now() -> Self {
        let monotonic = read(ClockId::Monotonic);
        Self {
            wall_minus_monotonic_ns: read(ClockId::Realtime).saturating_sub(monotonic),
            boot_minus_monotonic_ns: read(ClockId::Boottime).saturating_sub(monotonic),
        }
    }

    /// `CLOCK_MONOTONIC`, ns: what [`super::Pipeline::tick`] wants.
    #[must_use]
    pub fn ktime_ns() -> u64 {
        u64::try_from(read(ClockId::Monotonic)).unwrap_or(0)
    }

    /// Wall time of an event.
    #[must_use]
    pub fn wall(&self, ktime_ns: u64) -> Timestamp {
        let wall = i128::from(ktime_ns) + i128::from(self.wall_minus_monotonic_ns);
        Timestamp::from_nanosecond(wall).unwrap_or(Timestamp::MAX)
    }

    /// Wall time of a start, given in ticks of 10 ms since boot.
    #[must_use]
    pub fn start(&self, start_ticks: u64) -> Timestamp {
        let boot = i128::from(start_ticks) * i128::from(NS_PER_TICK);
        let wall = boot - i128::from(self.boot_minus_monotonic_ns)
            + i128::from(self.wall_minus_monotonic_ns);
        Timestamp::from_nanosecond(wall).unwrap_or(Timestamp::MAX)
    }

    /// Since boot, ns, of an event.
    #[must_use]
    pub fn boot_ns(&self, ktime_ns: u64) -> u64 {
        ktime_ns.saturating_add_signed(self.boot_minus_monotonic_ns)
    }
}

/// `/proc/PID/stat` counts in units of 1/100 s (`USER_HZ`, fixed by the kernel's interface).
pub(super) const NS_PER_TICK: u64 = 10_000_000;

fn read(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_time_is_wall_time_by_the_fixed_offset() {
        let clock = Clock {
            wall_minus_monotonic_ns: 1_700_000_000_000_000_000,
            boot_minus_monotonic_ns: 5_000_000_000,
        };
        assert_eq!(clock.wall(1_500_000_000).to_string(), "2023-11-14T22:13:21.5Z");
        // 6.5 s after boot, 5 s of it asleep, is 1.5 s on the monotonic clock.
        assert_eq!(clock.start(650), clock.wall(1_500_000_000));
        assert_eq!(clock.boot_ns(1_500_000_000), 6_500_000_000);
    }

    #[test]
    fn hostile_clock_values_saturate() {
        let clock = Clock { wall_minus_monotonic_ns: i64::MAX, boot_minus_monotonic_ns: i64::MIN };
        let _ = clock.wall(u64::MAX);
        let _ = clock.start(u64::MAX);
        assert_eq!(clock.boot_ns(1), 0);
    }
}
