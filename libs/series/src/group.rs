//! Makes one series of what the inputs of the merge have of it: to pass on, or to evaluate.

use model::{TimeRange, Timestamp};

use crate::covered::drop_covered;
use crate::selected::MAX_REPLICAS;
use crate::{AggrChunk, MergedSeries, Producer, SelectedSeries, Series};

impl MergedSeries {
    /// The series as a store passes it on: the chunks of all inputs, sorted by min and max time, without copies. A copy is
    /// equal byte for byte.
    pub fn into_series(mut self) -> Series {
        self.drop_copies();
        let mut chunks: Vec<AggrChunk> = self.contributions.into_iter().flat_map(|c| c.chunks).collect();
        // Stable, so that chunks of one range stay in the order of the inputs.
        sort(&mut chunks);
        Series { labels: self.labels, chunks }
    }

    /// The series for evaluation, by replicas.
    ///
    /// Chunks of one producer are one replica, whatever stores they come from. Replicas with a known producer come first, in
    /// the order of its number, so that the same replica is preferred in every query and for every series.
    ///
    /// Where a store does not say the producer, each input is a replica: when stores removed replica labels, equal label
    /// sets of two inputs are two replicas. One input may also contain several replicas (when it is a querier): their chunks
    /// overlap and are separated into lanes. On the other hand, a lane that begins after another one ends continues it, so
    /// that recent data of one store and old data of another one are joined without a change of replica. When such replicas
    /// have equal samples, decoding finds that they are one. Of chunks that are equal byte for byte, one is kept.
    /// Chunks without data are dropped, and aggregates of times of which the same producer has raw samples.
    pub fn into_selected(mut self) -> SelectedSeries {
        self.drop_copies();
        let mut known: Vec<(Producer, Vec<AggrChunk>)> = Vec::with_capacity(self.contributions.len());
        let mut lanes_by_time: Vec<Vec<AggrChunk>> = Vec::new();
        for mut contribution in self.contributions {
            let chunks = &mut contribution.chunks;
            chunks.retain(|chunk| !chunk.range().is_empty());
            if !chunks.is_sorted_by_key(|chunk| chunk.producer) {
                chunks.sort_by_key(|chunk| chunk.producer);
            }
            let unknown = chunks.partition_point(|chunk| chunk.producer.is_none());
            let mut rest = chunks.split_off(unknown);
            while let Some(producer) = rest.first().and_then(|chunk| chunk.producer) {
                let same = rest.partition_point(|chunk| chunk.producer == Some(producer));
                let others = rest.split_off(same);
                known.push((producer, std::mem::replace(&mut rest, others)));
            }
            for lane in lanes(contribution.chunks) {
                join(&mut lanes_by_time, lane);
            }
        }
        known.sort_by_key(|(producer, _)| *producer);
        known.dedup_by(|(producer, later), (kept_producer, kept)| {
            let same = producer == kept_producer;
            if same {
                kept.append(later);
            }
            same
        });
        let mut replicas: Vec<Vec<AggrChunk>> = known.into_iter().map(|(_, chunks)| chunks).collect();
        for chunks in &mut replicas {
            sort(chunks);
            drop_covered(chunks);
        }
        replicas.append(&mut lanes_by_time);
        SelectedSeries { labels: self.labels, replicas }
    }

    /// Keeps one of several chunks with equal content: that of the input with the lowest number, with the producer of any of
    /// them.
    ///
    /// Contents are compared, not hashed, so that no collision can lose data. Only chunks with equal ranges are compared,
    /// which are few.
    fn drop_copies(&mut self) {
        // The most frequent case: one input has the series, and no two of its chunks have one range.
        if let [only] = self.contributions.as_slice()
            && only.chunks.is_sorted_by(|a, b| order(a) < order(b))
        {
            return;
        }
        let total = self.contributions.iter().map(|c| c.chunks.len()).sum();
        let mut places: Vec<(TimeRange, usize, usize)> = Vec::with_capacity(total);
        for (at, contribution) in self.contributions.iter().enumerate() {
            places.extend(
                contribution.chunks.iter().enumerate().map(|(index, chunk)| (chunk.range(), at, index)),
            );
        }
        places.sort_by_key(|(range, at, index)| (range.min, range.max, *at, *index));
        let mut copies: Vec<((usize, usize), (usize, usize))> = Vec::new();
        for same_range in places.chunk_by_mut(|a, b| a.0 == b.0).filter(|places| places.len() > 1) {
            let chunk = |&(_, at, index): &(TimeRange, usize, usize)| &self.contributions[at].chunks[index];
            // Stable, so that of equal chunks that of the first input stays first.
            same_range.sort_by(|a, b| payloads(chunk(a)).cmp(payloads(chunk(b))));
            let equal = same_range.windows(2).filter(|pair| are_copies(chunk(&pair[0]), chunk(&pair[1])));
            copies.extend(equal.map(|pair| ((pair[0].1, pair[0].2), (pair[1].1, pair[1].2))));
        }
        // From the last copy to the first, so that the one that is kept gets the producer.
        for ((kept, kept_index), (at, index)) in copies.iter().rev() {
            let producer = self.contributions[*at].chunks[*index].producer;
            let kept = &mut self.contributions[*kept].chunks[*kept_index].producer;
            *kept = kept.or(producer);
        }
        let mut copies: Vec<(usize, usize)> = copies.into_iter().map(|(_, copy)| copy).collect();
        copies.sort_unstable();
        let mut copies = copies.into_iter().peekable();
        for (at, contribution) in self.contributions.iter_mut().enumerate() {
            let mut index = 0..;
            contribution.chunks.retain(|_| copies.next_if_eq(&(at, index.next().unwrap_or(0))).is_none());
        }
    }
}

