//! Tells the C library's allocator to give memory back: the agent's only `unsafe` but for the system
//! calls in `watch/sys.rs`, `verify/maps/query.rs` and `verify/text/owners/sys.rs`.

#[cfg(target_env = "gnu")]
use std::ffi::c_int;

/// Blocks of this size and more are mapped, and unmapped when freed; what lies free at the end of
/// a heap is given back from this size on. Bytes.
#[cfg(target_env = "gnu")]
const THRESHOLD: c_int = 256 << 10;
/// Heaps that threads share: few of ours allocate at once.
#[cfg(target_env = "gnu")]
const ARENAS: c_int = 2;

/// Sets the limits, for the life of the process. For the start of `main`, before there are
/// threads; says whether all were taken. Other C libraries need none.
///
/// glibc raises both thresholds to the largest block that was ever freed (mallopt(3), "dynamic mmap
/// threshold"). The kernel's type information is one block of 6 MB, read once at start: without
/// this, up to 12 MB of freed memory stay with the process for ever.
#[cfg(target_env = "gnu")]
pub fn give_back() -> bool {
    let limits = [
        (libc::M_MMAP_THRESHOLD, THRESHOLD),
        (libc::M_TRIM_THRESHOLD, THRESHOLD),
        (libc::M_ARENA_MAX, ARENAS),
    ];
    limits.into_iter().fold(true, |all, (parameter, value)| set(parameter, value) && all)
}

/// Nothing to set.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() -> bool {
    true
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "a setting of the C library")]
fn set(parameter: c_int, value: c_int) -> bool {
    // SAFETY: takes two numbers by value and touches the allocator's settings only, under its lock.
    (unsafe { libc::mallopt(parameter, value) }) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocator_takes_every_limit() {
        assert!(give_back());
    }
}
