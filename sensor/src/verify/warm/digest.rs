//! A keyed digest of bytes that an attacker chooses, at the speed of reading them.
//!
//! A polynomial over the prime field of 2^61 - 1, evaluated at a secret point (Carter and Wegman,
//! "Universal classes of hash functions", 1979): two different texts of one length have the same
//! digest for at most one point in 2^61 per 7.5 bytes of text. For who cannot read the secret (and
//! who can, could as well forge the verdict), a megabyte goes unnoticed with a chance below 2^-43.

use std::hash::{BuildHasher, RandomState};

/// The field's prime.
const PRIME: u64 = (1 << 61) - 1;
/// Coefficients are numbers below 2^60.
const BITS: u32 = 60;
/// Words that give one block of coefficients: their tops together are one more.
const WORDS: usize = 15;
/// Bytes of a block.
const BLOCK: usize = WORDS * 8;
/// Coefficients of a block, taken in at once: the products do not depend on each other.
const LANES: usize = WORDS + 1;

/// The secret point with its powers, highest first.
#[derive(Clone, Copy)]
pub(crate) struct Secret([u64; LANES]);

/// A digest in the making.
#[derive(Clone)]
pub(crate) struct Digest {
    secret: Secret,
    state: u64,
    /// The begun block.
    block: [u8; BLOCK],
    filled: usize,
    /// Bytes so far.
    bytes: u64,
}

// === impl Secret ===

impl Secret {
    /// A point nobody else knows: the standard library seeds its maps with the kernel's randomness.
    pub(crate) fn new() -> Self {
        Self::from_point(RandomState::new().hash_one(0_u8) % (PRIME - 2) + 2)
    }

    fn from_point(point: u64) -> Self {
        let mut powers = [point; LANES];
        let mut power = point;
        for place in powers.iter_mut().rev().skip(1) {
            power = reduce(u128::from(power) * u128::from(point));
            *place = power;
        }
        Self(powers)
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest { secret: *self, state: 0, block: [0; BLOCK], filled: 0, bytes: 0 }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

// === impl Digest ===

impl Digest {
    /// Takes in more text; how it is cut into pieces makes no difference.
    pub(crate) fn add(&mut self, mut bytes: &[u8]) {
        self.bytes = self.bytes.wrapping_add(bytes.len() as u64);
        if self.filled > 0 {
            let take = bytes.len().min(BLOCK - self.filled);
            let (head, rest) = bytes.split_at(take);
            if let Some(place) = self.block.get_mut(self.filled..self.filled + take) {
                place.copy_from_slice(head);
            }
            (self.filled, bytes) = (self.filled + take, rest);
            if self.filled < BLOCK {
                return;
            }
            self.state = mix(&self.secret, self.state, &self.block);
            self.filled = 0;
        }
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for block in blocks {
            self.state = mix(&self.secret, self.state, block);
        }
        if let Some(place) = self.block.get_mut(..rest.len()) {
            place.copy_from_slice(rest);
            self.filled = rest.len();
        }
    }

    pub(crate) fn finish(mut self) -> u64 {
        if let Some(rest) = self.block.get_mut(self.filled..) {
            rest.fill(0);
            self.state = mix(&self.secret, self.state, &self.block);
        }
        let [.., point] = self.secret.0;
        reduce(u128::from(self.state + self.bytes % PRIME) * u128::from(point))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digest").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// The state after one more block.
fn mix(secret: &Secret, state: u64, block: &[u8; BLOCK]) -> u64 {
    let [first, powers @ .., point] = &secret.0;
    let mut words = block.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let low = |word: u64| word & ((1 << BITS) - 1);
    let head = words.next().unwrap_or(0);
    let (mut tops, mut sum) = (head >> BITS, 0_u128);
    for (word, power) in words.zip(powers) {
        tops = tops << 4 | word >> BITS;
        sum += u128::from(low(word)) * u128::from(*power);
    }
    sum += u128::from(tops) * u128::from(*point);
    // Last, for all before does not wait for the block before. The state is below 2^61 and so is
    // every power: no sum reaches 2^126.
    reduce(sum + u128::from(state + low(head)) * u128::from(*first))
}

/// The remainder of a number below 2^126.
fn reduce(value: u128) -> u64 {
    let part = |shift: u32| {
        let low = (value >> shift) & u128::from(PRIME);
        u64::try_from(low).unwrap_or(u64::MAX)
    };
    let sum = part(0) + part(61) + part(122);
    let sum = (sum & PRIME) + (sum >> 61);
    if sum >= PRIME { sum - PRIME } else { sum }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(secret: &Secret, bytes: &[u8]) -> u64 {
        let mut digest = secret.digest();
        digest.add(bytes);
        digest.finish()
    }

    /// The definition, one coefficient after the other.
    fn slow(point: u64, bytes: &[u8]) -> u64 {
        let mut padded = bytes.to_vec();
        padded.resize((bytes.len() / BLOCK + 1) * BLOCK, 0);
        let mut state = 0_u128;
        let mut take = |number: u64| {
            state = (state + u128::from(number)) * u128::from(point) % u128::from(PRIME);
        };
        for block in padded.chunks(BLOCK) {
            let words: Vec<u64> =
                block.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
            for word in &words {
                take(word & ((1 << 60) - 1));
            }
            take(words.iter().fold(0, |tops, word| tops << 4 | word >> 60));
        }
        take(bytes.len() as u64);
        u64::try_from(state).unwrap()
    }

    #[test]
    fn secrets_differ() {
        assert_ne!(Secret::new().0, Secret::new().0);
    }

    #[test]
    fn every_bit_counts() {
        let secret = Secret::new();
        for size in [1, 8, 119, 120, 121, 400] {
            let mut bytes = vec![0xa5; size];
            let right = of(&secret, &bytes);
            for bit in 0..size * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(of(&secret, &bytes), right, "bit {bit} of {size} bytes");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            bytes.push(0);
            assert_ne!(of(&secret, &bytes), right, "a zero behind {size} bytes");
        }
    }

    proptest! {
        #[test]
        fn it_is_the_polynomial_however_it_is_cut(
            point in 2..PRIME,
            bytes in proptest::collection::vec(any::<u8>(), 0..700),
            cuts in proptest::collection::vec(0_usize..300, 0..6),
        ) {
            let secret = Secret::from_point(point);
            let mut digest = secret.digest();
            let mut rest = bytes.as_slice();
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                digest.add(head);
                rest = tail;
            }
            digest.add(rest);
            prop_assert_eq!(digest.finish(), slow(point, &bytes));
        }
    }
}
