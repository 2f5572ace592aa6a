//! Samples of one series.

use model::{BucketSpan, FloatHistogram, Sample, Timestamp};

use crate::mix::{MixedNumbers, mixed};
use crate::{Chunk, HistogramEncoder, SAMPLES_PER_CHUNK, XorEncoder};

/// A chunk of histograms ends when it has this many bytes ...
const CHUNK_BYTES: usize = 1024;
/// ... and this many samples, as in the head of Prometheus.
const CHUNK_HISTOGRAMS: usize = 10;
/// Buckets of a histogram.
const BUCKETS: usize = 12;

/// The times of the scrapes of a target.
pub(super) struct Scrapes {
    /// First scrape, in ms, without jitter.
    pub(super) start: i64,
    pub(super) interval: i64,
    pub(super) count: u64,
    /// Most ms that a scrape is earlier or later than planned.
    pub(super) jitter: i64,
    pub(super) seed: u64,
}

impl Scrapes {
    fn at(&self, number: u64) -> i64 {
        let planned = self.start + number as i64 * self.interval;
        if self.jitter == 0 {
            return planned;
        }
        let off = mixed(self.seed ^ number) % (2 * self.jitter as u64 + 1);
        planned + off as i64 - self.jitter
    }
}

/// The type of a metric.
#[derive(Clone, Copy, Debug)]
pub(super) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    pub(super) fn chunks(self, scrapes: &Scrapes, numbers: &mut MixedNumbers) -> Vec<Chunk> {
        match self {
            Self::Counter => {
                let rate = 1 + numbers.below(200);
                let reset = numbers.happens(0.02).then(|| numbers.below(scrapes.count.max(1)));
                let mut value = numbers.below(1_000_000);
                floats(scrapes, |number| {
                    value = if reset == Some(number) { 0 } else { value + numbers.below(rate) };
                    value as f64
                })
            }
            Self::Gauge => {
                // Some never change, such as limits; others change by whole numbers or quarters.
                let (still, step) = (numbers.happens(0.25), [1.0, 0.25][numbers.below(2) as usize]);
                let mut value = numbers.below(1000) as i64;
                floats(scrapes, |_| {
                    if !still {
                        value = (value + numbers.below(9) as i64 - 4).max(0);
                    }
                    value as f64 * step
                })
            }
            Self::Histogram => histograms(scrapes, numbers),
        }
    }
}

/// Chunks of the samples. An encoder of one type is faster here than a `ChunkBuilder`, which chooses an encoding per sample.
fn floats(scrapes: &Scrapes, mut value: impl FnMut(u64) -> f64) -> Vec<Chunk> {
    let mut chunks = Vec::with_capacity(scrapes.count as usize / SAMPLES_PER_CHUNK + 1);
    let mut encoder = XorEncoder::new();
    for number in 0..scrapes.count {
        let sample = Sample::new(scrapes.at(number), value(number));
        // Times ascend, and a chunk ends long before it is full, so no sample is rejected.
        let taken = encoder.append(sample);
        debug_assert!(taken.is_ok(), "{taken:?}");
        if encoder.len() == SAMPLES_PER_CHUNK {
            chunks.extend(std::mem::take(&mut encoder).finish());
        }
    }
    chunks.extend(encoder.finish());
    chunks
}

fn histograms(scrapes: &Scrapes, numbers: &mut MixedNumbers) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut encoder = HistogramEncoder::integer();
    let mut histogram = FloatHistogram {
        schema: 3,
        zero_threshold: 2f64.powi(-128),
        positive_spans: vec![
            BucketSpan { offset: -20, length: BUCKETS as u32 / 2 },
            BucketSpan { offset: 3, length: BUCKETS as u32 / 2 },
        ],
        positive_buckets: vec![0.0; BUCKETS],
        ..FloatHistogram::default()
    };
    let rate = 1 + numbers.below(50);
    for number in 0..scrapes.count {
        for _ in 0..1 + numbers.below(3) {
            let added = numbers.below(rate) as f64;
            histogram.positive_buckets[numbers.below(BUCKETS as u64) as usize] += added;
            histogram.count += added;
            histogram.sum += added * 0.25;
        }
        let at = Timestamp::from_millis(scrapes.at(number));
        // As for floats: times ascend, the chunk is not full. The layout never changes.
        let taken = encoder.append(at, &histogram);
        debug_assert!(taken.is_ok(), "{taken:?}");
        if encoder.size_bytes() >= CHUNK_BYTES && encoder.len() >= CHUNK_HISTOGRAMS {
            chunks.extend(std::mem::replace(&mut encoder, HistogramEncoder::integer()).finish());
        }
    }
    chunks.extend(encoder.finish());
    chunks
}
