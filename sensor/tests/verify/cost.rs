//! What checks cost, with and without the comparison of code: printed, never judged.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sensor::verify::{Limits, Verifier, list_processes, scan};

use crate::servers;

/// Warm checks of one process.
const TIMES: u32 = 200;

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap())
}

fn took(work: impl FnOnce()) -> Duration {
    let before = cpu();
    work();
    cpu().checked_sub(before).unwrap()
}

#[test]
#[ignore = "prints figures: cargo test --release --test verify -- --ignored --nocapture cost"]
fn warm_and_cold_with_and_without_code() {
    let Some(server) = servers::sshd() else { return };
    let processes = list_processes().unwrap();
    for text in [false, true] {
        let limits = Limits { text, ..Limits::default() };
        let mut verifier = Verifier::new(limits);
        let mut check = || drop(verifier.check(server.pid()).unwrap());
        let cold = took(&mut check);
        let warm = took(|| (0..TIMES).for_each(|_| check())) / TIMES;
        let mut verifier = Verifier::new(limits);
        let mut seen = 0;
        let mut all = || {
            seen = 0;
            scan(&mut verifier, processes.iter().copied(), |_, report| {
                seen += u32::from(report.is_ok());
            });
        };
        let (all_cold, all_warm) = (took(&mut all), took(&mut all));
        println!(
            "text={text}: sshd cold {cold:?}, warm {warm:?}; {seen} processes cold {all_cold:?}, \
             warm {all_warm:?}"
        );
    }
}
