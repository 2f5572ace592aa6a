//! The head as a whole, against a list of all samples, and beside a real Prometheus.

mod churn;
mod counts;
mod database;
mod exemplars;
mod follow;
mod full_disk;
mod kills;
mod late;
mod oracle;
mod prometheus;
mod refusals;
mod torn;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use model::{FloatHistogram, Labels, TimeRange, Timestamp};
use tsdb::{Block, Chunk};

use crate::{Head, HeadOptions, HeadSeries};

/// The bits of a value: those of a float, or count, sum and buckets of a histogram.
type ValueBits = Vec<u64>;

/// Samples of all series: start and value by time.
type AllSamples = BTreeMap<String, BTreeMap<i64, (i64, ValueBits)>>;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn open(dir: &Path, min_time: i64) -> (Head, crate::Replay) {
    Head::open(dir, HeadOptions { min_time: at(min_time), ..HeadOptions::default() }).unwrap()
}

/// Opens a head that accepts out-of-order samples of so many milliseconds.
fn open_late(dir: &Path, min_time: i64, window: i64) -> (Head, crate::Replay) {
    let out_of_order_window = std::time::Duration::from_millis(window as u64);
    let options = HeadOptions { min_time: at(min_time), out_of_order_window, ..HeadOptions::default() };
    Head::open(dir, options).unwrap()
}

/// A xorshift generator.
struct Random(u64);

impl Random {
    fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

fn histogram_bits(histogram: &FloatHistogram) -> ValueBits {
    if histogram.is_stale() {
        return vec![histogram.sum.to_bits()];
    }
    let cells = model::numbered_buckets(&histogram.positive_spans, &histogram.positive_buckets);
    let cells = cells.filter(|(_, count)| *count != 0.0);
    let mut bits = vec![histogram.count.to_bits(), histogram.sum.to_bits()];
    bits.extend(cells.flat_map(|(number, count)| [number as u64, count.to_bits()]));
    bits
}

/// Adds the samples of chunks, which are in order of time. Each time must occur once.
fn add_chunks(series: &Labels, chunks: &[Chunk], out: &mut AllSamples) {
    assert!(chunks.is_sorted_by(|a, b| a.range.max < b.range.min), "{series}: {chunks:?}");
    let own = out.entry(series.to_string()).or_default();
    for chunk in chunks {
        let mut starts = Vec::new();
        let mut add = |time: i64, index: usize, starts: &[i64], bits: ValueBits| {
            let start = starts.get(index).copied().unwrap_or(0);
            assert_eq!(own.insert(time, (start, bits)), None, "{series} at {time} twice");
        };
        if chunk.encoding.holds_floats() {
            let (mut times, mut values) = (Vec::new(), Vec::new());
            chunk.decode_floats_with_starts(&mut times, &mut values, &mut starts).unwrap();
            for (index, (time, value)) in times.iter().zip(values).enumerate() {
                add(*time, index, &starts, vec![value.to_bits()]);
            }
        } else {
            let mut histograms: Vec<(i64, Arc<FloatHistogram>)> = Vec::new();
            chunk.decode_histograms_with_starts(&mut histograms, &mut starts).unwrap();
            for (index, (time, histogram)) in histograms.iter().enumerate() {
                add(*time, index, &starts, histogram_bits(histogram));
            }
        }
    }
    if own.is_empty() {
        out.remove(&series.to_string());
    }
}

/// All samples of a head.
fn samples_of(head: &Head, range: TimeRange) -> AllSamples {
    let mut out = AllSamples::new();
    for series in head.select(&[], range) {
        let HeadSeries { labels, chunks } = series.unwrap();
        add_chunks(&labels, &chunks, &mut out);
    }
    out
}

/// Adds all samples of a block.
fn add_block(dir: &Path, out: &mut AllSamples) {
    let block = Block::open(dir).unwrap();
    for series in block.select(&[], TimeRange::ALL).unwrap() {
        let series = series.unwrap();
        let chunks = block.chunks(&series.chunks).unwrap();
        add_chunks(&series.labels, &chunks, out);
    }
}
