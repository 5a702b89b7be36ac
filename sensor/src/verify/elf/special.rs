//! Slots that no relocation names: the loader's own words in the GOT, functions run at start and
//! exit, and the dynamic section's pointers.

use std::collections::HashSet;
use std::ops::Range;

use super::kind::SlotKind;
use super::reloc::{Relocations, Slot};
use super::{Dynamic, Headers, ReadAt, abi, words};

/// Entries of one array looked at; real ones have under 1000.
const MAX_ENTRIES: u64 = 1 << 16;
/// What tells the loader where the tables for binding are: glibc adds the load address in place,
/// unless the section is read-only in the file (`elf_get_dynamic_info`).
const TABLES: [u64; 7] = [
    abi::DT_PLTGOT,
    abi::DT_STRTAB,
    abi::DT_SYMTAB,
    abi::DT_RELA,
    abi::DT_REL,
    abi::DT_JMPREL,
    abi::DT_VERSYM,
];
/// What tells it where code is, and where arrays end. Nobody changes these.
const FUNCTIONS: [u64; 8] = [
    abi::DT_INIT,
    abi::DT_FINI,
    abi::DT_PREINIT_ARRAY,
    abi::DT_PREINIT_ARRAYSZ,
    abi::DT_INIT_ARRAY,
    abi::DT_INIT_ARRAYSZ,
    abi::DT_FINI_ARRAY,
    abi::DT_FINI_ARRAYSZ,
];

/// `GOT[1]` and `GOT[2]` of files with a PLT (psABI, "Global Offset Table"): what PLT0 pushes and
/// jumps to. `slots` ascend, and do so afterwards.
pub(super) fn add_got_words(headers: &Headers, dynamic: &Dynamic, slots: &mut Vec<Slot>) {
    let bound = dynamic.tag(abi::DT_JMPREL).and(dynamic.tag(abi::DT_PLTRELSZ));
    let Some(got) = dynamic.tag(abi::DT_PLTGOT).filter(|_| bound.is_some_and(|size| size > 0))
    else {
        return;
    };
    let width = headers.width;
    for (place, kind) in [(1, SlotKind::LinkMap), (2, SlotKind::Resolver)] {
        let vaddr = width.add(got, place * width.bytes());
        if let Err(at) = slots.binary_search_by_key(&vaddr, |slot| slot.vaddr) {
            slots.insert(at, Slot { vaddr, addend: 0, file_word: 0, symbol: 0, kind });
        }
    }
}

/// Gives the words of the start and exit arrays their own kind, and adds those of a program that
/// runs where it was linked for: its addresses are not relocated.
pub(super) fn add_arrays<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    dynamic: &Dynamic,
    found: &mut Relocations,
) {
    let arrays = [
        (abi::DT_PREINIT_ARRAY, abi::DT_PREINIT_ARRAYSZ, SlotKind::InitArray),
        (abi::DT_INIT_ARRAY, abi::DT_INIT_ARRAYSZ, SlotKind::InitArray),
        (abi::DT_FINI_ARRAY, abi::DT_FINI_ARRAYSZ, SlotKind::FiniArray),
    ];
    for (at, size, kind) in arrays {
        let (Some(at), Some(size)) = (dynamic.tag(at), dynamic.tag(size)) else { continue };
        let Some(end) = at.checked_add(size.min(MAX_ENTRIES * headers.width.bytes())) else {
            continue;
        };
        let before = found.slots.len();
        mark_array(found, &(at..end), kind);
        if headers.fixed && found.slots.len() == before {
            add_constants(source, headers, at..end, kind, &mut found.slots);
        }
    }
}

fn mark_array(found: &mut Relocations, array: &Range<u64>, kind: SlotKind) {
    for slot in &mut found.slots {
        if slot.kind == SlotKind::Absolute && array.contains(&slot.vaddr) {
            slot.kind = kind;
        }
    }
    for list in [&mut found.relative, &mut found.relr] {
        let from = list.partition_point(|word| u64::from(word.vaddr) < array.start);
        let to = list.partition_point(|word| u64::from(word.vaddr) < array.end);
        let moved = list.drain(from..to.max(from)).map(|word| {
            let (vaddr, addend) = (word.vaddr.into(), word.addend.into());
            Slot { vaddr, addend, file_word: 0, symbol: 0, kind }
        });
        found.slots.extend(moved);
    }
}

/// 0 and -1 are no functions.
fn add_constants<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    array: Range<u64>,
    kind: SlotKind,
    slots: &mut Vec<Slot>,
) {
    let width = headers.width;
    // Both may be a million: no look through all slots for each word.
    let vaddrs = slots.iter().map(|slot| slot.vaddr);
    let taken: HashSet<u64> = vaddrs.filter(|vaddr| array.contains(vaddr)).collect();
    let mut places = Vec::new();
    let mut at = array.start;
    while at.saturating_add(width.bytes()) <= array.end {
        if headers.is_relro(at) && !taken.contains(&at) {
            places.push(at);
        }
        at += width.bytes();
    }
    let words = words::read(source, headers, &places);
    let functions = places.into_iter().zip(words).filter(|(_, word)| headers.is_text(*word));
    slots.extend(functions.map(|(vaddr, word)| Slot {
        vaddr,
        addend: word,
        file_word: word,
        symbol: 0,
        kind,
    }));
}

/// The entries of a read-only dynamic section that lead to code, or to what binds names to code.
pub(super) fn add_dynamic(headers: &Headers, dynamic: &Dynamic, slots: &mut Vec<Slot>) {
    let Some((start, ..)) = headers.dynamic else { return };
    let width = headers.width;
    for (number, tag, value) in &dynamic.places {
        let entry = width.add(start, number * width.bytes() * 2);
        let vaddr = width.add(entry, width.bytes());
        let table = TABLES.contains(tag);
        if (table || FUNCTIONS.contains(tag)) && headers.is_relro(vaddr) {
            let addend = if table { *value } else { 0 };
            let (file_word, kind) = (*value, SlotKind::Dynamic);
            slots.push(Slot { vaddr, addend, file_word, symbol: 0, kind });
        }
    }
}
