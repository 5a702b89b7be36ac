//! What a file holds at the places that relocations change.

use super::super::bytes::index;
use super::kind::SlotKind;
use super::reloc::Slot;
use super::{Headers, ReadAt};

/// Words closer than this are read together, bytes.
const GAP: u64 = 4096;
/// One read is at most this long, bytes.
const READ_MAX: u64 = 1 << 20;

/// Fills in the file's word of the slots where it matters; of those in `implicit`, the addend too.
/// Slots outside the file's bytes keep 0, as memory there does.
pub(super) fn fill<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    slots: &mut [Slot],
    implicit: &[u64],
) {
    let mut implicit = implicit.to_vec();
    implicit.sort_unstable();
    let is_implicit = |slot: &Slot| implicit.binary_search(&slot.vaddr).is_ok();
    let lazy = |slot: &Slot| {
        matches!(slot.kind, SlotKind::JumpSlot | SlotKind::LinkMap | SlotKind::Resolver)
    };
    let wanted = slots.iter().filter(|slot| lazy(slot) || is_implicit(slot));
    let places: Vec<u64> = wanted.map(|slot| slot.vaddr).collect();
    let words = read(source, headers, &places);
    let mut words = places.into_iter().zip(words).peekable();
    for slot in slots {
        if let Some((_, word)) = words.next_if(|(vaddr, _)| *vaddr == slot.vaddr) {
            slot.file_word = word;
            if is_implicit(slot) {
                slot.addend = word;
            }
        }
    }
}

/// Completes ascending words with the file's word where the table has no addend.
pub(super) fn with_addends<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    words: Vec<(u64, Option<u64>)>,
) -> Vec<(u64, u64)> {
    let missing: Vec<u64> =
        words.iter().filter(|(_, addend)| addend.is_none()).map(|(vaddr, _)| *vaddr).collect();
    let mut read = read(source, headers, &missing).into_iter();
    let complete = |(vaddr, addend): (u64, Option<u64>)| {
        let addend = addend.or_else(|| read.next()).unwrap_or(0);
        (vaddr, addend)
    };
    words.into_iter().map(complete).collect()
}

/// The file's words at ascending addresses; 0 where the file has no bytes.
pub(super) fn read<R: ReadAt + ?Sized>(source: &R, headers: &Headers, places: &[u64]) -> Vec<u64> {
    let width = headers.width;
    let mut found = Vec::with_capacity(places.len());
    let mut rest = places;
    while let Some(start) = rest.first().copied() {
        let room = headers.file_offset(start).map_or(0, |(_, room)| room.min(READ_MAX));
        let near = |pair: &[u64]| match pair {
            [a, b] => b - a <= GAP && b - start < room,
            _ => false,
        };
        let count = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
        let (group, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        rest = later;
        let last = group.last().copied().unwrap_or(start);
        let bytes = (last - start).saturating_add(width.bytes());
        // Cut where the file's bytes end: what lies behind is zero.
        let bytes = bytes.min(room);
        let bytes = headers.read_vaddr(source, "words", start, bytes).unwrap_or_default();
        found.extend(group.iter().map(|at| width.word_at(&bytes, index(at - start)).unwrap_or(0)));
    }
    found
}
