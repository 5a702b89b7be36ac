//! Which byte of a function a probe sits on: the kernel emulates some instructions and has to
//! single-step the others, at five times the price.

use serde::Serialize;

/// Bytes looked at.
pub(super) const LOOK: usize = 16;

/// What one hit costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HitPrice {
    /// The kernel emulates the instruction: below 1 us.
    Emulated,
    /// The kernel single-steps a copy: 4 us and more.
    SingleStepped,
    /// This architecture's instructions are not told apart.
    Unknown,
}

/// Bytes to go on from the entry, and what a hit costs there. On the way from the entry to that
/// byte nothing may move the stack, or the return address is not where the program looks.
pub(super) fn choose(entry: &[u8]) -> (u64, HitPrice) {
    if cfg!(target_arch = "x86_64") { choose_x86(entry) } else { (0, HitPrice::Unknown) }
}

/// arch/x86/kernel/uprobes.c: `push_setup_xol_ops` and, for nops, `branch_setup_xol_ops`.
fn choose_x86(entry: &[u8]) -> (u64, HitPrice) {
    const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
    if is_emulated(entry) {
        return (0, HitPrice::Emulated);
    }
    match entry.strip_prefix(ENDBR64) {
        // endbr64 itself would be single-stepped; nothing jumps between it and what follows.
        Some(rest) if is_emulated(rest) => (4, HitPrice::Emulated),
        _ => (0, HitPrice::SingleStepped),
    }
}

fn is_emulated(code: &[u8]) -> bool {
    matches!(code, [0x50..=0x57 | 0x90, ..] | [0x41, 0x50..=0x57, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_or_a_nop_at_the_entry_is_taken() {
        assert_eq!(choose_x86(&[0x55, 0x48]), (0, HitPrice::Emulated));
        assert_eq!(choose_x86(&[0x41, 0x57]), (0, HitPrice::Emulated));
        assert_eq!(choose_x86(&[0x90]), (0, HitPrice::Emulated));
    }

    #[test]
    fn endbr64_is_stepped_over_to_a_push_only() {
        assert_eq!(choose_x86(&[0xf3, 0x0f, 0x1e, 0xfa, 0x55]), (4, HitPrice::Emulated));
        // sub rsp: beyond it the return address would have moved, and it is no cheaper.
        let sub = [0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x08];
        assert_eq!(choose_x86(&sub), (0, HitPrice::SingleStepped));
    }

    #[test]
    fn a_five_byte_nop_after_the_entry_is_never_taken() {
        let nop5 = [0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x1f, 0x44, 0x00, 0x00];
        assert_eq!(choose_x86(&nop5), (0, HitPrice::SingleStepped));
    }

    #[test]
    fn anything_else_is_single_stepped_at_the_entry() {
        assert_eq!(choose_x86(&[0x48, 0x8b, 0x47]), (0, HitPrice::SingleStepped));
        assert_eq!(choose_x86(&[0x41]), (0, HitPrice::SingleStepped));
        assert_eq!(choose_x86(&[]), (0, HitPrice::SingleStepped));
    }
}
