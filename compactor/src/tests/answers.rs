//! Answers of PromQL over the blocks of a bucket, as a querier gives them that unites replicas sample by sample.

use promql::{EngineOptions, MatrixSeries, Query, QueryParams, QueryValue};
use series::{AggrChunk, Aggregate, Dedup, SelectedSeries};
use tsdb::{Block, Encoding};

use super::*;

/// Queries whose answers must not change when blocks are merged.
pub(super) const QUERIES: [&str; 12] = [
    "m",
    "rate(m[5m])",
    "sum by (cluster) (increase(m[1h]))",
    "resets(m[30m])",
    "changes(m[20m])",
    "count_over_time(m[11m])",
    "last_over_time(m[30m]) unless m",
    "max_over_time(m{n!=\"3\"}[10m])",
    "histogram_quantile(0.9, sum without (n) (rate(m[10m])))",
    "avg by (n) (m) and on (n) count by (n) (m offset 30m)",
    "absent(m{n=~\"4|5\"})",
    "stddev_over_time(m{cluster=\"a\"}[17m])",
];

/// Queries whose answers are the same over the aggregates of windows of five minutes, where ranges are whole windows.
pub(super) const OF_WINDOWS: [&str; 3] =
    ["sum_over_time(m[1h])", "min_over_time(m[1h])", "max_over_time(m[1h])"];

/// The blocks that a store would read.
pub(super) struct Answers {
    /// The aggregate of downsampled blocks to read as if it were the samples.
    pub(super) as_samples: Option<Aggregate>,
    /// The external labels without those of replicas, and the block.
    blocks: Vec<(Labels, Block)>,
}

impl Answers {
    /// Over all blocks of this resolution, in milliseconds.
    pub(super) async fn of(worker: &BucketWorker, millis: i64) -> Self {
        let mut blocks = Vec::new();
        for meta in live(worker).await.blocks.iter().filter(|meta| resolution(meta) == millis) {
            let key = GroupKey::of(meta, &worker.settings.replica_labels);
            let external =
                Labels::from_pairs(key.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()))).unwrap();
            let remote = worker.bucket.open_block(meta.ulid, &OpenBlockOptions::default()).await.unwrap();
            blocks.push((external, remote.into_block()));
        }
        Self { as_samples: None, blocks }
    }

    /// The answers to range queries. They begin at the end of a window of five minutes.
    pub(super) async fn ask(
        self,
        queries: &'static [&'static str],
        end: i64,
        step: Duration,
    ) -> Vec<Vec<MatrixSeries>> {
        let ask = move || queries.iter().map(|query| self.answer(query, end, step)).collect();
        tokio::task::spawn_blocking(ask).await.unwrap()
    }

    fn answer(&self, text: &str, end: i64, step: Duration) -> Vec<MatrixSeries> {
        let (start, end) = (Timestamp::from_millis(3_600_000 - 1), Timestamp::from_millis(end));
        let params = QueryParams { dedup: Dedup::Chain, ..QueryParams::range(start, end, step) };
        let engine = EngineOptions { workers: 1, ..EngineOptions::default() };
        let query = Query::plan(text, &params, &engine).unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut evaluation = query.evaluation();
        while let Some(id) = evaluation.next_select() {
            let select = evaluation.select(id).clone();
            let series = self.select(&select);
            evaluation.push(id, series).unwrap();
            evaluation.end_select(id).unwrap();
        }
        let output = evaluation.finish().unwrap_or_else(|error| panic!("{text}: {error}"));
        match output.value {
            QueryValue::Matrix(series) => series,
            other => panic!("{text}: a range query returned {other:?}"),
        }
    }

    fn select(&self, select: &promql::Select) -> Vec<SelectedSeries> {
        let mut found: BTreeMap<Labels, Vec<Vec<AggrChunk>>> = BTreeMap::new();
        for (external, block) in &self.blocks {
            let is_own = |matcher: &&model::Matcher| external.get(matcher.name()).is_none();
            let (own, of_block): (Vec<_>, Vec<_>) = select.matchers.iter().partition(is_own);
            if !of_block.iter().all(|m| m.matches(external.get(m.name()).unwrap_or_default())) {
                continue;
            }
            let own: Vec<model::Matcher> = own.into_iter().cloned().collect();
            for series in block.select(&own, TimeRange::ALL).unwrap() {
                let series = series.unwrap();
                let chunks = block.chunks(&series.chunks).unwrap().into_iter().map(|chunk| {
                    if chunk.encoding == Encoding::Aggregates {
                        let aggregate = self.as_samples.unwrap_or(select.hints.aggregate());
                        let parts = AggrChunk::from_block(chunk, &[aggregate]).unwrap();
                        let part = self.as_samples.and_then(|aggregate| parts.part(aggregate).cloned());
                        part.map_or(parts, AggrChunk::raw)
                    } else {
                        AggrChunk::raw(chunk)
                    }
                });
                let all = series.labels.iter().chain(external.iter());
                let labels = Labels::from_pairs(all.map(|label| (label.name, label.value))).unwrap();
                found.entry(labels).or_default().push(chunks.collect());
            }
        }
        found.into_iter().map(|(labels, replicas)| SelectedSeries { labels, replicas }).collect()
    }
}

/// Compares answers. With `tolerance`, numbers may differ by this part of them, because sums were added in another order.
pub(super) fn assert_equal(
    what: &str,
    queries: &[&str],
    before: &[Vec<MatrixSeries>],
    after: &[Vec<MatrixSeries>],
    tolerance: f64,
) {
    for ((query, before), after) in queries.iter().zip(before).zip(after) {
        let labels =
            |all: &[MatrixSeries]| all.iter().map(|series| series.labels.clone()).collect::<Vec<_>>();
        assert_eq!(labels(before), labels(after), "{what}: {query}");
        for (before, after) in before.iter().zip(after) {
            let of = |series: &MatrixSeries| {
                let floats = series.floats.iter().map(|s| (s.timestamp.as_millis(), vec![s.value]));
                let histograms = series.histograms.iter().map(|(at, histogram)| {
                    let mut numbers = vec![histogram.count, histogram.sum, histogram.zero_count];
                    numbers.extend(histogram.positive_buckets.iter().chain(&histogram.negative_buckets));
                    (at.as_millis(), numbers)
                });
                floats.chain(histograms).collect::<Vec<_>>()
            };
            let (a, b) = (of(before), of(after));
            let is_near =
                |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || (a - b).abs() <= tolerance * a.abs();
            let same = a.len() == b.len()
                && a.iter()
                    .zip(&b)
                    .all(|(a, b)| a.0 == b.0 && a.1.len() == b.1.len() && a.1.iter().zip(&b.1).all(is_near));
            let differs = a.iter().zip(&b).find(|(a, b)| a != b);
            assert!(
                same,
                "{what}: {query}: {}: {} and {} points: {differs:?}",
                before.labels,
                a.len(),
                b.len()
            );
        }
    }
}