/// Whether two chunks of one range have equal content, whatever their producers.
fn are_copies(a: &AggrChunk, b: &AggrChunk) -> bool {
    let parts = |chunk: &AggrChunk| [chunk.raw.is_some(), chunk.count.is_some(), chunk.sum.is_some()];
    let others = |chunk: &AggrChunk| [chunk.min.is_some(), chunk.max.is_some(), chunk.counter.is_some()];
    parts(a) == parts(b) && others(a) == others(b) && a.parts().eq(b.parts())
}

/// The encoded samples of a chunk, part by part.
fn payloads(chunk: &AggrChunk) -> impl Iterator<Item = &[u8]> {
    chunk.parts().map(|part| &*part.data)
}

fn sort(chunks: &mut [AggrChunk]) {
    if !chunks.is_sorted_by_key(order) {
        chunks.sort_by_key(order);
    }
}

/// Chunks are sorted by this.
fn order(chunk: &AggrChunk) -> (Timestamp, Timestamp) {
    let range = chunk.range();
    (range.min, range.max)
}

/// The first and last instant of a sorted lane, as its chunks claim; none where it is empty.
fn bounds(lane: &[AggrChunk]) -> Option<(Timestamp, Timestamp)> {
    Some((lane.first()?.range().min, lane.last()?.range().max))
}

/// Separates chunks that overlap: each is added to the first lane that ends before it begins. Only the first
/// [`MAX_REPLICAS`] lanes are searched, so that the time is bounded whatever a store sends.
fn lanes(mut chunks: Vec<AggrChunk>) -> Vec<Vec<AggrChunk>> {
    sort(&mut chunks);
    if chunks.is_empty() {
        return Vec::new();
    }
    if chunks.is_sorted_by(|a, b| a.range().max < b.range().min) {
        return vec![chunks];
    }
    let mut lanes: Vec<Vec<AggrChunk>> = Vec::new();
    for chunk in chunks {
        let min = chunk.range().min;
        match lanes.iter_mut().take(MAX_REPLICAS).find(|lane| bounds(lane).is_none_or(|(_, end)| end < min)) {
            Some(lane) => lane.push(chunk),
            None => lanes.push(vec![chunk]),
        }
    }
    lanes
}

