//! Generates series batch by batch, so that almost all allocations are those of the query.

use bytes::Bytes;
use model::{BucketSpan, FloatHistogram, Labels, Matcher, Sample, Timestamp};
use series::{AggrChunk, SelectedSeries};
use tsdb::{Chunk, HistogramEncoder, XorEncoder};

/// Number of samples per series, 15 s apart.
const SAMPLES: i64 = 40;

/// `count` series of one metric with the same samples.
pub(crate) struct Data {
    name: &'static str,
    count: usize,
    chunk: Chunk,
    /// Length of the value of the label `a`, in bytes.
    long: usize,
    /// The series whose chunk is truncated.
    damaged: Option<usize>,
}

fn floats() -> Chunk {
    let mut encoder = XorEncoder::new();
    for n in 0..SAMPLES {
        encoder.append(Sample::new(n * 15_000, n as f64)).expect("samples come in order");
    }
    encoder.finish().expect("there are samples")
}

impl Data {
    /// Counters `f` with the label `le` of buckets.
    pub(crate) fn floats(count: usize) -> Self {
        Self { name: "f", count, chunk: floats(), long: 0, damaged: None }
    }

    /// Like [`floats`](Self::floats). The second-to-last series cannot be decoded.
    pub(crate) fn damaged(count: usize) -> Self {
        Self { damaged: Some(count - 2), ..Self::floats(count) }
    }

    /// Series `l`. The value of label `a` is different in each and is `long` bytes long.
    pub(crate) fn long_labels(count: usize, long: usize) -> Self {
        Self { name: "l", long, ..Self::floats(count) }
    }

    /// Native histograms `h` with the given number of buckets.
    pub(crate) fn histograms(count: usize, buckets: u32) -> Self {
        let mut encoder = HistogramEncoder::integer();
        for n in 0..SAMPLES {
            let histogram = FloatHistogram {
                schema: 3,
                count: f64::from(buckets) * n as f64,
                sum: 5.0 * n as f64,
                positive_spans: vec![BucketSpan { offset: -300, length: buckets }],
                positive_buckets: vec![n as f64; buckets as usize],
                ..FloatHistogram::default()
            };
            encoder.append(Timestamp::from_millis(n * 15_000), &histogram).expect("samples come in order");
        }
        Self { name: "h", count, chunk: encoder.finish().expect("there are samples"), long: 0, damaged: None }
    }

    /// The matching series, in batches of the given size.
    pub(crate) fn select(
        &self,
        matchers: &[Matcher],
        batch: usize,
    ) -> impl Iterator<Item = Vec<SelectedSeries>> + use<'_> {
        let name = |wanted: &str| matchers.iter().all(|m| m.name() != "__name__" || m.matches(wanted));
        let names = [self.name, "target_info"].map(|wanted| (wanted, name(wanted)));
        let chosen = names.into_iter().filter(|(_, fits)| *fits).map(|(name, _)| name);
        let places: Vec<(&'static str, usize)> =
            chosen.flat_map(|name| (0..self.count).map(move |at| (name, at))).collect();
        let batches = places.len().div_ceil(batch);
        (0..batches).map(move |n| {
            let end = places.len().min((n + 1) * batch);
            places[n * batch..end].iter().map(|(name, at)| self.series(name, *at)).collect()
        })
    }

    fn series(&self, name: &str, at: usize) -> SelectedSeries {
        let (instance, job) = (format!("10.0.{:03}.{:03}:9100", at / 250, at % 250), format!("{}", at % 3));
        let le = ["0.1", "0.5", "1", "5", "+Inf"][at % 5];
        let long = if self.long > 0 { format!("{at:0>0$}", self.long) } else { String::new() };
        let pairs = [
            ("__name__", name),
            ("a", &*long),
            ("instance", &*instance),
            ("job", &*job),
            ("le", le),
            ("some_other_label", "of some length"),
        ];
        let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        let length = if self.damaged == Some(at) { self.chunk.data.len() / 2 } else { self.chunk.data.len() };
        let chunk = Chunk { data: Bytes::copy_from_slice(&self.chunk.data[..length]), ..self.chunk.clone() };
        let labels = Labels::from_pairs(pairs).expect("the pairs are in order");
        SelectedSeries { labels, replicas: vec![vec![AggrChunk::raw(chunk)]] }
    }
}
