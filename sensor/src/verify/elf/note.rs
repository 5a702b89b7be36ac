//! The GNU build-id note.

use std::fmt::Write;

use super::super::bytes::{index, u32_at};
use super::abi;
use super::{ReadAt, read_bytes};

/// Note segments are a few hundred bytes; larger ones are cut here.
const MAX_NOTES: u64 = 64 << 10;

/// Build-id in hex from one `PT_NOTE`; anything unreadable counts as "has none".
pub(super) fn read_build_id<R: ReadAt + ?Sized>(
    source: &R,
    offset: u64,
    size: u64,
) -> Option<String> {
    let notes = read_bytes(source, "notes", offset, size.min(MAX_NOTES)).ok()?;
    let mut at = 0_usize;
    while let Some(header) = notes.get(at..).filter(|rest| rest.len() >= 12) {
        let (name_len, desc_len) = (index(u32_at(header, 0)?), index(u32_at(header, 4)?));
        let kind = u32_at(header, 8)?;
        let desc_at = 12_usize.checked_add(pad4(name_len)?)?;
        let name = header.get(12..12_usize.checked_add(name_len)?)?;
        let desc = header.get(desc_at..desc_at.checked_add(desc_len)?)?;
        if kind == abi::NT_GNU_BUILD_ID && name == b"GNU\0" && desc.len() <= 64 {
            return Some(hex(desc));
        }
        at = at.checked_add(desc_at)?.checked_add(pad4(desc_len)?)?;
    }
    None
}

fn pad4(len: usize) -> Option<usize> {
    len.checked_next_multiple_of(4)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
