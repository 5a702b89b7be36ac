//! Function starts from `.eh_frame_hdr`.

use super::super::bytes::{index, u32_at};
use super::{Headers, ReadAt};

/// `DW_EH_PE_udata4`.
const UDATA4: u8 = 0x03;
/// `DW_EH_PE_datarel | DW_EH_PE_sdata4`.
const DATAREL_SDATA4: u8 = 0x3b;

/// The sorted start addresses of the binary search table (LSB, "DWARF Extensions"); `None` when
/// the file has none or in another encoding than all linkers use.
pub(super) fn read_fde_starts<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
) -> Option<Vec<u64>> {
    let (at, size) = headers.eh_frame_hdr?;
    let head = headers.read_vaddr(source, "eh_frame_hdr", at, 12.min(size)).ok()?;
    let [1, _, UDATA4, DATAREL_SDATA4] = *head.first_chunk::<4>()? else { return None };
    let count = u64::from(u32_at(&head, 8)?);
    let bytes = count.checked_mul(8).filter(|bytes| *bytes <= size.saturating_sub(12))?;
    let table = headers.read_vaddr(source, "eh_frame_hdr", at + 12, bytes).ok()?;
    let start = |entry: &[u8]| {
        let relative = i32::from_le_bytes(*entry.first_chunk()?);
        at.checked_add_signed(relative.into())
    };
    let mut starts: Vec<u64> = table.chunks_exact(index(8_u64)).filter_map(start).collect();
    starts.sort_unstable();
    Some(starts)
}
