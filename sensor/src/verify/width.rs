//! The size of an address: 32-bit programs run under 64-bit kernels too.

use super::bytes::{u32_at, u64_at};

/// Pointer size of a file or of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Width {
    /// 32-bit (`ELFCLASS32`).
    Four,
    /// 64-bit (`ELFCLASS64`).
    #[default]
    Eight,
}

impl Width {
    /// Bytes of one address.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// Bytes of one address, as a length.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// One address at `at`, or `None` past the end.
    pub(crate) fn word_at(self, bytes: &[u8], at: usize) -> Option<u64> {
        match self {
            Self::Four => u32_at(bytes, at).map(u64::from),
            Self::Eight => u64_at(bytes, at),
        }
    }

    /// Addresses wrap where the processor's do.
    pub(crate) fn add(self, base: u64, vaddr: u64) -> u64 {
        self.cut(base.wrapping_add(vaddr))
    }

    /// See [`Width::add`].
    pub(crate) fn sub(self, addr: u64, base: u64) -> u64 {
        self.cut(addr.wrapping_sub(base))
    }

    fn cut(self, value: u64) -> u64 {
        match self {
            Self::Four => value & 0xffff_ffff,
            Self::Eight => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_wrap_at_the_width() {
        assert_eq!(Width::Four.add(0xffff_f000, 0x2000), 0x1000);
        assert_eq!(Width::Eight.add(0xffff_f000, 0x2000), 0x1_0000_1000);
        assert_eq!(Width::Four.sub(0x1000, 0x2000), 0xffff_f000);
    }

    #[test]
    fn words_are_as_long_as_their_width() {
        let bytes = [1, 0, 0, 0, 2, 0, 0, 0];
        assert_eq!(Width::Four.word_at(&bytes, 4), Some(2));
        assert_eq!(Width::Eight.word_at(&bytes, 0), Some(0x2_0000_0001));
        assert_eq!(Width::Eight.word_at(&bytes, 4), None);
    }
}
