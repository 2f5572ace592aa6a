//! The k-way merge of sorted streams of series.

use std::fmt;
use std::vec;

use model::Labels;

use crate::{AggrChunk, Series};

/// The chunks that one input of a [`Merge`] has of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution {
    /// Number of the input.
    pub input: usize,
    /// Its chunks, in the order in which they arrived; empty only when the request asked for labels only.
    pub chunks: Vec<AggrChunk>,
}

/// A label set and the chunks that each input has of it.
#[derive(Clone, Debug, PartialEq)]
pub struct MergedSeries {
    /// What identifies the series.
    pub labels: Labels,
    /// At least one, sorted by the number of the input, whatever the timing of the inputs.
    pub contributions: Vec<Contribution>,
}

/// The result of a step of a [`Merge`].
#[derive(Debug, PartialEq)]
pub enum Step {
    /// The merge cannot continue before the caller [offers](Merge::offer) the next batch of this input, or
    /// [ends](Merge::end) it.
    NeedsBatch(usize),
    /// The next series; labels ascend strictly from one to the next.
    Series(MergedSeries),
    /// All inputs have ended, and every series was returned.
    Done,
}

/// Why a batch is rejected. The whole batch is dropped; earlier batches are kept.
#[derive(Clone, PartialEq, thiserror::Error)]
pub enum MergeError {
    /// The input is not sorted by labels. Its further data is not reliable: the caller has to end the input.
    #[error("input {input} is not sorted: {next} came after {last}")]
    Unsorted {
        /// Number of the input.
        input: usize,
        /// The label set before.
        last: Labels,
        /// The label set that sorts before it.
        next: Labels,
    },
    /// The merge did not ask for a batch: the input does not exist, has ended, or its last batch is not used up.
    #[error(
        "input {input} was offered a batch, but it has ended, does not exist, or has not used up its last batch"
    )]
    UnexpectedBatch {
        /// Number of the input.
        input: usize,
    },
}

impl fmt::Debug for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Merges sorted streams of series into one, without I/O: the caller fetches the batches that it asks for.
///
/// Each input is a stream of batches, sorted by label set. Equal label sets are adjacent and may be split over several
/// series and batches. The merge groups equal label sets of all inputs and returns them in label order. It keeps at most
/// one batch of each input in memory, and the current series, so its memory depends on the batches and not on the streams.
/// The result depends only on the contents and numbers of the inputs: not on how they are cut into batches, nor on the
/// order in which batches are offered.
///
/// ```
/// use model::Labels;
/// use series::{Merge, Series, Step};
///
/// let up = |job| Series { labels: Labels::from_pairs([("job", job)]).unwrap(), chunks: Vec::new() };
/// let mut inputs = [vec![vec![up("a"), up("c")]], vec![vec![up("b")], vec![up("c")]]].map(Vec::into_iter);
/// let (mut merge, mut jobs) = (Merge::new(2), Vec::new());
/// loop {
///     match merge.step() {
///         Step::NeedsBatch(input) => match inputs[input].next() {
///             Some(batch) => merge.offer(input, batch)?,
///             None => merge.end(input),
///         },
///         Step::Series(series) => jobs.push((series.labels.value("job").to_owned(), series.contributions.len())),
///         Step::Done => break,
///     }
/// }
/// assert_eq!(jobs, [("a".to_owned(), 1), ("b".to_owned(), 1), ("c".to_owned(), 2)]);
/// # Ok::<(), series::MergeError>(())
/// ```
pub struct Merge {
    inputs: Vec<MergeInput>,
    /// A tree of losers: node 0 is the winner; node `n` is the loser of the match between its two subtrees, where
    /// input `i` is leaf `inputs.len() + i`. Valid once `built`, except on the path of `moved`.
    tree: Vec<usize>,
    built: bool,
    /// The input whose head was taken. Its matches have to be played again.
    moved: Option<usize>,
    /// Number of inputs that have not ended and have no head.
    starved: usize,
    /// The series whose contributions are being collected.
    current: Option<MergedSeries>,
}

struct MergeInput {
    /// The next series; `None` where the batch is used up.
    head: Option<Series>,
    batch: vec::IntoIter<Series>,
    /// The last label set that was offered.
    last: Option<Labels>,
    ended: bool,
}

impl MergeInput {
    fn is_starved(&self) -> bool {
        self.head.is_none() && !self.ended
    }
}

impl Merge {
    /// A merge of inputs 0 to `inputs - 1`.
    pub fn new(inputs: usize) -> Self {
        let input = || MergeInput { head: None, batch: Vec::new().into_iter(), last: None, ended: false };
        Self {
            inputs: (0..inputs).map(|_| input()).collect(),
            tree: vec![0; inputs],
            built: false,
            moved: None,
            starved: inputs,
            current: None,
        }
    }

