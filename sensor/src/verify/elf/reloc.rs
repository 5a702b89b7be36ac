//! Which words of a file the loader writes addresses into, from its relocation tables.

use super::super::bytes::{index, u32_at, u64_at};
use super::super::width::Width;
use super::kind::{Depth, Relocation, SlotKind};
use super::{Dynamic, ElfError, Headers, Machine, ReadAt, abi, read_bytes, relr, special, words};

/// Entries of a table read together.
const STEP_ENTRIES: u64 = 4096;
/// Slots kept per file.
const MAX_SLOTS: usize = 1 << 20;
/// Addresses of the same file kept per file (Chromium has 1.1 million).
pub(super) const MAX_RELATIVES: usize = 1 << 21;

/// One slot of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) vaddr: u64,
    /// Added to the symbol's address; the resolver's address for `IRELATIVE`; without a symbol an
    /// address of the file itself; in the dynamic section one that may be relocated in place, or 0.
    pub(crate) addend: u64,
    /// What the file holds at `vaddr`, where it matters: for an unresolved `JUMP_SLOT` the
    /// unrelocated address of its PLT stub.
    pub(crate) file_word: u64,
    pub(crate) symbol: u32,
    pub(crate) kind: SlotKind,
}

/// A word that holds the load address plus `addend`. The great majority, therefore small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Relative {
    pub(crate) vaddr: u32,
    pub(crate) addend: u32,
}

/// Relocations that are not compared, by rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// Offsets in thread-local storage: no addresses.
    pub tls: u64,
    /// Data copied into the program's writable memory.
    pub copied: u64,
    /// Addresses in memory that stays writable: programs change them.
    pub writable: u64,
    /// Kinds of relocation without a rule, and words that two relocations claim.
    pub other: u64,
}

/// What the loader writes into one file.
#[derive(Debug, Default)]
pub(crate) struct Relocations {
    /// Ascending and unique by address.
    pub(crate) slots: Vec<Slot>,
    /// `RELATIVE`, ascending by address.
    pub(crate) relative: Vec<Relative>,
    /// `DT_RELR`, ascending by address.
    pub(crate) relr: Vec<Relative>,
    pub(crate) skipped: Skipped,
}

/// One entry of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    vaddr: u64,
    number: u32,
    symbol: u32,
    /// None in a `REL` table: the addend is the file's word.
    addend: Option<u64>,
}

/// One table: address, bytes, and whether its entries have an addend.
#[derive(Clone, Copy, Debug)]
struct Table {
    at: u64,
    size: u64,
    explicit: bool,
}

/// Collects while tables are read.
#[derive(Debug)]
struct Collector<'a> {
    headers: &'a Headers,
    depth: Depth,
    found: Relocations,
    /// `RELATIVE`s with the addend, if the table has one.
    relative: Vec<(u64, Option<u64>)>,
    /// Numbers of slots whose addend is the file's word.
    implicit: Vec<u64>,
}

// === impl Skipped ===

impl Skipped {
    /// Adds the numbers of another.
    pub fn merge(&mut self, other: &Self) {
        self.tls += other.tls;
        self.copied += other.copied;
        self.writable += other.writable;
        self.other += other.other;
    }
}

// === impl Relocations ===

impl Relocations {
    /// Reads every table; at [`Depth::Got`] only what calls go through is kept.
    pub(super) fn read<R: ReadAt + ?Sized>(
        source: &R,
        headers: &Headers,
        dynamic: &Dynamic,
        depth: Depth,
    ) -> Result<Self, ElfError> {
        let mut collector = Collector::new(headers, depth);
        for table in tables(headers.width, dynamic) {
            collector.read_table(source, table)?;
        }
        let Collector { mut found, mut relative, implicit, .. } = collector;
        sort_slots(&mut found.slots);
        special::add_got_words(headers, dynamic, &mut found.slots);
        words::fill(source, headers, &mut found.slots, &implicit);
        if depth == Depth::Full {
            relative.sort_by_key(|(vaddr, _)| *vaddr);
            found.add_relative(words::with_addends(source, headers, relative), SlotKind::Relative);
            let packed = relr::read(source, headers, dynamic)?;
            let (inside, outside): (Vec<u64>, Vec<u64>) =
                packed.into_iter().partition(|vaddr| headers.is_relro(*vaddr));
            found.skipped.writable += outside.len() as u64;
            let packed = inside.into_iter().map(|vaddr| (vaddr, None)).collect();
            found.add_relative(words::with_addends(source, headers, packed), SlotKind::Relr);
            special::add_arrays(source, headers, dynamic, &mut found);
            special::add_dynamic(headers, dynamic, &mut found.slots);
            found.drop_contested();
        }
        Ok(found)
    }

