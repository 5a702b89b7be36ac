//! `DT_RELR`: packed addresses of words that the load address is added to.

use super::super::width::Width;
use super::reloc::MAX_RELATIVES;
use super::{Dynamic, ElfError, Headers, ReadAt, abi};

const WHAT: &str = "packed relocations";

/// Addresses of all words, in table order.
pub(super) fn read<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    dynamic: &Dynamic,
) -> Result<Vec<u64>, ElfError> {
    let (Some(at), Some(size)) = (dynamic.tag(abi::DT_RELR), dynamic.tag(abi::DT_RELRSZ)) else {
        return Ok(Vec::new());
    };
    let table = headers.read_vaddr(source, WHAT, at, size)?;
    decode(&table, headers.width).ok_or(ElfError::TooLarge { what: WHAT, bytes: size })
}

/// An even word is an address and relocates the word there; an odd one is a bitmap of the words
/// that follow, bit 1 first (gABI, "Relative Relocation Table"). `None` beyond the limit.
fn decode(table: &[u8], width: Width) -> Option<Vec<u64>> {
    let (mut found, mut next) = (Vec::new(), 0_u64);
    let bits = width.bytes() * 8 - 1;
    for at in (0..table.len()).step_by(width.len()) {
        let Some(word) = width.word_at(table, at) else { break };
        if word & 1 == 0 {
            found.push(word);
            next = width.add(word, width.bytes());
        } else {
            let set = (0..bits).filter(|bit| word >> (bit + 1) & 1 == 1);
            found.extend(set.map(|bit| width.add(next, bit * width.bytes())));
            next = width.add(next, bits * width.bytes());
        }
        if found.len() > MAX_RELATIVES {
            return None;
        }
    }
    found.sort_unstable();
    found.dedup();
    Some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_and_bitmaps_are_unpacked() {
        let words = [0x1000_u64, 0b1011, 0x3000];
        let table: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(decode(&table, Width::Eight), Some(vec![0x1000, 0x1008, 0x1018, 0x3000]));
        let words = [0x1000_u32, 0x8000_0001, 3];
        let table: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        // The last bit of the first bitmap, then the first of the second.
        assert_eq!(decode(&table, Width::Four), Some(vec![0x1000, 0x107c, 0x1080]));
    }

    proptest! {
        #[test]
        fn any_table_is_total(table in proptest::collection::vec(any::<u8>(), 0..600)) {
            for width in [Width::Four, Width::Eight] {
                if let Some(found) = decode(&table, width) {
                    prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
                }
            }
        }
    }
}
