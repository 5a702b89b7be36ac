//! A keyed digest of bytes that an attacker chooses, at the speed of reading them.
//!
//! Each block of the text is hashed by NH with words of 64 bits (Black, Halevi, Krawczyk, Krovetz,
//! Rogaway, "UMAC: Fast and secure message authentication", 1999): two different blocks have the
//! same hash with a chance of 2^-64. The hashes are the coefficients of a polynomial over the prime
//! field of 2^61 - 1, evaluated at a secret point (Carter and Wegman, "Universal classes of hash
//! functions", 1979): two different polynomials agree in at most as many points as they have
//! coefficients, three for 256 bytes. For who cannot read the secret (and who can, could as well
//! forge the verdict), a change in a megabyte goes unnoticed with a chance below 2^-47.

use std::hash::{BuildHasher, RandomState};

/// The field's prime.
const PRIME: u64 = (1 << 61) - 1;
/// Coefficients are numbers below 2^60.
const BITS: u32 = 60;
/// Words of a block; NH multiplies them in pairs.
const WORDS: usize = 32;
/// Bytes of a block.
const BLOCK: usize = WORDS * 8;

/// The keys of NH, and the secret point's third, second and first power.
#[derive(Clone, Copy)]
pub(crate) struct Secret {
    keys: [u64; WORDS],
    powers: [u64; 3],
}

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
    /// One nobody else knows: the standard library seeds its maps with the kernel's randomness, and
    /// their hash function is a pseudorandom one.
    pub(crate) fn new() -> Self {
        let random = RandomState::new();
        let keys = std::array::from_fn(|number| random.hash_one(number));
        let point = random.hash_one(WORDS) % (PRIME - 2) + 2;
        Self { keys, powers: powers(point) }
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
        let [.., point] = self.secret.powers;
        reduce(u128::from(self.state + self.bytes % PRIME) * u128::from(point))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digest").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

fn powers(point: u64) -> [u64; 3] {
    let next = |power: u64| reduce(u128::from(power) * u128::from(point));
    let second = next(point);
    [next(second), second, point]
}

/// The state after one more block.
fn mix(secret: &Secret, state: u64, block: &[u8; BLOCK]) -> u64 {
    let words = block.as_chunks::<16>().0;
    let keys = secret.keys.as_chunks::<2>().0;
    let mut sum = 0_u128;
    for (pair, [left_key, right_key]) in words.iter().zip(keys) {
        let pair = u128::from_le_bytes(*pair);
        let left = low(pair, 64).wrapping_add(*left_key);
        let right = low(pair >> 64, 64).wrapping_add(*right_key);
        sum = sum.wrapping_add(u128::from(left) * u128::from(right));
    }
    let [third, second, first] = secret.powers.map(u128::from);
    // The state and the powers are below 2^61, so the sum stays below 2^124.
    let state = u128::from(state + low(sum >> (2 * BITS), BITS)) * third;
    let (middle, end) = (low(sum >> BITS, BITS), low(sum, BITS));
    reduce(state + u128::from(middle) * second + u128::from(end) * first)
}

/// The remainder of a number below 2^124.
fn reduce(value: u128) -> u64 {
    let sum = low(value, 61) + low(value >> 61, 61) + low(value >> 122, 61);
    let sum = (sum & PRIME) + (sum >> 61);
    if sum >= PRIME { sum - PRIME } else { sum }
}

/// The lowest bits, at most 64.
fn low(value: u128, bits: u32) -> u64 {
    u64::try_from(value & (u128::from(u64::MAX) >> (64 - bits))).unwrap_or(u64::MAX)
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

    /// The definition, one word and one coefficient after the other.
    fn slow(secret: &Secret, bytes: &[u8]) -> u64 {
        let mut padded = bytes.to_vec();
        padded.resize((bytes.len() / BLOCK + 1) * BLOCK, 0);
        let [.., point] = secret.powers;
        let mut state = 0_u128;
        let mut take = |number: u128| {
            state = (state + number) * u128::from(point) % u128::from(PRIME);
        };
        for block in padded.chunks(BLOCK) {
            let words: Vec<u64> =
                block.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
            let keyed: Vec<u128> = words
                .iter()
                .zip(secret.keys)
                .map(|(word, key)| u128::from(word.wrapping_add(key)))
                .collect();
            let hash =
                keyed.chunks(2).fold(0_u128, |sum, pair| sum.wrapping_add(pair[0] * pair[1]));
            take(hash >> 120);
            take(hash >> 60 & ((1 << 60) - 1));
            take(hash & ((1 << 60) - 1));
        }
        take(bytes.len() as u128);
        u64::try_from(state).unwrap()
    }

    #[test]
    fn secrets_differ() {
        let (one, other) = (Secret::new(), Secret::new());
        assert_ne!((one.keys, one.powers), (other.keys, other.powers));
    }

    #[test]
    fn every_bit_counts() {
        let secret = Secret::new();
        for size in [1, 8, 255, 256, 257, 600] {
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
            bytes in proptest::collection::vec(any::<u8>(), 0..1500),
            cuts in proptest::collection::vec(0_usize..700, 0..6),
        ) {
            let secret = Secret { powers: powers(point), ..Secret::new() };
            let mut digest = secret.digest();
            let mut rest = bytes.as_slice();
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                digest.add(head);
                rest = tail;
            }
            digest.add(rest);
            prop_assert_eq!(digest.finish(), slow(&secret, &bytes));
        }
    }
}