    /// Small ones into their own list; addresses that do not fit become slots.
    fn add_relative(&mut self, words: Vec<(u64, u64)>, kind: SlotKind) {
        for (vaddr, addend) in words {
            match (u32::try_from(vaddr), u32::try_from(addend)) {
                (Ok(vaddr), Ok(addend)) => {
                    let list = match kind {
                        SlotKind::Relr => &mut self.relr,
                        _ => &mut self.relative,
                    };
                    list.push(Relative { vaddr, addend });
                }
                _ => self.slots.push(Slot { vaddr, addend, file_word: 0, symbol: 0, kind }),
            }
        }
    }

    /// A word that belongs to two lists holds what the loader's order of work makes of it.
    fn drop_contested(&mut self) {
        self.slots.sort_by_key(|slot| slot.vaddr);
        let before = self.slots.len() + self.relative.len() + self.relr.len();
        let mut all: Vec<u64> = self.slots.iter().map(|slot| slot.vaddr).collect();
        let lists = self.relative.iter().chain(&self.relr);
        all.extend(lists.map(|word| u64::from(word.vaddr)));
        all.sort_unstable();
        let pairs = all.windows(2).filter_map(|pair| match pair {
            [a, b] if a == b => Some(*a),
            _ => None,
        });
        let twice: Vec<u64> = pairs.collect();
        if twice.is_empty() {
            return;
        }
        let once = |vaddr: u64| twice.binary_search(&vaddr).is_err();
        self.slots.retain(|slot| once(slot.vaddr));
        self.relative.retain(|word| once(word.vaddr.into()));
        self.relr.retain(|word| once(word.vaddr.into()));
        let after = self.slots.len() + self.relative.len() + self.relr.len();
        self.skipped.other += (before - after) as u64;
    }

    /// Heap bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
            + (self.relative.len() + self.relr.len()) * size_of::<Relative>()
    }
}

/// Stable: where two relocations hit one slot the later one wins, as in the loader.
fn sort_slots(slots: &mut Vec<Slot>) {
    slots.sort_by_key(|slot| slot.vaddr);
    slots.reverse();
    slots.dedup_by_key(|slot| slot.vaddr);
    slots.reverse();
}

/// The tables that loaders of this width look at: 64-bit machines have addends in all of them.
fn tables(width: Width, dynamic: &Dynamic) -> Vec<Table> {
    let narrow = width == Width::Four;
    let plt_explicit = !narrow || dynamic.tag(abi::DT_PLTREL) == Some(abi::DT_RELA);
    let all = [
        (abi::DT_RELA, abi::DT_RELASZ, true, true),
        (abi::DT_REL, abi::DT_RELSZ, false, narrow),
        (abi::DT_JMPREL, abi::DT_PLTRELSZ, plt_explicit, true),
    ];
    let used = all.into_iter().filter(|(.., used)| *used);
    let table = |(at, size, explicit, _)| {
        let (at, size) = (dynamic.tag(at)?, dynamic.tag(size)?);
        Some(Table { at, size, explicit })
    };
    used.filter_map(table).collect()
}

// === impl Entry ===