    /// Whether `input` has not ended and has used up its last batch. The merge needs a batch of each such input before it
    /// continues; the caller may offer them in any order.
    pub fn needs_batch(&self, input: usize) -> bool {
        self.inputs.get(input).is_some_and(MergeInput::is_starved)
    }

    /// Offers the next batch of an input, which may be empty.
    ///
    /// # Errors
    /// When the batch is not sorted (the caller then [ends](Merge::end) the input and adds a warning to the answer), or the
    /// merge did not ask for it.
    pub fn offer(&mut self, input: usize, batch: Vec<Series>) -> Result<(), MergeError> {
        let Some(slot) = self.inputs.get_mut(input).filter(|slot| slot.is_starved()) else {
            return Err(MergeError::UnexpectedBatch { input });
        };
        let mut last = slot.last.as_ref();
        for series in &batch {
            if let Some(last) = last.filter(|last| **last > series.labels) {
                return Err(MergeError::Unsorted { input, last: last.clone(), next: series.labels.clone() });
            }
            last = Some(&series.labels);
        }
        slot.last = last.cloned();
        slot.batch = batch.into_iter();
        slot.head = slot.batch.next();
        if slot.head.is_some() {
            self.starved -= 1;
        }
        Ok(())
    }

    /// Ends an input: it has no more batches. Batches that were offered before are kept.
    pub fn end(&mut self, input: usize) {
        if let Some(slot) = self.inputs.get_mut(input) {
            if slot.is_starved() {
                self.starved -= 1;
            }
            slot.ended = true;
        }
    }

    /// Takes the next step.
    pub fn step(&mut self) -> Step {
        loop {
            if self.starved > 0
                && let Some(input) = self.inputs.iter().position(MergeInput::is_starved)
            {
                return Step::NeedsBatch(input);
            }
            let Some(winner) = self.winner() else {
                return self.current.take().map_or(Step::Done, Step::Series);
            };
            let next = self.inputs[winner].head.as_ref().map(|series| &series.labels);
            if self.current.as_ref().map(|current| &current.labels) != next
                && let Some(complete) = self.current.take()
            {
                return Step::Series(complete);
            }
            self.take(winner);
        }
    }

    /// The input whose head sorts first, by number where heads are equal; `None` where all inputs are used up.
    fn winner(&mut self) -> Option<usize> {
        if !self.built {
            self.build();
        } else if let Some(moved) = self.moved.take() {
            self.replay(moved);
        }
        self.tree.first().copied().filter(|&winner| self.inputs[winner].head.is_some())
    }

    /// Adds the head of `input` to the current series.
    fn take(&mut self, input: usize) {
        let slot = &mut self.inputs[input];
        let Some(series) = std::mem::replace(&mut slot.head, slot.batch.next()) else { return };
        if slot.is_starved() {
            self.starved += 1;
        }
        self.moved = Some(input);
        let current = self.current.get_or_insert_with(|| MergedSeries {
            labels: series.labels,
            contributions: Vec::with_capacity(2),
        });
        match current.contributions.last_mut().filter(|last| last.input == input) {
            Some(last) => last.chunks.extend(series.chunks),
            None => current.contributions.push(Contribution { input, chunks: series.chunks }),
        }
    }

    /// Whether the head of input `a` comes before that of `b`.
    fn is_before(&self, a: usize, b: usize) -> bool {
        match (&self.inputs[a].head, &self.inputs[b].head) {
            (Some(x), Some(y)) => x.labels.cmp(&y.labels).then(a.cmp(&b)).is_lt(),
            (x, _) => x.is_some(),
        }
    }

    /// Plays all matches, from the leaves up.
    fn build(&mut self) {
        let inputs = self.inputs.len();
        let mut winners: Vec<usize> = (0..2 * inputs).map(|node| node.saturating_sub(inputs)).collect();
        for node in (1..inputs).rev() {
            let (a, b) = (winners[2 * node], winners[2 * node + 1]);
            (winners[node], self.tree[node]) = if self.is_before(a, b) { (a, b) } else { (b, a) };
        }
        if inputs > 0 {
            // With one input, node 1 is its leaf.
            self.tree[0] = winners[1];
        }
        self.built = true;
        self.moved = None;
    }

    /// Plays the matches of the last winner again, after its head changed.
    fn replay(&mut self, input: usize) {
        let mut winner = input;
        let mut node = (self.inputs.len() + input) / 2;
        while node > 0 {
            if self.is_before(self.tree[node], winner) {
                std::mem::swap(&mut self.tree[node], &mut winner);
            }
            node /= 2;
        }
        self.tree[0] = winner;
    }
}

#[cfg(test)]
mod tests;
