//! How often each program runs for one start of a program: a count, which emulation does not bend.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;

use sensor::event::{Event, EventBody};

use crate::harness::{Bench, same, skip};

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";
const STARTS: u64 = 20;

/// Counts runs while it lives.
struct Counting(String);

impl Counting {
    fn start() -> Option<Self> {
        let before = std::fs::read_to_string(STATS).and_then(|before| {
            std::fs::write(STATS, "1")?;
            Ok(before)
        });
        match before {
            Ok(before) => Some(Self(before)),
            Err(error) => {
                skip(&format!("{STATS}: {error}"));
                None
            }
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(STATS, self.0.trim()) {
            println!("{STATS} stays as it is: {error}");
        }
    }
}

#[test]
fn runs_per_start_are_counted() {
    let Some(mut bench) = Bench::start() else { return };
    let Some(_counting) = Counting::start() else { return };
    let before = bench.sensor.program_stats();
    let program: PathBuf = std::fs::canonicalize("/bin/true").expect("/bin/true");
    let mut last = 0;
    for _ in 0..STARTS {
        let mut child = Command::new(&program).spawn().expect("spawn");
        child.wait().expect("wait");
        last = child.id();
    }
    bench.until_exit(last);
    let after = bench.sensor.program_stats();
    same("programs", after.len(), before.len());
    for (before, after) in before.iter().zip(&after) {
        let runs = after.runs - before.runs;
        println!(
            "{}: {}.{:02} runs per start, {} ns each, {} instructions verified, {} missed",
            after.name,
            runs / STARTS,
            runs % STARTS * 100 / STARTS,
            (after.run_ns - before.run_ns).checked_div(runs).unwrap_or(0),
            after.verified_instructions.map_or("unknown".to_owned(), |count| count.to_string()),
            after.missed,
        );
        if after.name == "process_exec" {
            // Others may start programs meanwhile.
            assert!(runs >= STARTS, "{runs} runs of {}", after.name);
        }
    }
}

/// Fork, exec and exit; what is summed up once a minute came with the first start.
const RECORDS_PER_START: usize = 3;

#[test]
fn a_start_of_a_known_program_costs_at_most_three_records() {
    let Some(mut bench) = Bench::start() else { return };
    let program: PathBuf = std::fs::canonicalize("/bin/true").expect("/bin/true");
    let start = |variables: &[(&str, &str)]| {
        let mut command = Command::new(&program);
        command.env_remove("LD_LIBRARY_PATH").envs(variables.iter().copied());
        let mut child = command.spawn().expect("spawn");
        child.wait().expect("wait");
        child.id()
    };
    let first = start(&[]);
    bench.until_exit(first);
    for variables in [vec![], vec![("LD_BIND_NOW", "1")]] {
        let children: HashSet<u32> = (0..STARTS).map(|_| start(&variables)).collect();
        for child in &children {
            bench.until_exit(*child);
        }
        let about = |event: &&Event| match &event.body {
            EventBody::Fork(fork) => children.contains(&fork.child_tgid),
            _ => children.contains(&event.tgid),
        };
        let records = bench.seen.iter().filter(about).count();
        // What the loader was told is told each time.
        let most = (RECORDS_PER_START + variables.len()) * children.len();
        println!("{records} records for {} starts with {variables:?}", children.len());
        assert!(records <= most, "{records} records, {most} at most");
    }
}