impl Entry {
    fn parse(bytes: &[u8], width: Width, explicit: bool) -> Option<Self> {
        Some(match width {
            Width::Four => {
                let info = u32_at(bytes, 4)?;
                let addend = if explicit { Some(u32_at(bytes, 8)?.into()) } else { None };
                Self {
                    vaddr: u32_at(bytes, 0)?.into(),
                    number: info & 0xff,
                    symbol: info >> 8,
                    addend,
                }
            }
            Width::Eight => Self {
                vaddr: u64_at(bytes, 0)?,
                number: u32_at(bytes, 8)?,
                symbol: u32_at(bytes, 12)?,
                addend: Some(u64_at(bytes, 16)?),
            },
        })
    }

    fn bytes(width: Width, explicit: bool) -> u64 {
        width.bytes() * if explicit { 3 } else { 2 }
    }
}

// === impl Collector ===

impl<'a> Collector<'a> {
    fn new(headers: &'a Headers, depth: Depth) -> Self {
        let (relative, implicit) = (Vec::new(), Vec::new());
        Self { headers, depth, found: Relocations::default(), relative, implicit }
    }

    fn read_table<R: ReadAt + ?Sized>(&mut self, source: &R, table: Table) -> Result<(), ElfError> {
        const WHAT: &str = "relocation table";
        let Table { at, size, explicit } = table;
        if size == 0 {
            return Ok(());
        }
        let (offset, rest) = self.headers.file_offset(at).ok_or(ElfError::Malformed(WHAT))?;
        if size > rest {
            return Err(ElfError::Malformed(WHAT));
        }
        if size > super::MAX_TABLE {
            return Err(ElfError::TooLarge { what: WHAT, bytes: size });
        }
        let width = self.headers.width;
        let entry = Entry::bytes(width, explicit);
        let mut done = 0;
        while done < size {
            let step = (size - done).min(entry * STEP_ENTRIES);
            let bytes = read_bytes(source, WHAT, offset + done, step)?;
            for entry in bytes.chunks_exact(index(entry)) {
                if let Some(entry) = Entry::parse(entry, width, explicit) {
                    self.add(entry);
                }
            }
            if self.found.slots.len() > MAX_SLOTS || self.relative.len() > MAX_RELATIVES {
                return Err(ElfError::TooLarge { what: WHAT, bytes: size });
            }
            done += step;
        }
        Ok(())
    }

    fn add(&mut self, entry: Entry) {
        let relro = self.headers.is_relro(entry.vaddr);
        let full = self.depth == Depth::Full;
        let skipped = &mut self.found.skipped;
        match Relocation::of(self.headers.machine, entry.number) {
            Relocation::JumpSlot => self.add_slot(entry, SlotKind::JumpSlot),
            Relocation::GlobDat => self.add_slot(entry, SlotKind::GlobDat),
            Relocation::Irelative => self.add_slot(entry, SlotKind::Irelative),
            Relocation::TlsDesc => self.add_slot(entry, SlotKind::TlsDesc),
            Relocation::Absolute if relro && full => self.add_slot(entry, SlotKind::Absolute),
            Relocation::Copy if relro && full => self.add_slot(entry, SlotKind::Copy),
            Relocation::Relative if relro && full => {
                self.relative.push((entry.vaddr, entry.addend));
            }
            Relocation::Copy if !relro => skipped.copied += 1,
            Relocation::Absolute | Relocation::Relative if !relro => skipped.writable += 1,
            Relocation::Tls => skipped.tls += 1,
            Relocation::Other => skipped.other += 1,
            Relocation::Absolute | Relocation::Relative | Relocation::Copy | Relocation::None => {}
        }
    }