/// Adds a lane to a replica that ends before it or begins after it; without one, as a new replica.
fn join(replicas: &mut Vec<Vec<AggrChunk>>, mut lane: Vec<AggrChunk>) {
    let Some((start, end)) = bounds(&lane) else { return };
    for replica in replicas.iter_mut().take(MAX_REPLICAS) {
        let Some((first, last)) = bounds(replica) else { continue };
        if last < start {
            return replica.append(&mut lane);
        }
        if end < first {
            lane.append(replica);
            *replica = lane;
            return;
        }
    }
    replicas.push(lane);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Contribution;
    use crate::testing::{cut, labels, raw};

    fn merged(inputs: Vec<Vec<AggrChunk>>) -> MergedSeries {
        let contribution = |(input, chunks)| Contribution { input, chunks };
        MergedSeries {
            labels: labels(&[("a", "1")]),
            contributions: inputs.into_iter().enumerate().map(contribution).collect(),
        }
    }

    fn claim(min: i64, max: i64, value: f64) -> AggrChunk {
        raw(&[(min, value), (max, value)])
    }

    #[test]
    fn a_store_passes_on_each_chunk_once_in_order_of_time() {
        let series = merged(vec![
            vec![claim(20, 29, 1.0), claim(0, 9, 1.0), claim(0, 9, 1.0)],
            vec![claim(0, 9, 2.0), claim(0, 12, 1.0), claim(20, 29, 1.0)],
        ]);
        let expected = [claim(0, 9, 1.0), claim(0, 9, 2.0), claim(0, 12, 1.0), claim(20, 29, 1.0)];
        assert_eq!(series.into_series().chunks, expected);
    }

    #[test]
    fn each_input_is_a_replica_in_the_order_of_the_inputs() {
        let (early, late) =
            (cut(&[(0, 1.0), (10, 1.0), (20, 1.0)], 1), cut(&[(5, 2.0), (15, 2.0), (25, 2.0)], 1));
        let late_reversed = late.iter().rev().cloned().collect();
        let selected = merged(vec![late_reversed, early.clone()]).into_selected();
        assert_eq!(selected.replicas, [late, early]);
    }

    #[test]
    fn replicas_from_one_input_are_separated_where_they_overlap() {
        let (a, b) = (vec![claim(0, 9, 1.0), claim(10, 19, 1.0)], vec![claim(1, 8, 2.0), claim(12, 22, 2.0)]);
        let both = a.iter().chain(&b).cloned().collect();
        assert_eq!(merged(vec![both]).into_selected().replicas, [a, b]);
    }

    #[test]
    fn a_lane_that_ends_before_another_begins_is_continued_by_it() {
        let (old, fresh, other) = (claim(0, 9, 1.0), claim(10, 19, 1.0), claim(5, 15, 2.0));
        let selected =
            merged(vec![vec![fresh.clone()], vec![other.clone()], vec![old.clone()]]).into_selected();
        assert_eq!(selected.replicas, [vec![old, fresh], vec![other]]);
    }

    #[test]
    fn chunks_of_one_producer_are_one_replica_whatever_store_they_come_from() {
        let of = |number, chunk: AggrChunk| chunk.from_producer(Producer::from_number(number));
        let (old, fresh, copy) = (of(9, claim(0, 19, 1.0)), of(9, claim(10, 29, 1.0)), claim(0, 19, 1.0));
        let (other, unknown) = (of(4, claim(3, 22, 2.0)), claim(1, 21, 3.0));
        let inputs = [vec![copy, unknown.clone()], vec![fresh.clone(), other.clone()], vec![old.clone()]];
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let inputs = order.map(|at| inputs[at].clone()).to_vec();
            let selected = merged(inputs.clone()).into_selected();
            let expected = [vec![other.clone()], vec![old.clone(), fresh.clone()], vec![unknown.clone()]];
            assert_eq!(selected.replicas, expected);
            // A querier passes the producers on.
            let passed = merged(inputs).into_series().chunks;
            assert_eq!(merged(vec![passed]).into_selected().replicas, expected);
        }
    }

    #[test]
    fn raw_samples_of_a_producer_replace_its_aggregates_but_not_those_of_another_one() {
        let of = |number, chunk: AggrChunk| chunk.from_producer(Producer::from_number(number));
        let aggregates = |number| {
            // Copies would count once.
            let sum = raw(&[(300_000, number as f64), (600_000, 1.0)]).raw;
            of(number, AggrChunk { sum, ..AggrChunk::default() })
        };
        let samples = of(1, raw(&(0..60).map(|n| (n * 15_000, 1.0)).collect::<Vec<_>>()));
        let inputs = vec![vec![aggregates(1), aggregates(2)], vec![samples.clone()]];
        let selected = merged(inputs).into_selected();
        assert_eq!(selected.replicas, [vec![samples], vec![aggregates(2)]]);
    }

    #[test]
    fn any_number_of_overlapping_chunks_is_read_whole_and_in_time() {
        let chunks: Vec<AggrChunk> =
            (0..20_000).map(|n| raw(&[(n / 2, n as f64), (50_000 + n, 1.0)])).collect();
        let selected = merged(vec![chunks]).into_selected();
        assert_eq!(selected.replicas.len(), 20_000);
        let mut out = crate::Samples::new();
        selected.decode(&crate::testing::OPTIONS, &mut out).unwrap();
        assert_eq!(out.len(), 10_000 + 20_000);
    }

    #[test]
    fn copies_of_a_chunk_count_once_and_chunks_without_data_not_at_all() {
        let (a, b) = (claim(0, 9, 1.0), claim(10, 19, 1.0));
        let selected =
            merged(vec![vec![a.clone(), AggrChunk::default()], vec![a.clone(), b.clone()], vec![b.clone()]])
                .into_selected();
        assert_eq!(selected.replicas, [vec![a, b]]);
        assert!(merged(vec![vec![AggrChunk::default()], vec![]]).into_selected().replicas.is_empty());
    }
}
