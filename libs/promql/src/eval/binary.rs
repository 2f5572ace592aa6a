//! Operators between two vectors: [`join`] for arithmetic and comparisons, [`set`] for `and`, `or` and `unless`.
//!
//! A join has four files: `rule` (two values), `naming` (labels), `results` (one series and its partners), [`join`] (all series).

pub(crate) mod join;
mod naming;
mod results;
mod rule;
pub(crate) mod set;

use crate::plan::node::Grouping;
use crate::syntax::ast::VectorMatching;

/// The grouping of a matching: series match if they are in the same group.
fn signature(matching: &VectorMatching) -> Grouping {
    let mut labels = matching.labels.clone();
    labels.sort_unstable();
    labels.dedup();
    Grouping { labels, without: !matching.on }
}

/// One bit for each step.
#[derive(Clone, Debug, Default)]
struct Bits {
    words: Vec<u64>,
}

impl Bits {
    fn get(&self, step: usize) -> bool {
        self.words.get(step / 64).is_some_and(|word| word >> (step % 64) & 1 == 1)
    }

    /// Sets the bit; returns whether it was set before.
    fn set(&mut self, step: usize) -> bool {
        if self.words.len() <= step / 64 {
            self.words.resize(step / 64 + 1, 0);
        }
        let word = &mut self.words[step / 64];
        let before = *word >> (step % 64) & 1 == 1;
        *word |= 1 << (step % 64);
        before
    }
}

/// Memory of a bit for each step, in bytes.
fn bit_bytes(steps: usize) -> usize {
    steps / 8 + 8
}
