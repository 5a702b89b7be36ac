//! Machine code as text, for reports: x86 is decoded, other machines' words are shown as they are.

use iced_x86::{Decoder, DecoderOptions, FastFormatter, Instruction, OpKind};

use super::super::bytes::{index, u64_at};
use super::super::elf::Machine;

/// Instructions shown.
const LINES_MAX: usize = 8;
/// The longest way from a function's start that is decoded to find where instructions begin.
pub(super) const LEAD_MAX: u64 = 4096;
/// The longest x86 instruction.
pub(super) const TAIL: u64 = 15;

/// Where an instruction leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    /// To this address.
    To(u64),
    /// To the address that is stored there.
    Through(u64),
}

/// Code at an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code<'a> {
    pub(super) machine: Machine,
    pub(super) bytes: &'a [u8],
    pub(super) addr: u64,
}

impl Code<'_> {
    fn decoder(&self) -> Decoder<'_> {
        let bits = if self.machine == Machine::I386 { 32 } else { 64 };
        Decoder::with_ip(bits, self.bytes, self.addr, DecoderOptions::NONE)
    }

    /// Where the instruction begins that holds `addr`, if `self` begins with one.
    pub(super) fn instruction_of(&self, addr: u64) -> u64 {
        if self.machine == Machine::Aarch64 {
            return addr & !3;
        }
        let mut decoder = self.decoder();
        while decoder.can_decode() {
            let start = decoder.ip();
            let instruction = decoder.decode();
            if instruction.is_invalid() || start > addr {
                break;
            }
            if instruction.next_ip() > addr {
                return start;
            }
        }
        addr
    }

    /// The instructions from the first byte on that begin before `end`, each with its bytes left
    /// out and its address in front.
    pub(super) fn listing(&self, end: u64) -> Vec<String> {
        if self.machine == Machine::Aarch64 {
            let words = self.bytes.as_chunks::<4>().0.iter().zip((self.addr..end).step_by(4));
            let words = words
                .map(|(word, at)| format!("{at:#x}: .inst {:#010x}", u32::from_le_bytes(*word)));
            return words.take(LINES_MAX).collect();
        }
        let (mut decoder, mut formatter) = (self.decoder(), FastFormatter::new());
        formatter.options_mut().set_space_after_operand_separator(true);
        formatter.options_mut().set_use_hex_prefix(true);
        formatter.options_mut().set_uppercase_hex(false);
        let mut lines = Vec::new();
        while decoder.can_decode() && decoder.ip() < end && lines.len() < LINES_MAX {
            let instruction = decoder.decode();
            let mut line = format!("{:#x}: ", instruction.ip());
            formatter.format(&instruction, &mut line);
            lines.push(line);
        }
        lines
    }

    /// Where the first jump or call among the first instructions leads.
    pub(super) fn leads(&self, end: u64) -> Option<Leads> {
        if self.machine == Machine::Aarch64 {
            return self.leads_aarch64();
        }
        let mut decoder = self.decoder();
        let mut loaded = None;
        for _ in 0..LINES_MAX {
            if !decoder.can_decode() || decoder.ip() >= end {
                break;
            }
            let instruction = decoder.decode();
            if let Some(leads) = leads_x86(&instruction) {
                return Some(leads);
            }
            if instruction.op1_kind() == OpKind::Immediate64 {
                loaded = Some(instruction.immediate64());
            } else if instruction.op0_kind() == OpKind::Register && instruction.op_count() == 1 {
                // `mov rax, target; jmp rax`, or `push rax; ret`.
                return loaded.map(Leads::To);
            }
        }
        None
    }

    /// `b` and `bl`, else `ldr x16, .+8; br x16` with the target behind it.
    fn leads_aarch64(&self) -> Option<Leads> {
        let word = u32::from_le_bytes(*self.bytes.first_chunk()?);
        if word & 0x7c00_0000 == 0x1400_0000 {
            let words = i64::from((word << 6).cast_signed() >> 6);
            return Some(Leads::To(self.addr.wrapping_add_signed(words * 4)));
        }
        (word & 0xffff_ffe0 == 0x5800_0040).then(|| u64_at(self.bytes, 8).map(Leads::To)).flatten()
    }

    /// The part from `start` up to before `end`.
    pub(super) fn part(&self, start: u64, end: u64) -> Self {
        let (from, to) =
            (index(start.saturating_sub(self.addr)), index(end.saturating_sub(self.addr)));
        let to = to.min(self.bytes.len());
        Self { bytes: self.bytes.get(from..to).unwrap_or_default(), addr: start, ..*self }
    }
}

fn leads_x86(instruction: &Instruction) -> Option<Leads> {
    match instruction.op0_kind() {
        OpKind::NearBranch64 | OpKind::NearBranch32 => {
            Some(Leads::To(instruction.near_branch_target()))
        }
        OpKind::Memory if instruction.op_count() == 1 && instruction.is_ip_rel_memory_operand() => {
            Some(Leads::Through(instruction.ip_rel_memory_address()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn x86(bytes: &[u8]) -> Code<'_> {
        Code { machine: Machine::X86_64, bytes, addr: 0x1000 }
    }

    #[test]
    fn the_instruction_around_a_byte_is_found() {
        // push rbp; mov rbp, rsp; sub rsp, 0x40
        let code = x86(&[0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x40]);
        for (addr, start) in [(0x1000, 0x1000), (0x1003, 0x1001), (0x1007, 0x1004)] {
            assert_eq!(code.instruction_of(addr), start);
        }
        assert_eq!(code.listing(0x1004), ["0x1000: push rbp", "0x1001: mov rbp, rsp"]);
    }

    #[test]
    fn the_usual_ways_to_jump_are_followed() {
        let relative = x86(&[0xe9, 0xfb, 0x0f, 0, 0]);
        assert_eq!(relative.leads(0x1005), Some(Leads::To(0x2000)));
        let through = x86(&[0xff, 0x25, 0, 0, 0, 0]);
        assert_eq!(through.leads(0x1006), Some(Leads::Through(0x1006)));
        let loaded = [0x48, 0xb8, 0, 0x20, 0, 0, 0, 0, 0, 0, 0xff, 0xe0];
        assert_eq!(x86(&loaded).leads(0x100c), Some(Leads::To(0x2000)));
        assert_eq!(x86(&[0x90, 0xc3]).leads(0x1002), None);
    }

    #[test]
    fn arm_branches_are_followed_both_ways() {
        let arm = |bytes| Code { machine: Machine::Aarch64, bytes, addr: 0x1000 };
        assert_eq!(arm(&[0x40, 0, 0, 0x14]).leads(0x1004), Some(Leads::To(0x1100)));
        assert_eq!(arm(&[0xff, 0xff, 0xff, 0x97]).leads(0x1004), Some(Leads::To(0xffc)));
        assert_eq!(arm(&[0, 0, 0x80, 0xd2]).leads(0x1004), None);
        assert_eq!(arm(&[0, 0, 0x80, 0xd2]).listing(0x1004), ["0x1000: .inst 0xd2800000"]);
    }

    proptest! {
        #[test]
        fn any_code_is_total(bytes in prop::collection::vec(any::<u8>(), 0..64), at in any::<u64>()) {
            for machine in [Machine::X86_64, Machine::I386, Machine::Aarch64] {
                let code = Code { machine, bytes: &bytes, addr: at };
                let _ = (code.listing(at.saturating_add(64)), code.leads(u64::MAX));
                let _ = code.part(at, u64::MAX).instruction_of(at.saturating_add(9));
            }
        }
    }
}
