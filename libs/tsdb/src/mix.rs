//! Pseudo-random numbers that are the same on every machine.

/// Mixes the bits of a number: the finalizer of SplitMix64. Different numbers give different results.
pub(crate) fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A sequence of pseudo-random numbers.
pub(crate) struct MixedNumbers(u64);

impl MixedNumbers {
    /// The sequence for `seeds`, in their order.
    pub(crate) fn of(seeds: &[u64]) -> Self {
        Self(seeds.iter().fold(0, |state, seed| mixed(state ^ mixed(*seed))))
    }

    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// A number below `bound`, which must not be 0, about evenly distributed.
    #[inline]
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True with probability `share`.
    pub(crate) fn happens(&mut self, share: f64) -> bool {
        (self.next() >> 11) as f64 / ((1u64 << 53) as f64) < share
    }
}
