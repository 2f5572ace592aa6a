//! Restores the order of series after external labels are attached, without buffering the whole answer.
//!
//! Prometheus and the index of a block have series sorted by their stored labels. Attaching the same external labels to all of them,
//! and removing labels that none of them stores, keeps that order with one exception: a series whose stored
//! labels are a prefix of those of the next series. `{a="1"}` sorts before `{a="1",b="2"}`, but
//! `{a="1",b="2",cluster="x"}` sorts before `{a="1",cluster="x"}`. All series with a given prefix follow it
//! directly. So it is enough to hold back a series while the following ones extend it. This is usually one
//! series, and never more than a label set has labels.
//!
//! The premise is that no series *stores* a label with the name of an attached or removed label. [`Reorder`]
//! verifies its output: if the premise is violated, the stream ends with an error instead of a wrong order.

use crate::{AggrChunk, Series};
use model::Labels;

/// The output would be out of order, which the premise of [`Reorder`] excludes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("series are out of order: {after} follows {before}")]
pub struct OutOfOrder {
    before: Labels,
    after: Labels,
}

struct HeldBackSeries {
    /// The labels by which the source sorts.
    stored: Labels,
    series: Series,
}

/// Converts series from the order of their stored labels to the order of StoreAPI, without I/O.
///
/// It holds back one series, or a few whose labels extend one another.
pub struct Reorder {
    external: Labels,
    removed: Vec<String>,
    /// Series that are held back. The stored labels of each are a proper prefix of those of the next.
    held: Vec<HeldBackSeries>,
    last: Option<Labels>,
}

impl Reorder {
    /// Attaches `external` to every series and removes the labels named in `removed`.
    pub fn new(external: &Labels, removed: &[String]) -> Self {
        let external = external.without(|name| removed.iter().any(|r| r == name));
        Self { external, removed: removed.to_vec(), held: Vec::new(), last: None }
    }

    /// Adds the next series, and returns in `ready` the series whose position is known.
    ///
    /// `received` may already include the external labels, because remote read of Prometheus merges them in. Consecutive
    /// parts of one series are joined.
    ///
    /// # Errors
    /// When a series stores a label with the name of an attached or removed label, so that the output would be out of order.
    pub fn offer(
        &mut self,
        received: &Labels,
        chunks: Vec<AggrChunk>,
        ready: &mut Vec<Series>,
    ) -> Result<(), OutOfOrder> {
        let attached = |name: &str| self.external.get(name).is_some();
        let stored = received.without(|name| attached(name) || self.removed.iter().any(|r| r == name));
        self.offer_stored(stored, chunks, ready)
    }

    /// As [`Reorder::offer`], for a series that is known to have none of the attached or removed labels.
    ///
    /// # Errors
    /// As [`Reorder::offer`].
    pub fn offer_stored(
        &mut self,
        stored: Labels,
        chunks: Vec<AggrChunk>,
        ready: &mut Vec<Series>,
    ) -> Result<(), OutOfOrder> {
        let labels = stored.extended(&self.external);
        while let Some(top) = self.held.last_mut() {
            if top.stored == stored {
                top.series.chunks.extend(chunks);
                return Ok(());
            }
            if stored.starts_with(&top.stored) && top.series.labels > labels {
                break;
            }
            self.release(ready)?;
        }
        self.held.push(HeldBackSeries { stored, series: Series { labels, chunks } });
        Ok(())
    }

    /// Returns in `ready` the series that are still held back.
    ///
    /// # Errors
    /// As [`Reorder::offer`].
    pub fn finish(mut self, ready: &mut Vec<Series>) -> Result<(), OutOfOrder> {
        while !self.held.is_empty() {
            self.release(ready)?;
        }
        Ok(())
    }

    fn release(&mut self, ready: &mut Vec<Series>) -> Result<(), OutOfOrder> {
        let Some(HeldBackSeries { series, .. }) = self.held.pop() else { return Ok(()) };
        if let Some(before) = self.last.take().filter(|last| *last >= series.labels) {
            return Err(OutOfOrder { before, after: series.labels });
        }
        self.last = Some(series.labels.clone());
        ready.push(series);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    fn reorder(stored: &[Labels], external: &Labels, removed: &[String]) -> Result<Vec<Labels>, OutOfOrder> {
        let (mut machine, mut ready) = (Reorder::new(external, removed), Vec::new());
        for labels in stored {
            machine.offer(&external.extended(labels), Vec::new(), &mut ready)?;
        }
        machine.finish(&mut ready)?;
        Ok(ready.into_iter().map(|s| s.labels).collect())
    }

    #[test]
    fn series_that_is_a_prefix_of_the_next_one_is_held_back() {
        let stored =
            [labels(&[("a", "1")]), labels(&[("a", "1"), ("b", "2")]), labels(&[("a", "1"), ("z", "2")])];
        let external = labels(&[("cluster", "x")]);
        let expected = [
            labels(&[("a", "1"), ("b", "2"), ("cluster", "x")]),
            labels(&[("a", "1"), ("cluster", "x")]),
            labels(&[("a", "1"), ("cluster", "x"), ("z", "2")]),
        ];
        assert_eq!(reorder(&stored, &external, &[]).unwrap(), expected);
    }

    #[test]
    fn consecutive_parts_of_a_series_are_joined() {
        let (mut machine, mut ready) = (Reorder::new(&Labels::empty(), &[]), Vec::new());
        let series = labels(&[("a", "1")]);
        machine.offer(&series, vec![AggrChunk::default()], &mut ready).unwrap();
        machine.offer(&series, vec![AggrChunk::default()], &mut ready).unwrap();
        machine.finish(&mut ready).unwrap();
        assert_eq!((ready.len(), ready[0].chunks.len()), (1, 2));
    }

    #[test]
    fn stored_external_label_is_detected_as_out_of_order() {
        let external = labels(&[("cluster", "x")]);
        let stored = [labels(&[("cluster", "a"), ("z", "2")]), labels(&[("cluster", "b"), ("z", "1")])];
        assert!(reorder(&stored, &external, &[]).is_err());
    }

    fn label_set() -> impl Strategy<Value = Labels> {
        prop::collection::btree_map("[abdfhz]", "[12]", 0..5).prop_map(|m| Labels::from_pairs(m).unwrap())
    }

    proptest! {
        #[test]
        fn order_equals_that_of_a_full_sort(
            stored in prop::collection::btree_set(label_set(), 0..60),
            external in prop::collection::btree_map("[ceg]", "[xy]", 0..3),
            removed in prop::collection::vec("[ceg]", 0..2),
        ) {
            let stored: Vec<Labels> = stored.into_iter().collect();
            let external = Labels::from_pairs(external).unwrap();
            let kept = external.without(|n| removed.iter().any(|r| r == n));
            let mut sorted: Vec<Labels> = stored.iter().map(|l| l.extended(&kept)).collect();
            sorted.sort();
            prop_assert_eq!(reorder(&stored, &external, &removed).unwrap(), sorted);
        }
    }
}