    fn add_slot(&mut self, entry: Entry, kind: SlotKind) {
        let Entry { vaddr, symbol, .. } = entry;
        if entry.addend.is_none() && matches!(kind, SlotKind::Absolute | SlotKind::Irelative) {
            self.implicit.push(vaddr);
        }
        let addend = match (self.headers.machine, kind) {
            // These psABIs compute S, without addend; with `-z mark-plt` (glibc from 2.41 on in
            // Debian) the field holds the address of the PLT stub instead.
            (Machine::X86_64 | Machine::I386, SlotKind::JumpSlot | SlotKind::GlobDat) => 0,
            _ => entry.addend.unwrap_or(0),
        };
        self.found.slots.push(Slot { vaddr, addend, file_word: 0, symbol, kind });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(machine: Machine, width: Width) -> Headers {
        Headers { relro: Some((0x4000, 0x1000)), ..Headers::empty(machine, width) }
    }

    fn rela(number: u32, vaddr: u64) -> Entry {
        let info = (7_u64 << 32) | u64::from(number);
        let bytes: Vec<u8> =
            [vaddr, info, 0x28020].iter().flat_map(|word| word.to_le_bytes()).collect();
        Entry::parse(&bytes, Width::Eight, true).unwrap()
    }

    fn slots(machine: Machine, entries: &[Entry], depth: Depth) -> (Vec<Slot>, Skipped, usize) {
        let headers = headers(machine, Width::Eight);
        let mut collector = Collector::new(&headers, depth);
        for entry in entries {
            collector.add(*entry);
        }
        (collector.found.slots, collector.found.skipped, collector.relative.len())
    }

    #[test]
    fn the_addend_counts_only_where_the_psabi_says_so() {
        let addend =
            |number, machine| slots(machine, &[rela(number, 0x4000)], Depth::Full).0[0].addend;
        assert_eq!(addend(abi::R_X86_64_JUMP_SLOT, Machine::X86_64), 0);
        assert_eq!(addend(abi::R_X86_64_GLOB_DAT, Machine::X86_64), 0);
        assert_eq!(addend(abi::R_X86_64_IRELATIVE, Machine::X86_64), 0x28020);
        assert_eq!(addend(abi::R_X86_64_64, Machine::X86_64), 0x28020);
        assert_eq!(addend(abi::R_AARCH64_JUMP_SLOT, Machine::Aarch64), 0x28020);
    }

    #[test]
    fn data_that_stays_writable_is_counted_and_not_kept() {
        let entries = [
            rela(abi::R_X86_64_64, 0x4ff8),
            rela(abi::R_X86_64_64, 0x4ffc),
            rela(abi::R_X86_64_RELATIVE, 0x3ff8),
            rela(abi::R_X86_64_RELATIVE, 0x4008),
            rela(abi::R_X86_64_TPOFF64, 0x4010),
            rela(abi::R_X86_64_COPY, 0x6000),
            rela(200, 0x4010),
        ];
        let (kept, skipped, relative) = slots(Machine::X86_64, &entries, Depth::Full);
        assert_eq!((kept.len(), relative), (1, 1));
        assert_eq!(skipped, Skipped { tls: 1, copied: 1, writable: 2, other: 1 });
        let (kept, _, relative) = slots(Machine::X86_64, &entries, Depth::Got);
        assert_eq!((kept.len(), relative), (0, 0));
    }

    #[test]
    fn entries_of_32_bit_files_are_read() {
        let bytes: Vec<u8> =
            [0x4004_u32, (9 << 8) | 6, 0x77].iter().flat_map(|w| w.to_le_bytes()).collect();
        let rel = Entry::parse(&bytes, Width::Four, false).unwrap();
        assert_eq!((rel.vaddr, rel.number, rel.symbol, rel.addend), (0x4004, 6, 9, None));
        let rela = Entry::parse(&bytes, Width::Four, true).unwrap();
        assert_eq!(rela.addend, Some(0x77));
        assert_eq!((Entry::bytes(Width::Four, false), Entry::bytes(Width::Eight, true)), (8, 24));
    }

    #[test]
    fn a_word_that_two_relocations_claim_is_left_out() {
        let slot =
            |vaddr| Slot { vaddr, addend: 0, file_word: 0, symbol: 1, kind: SlotKind::Absolute };
        let relative = |vaddr| Relative { vaddr, addend: 1 };
        let mut found = Relocations {
            slots: vec![slot(8), slot(16)],
            relative: vec![relative(16), relative(24)],
            relr: vec![relative(32)],
            skipped: Skipped::default(),
        };
        found.drop_contested();
        assert_eq!((found.slots, found.relative), (vec![slot(8)], vec![relative(24)]));
        assert_eq!((found.relr.len(), found.skipped.other), (1, 2));
    }
}
