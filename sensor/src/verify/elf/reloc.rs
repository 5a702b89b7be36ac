//! Relocations that leave a code or data address of another module behind.

use super::super::bytes::{index, u32_at, u64_at};
use super::abi;
use super::{Dynamic, ElfError, Headers, Machine, ReadAt, read_bytes};

/// Bytes of one `Elf64_Rela`.
const RELA_BYTES: u64 = 24;
/// Relocations are read in steps of this many bytes.
const STEP: u64 = RELA_BYTES * 4096;
/// Slots kept per file.
const MAX_SLOTS: usize = 1 << 20;
/// File words of slots closer than this are read together, bytes.
const WORD_GAP: u64 = 4096;

/// Which relocation fills the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SlotKind {
    /// A PLT slot, perhaps bound on first call.
    JumpSlot,
    /// A GOT slot, bound at load.
    GlobDat,
    /// A slot filled by calling a resolver of the same file.
    Irelative,
}

/// One slot of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) vaddr: u64,
    /// Added to the symbol's address; the resolver's address for `IRELATIVE`.
    pub(crate) addend: u64,
    /// What the file holds at `vaddr`: for an unresolved `JUMP_SLOT` the unrelocated address of
    /// its PLT stub. Zero for other kinds.
    pub(crate) file_word: u64,
    pub(crate) symbol: u32,
    pub(crate) kind: SlotKind,
}

/// Reads `DT_RELA` and `DT_JMPREL`, keeping slots only, ascending and unique by address.
pub(super) fn read_slots<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    dynamic: &Dynamic,
) -> Result<Vec<Slot>, ElfError> {
    let mut slots = Vec::new();
    let tables = [(abi::DT_RELA, abi::DT_RELASZ), (abi::DT_JMPREL, abi::DT_PLTRELSZ)];
    for (at, size) in tables {
        if let (Some(at), Some(size)) = (dynamic.tag(at), dynamic.tag(size)) {
            read_table(source, headers, at, size, &mut slots)?;
        }
    }
    // Stable: where two relocations hit one slot the later one wins, as in the loader.
    slots.sort_by_key(|slot| slot.vaddr);
    slots.reverse();
    slots.dedup_by_key(|slot| slot.vaddr);
    slots.reverse();
    Ok(slots)
}

fn read_table<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    at: u64,
    size: u64,
    slots: &mut Vec<Slot>,
) -> Result<(), ElfError> {
    const WHAT: &str = "relocation table";
    if size == 0 {
        return Ok(());
    }
    let (offset, rest) = headers.file_offset(at).ok_or(ElfError::Malformed(WHAT))?;
    if size > rest {
        return Err(ElfError::Malformed(WHAT));
    }
    if size > super::MAX_TABLE {
        return Err(ElfError::TooLarge { what: WHAT, bytes: size });
    }
    let mut done = 0;
    while done < size {
        let step = (size - done).min(STEP);
        let table = read_bytes(source, WHAT, offset + done, step)?;
        let entries = table.chunks_exact(index(RELA_BYTES));
        slots.extend(entries.filter_map(|entry| parse_rela(entry, headers.machine)));
        if slots.len() > MAX_SLOTS {
            return Err(ElfError::TooLarge { what: WHAT, bytes: size });
        }
        done += step;
    }
    Ok(())
}

fn parse_rela(entry: &[u8], machine: Machine) -> Option<Slot> {
    let kind = slot_kind(machine, u32_at(entry, 8)?)?;
    let addend = u64_at(entry, 16)?;
    Some(Slot {
        vaddr: u64_at(entry, 0)?,
        // The x86-64 psABI computes S, without addend; with `-z mark-plt` (glibc from 2.41 on in
        // Debian) the field holds the address of the PLT stub instead.
        addend: if machine == Machine::X86_64 && kind != SlotKind::Irelative { 0 } else { addend },
        file_word: 0,
        symbol: u32_at(entry, 12)?,
        kind,
    })
}

fn slot_kind(machine: Machine, number: u32) -> Option<SlotKind> {
    match (machine, number) {
        (Machine::X86_64, abi::R_X86_64_JUMP_SLOT)
        | (Machine::Aarch64, abi::R_AARCH64_JUMP_SLOT) => Some(SlotKind::JumpSlot),
        (Machine::X86_64, abi::R_X86_64_GLOB_DAT) | (Machine::Aarch64, abi::R_AARCH64_GLOB_DAT) => {
            Some(SlotKind::GlobDat)
        }
        (Machine::X86_64, abi::R_X86_64_IRELATIVE)
        | (Machine::Aarch64, abi::R_AARCH64_IRELATIVE) => Some(SlotKind::Irelative),
        _ => None,
    }
}

/// Fills in what the file holds at each `JUMP_SLOT`. Slots outside the file's bytes keep 0: the
/// loader could not have bound them lazily either.
pub(super) fn read_lazy_words<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    slots: &mut [Slot],
) {
    let mut lazy: Vec<&mut Slot> =
        slots.iter_mut().filter(|slot| slot.kind == SlotKind::JumpSlot).collect();
    for group in lazy.chunk_by_mut(|a, b| b.vaddr - a.vaddr <= WORD_GAP) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let start = first.vaddr;
        let bytes = (last.vaddr - start).saturating_add(8);
        let Ok(words) = headers.read_vaddr(source, "PLT slots", start, bytes) else { continue };
        for slot in group {
            slot.file_word = u64_at(&words, index(slot.vaddr - start)).unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rela(kind: u32) -> Vec<u8> {
        let info = (7_u64 << 32) | u64::from(kind);
        [0x4000_u64, info, 0x28020].iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn the_addend_counts_only_where_the_psabi_says_so() {
        let addend = |kind, machine| parse_rela(&rela(kind), machine).unwrap().addend;
        assert_eq!(addend(abi::R_X86_64_JUMP_SLOT, Machine::X86_64), 0);
        assert_eq!(addend(abi::R_X86_64_GLOB_DAT, Machine::X86_64), 0);
        assert_eq!(addend(abi::R_X86_64_IRELATIVE, Machine::X86_64), 0x28020);
        assert_eq!(addend(abi::R_AARCH64_JUMP_SLOT, Machine::Aarch64), 0x28020);
    }

    #[test]
    fn relocations_without_foreign_address_are_left_out() {
        let relative = 8;
        assert_eq!(parse_rela(&rela(relative), Machine::X86_64), None);
        assert_eq!(parse_rela(&rela(abi::R_X86_64_JUMP_SLOT), Machine::Aarch64), None);
    }
}
