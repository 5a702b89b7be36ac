//! Where a guarded process is found at work.

use std::process::{Command, Stdio};

use sensor::event::{EventBody, Role};
use sensor::loader::probes::Hook;

use crate::harness::{Bench, skip};

/// A process that does nothing but run, ended when dropped.
struct Busy(std::process::Child);

impl Busy {
    fn start() -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
        Self(command.spawn().expect("spawn"))
    }

    /// The part of its memory that a file or other code is mapped executable in.
    fn code(&self) -> Vec<(u64, u64)> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.0.id())).expect("maps");
        let areas = maps.lines().filter(|line| line.split(' ').nth(1) == Some("r-xp"));
        let ranges = areas.filter_map(|line| line.split(' ').next()?.split_once('-'));
        let number = |text| u64::from_str_radix(text, 16).expect("hex");
        ranges.map(|(start, end)| (number(start), number(end))).collect()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
    }
}

#[test]
fn a_sampled_process_tells_where_it_runs_until_it_is_left_alone() {
    let Some(mut bench) = Bench::start() else { return };
    if !bench.serves(Hook::Samples) {
        return;
    }
    if !std::path::Path::new("/bin/sh").exists() {
        skip("no /bin/sh");
        return;
    }
    let busy = Busy::start();
    let tgid = busy.0.id();
    bench.sensor.sample_process(tgid).expect("sampled");
    let is_sample = |body: &EventBody| matches!(body, EventBody::Sample(_));
    // Without a role it is nobody's business: the next process's sample comes first.
    bench.sensor.set_process_role(tgid, Role::GUARDED).expect("role");
    let event =
        bench.expect("a sample", tgid, |event| event.tgid == tgid && is_sample(&event.body));
    let EventBody::Sample(sample) = event.body else { unreachable!() };
    let code = busy.code();
    assert!(
        code.iter().any(|(start, end)| (*start..*end).contains(&sample.ip)),
        "{:#x} is in none of {code:x?}",
        sample.ip
    );
    bench.sensor.stop_sampling(tgid).expect("stopped");
    bench.sensor.stop_sampling(tgid).expect("stopped twice");
    while bench.drain() {}
    let before = bench.seen.len();
    // It runs on, a tenth of a second of CPU time at least.
    let spent = || -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{tgid}/schedstat")).expect("schedstat");
        text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number")
    };
    let until = spent() + 100_000_000;
    while spent() < until {
        std::thread::yield_now();
    }
    while bench.drain() {}
    let later = bench.seen.iter().skip(before).filter(|event| is_sample(&event.body)).count();
    assert_eq!(later, 0, "still sampled");
    bench.sensor.set_process_role(tgid, Role::NONE).expect("role");
}

#[test]
fn a_process_that_is_gone_cannot_be_sampled_and_the_reason_is_told() {
    let Some(mut bench) = Bench::start() else { return };
    if !bench.serves(Hook::Samples) {
        return;
    }
    let mut child = Command::new("/bin/true").spawn().expect("spawn");
    child.wait().expect("wait");
    let reason = bench.sensor.sample_process(child.id()).expect_err("gone");
    assert!(reason.contains("perf_event_open"), "{reason}");
}
