//! One series of a new block, made of the chunks that several blocks have of it.
//!
//! ```text
//! one producer        its chunks are united sample by sample ([`unite_chunks`])
//! several producers   one to one: as if they were one producer
//!                     penalty: deduplicated as a query does it ([`dedup`](crate::dedup))
//! ```
//!
//! A chunk that overlaps no other one is passed on byte for byte. Values are never changed: with the penalty rule, a false
//! counter reset at a change of replica is left to the query, because a block does not say which series are counters.

use tsdb::{Chunk, Encoding};

use crate::dedup::{self, DedupRules};
use crate::stored::{decode_chunk, encode_chunks};
use crate::{ChunkJoinError, ChunkSample, ChunkSampleValue, Samples, unite_chunks};

/// The window for which the penalty rule chooses replicas, in milliseconds. It is not known which windows queries will have.
const WINDOW_MILLIS: i64 = 300_000;

/// How the replicas of a series become one series: Thanos' `--deduplication.func`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplicaRule {
    /// Every sample of every replica is kept; equal samples once.
    #[default]
    OneToOne,
    /// One replica is preferred, and another one fills its gaps.
    Penalty,
}

/// The chunks of one series, and what became of the samples of its sources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompactedChunks {
    /// In the order of time, without overlap.
    pub chunks: Vec<Chunk>,
    /// Samples that were there several times, and were dropped but for one.
    pub duplicates: u64,
    /// Samples that were dropped because an earlier source has another value at their time.
    pub conflicts: u64,
    /// Samples that were dropped because a replica has others in their place.
    pub replicas: u64,
}

/// Makes one series of the chunks that each of `producers` has, in the order of preference. A producer may be several blocks,
/// in the order of preference, too.
///
/// # Errors
/// When chunks that overlap are damaged, or contain aggregates.
pub fn compact_chunks(
    mut producers: Vec<Vec<Vec<Chunk>>>,
    rule: ReplicaRule,
) -> Result<CompactedChunks, ChunkJoinError> {
    if rule == ReplicaRule::OneToOne || producers.len() < 2 {
        let united = unite_chunks(producers.drain(..).flatten().collect())?;
        return Ok(united.into());
    }
    let mut compacted = CompactedChunks::default();
    let mut replicas = Vec::with_capacity(producers.len());
    for producer in producers {
        let united = unite_chunks(producer)?;
        compacted.duplicates += united.duplicates;
        compacted.conflicts += united.conflicts;
        replicas.push(united.chunks);
    }
    if do_not_overlap(&replicas) {
        compacted.chunks = replicas.into_iter().flatten().collect();
        compacted.chunks.sort_by_key(|chunk| chunk.range.min);
        return Ok(compacted);
    }
    let before: usize = replicas.iter().flatten().map(Chunk::sample_count).sum();
    compacted.chunks = deduplicate(&replicas)?;
    let after: usize = compacted.chunks.iter().map(Chunk::sample_count).sum();
    compacted.replicas = (before - after.min(before)) as u64;
    Ok(compacted)
}

impl From<crate::JoinedChunks> for CompactedChunks {
    fn from(united: crate::JoinedChunks) -> Self {
        let crate::JoinedChunks { chunks, duplicates, conflicts } = united;
        Self { chunks, duplicates, conflicts, replicas: 0 }
    }
}

fn do_not_overlap(replicas: &[Vec<Chunk>]) -> bool {
    let mut ranges: Vec<_> = replicas.iter().flatten().map(|chunk| chunk.range).collect();
    ranges.sort_by_key(|range| range.min);
    ranges.windows(2).all(|pair| pair[0].max < pair[1].min)
}

fn deduplicate(replicas: &[Vec<Chunk>]) -> Result<Vec<Chunk>, ChunkJoinError> {
    let rules = DedupRules { counter: false, totals: false, window: WINDOW_MILLIS };
    if replicas.iter().flatten().all(|chunk| chunk.encoding == Encoding::Xor) {
        let mut decoded = Vec::with_capacity(replicas.len());
        for chunks in replicas {
            let mut samples = Samples::new();
            for chunk in chunks {
                chunk.decode_floats(&mut samples.timestamps, &mut samples.values)?;
            }
            decoded.push(samples);
        }
        let chosen = dedup::merge(&decoded, rules);
        let mut builder = tsdb::ChunkBuilder::new();
        for (&time, &value) in chosen.timestamps.iter().zip(&chosen.values) {
            builder.append_float(Encoding::Xor, model::Sample::new(time, value), model::Timestamp::EPOCH)?;
        }
        return Ok(builder.finish()?);
    }
    let mut stored: Vec<Vec<ChunkSample>> = Vec::with_capacity(replicas.len());
    for chunks in replicas {
        let mut samples = Vec::new();
        for chunk in chunks {
            if chunk.encoding == Encoding::Aggregates {
                return Err(ChunkJoinError::Aggregates);
            }
            decode_chunk(chunk, &mut samples)?;
        }
        stored.push(samples);
    }
    let chosen = dedup::merge(&stored.iter().map(|samples| plain(samples)).collect::<Vec<_>>(), rules);
    Ok(encode_chunks(&with_encodings(&chosen, &stored))?)
}

/// The samples without their encodings.
fn plain(stored: &[ChunkSample]) -> Samples {
    let mut samples = Samples::new();
    for sample in stored {
        let at = sample.at.as_millis();
        match &sample.value {
            ChunkSampleValue::Float(value) => {
                samples.timestamps.push(at);
                samples.values.push(*value);
            }
            ChunkSampleValue::Histogram(histogram) => samples.histograms.push((at, histogram.clone())),
        }
    }
    samples
}

