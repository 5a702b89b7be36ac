//! What the kernel says of this process's BPF descriptors: memory and run statistics.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use super::report::{BpfMemory, ProgramStats};

/// Memory of every map and program this process has open.
///
/// A program reports only its instructions as locked memory before 5.11 and none of the memory of
/// its compiled form, so the sum is a lower bound.
pub(super) fn memory() -> BpfMemory {
    let mut total = BpfMemory::default();
    let Ok(entries) = fs::read_dir("/proc/self/fdinfo") else { return total };
    for entry in entries.flatten() {
        // A descriptor that is closed meanwhile is no longer ours.
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let bytes = value(&text, "memlock").unwrap_or(0);
        if value(&text, "map_id").is_some() {
            total.maps = total.maps.saturating_add(bytes);
        } else if text.contains("prog_tag:") {
            total.programs = total.programs.saturating_add(bytes);
        }
    }
    total
}

/// Loaded programs, to be asked how they do. They stay loaded as long as this.
#[derive(Debug)]
pub struct ProgramHandles(Vec<(String, OwnedFd)>);

impl ProgramHandles {
    pub(super) fn new(programs: impl Iterator<Item = (String, OwnedFd)>) -> Self {
        let mut programs: Vec<_> = programs.collect();
        programs.sort_by(|a, b| a.0.cmp(&b.0));
        Self(programs)
    }

    /// Size and run statistics of every program, by name.
    pub fn stats(&self) -> Vec<ProgramStats> {
        self.0.iter().filter_map(|(name, fd)| program(name, fd.as_fd())).collect()
    }
}

/// Statistics of one program.
fn program(name: &str, fd: BorrowedFd<'_>) -> Option<ProgramStats> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    Some(parse_program(name, &text))
}

fn parse_program(name: &str, text: &str) -> ProgramStats {
    ProgramStats {
        name: name.to_owned(),
        runs: value(text, "run_cnt").unwrap_or(0),
        run_ns: value(text, "run_time_ns").unwrap_or(0),
        missed: value(text, "recursion_misses").unwrap_or(0),
        verified_instructions: value(text, "verified_insns"),
        memory: value(text, "memlock").unwrap_or(0),
    }
}

/// The number after `key:`.
fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name == key { value.trim().parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1034\nprog_type:\t17\n\
        prog_jited:\t1\nprog_tag:\t0f3a5d7c9b1e2468\nmemlock:\t8192\nprog_id:\t42\n\
        run_time_ns:\t1234\nrun_cnt:\t7\nrecursion_misses:\t3\nverified_insns:\t512\n";

    #[test]
    fn a_programs_numbers_are_read() {
        let stats = parse_program("exec", PROGRAM);
        assert_eq!(
            stats,
            ProgramStats {
                name: "exec".to_owned(),
                runs: 7,
                run_ns: 1234,
                missed: 3,
                verified_instructions: Some(512),
                memory: 8192,
            }
        );
    }

    #[test]
    fn an_old_kernel_without_verified_instructions_says_none() {
        let stats = parse_program("exec", "prog_type:\t17\nmemlock:\t4096\n");
        assert_eq!(stats.verified_instructions, None);
        assert_eq!(stats.memory, 4096);
    }
}
