//! Pseudo-random numbers that are the same each time.

use std::f64::consts::TAU;

/// Steele, Lea and Flood: Fast splittable pseudorandom number generators (2014).
#[derive(Clone, Debug)]
pub(crate) struct SplitMix64(pub(crate) u64);

impl SplitMix64 {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is small enough for the bias not to matter.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    /// Above 0 and below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        let drawn = u32::try_from(self.next() >> 32).unwrap_or(0);
        (f64::from(drawn) + 0.5) / 4_294_967_296.0
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, many: f64) -> bool {
        self.unit() * many < 1.0
    }

    /// Standard normal (Box and Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_moments_that_they_should() {
        let mut random = SplitMix64(7);
        let normals: Vec<f64> = (0..20_000).map(|_| random.normal()).collect();
        let mean = |values: &[f64], power: i32| {
            values.iter().map(|value| value.powi(power)).sum::<f64>() / 20_000.0
        };
        assert!(mean(&normals, 1).abs() < 0.03 && (mean(&normals, 2) - 1.0).abs() < 0.05);
        assert!((mean(&normals, 4) - 3.0).abs() < 0.3);
        let hits = (0..20_000).filter(|_| random.one_in(8.0)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
    }
}