/// The chosen samples, each with the encoding and the start timestamp that it has in its replica.
fn with_encodings(chosen: &Samples, stored: &[Vec<ChunkSample>]) -> Vec<ChunkSample> {
    let floats = chosen.timestamps.iter().zip(&chosen.values);
    let floats = floats.map(|(&at, &value)| (at, ChunkSampleValue::Float(value)));
    let histograms =
        chosen.histograms.iter().map(|(at, value)| (*at, ChunkSampleValue::Histogram(value.clone())));
    let mut values: Vec<(i64, ChunkSampleValue)> = floats.chain(histograms).collect();
    values.sort_by_key(|(at, _)| *at);
    let mut next = vec![0; stored.len()];
    let place = |(millis, value): (i64, ChunkSampleValue)| {
        let at = model::Timestamp::from_millis(millis);
        let mut found = None;
        for (samples, next) in stored.iter().zip(&mut next) {
            while samples.get(*next).is_some_and(|sample| sample.at < at) {
                *next += 1;
            }
            let same = samples.get(*next).filter(|sample| sample.at == at && sample.value == value);
            found = found.or(same);
        }
        let encoding = match &value {
            ChunkSampleValue::Float(_) => Encoding::Xor,
            ChunkSampleValue::Histogram(_) => Encoding::FloatHistogram,
        };
        let (start, encoding) =
            found.map_or((model::Timestamp::EPOCH, encoding), |sample| (sample.start, sample.encoding));
        ChunkSample { at, start, value, encoding }
    };
    values.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{FloatHistogram, Timestamp};

    use super::*;
    use crate::testing::chunk;

    fn floats(times: impl Iterator<Item = i64>, value: impl Fn(i64) -> f64) -> Chunk {
        chunk(&times.map(|at| (at, value(at))).collect::<Vec<_>>())
    }

    fn samples(chunks: &[Chunk]) -> Vec<ChunkSample> {
        let mut samples = Vec::new();
        chunks.iter().for_each(|chunk| decode_chunk(chunk, &mut samples).unwrap());
        samples
    }

    fn times(chunks: &[Chunk]) -> Vec<i64> {
        samples(chunks).iter().map(|sample| sample.at.as_millis()).collect()
    }

    #[test]
    fn chunks_of_one_producer_that_do_not_overlap_are_passed_on() {
        let (a, b) = (floats(0..10, |_| 1.0), floats(10..20, |_| 1.0));
        for rule in [ReplicaRule::OneToOne, ReplicaRule::Penalty] {
            let compacted = compact_chunks(vec![vec![vec![b.clone()], vec![a.clone()]]], rule).unwrap();
            assert_eq!(compacted.chunks, [a.clone(), b.clone()]);
        }
        let apart = compact_chunks(vec![vec![vec![b.clone()]], vec![vec![a.clone()]]], ReplicaRule::Penalty);
        assert_eq!(apart.unwrap().chunks, [a, b]);
    }

    #[test]
    fn penalty_takes_one_replica_and_fills_its_gap_and_one_to_one_takes_all() {
        let at = |number: i64, phase: i64| number * 15_000 + phase;
        let first = floats((0..100).filter(|n| !(40..60).contains(n)).map(|n| at(n, 0)), |_| 1.0);
        let second = floats((0..100).map(|n| at(n, 5_000)), |_| 2.0);
        let replicas = || vec![vec![vec![first.clone()]], vec![vec![second.clone()]]];
        let all = compact_chunks(replicas(), ReplicaRule::OneToOne).unwrap();
        assert_eq!((times(&all.chunks).len(), all.replicas), (180, 0));
        let one = compact_chunks(replicas(), ReplicaRule::Penalty).unwrap();
        let left = times(&one.chunks);
        assert!((99..=101).contains(&left.len()), "{}", left.len());
        assert!(left.windows(2).all(|pair| pair[1] - pair[0] <= 30_000), "{left:?}");
        assert_eq!(one.replicas, 180 - left.len() as u64);
    }

    #[test]
    fn samples_keep_their_encoding_and_their_start() {
        let histogram = |at: i64| ChunkSample {
            at: Timestamp::from_millis(at),
            start: Timestamp::EPOCH,
            value: ChunkSampleValue::Histogram(Arc::new(FloatHistogram {
                count: at as f64,
                sum: 1.0,
                zero_count: at as f64,
                ..FloatHistogram::default()
            })),
            encoding: Encoding::Histogram,
        };
        let float = |at: i64| ChunkSample {
            start: Timestamp::from_millis(1),
            value: ChunkSampleValue::Float(at as f64),
            encoding: Encoding::Xor2,
            ..histogram(at)
        };
        let replica = |phase: i64| {
            let floats = (0..20).map(|n| float(n * 15_000 + phase));
            let histograms = (20..40).map(|n| histogram(n * 15_000 + phase));
            floats.chain(histograms).collect::<Vec<_>>()
        };
        let (first, second) = (replica(0), replica(7_000));
        let producers =
            [&first, &second].map(|samples| vec![encode_chunks(samples).unwrap()]).into_iter().collect();
        let compacted = compact_chunks(producers, ReplicaRule::Penalty).unwrap();
        assert_eq!(samples(&compacted.chunks), first);
        assert_eq!(compacted.replicas, 40);
    }
}
