//! Memory and disk: what is resident, what waits, and what a thousand programs take.

use std::fs;
use std::path::Path;

use jiff::Timestamp;

use super::*;
use crate::host::ModuleId;

/// Programs and libraries of each, as many as a large host has.
const PROGRAMS: u64 = 1_000;
const LIBRARIES: u64 = 200;

fn subject(at: u64) -> String {
    format!("/usr/lib/vendor/component/program{at} {:040x}", at.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Random digits, as a build-id's.
fn build_id(seed: u64) -> String {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word
    });
    let digits: Vec<String> = words.take(3).map(|word| format!("{word:016x}")).collect();
    digits.concat()[..40].to_owned()
}

/// `shared`: of a few thousand that a host has, or a library of its own each.
fn library(program: u64, at: u64, shared: bool) -> ModuleId {
    let number = if shared { (program * 37 + at * 11) % 3_000 } else { program * LIBRARIES + at };
    let stem = ["crypto", "systemd-shared", "gcc_s", "krb5support", "wayland-client", "x"];
    let stem = stem[usize::try_from(number % 6).unwrap()];
    let path = format!("/usr/lib/x86_64-linux-gnu/lib{stem}{number}.so.{}", number % 9);
    ModuleId { path, build: build_id(number + 1) }
}

fn learn_program(baselines: &mut Baselines, program: u64, shared: bool) {
    let begun = Timestamp::from_second(1_760_000_000 + program.cast_signed() * 61).unwrap();
    let baseline = baselines.learn(&subject(program), Changed::Learned);
    for at in 0..LIBRARIES {
        let noise = (program * 7_919 + at * 104_729) % 400_000;
        let time = begun + jiff::SignedDuration::from_nanos((at * 90_000 + noise).cast_signed());
        baseline.add_library(&library(program, at, shared), time, false);
    }
    for start in 0..60 {
        baseline.add_start(begun, None);
        let timing = crate::host::LinkTiming {
            wall_ns: 0,
            cpu_ns: 30_000_000 + (program * 31 + start * 977_777) % 9_000_000,
            blocked_ns: 0,
            minor_faults: 0,
            shares: Vec::new(),
            overflow: 0,
            busy: Vec::new(),
        };
        baseline.add_link(&timing, false);
    }
}

fn size(dir: &Path) -> u64 {
    fs::metadata(dir.join("baseline.redb")).unwrap().len()
}

/// A store of all programs, written as a sensor writes: some at each flush.
fn large_store(dir: &Path, shared: bool) -> Baselines {
    let mut baselines = Baselines::new(Store::open(dir).0);
    for program in 0..PROGRAMS {
        learn_program(&mut baselines, program, shared);
        if program % 25 == 24 {
            baselines.flush(false);
            assert_eq!(baselines.failure(), None);
        }
    }
    baselines
}

#[test]
fn a_thousand_programs_with_two_hundred_libraries_take_less_than_twenty_megabytes() {
    for shared in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut baselines = large_store(dir.path(), shared);
        let written = size(dir.path());
        // Everything changes once more, as after an upgrade of all.
        for program in 0..PROGRAMS {
            let baseline = baselines.learn(&subject(program), Changed::Learned);
            baseline.add_start(Timestamp::from_second(1_770_000_000).unwrap(), None);
            if program % 25 == 24 {
                baselines.flush(false);
            }
        }
        let changed = size(dir.path());
        let kind = if shared { "of 3,000 that they share" } else { "of its own each" };
        println!(
            "{PROGRAMS} programs with {LIBRARIES} libraries {kind}: {written} bytes on disk, {changed} \
             after each changed; {} resident, {} bytes of heap estimated",
            baselines.resident(),
            baselines.heap
        );
        assert!(written.max(changed) <= 20_000_000, "{written} and {changed} bytes");
        assert!(baselines.heap <= RESIDENT_BYTES + 100_000, "{}", baselines.heap);
        assert_eq!((baselines.lost(), baselines.tally().failures), (0, 0));
        drop(baselines);
        let mut again = Baselines::new(Store::open(dir.path()).0);
        for program in [0, 1, PROGRAMS / 2, PROGRAMS - 1] {
            let baseline = again.get(&subject(program));
            assert_eq!((baseline.starts, baseline.libraries.len()), (61, 200));
            assert_eq!(baseline.libraries[7].0, library(program, 7, shared));
        }
    }
}

const CHILD: &str = "HALFSECOND_TEST_RESIDENT";

/// Anonymous memory of this process, bytes.
fn anonymous() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// Not a test of its own: a process that does nothing else, whose memory is counted.
#[test]
fn child_that_looks_every_program_up() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    assert!(crate::heap::give_back());
    let before = anonymous();
    let mut baselines = Baselines::new(Store::open(Path::new(&dir)).0);
    let opened = anonymous();
    for round in 0..3 {
        for program in 0..PROGRAMS {
            assert_eq!(baselines.get(&subject(program)).libraries.len(), 200);
            if round == 1 {
                let baseline = baselines.learn(&subject(program), Changed::Learned);
                baseline.add_start(Timestamp::from_second(1_780_000_000).unwrap(), None);
            }
            if program % 25 == 24 {
                baselines.flush(false);
                assert_eq!(baselines.failure(), None);
            }
        }
    }
    println!("\nresident {before} {opened} {}", anonymous());
}

