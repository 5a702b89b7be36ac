//! Symbol hash tables: which symbols a name may be, in the loader's own chain order.

use super::super::bytes::{index, u32_at};
use super::super::width::Width;
use super::abi;
use super::{Dynamic, ElfError, Headers, ReadAt};

/// Buckets or chains beyond this are refused (16 M symbols).
const MAX_WORDS: u64 = 16 << 20;
/// GNU chains are read in steps of this many bytes while their end is looked for.
const STEP: u64 = 4096;
/// Steps of one lookup; real chains have under 50 symbols.
const MAX_CHAIN: usize = 1 << 12;

/// A symbol name with both its hashes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SymbolName<'a> {
    pub(crate) bytes: &'a [u8],
    gnu: u32,
    sysv: u32,
}

#[derive(Debug, Default)]
pub(super) enum HashTable {
    /// No table: the loader finds nothing here.
    #[default]
    None,
    Gnu(Gnu),
    Sysv {
        buckets: Vec<u32>,
        chains: Vec<u32>,
    },
}

#[derive(Debug)]
pub(super) struct Gnu {
    first: u32,
    shift: u32,
    /// Words of the file's width.
    bloom: Vec<u64>,
    width: Width,
    buckets: Vec<u32>,
    /// Hash words of the symbols from `first` on; an odd word ends its chain.
    chains: Vec<u32>,
}

// === impl SymbolName ===

impl<'a> SymbolName<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, gnu: gnu_hash(bytes), sysv: sysv_hash(bytes) }
    }
}

/// `dl_new_hash` (glibc `elf/dl-hash.h`).
fn gnu_hash(name: &[u8]) -> u32 {
    name.iter().fold(5381, |hash: u32, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)))
}

/// The hash of the System V ABI, chapter "Hash Table".
fn sysv_hash(name: &[u8]) -> u32 {
    name.iter().fold(0, |hash: u32, byte| {
        let hash = (hash << 4).wrapping_add(u32::from(*byte));
        let high = hash & 0xf000_0000;
        (hash ^ (high >> 24)) & !high
    })
}

// === impl HashTable ===

impl HashTable {
    /// Reads `DT_GNU_HASH`, else `DT_HASH`; also tells how many symbols the table proves.
    pub(super) fn read<R: ReadAt + ?Sized>(
        source: &R,
        headers: &Headers,
        dynamic: &Dynamic,
    ) -> Result<(Self, u32), ElfError> {
        if let Some(at) = dynamic.tag(abi::DT_GNU_HASH) {
            return read_gnu(source, headers, at);
        }
        match dynamic.tag(abi::DT_HASH) {
            Some(at) => read_sysv(source, headers, at),
            None => Ok((Self::None, 0)),
        }
    }

    /// Symbol indexes whose hash equals the name's, in chain order.
    pub(super) fn candidates<'a>(&'a self, name: &SymbolName<'_>) -> Candidates<'a> {
        match self {
            Self::None => Candidates::Done,
            Self::Gnu(table) => table.candidates(name.gnu),
            Self::Sysv { buckets, chains } => {
                let bucket = name.sysv.checked_rem(u32::try_from(buckets.len()).unwrap_or(0));
                let next = bucket.and_then(|at| buckets.get(index(at))).copied().unwrap_or(0);
                Candidates::Sysv { chains, next, left: chains.len().min(MAX_CHAIN) }
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Gnu(gnu) => gnu.bloom.len() * 8 + (gnu.buckets.len() + gnu.chains.len()) * 4,
            Self::Sysv { buckets, chains } => (buckets.len() + chains.len()) * 4,
        }
    }
}

impl Gnu {
    /// `do_lookup_x` in glibc `elf/dl-lookup.c`: Bloom filter, then the chain of the bucket.
    fn candidates(&self, hash: u32) -> Candidates<'_> {
        let word_bits: u32 = match self.width {
            Width::Four => 32,
            Width::Eight => 64,
        };
        let word = index(hash / word_bits) & self.bloom.len().wrapping_sub(1);
        let mask = word_bits - 1;
        let (one, two) = (hash & mask, hash.checked_shr(self.shift).unwrap_or(0) & mask);
        let passes =
            self.bloom.get(word).is_some_and(|bits| (bits >> one) & (bits >> two) & 1 == 1);
        let bucket = hash.checked_rem(u32::try_from(self.buckets.len()).unwrap_or(0));
        let first = bucket.and_then(|at| self.buckets.get(index(at))).copied().unwrap_or(0);
        match first.checked_sub(self.first) {
            Some(at) if passes && first != 0 => {
                Candidates::Gnu { table: self, hash, at: index(at), left: MAX_CHAIN }
            }
            _ => Candidates::Done,
        }
    }
}

/// Walks one chain; bounded because each step advances or counts down.
#[derive(Debug)]
pub(super) enum Candidates<'a> {
    Done,
    Gnu { table: &'a Gnu, hash: u32, at: usize, left: usize },
    Sysv { chains: &'a [u32], next: u32, left: usize },
}

impl Iterator for Candidates<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match self {
            Self::Done => None,
            Self::Gnu { table, hash, at, left } => loop {
                *left = left.checked_sub(1)?;
                let word = *table.chains.get(*at)?;
                let symbol = table.first.checked_add(u32::try_from(*at).ok()?)?;
                *at = if word & 1 == 1 { usize::MAX } else { *at + 1 };
                if (word ^ *hash) >> 1 == 0 {
                    return Some(symbol);
                }
            },
            Self::Sysv { chains, next, left } => {
                let symbol = *next;
                *left = left.checked_sub(1)?;
                if symbol == 0 {
                    return None;
                }
                *next = chains.get(index(symbol)).copied()?;
                Some(symbol)
            }
        }
    }
}

