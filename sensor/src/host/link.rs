//! From the seals of a start to each module's part in it.

use super::module::ModuleId;
use super::observe::{LinkTiming, ModuleShare};
use crate::event::{Link, SealAt};

/// CPU time is wall time less run-queue delay only while the task did not sleep (its voluntary
/// switches stand still); a stretch with sleep is marked, not believed.
pub(super) fn timing(link: &Link, modules: Vec<Option<ModuleId>>) -> LinkTiming {
    let mut modules = modules.into_iter();
    let mut before = SealAt::default();
    let mut timing = LinkTiming {
        wall_ns: 0,
        cpu_ns: 0,
        blocked_ns: 0,
        minor_faults: 0,
        shares: Vec::with_capacity(link.seals.len()),
        overflow: link.overflow,
        busy: Vec::new(),
    };
    for seal in &link.seals {
        let wall_ns = seal.wall_ns.saturating_sub(before.wall_ns);
        let waited = seal.run_delay_ns.saturating_sub(before.run_delay_ns);
        let cpu_ns = wall_ns.saturating_sub(waited);
        let blocked = seal.voluntary_switches != before.voluntary_switches;
        let total = if blocked { &mut timing.blocked_ns } else { &mut timing.cpu_ns };
        *total = total.saturating_add(cpu_ns);
        timing.shares.push(ModuleShare {
            module: modules.next().flatten(),
            wall_ns,
            cpu_ns,
            blocked,
        });
        before = *seal;
    }
    timing.wall_ns = before.wall_ns;
    timing.minor_faults = before.minor_faults;
    timing
}

/// The same sum without naming modules.
pub(super) fn cpu_ns(link: &Link) -> u64 {
    link.seals.last().map_or(0, |last| last.wall_ns.saturating_sub(last.run_delay_ns))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::FileKey;

    fn seal(wall_ns: u64, run_delay_ns: u64, voluntary_switches: u32) -> SealAt {
        SealAt { addr: 0x1000, wall_ns, run_delay_ns, minor_faults: 7, voluntary_switches }
    }

    fn link(seals: Vec<SealAt>) -> Link {
        Link { exe: FileKey::default(), exec_ktime_ns: 0, seals, overflow: 0 }
    }

    #[test]
    fn each_module_gets_the_stretch_that_ends_with_its_seal() {
        let timing = timing(&link(vec![seal(100, 10, 0), seal(400, 10, 0)]), vec![None, None]);
        let cpu: Vec<u64> = timing.shares.iter().map(|share| share.cpu_ns).collect();
        assert_eq!(cpu, [90, 300]);
        assert_eq!((timing.cpu_ns, timing.blocked_ns, timing.wall_ns), (390, 0, 400));
        assert_eq!(timing.minor_faults, 7);
    }

    #[test]
    fn a_stretch_with_sleep_does_not_count_as_cpu() {
        let timing =
            timing(&link(vec![seal(100, 0, 0), seal(5_000, 0, 1), seal(5_100, 0, 1)]), Vec::new());
        assert_eq!((timing.cpu_ns, timing.blocked_ns), (200, 4_900));
        assert_eq!(timing.shares.iter().filter(|share| share.blocked).count(), 1);
    }

    proptest! {
        #[test]
        fn hostile_seals_never_overflow(
            seals in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u32>()), 0..50)
        ) {
            let link = link(seals.into_iter().map(|(wall, delay, switches)| seal(wall, delay, switches)).collect());
            let timing = timing(&link, Vec::new());
            prop_assert_eq!(timing.shares.len(), link.seals.len());
            let _ = cpu_ns(&link);
        }
    }
}
