//! Where a loader counts its audit libraries: glibc's `_dl_naudit` has no symbol of its own, but
//! the first thing `_dl_audit_preinit` does is to load it (elf/dl-audit.c, glibc 2.35 on).

use super::super::bytes::{index, u32_at};
use super::{Dynamic, Headers, Machine, ReadAt, SymbolTable};

const FUNCTION: &str = "_dl_audit_preinit";
const OBJECT: &str = "_rtld_global_ro";
/// Bytes of the function looked at.
const CODE: u64 = 64;
/// Registers of aarch64 whose page is followed.
const REGISTERS: usize = 32;

/// Address of `_dl_naudit` in the file; `None` where the file is not such a loader, or its code is
/// not what compilers have made of it so far.
pub(super) fn find<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    dynamic: &Dynamic,
    symbols: &SymbolTable,
) -> Option<u64> {
    let function = symbols.default_definition(dynamic, FUNCTION)?;
    let object = symbols.default_definition(dynamic, OBJECT)?;
    let (_, rest) = headers.file_offset(function.value)?;
    let code = headers.read_vaddr(source, FUNCTION, function.value, CODE.min(rest)).ok()?;
    let found = match headers.machine {
        Machine::X86_64 => load_x86(&code, function.value),
        Machine::Aarch64 => load_arm(&code, function.value),
        // Reached through the GOT's address, which a call computes: not followed.
        Machine::I386 => None,
    }?;
    let within = found.checked_sub(object.value)?;
    // `_dl_audit`, a pointer, stands right before it.
    let whole = within.checked_add(4)? <= object.size && within >= 8 && found.is_multiple_of(8);
    whole.then_some(found)
}

/// The first `mov disp32(%rip), %r32` or `cmpl $0, disp32(%rip)`, behind an `endbr64` at most.
fn load_x86(code: &[u8], at: u64) -> Option<u64> {
    let skip = if code.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) { 4 } else { 0 };
    let code = code.get(skip..)?;
    let modrm = *code.get(1)?;
    let len = match *code.first()? {
        // ModRM: no displacement base but the instruction pointer, any register.
        0x8b if modrm & 0xc7 == 0x05 => 6,
        0x83 if modrm == 0x3d && code.get(6) == Some(&0) => 7,
        _ => return None,
    };
    let displacement = u32_at(code, 2)?.cast_signed();
    at.checked_add(skip as u64 + len)?.checked_add_signed(i64::from(displacement))
}

/// The first `ldr wN, [xM, #imm]` whose base comes from an `adrp`, with or without an `add`.
fn load_arm(code: &[u8], at: u64) -> Option<u64> {
    let mut bases = [None::<u64>; REGISTERS];
    for (number, word) in code.as_chunks::<4>().0.iter().enumerate() {
        let word = u32::from_le_bytes(*word);
        let (rd, rn) = (index(word & 0x1f), index(word >> 5 & 0x1f));
        let base = bases.get(rn).copied().flatten();
        let imm = u64::from(word >> 10 & 0xfff);
        if word & 0x9f00_0000 == 0x9000_0000 {
            let pages = (word >> 5 & 0x7_ffff) << 2 | (word >> 29 & 3);
            // 21 bits with sign.
            let pages = i64::from((pages << 11).cast_signed() >> 11);
            let here = at.checked_add(number as u64 * 4)? & !0xfff;
            *bases.get_mut(rd)? = here.checked_add_signed(pages << 12);
        } else if word & 0xff80_0000 == 0x9100_0000 {
            let shift = if word >> 22 & 1 == 1 { 12 } else { 0 };
            let sum = base.and_then(|base| base.checked_add(imm << shift));
            *bases.get_mut(rd)? = sum;
        } else if word & 0xffc0_0000 == 0xb940_0000
            && let Some(base) = base
        {
            return base.checked_add(imm * 4);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Debian 12, glibc 2.36.
    #[test]
    fn the_load_of_debian_12_is_followed() {
        let code = [0x8b, 0x05, 0xd2, 0xc3, 0x01, 0x00, 0x85, 0xc0];
        assert_eq!(load_x86(&code, 0x16a60), Some(0x32e38));
        let guarded = [&[0xf3, 0x0f, 0x1e, 0xfa], &code[..]].concat();
        assert_eq!(load_x86(&guarded, 0x16a5c), Some(0x32e38));
    }

    #[test]
    fn a_comparison_with_zero_is_followed() {
        let code = [0x83, 0x3d, 0x10, 0x00, 0x00, 0x00, 0x00];
        assert_eq!(load_x86(&code, 0x1000), Some(0x1017));
    }

    /// Debian 12 for arm64, glibc 2.36.
    #[test]
    fn the_load_of_debian_12_for_arm_is_followed() {
        let words: [u32; 9] = [
            0xa9bb_7bfd,
            0x9100_03fd,
            0xa903_63f7,
            0xb000_0177,
            0x912e_82e1,
            0xa901_53f3,
            0xaa00_03f3,
            0xb942_9820,
            0x3500_00a0,
        ];
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(load_arm(&code, 0x12f10), Some(0x3fba0 + 0x298));
    }

    #[test]
    fn other_code_is_no_load() {
        assert_eq!(load_x86(&[0x55, 0x48, 0x89, 0xe5], 0), None);
        assert_eq!(load_arm(&[0xff; 64], 0), None);
        assert_eq!(load_x86(&[], 0), None);
    }

    proptest! {
        #[test]
        fn any_code_is_read_without_panic(code: Vec<u8>, at: u64) {
            let _ = load_x86(&code, at);
            let _ = load_arm(&code, at);
        }
    }
}