fn read_gnu<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    at: u64,
) -> Result<(HashTable, u32), ElfError> {
    const WHAT: &str = "GNU hash table";
    let malformed = || ElfError::Malformed(WHAT);
    let head = headers.read_vaddr(source, WHAT, at, 16)?;
    let word = |at| u32_at(&head, at).ok_or_else(malformed);
    let (nbuckets, first, words, shift) = (word(0)?, word(4)?, word(8)?, word(12)?);
    // glibc asserts the power of two (`_dl_setup_hash`).
    if !words.is_power_of_two() || u64::from(words) > MAX_WORDS || u64::from(nbuckets) > MAX_WORDS {
        return Err(malformed());
    }
    let step = |at: u64, by: u64| at.checked_add(by).ok_or_else(malformed);
    let bloom_at = step(at, 16)?;
    let width = headers.width;
    let bloom_bytes = u64::from(words) * width.bytes();
    let buckets_at = step(bloom_at, bloom_bytes)?;
    let chains_at = step(buckets_at, u64::from(nbuckets) * 4)?;
    let bloom = headers.read_vaddr(source, WHAT, bloom_at, bloom_bytes)?;
    let buckets = read_words(source, headers, WHAT, buckets_at, u64::from(nbuckets))?;
    let last = buckets.iter().copied().max().unwrap_or(0);
    let count = match last.checked_sub(first) {
        Some(into) if last != 0 => gnu_chain_words(source, headers, chains_at, u64::from(into))?,
        _ => 0,
    };
    let chains = read_words(source, headers, WHAT, chains_at, count)?;
    let symbols = u32::try_from(count).ok().and_then(|count| first.checked_add(count));
    let bloom = bloom.chunks_exact(width.len());
    let bloom = bloom.filter_map(|chunk| width.word_at(chunk, 0)).collect();
    let symbols = symbols.ok_or_else(malformed)?;
    Ok((HashTable::Gnu(Gnu { first, shift, bloom, width, buckets, chains }), symbols))
}

/// Number of chain words: the chain that starts last ends with the first odd word.
fn gnu_chain_words<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    chains_at: u64,
    mut into: u64,
) -> Result<u64, ElfError> {
    const WHAT: &str = "GNU hash chains";
    while into < MAX_WORDS {
        let at = chains_at.checked_add(into * 4).ok_or(ElfError::Malformed(WHAT))?;
        let (_, rest) = headers.file_offset(at).ok_or(ElfError::Malformed(WHAT))?;
        let bytes = headers.read_vaddr(source, WHAT, at, rest.min(STEP) & !3)?;
        if bytes.is_empty() {
            break;
        }
        for word in bytes.chunks_exact(4).filter_map(|chunk| u32_at(chunk, 0)) {
            into += 1;
            if word & 1 == 1 {
                return Ok(into);
            }
        }
    }
    Err(ElfError::Malformed(WHAT))
}

fn read_sysv<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    at: u64,
) -> Result<(HashTable, u32), ElfError> {
    const WHAT: &str = "hash table";
    let malformed = || ElfError::Malformed(WHAT);
    let head = headers.read_vaddr(source, WHAT, at, 8)?;
    let nbuckets = u32_at(&head, 0).ok_or_else(malformed)?;
    let nchains = u32_at(&head, 4).ok_or_else(malformed)?;
    if u64::from(nbuckets) > MAX_WORDS || u64::from(nchains) > MAX_WORDS {
        return Err(malformed());
    }
    let buckets_at = at.checked_add(8).ok_or_else(malformed)?;
    let chains_at = buckets_at.checked_add(u64::from(nbuckets) * 4).ok_or_else(malformed)?;
    let buckets = read_words(source, headers, WHAT, buckets_at, u64::from(nbuckets))?;
    let chains = read_words(source, headers, WHAT, chains_at, u64::from(nchains))?;
    Ok((HashTable::Sysv { buckets, chains }, nchains))
}

fn read_words<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    what: &'static str,
    at: u64,
    count: u64,
) -> Result<Vec<u32>, ElfError> {
    let bytes = headers.read_vaddr(source, what, at, count * 4)?;
    Ok(bytes.chunks_exact(4).filter_map(|chunk| u32_at(chunk, 0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_match_the_abi_examples() {
        assert_eq!(gnu_hash(b""), 5381);
        assert_eq!(gnu_hash(b"printf"), 0x156b_2bb8);
        assert_eq!(sysv_hash(b"printf"), 0x0779_05a6);
        assert_eq!(sysv_hash(b"syscall"), 0x0b09_985c);
    }

    #[test]
    fn a_looping_system_v_chain_ends() {
        let table = HashTable::Sysv { buckets: vec![1], chains: vec![0, 2, 1] };
        assert!(table.candidates(&SymbolName::new(b"x")).count() <= 3);
    }
}