#[test]
fn memory_does_not_grow_with_the_programs_that_are_known() {
    let dir = tempfile::tempdir().unwrap();
    drop(large_store(dir.path(), false));
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "baseline::keep::tests::child_that_looks_every_program_up"])
        .args(["--nocapture", "--test-threads=1"])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let line = said.lines().find_map(|line| line.strip_prefix("resident ")).unwrap();
    let figures: Vec<u64> = line.split(' ').map(|figure| figure.parse().unwrap()).collect();
    let [before, opened, after] = figures[..] else { panic!("{line}") };
    println!(
        "anonymous memory: {before} bytes before, {opened} once the store is open, {after} after \
         {PROGRAMS} programs were looked up three times and changed once: {} more",
        after.saturating_sub(before)
    );
    assert!(after.saturating_sub(before) <= 5_000_000, "{before} {opened} {after}");
}

#[test]
fn what_leaves_memory_before_it_was_written_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut baselines = Baselines::new(Store::open(dir.path()).0);
    let all = u64::try_from(RESIDENT_MAX).unwrap() * 2;
    for at in 0..all {
        let baseline = baselines.learn(&subject(at), Changed::Count);
        baseline.add_start(Timestamp::UNIX_EPOCH, None);
        baselines.mark_guarded(&subject(at));
    }
    assert!(baselines.resident() <= RESIDENT_MAX && !baselines.waiting.is_empty());
    for at in 0..all {
        assert_eq!(baselines.get(&subject(at)).starts, 1);
    }
    baselines.flush(true);
    assert_eq!((baselines.waiting.len(), baselines.waiting_bytes, baselines.lost()), (0, 0, 0));
    drop(baselines);
    let mut again = Baselines::new(Store::open(dir.path()).0);
    for at in 0..all {
        assert_eq!(again.get(&subject(at)).starts, 1);
        assert!(again.resident[&subject(at)].guarded, "that it is guarded is kept as well");
    }
}

#[test]
fn a_baseline_that_is_made_empty_is_taken_out_also_when_it_leaves_memory_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut baselines = Baselines::new(Store::open(dir.path()).0);
    learn_program(&mut baselines, 0, true);
    learn_program(&mut baselines, 1, true);
    learn_program(&mut baselines, 2, true);
    baselines.flush(true);
    *baselines.learn(&subject(0), Changed::Learned) = Baseline::default();
    baselines.flush(true);
    *baselines.learn(&subject(1), Changed::Learned) = Baseline::default();
    for program in 100..200 {
        learn_program(&mut baselines, program, true);
    }
    assert!(baselines.peek(&subject(1)).is_none());
    assert_eq!(*baselines.get(&subject(1)), Baseline::default());
    baselines.flush(true);
    assert_eq!(baselines.tally().unreadable, 0);
    drop(baselines);
    let stored = crate::baseline::read_subjects(dir.path()).unwrap();
    let has = |program| stored.iter().any(|(key, _)| *key == subject(program));
    assert_eq!((stored.len(), has(0), has(1), has(2)), (101, false, false, true));
}

#[test]
fn replays_keep_what_leaves_memory_and_write_nothing() {
    let mut baselines = Baselines::new(Store::off());
    for program in 0..100 {
        learn_program(&mut baselines, program, true);
        baselines.flush(true);
    }
    assert!(baselines.resident() < 100);
    for program in 0..100 {
        assert_eq!(baselines.get(&subject(program)).libraries.len(), 200);
    }
    assert_eq!((baselines.lost(), baselines.failure()), (0, None));
    assert_eq!(baselines.tally(), StoreTally::default());
}

#[test]
fn what_a_store_never_takes_is_bounded_and_guarded_programs_go_last() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let mut baselines = Baselines::new(Store::open(&file.join("state")).0);
    for program in 0..40 {
        learn_program(&mut baselines, program, false);
        baselines.mark_guarded(&subject(program));
    }
    for program in 40..4_000 {
        learn_program(&mut baselines, program, false);
        if program % 100 == 0 {
            baselines.flush(true);
        }
    }
    println!("{} bytes wait, {} lost", baselines.waiting_bytes, baselines.lost());
    assert!(baselines.failure().is_some());
    assert!(baselines.waiting_bytes <= WAITING_MAX + WAITING_FLUSH);
    assert!(baselines.heap <= RESIDENT_BYTES + 100_000);
    assert!(baselines.lost() > 100);
    for program in 0..40 {
        assert_eq!(baselines.get(&subject(program)).libraries.len(), 200, "{program}");
    }
    assert_eq!(baselines.get(&subject(41)).libraries.len(), 0, "it was seen longest ago");
}
