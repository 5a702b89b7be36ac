//! What a program's copy of a library's read-only data should hold: a class's vtable that a
//! program linked for fixed addresses refers to is copied into its own memory (`R_*_COPY`).

use super::elf::{Relative, Slot, SlotKind};
use super::resolve::{Resolver, Want};

/// The addresses inside the data that `copy`, a slot of `module`, stands for, each at its place in
/// the program; at most `room`. Only such that the library's own relocations determine: the loader copies after it
/// has relocated the library, so both hold the same.
pub(crate) fn wants(
    resolver: &Resolver<'_>,
    module: usize,
    copy: &Slot,
    room: usize,
) -> Vec<(Slot, Want)> {
    let Some((definer, source, size)) = resolver.copied_from(module, copy) else {
        return Vec::new();
    };
    let Some(object) = resolver.layout.object(definer) else { return Vec::new() };
    let Ok(number) = u32::try_from(definer) else { return Vec::new() };
    let end = source.saturating_add(size);
    let inside = |vaddr: u64| source <= vaddr && vaddr < end;
    let place = |vaddr: u64| Slot {
        vaddr: copy.vaddr.saturating_add(vaddr - source),
        addend: 0,
        file_word: 0,
        symbol: copy.symbol,
        kind: SlotKind::Copy,
    };
    let relocations = &object.elf.relocations;
    let symbolic = relocations.slots.iter().filter(|slot| inside(slot.vaddr));
    let symbolic = symbolic.map(|slot| (place(slot.vaddr), resolver.want(definer, slot)));
    let certain =
        symbolic.filter(|(_, want)| matches!(want, Want::Address { .. } | Want::Fixed(_)));
    let relative = [&relocations.relative, &relocations.relr].into_iter().flat_map(|list| {
        let from = list.partition_point(|word| u64::from(word.vaddr) < source);
        let to = list.partition_point(|word| u64::from(word.vaddr) < end).max(from);
        list.get(from..to).unwrap_or(&[])
    });
    let own = relative.map(|Relative { vaddr, addend }| {
        let want = Want::Address { module: number, vaddr: u64::from(*addend) };
        (place(u64::from(*vaddr)), want)
    });
    let mut found: Vec<(Slot, Want)> = certain.chain(own).take(room).collect();
    found.sort_by_key(|(slot, _)| slot.vaddr);
    found
}
