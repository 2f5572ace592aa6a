//! Sizes and random numbers of tests that the environment sets.

/// The number in an environment variable, or `usual` without one.
pub fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Random numbers that depend on a seed only.
pub struct Seeded(u64);

impl Seeded {
    /// The numbers of a seed, which the environment variable `ISTHMUS_SEED` replaces. Prints the seed.
    pub fn from_environment(usual: u64) -> Self {
        let seed = number("ISTHMUS_SEED", usual);
        println!("seed {seed} (ISTHMUS_SEED)");
        Self(seed | 1)
    }

    /// The next number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // xorshift
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}
