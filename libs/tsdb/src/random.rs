//! Repeatable random numbers for tests, and random damage to chunks.

use crate::{ChunkError, Encoding};

/// A xorshift generator: the same numbers for the same seed on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Flips bits, cuts, extends or overwrites `payload` in `rounds` ways and reads each with `decode`, which returns the number
/// of samples. A result is correct if it is an error that names the encoding and the offset, or the number of samples that
/// the header announces.
pub(crate) fn survives_damage(
    encoding: Encoding,
    payload: &[u8],
    rounds: usize,
    seed: u64,
    decode: impl Fn(&[u8]) -> Result<usize, ChunkError>,
) {
    let mut random = Random::seeded(seed);
    let mut refused = 0;
    for round in 0..rounds {
        let mut damaged = payload.to_vec();
        match random.below(4) {
            0 => damaged.truncate(random.below(payload.len())),
            1 => damaged.extend((0..random.below(9)).map(|_| 0xa5)),
            2 => {
                let at = random.below(payload.len());
                damaged[at..].iter_mut().for_each(|byte| *byte = random.next() as u8);
            }
            _ => {}
        }
        for _ in 0..random.below(4) {
            let bits = damaged.len() * 8;
            if bits > 0 {
                let at = random.below(bits);
                damaged[at / 8] ^= 1 << (at % 8);
            }
        }
        match decode(&damaged) {
            Ok(samples) => {
                let announced = crate::chunk::sample_count(encoding, &damaged);
                assert_eq!(Some(samples), announced, "seed {seed}, round {round}");
            }
            Err(error) => {
                refused += 1;
                assert!(error.offset <= damaged.len(), "seed {seed}, round {round}: {error}");
                assert!(error.to_string().contains(&error.encoding.to_string()));
            }
        }
    }
    assert!(refused > rounds / 10, "only {refused} of {rounds} damaged chunks were rejected");
}
