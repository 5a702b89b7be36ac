//! What may account for a changed byte: instructions that probes and debuggers set.

use super::super::bytes::index;
use super::super::elf::Machine;

/// `int3`.
const INT3: u8 = 0xcc;
/// The five-byte nop that the kernel (6.18) turns into a call of its trampoline.
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/// `call rel32`.
const CALL: u8 = 0xe8;
/// `brk` with the numbers of the kernel's uprobes, and of debuggers.
const BRKS: [u32; 2] = [0xd420_00a0, 0xd420_0000];

/// An instruction that stands where the file has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    /// A trap from `start` up to before `end`.
    Trap { start: usize, end: usize },
    /// A call where the file has a nop of five bytes, with its target.
    Call { end: usize, target: u64 },
}

/// What the changed byte `at` belongs to; `addr` is the address of the first byte.
pub(super) fn find(
    machine: Machine,
    expected: &[u8],
    actual: &[u8],
    at: usize,
    addr: u64,
) -> Option<Set> {
    match machine {
        Machine::X86_64 | Machine::I386 if *actual.get(at)? == INT3 => {
            Some(Set::Trap { start: at, end: at + 1 })
        }
        Machine::X86_64 | Machine::I386 => {
            let (file, [opcode, way @ ..]) =
                (expected.get(at..)?.first_chunk::<5>()?, *actual.get(at..)?.first_chunk::<5>()?);
            if *file != NOP5 || opcode != CALL {
                return None;
            }
            let next = addr.wrapping_add(at as u64 + 5);
            let target = next.wrapping_add_signed(i32::from_le_bytes(way).into());
            Some(Set::Call { end: at + 5, target })
        }
        Machine::Aarch64 => {
            let start = at - index(addr.wrapping_add(at as u64) % 4).min(at);
            let word = u32::from_le_bytes(*actual.get(start..)?.first_chunk()?);
            BRKS.contains(&word).then_some(Set::Trap { start, end: start + 4 })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_trap_is_one_byte_on_x86() {
        let find = |actual: &[u8]| super::find(Machine::X86_64, &[0x55; 6], actual, 1, 0x1000);
        assert_eq!(find(&[0x55, 0xcc]), Some(Set::Trap { start: 1, end: 2 }));
        assert_eq!(find(&[0x55, 0xe8, 0, 0, 0, 0]), None);
    }

    #[test]
    fn a_call_over_a_nop_has_its_target() {
        let actual = [0xe8, 0xfb, 0x0f, 0, 0];
        let found = find(Machine::X86_64, &NOP5, &actual, 0, 0x1000);
        assert_eq!(found, Some(Set::Call { end: 5, target: 0x2000 }));
        assert_eq!(find(Machine::X86_64, &NOP5, &[0xe9, 0, 0, 0, 0], 0, 0x1000), None);
    }

    #[test]
    fn a_trap_is_a_word_on_arm() {
        let actual = [0, 0, 0, 0, 0xa0, 0, 0x20, 0xd4];
        for at in 4..8 {
            let found = find(Machine::Aarch64, &[0; 8], &actual, at, 0x1000);
            assert_eq!(found, Some(Set::Trap { start: 4, end: 8 }), "{at}");
        }
        assert_eq!(find(Machine::Aarch64, &[0; 8], &actual, 1, 0x1000), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_total(
            bytes in prop::collection::vec(any::<u8>(), 0..12),
            at in 0_usize..16,
            addr in any::<u64>(),
        ) {
            for machine in [Machine::X86_64, Machine::I386, Machine::Aarch64] {
                let _ = find(machine, &NOP5, &bytes, at, addr);
            }
        }
    }
}
