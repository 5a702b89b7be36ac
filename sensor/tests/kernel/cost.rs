//! How often each program runs for one start of a program: a count, which emulation does not bend.

use std::path::PathBuf;
use std::process::Command;

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
            "{}: {}.{:02} runs per start, {} instructions verified, {} missed",
            after.name,
            runs / STARTS,
            runs % STARTS * 100 / STARTS,
            after.verified_instructions.map_or("unknown".to_owned(), |count| count.to_string()),
            after.missed,
        );
        if after.name == "process_exec" {
            // Others may start programs meanwhile.
            assert!(runs >= STARTS, "{runs} runs of {}", after.name);
        }
    }
}
