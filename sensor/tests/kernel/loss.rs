//! What happens when nobody reads: every record is accounted for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use sensor::event::Role;
use sensor::loader::LoaderConfig;
use sensor_common::{Counter, Ring};

use crate::harness::{Bench, same};

/// A record may be on its way while the programs are detached.
const SETTLE: Duration = Duration::from_secs(5);

fn flood(guard: bool) {
    let config = LoaderConfig {
        bulk_ring_bytes: 4096,
        priority_ring_bytes: 4096,
        leave_self_out: false,
        ..LoaderConfig::default()
    };
    let program: PathBuf = std::fs::canonicalize("/bin/true").expect("/bin/true");
    let Some(mut bench) = Bench::start_with(&config) else { return };
    if guard {
        let file = std::fs::File::open(&program).expect("open");
        let (key, _) = bench.sensor.identify(std::os::fd::AsFd::as_fd(&file)).expect("identify");
        let inode = sensor::event::InodeKey { ino: key.ino, dev: key.dev, reserved: 0 };
        bench.sensor.guard_inode(inode, Role::GUARDED).expect("guard");
    }
    for round in 0..40 {
        Command::new(&program).status().expect("run");
        // The reader stops after a while, and comes back at the end.
        if round < 5 {
            bench.drain();
        }
    }
    bench.sensor.detach();
    let deadline = Instant::now() + SETTLE;
    loop {
        while bench.drain() {}
        let counters = bench.sensor.counters().expect("counters");
        let stats = bench.rings.stats();
        let is_balanced = [Ring::Bulk, Ring::Priority]
            .into_iter()
            .all(|ring| counters.emitted(ring) == stats.consumed(ring) + counters.lost(ring));
        let flooded = if guard { Ring::Priority } else { Ring::Bulk };
        if is_balanced {
            println!("{counters:?} {stats:?}");
            assert!(counters.lost(flooded) > 0, "nothing was lost: {counters:?}");
            assert!(stats.consumed(flooded) > 0, "nothing was read: {stats:?}");
            same("undecodable", stats.undecodable, [0; 4]);
            same("failed reads", counters.get(Counter::ReadFailed), 0);
            return;
        }
        assert!(Instant::now() < deadline, "{counters:?} {stats:?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_flooded_bulk_ring_loses_by_count() {
    flood(false);
}

#[test]
fn a_flooded_priority_ring_loses_by_count() {
    flood(true);
}

#[test]
fn sequence_numbers_leave_no_gap_where_nothing_is_lost() {
    let Some(mut bench) = Bench::start() else { return };
    let program: PathBuf = std::fs::canonicalize("/bin/true").expect("/bin/true");
    let lost_before = bench.sensor.counters().expect("counters").lost(Ring::Bulk);
    let mut last = 0;
    for _ in 0..20 {
        let mut child = Command::new(&program).spawn().expect("spawn");
        child.wait().expect("wait");
        last = child.id();
    }
    bench.until_exit(last);
    let counters = bench.sensor.counters().expect("counters");
    same("lost", counters.lost(Ring::Bulk), lost_before);
    let mut numbers: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for event in bench.seen.iter().filter(|event| event.ring == Ring::Bulk) {
        numbers.entry(event.cpu).or_default().push(event.seq);
    }
    for (cpu, mut seen) in numbers {
        seen.sort_unstable();
        seen.dedup();
        let first = seen.first().copied().unwrap_or(0);
        let all: Vec<u64> = (first..).take(seen.len()).collect();
        same(&format!("numbers on CPU {cpu}"), seen, all);
    }
}
