//! Downsampled blocks of Thanos: `testdata/thanos-downsampled`.

use std::collections::BTreeMap;
use std::time::Duration;

use series::Downsampler;
use tsdb::{Aggregate, Block};

use super::*;

const FIVE_MINUTES: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3600);

/// The bucket, and the folder of its block with this resolution.
fn bucket_of_thanos(resolution: Duration) -> (TempDir, std::path::PathBuf) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/thanos-downsampled");
    let to = tempfile::tempdir().unwrap();
    let mut found = None;
    for block in std::fs::read_dir(from).unwrap() {
        let block = block.unwrap();
        let folder = to.path().join(block.file_name());
        std::fs::create_dir_all(folder.join("chunks")).unwrap();
        for file in ["meta.json", "index", "chunks/000001"] {
            std::fs::copy(block.path().join(file), folder.join(file)).unwrap();
        }
        let meta = BlockMeta::parse(&std::fs::read(folder.join("meta.json")).unwrap()).unwrap();
        if meta.resolution() == resolution {
            found = Some(folder);
        }
    }
    (to, found.unwrap())
}

async fn served_series(resolution: Duration, aggregates: &[Aggregate]) -> Vec<Series> {
    let (bucket_dir, folder) = bucket_of_thanos(resolution);
    let data_dir = tempfile::tempdir().unwrap();
    let block = Block::open(&folder).unwrap();
    let range = TimeRange::new(block.meta().min_time, block.meta().max_time);
    let served = serve(&local(bucket_dir.path()), data_dir.path(), &[]).await;
    let all = Matcher::new(model::MatchOp::Regex, "__name__", ".+").unwrap();
    let mut request = SeriesRequest::new(range, vec![all]);
    request.max_resolution = resolution;
    request.aggregates = aggregates.to_vec();
    let (series, warnings) = ask(&served.store, request).await.unwrap();
    assert_eq!((series.len(), warnings.len()), (3, 0), "{warnings:?}");
    series
}

/// The samples of a chunk.
fn floats(chunk: &tsdb::Chunk) -> Vec<(i64, f64)> {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    chunk.decode_floats(&mut times, &mut values).unwrap();
    times.into_iter().zip(values).collect()
}

/// Compares the aggregates of a float series with its raw samples.
fn check_floats(raw: &[(i64, f64)], series: &Series, resolution: Duration) {
    let window = |at: i64| at.div_euclid(resolution.as_millis() as i64);
    let mut windows: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    raw.iter().for_each(|(at, value)| windows.entry(window(*at)).or_default().push(*value));
    // Of aggregates of aggregates, Thanos cuts windows where chunks end: the parts together are the window.
    let mut found: BTreeMap<i64, (f64, f64, f64, f64)> = BTreeMap::new();
    for chunk in &series.chunks {
        assert_eq!(chunk.estimated_resolution(), resolution);
        let part = |aggregate| floats(chunk.part(aggregate).unwrap());
        let (count, sum) = (part(Aggregate::Count), part(Aggregate::Sum));
        let (min, max) = (part(Aggregate::Min), part(Aggregate::Max));
        for (number, (at, of_count)) in count.iter().enumerate() {
            let all = found.entry(window(*at)).or_insert((0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY));
            let (sum, min, max) = (sum[number].1, min[number].1, max[number].1);
            *all = (all.0 + of_count, all.1 + sum, all.2.min(min), all.3.max(max));
        }
        // The first raw value, the total at the end of each window, and the last raw value once more.
        let counter = part(Aggregate::Counter);
        let (first, last) = (counter[0], counter[counter.len() - 1]);
        assert_eq!(counter[counter.len() - 2].0, last.0);
        let of_chunk: Vec<(i64, f64)> =
            raw.iter().copied().filter(|(at, _)| (first.0..=last.0).contains(at)).collect();
        assert_eq!((first.1, last.1), (of_chunk[0].1, of_chunk[of_chunk.len() - 1].1));
        let mut total = of_chunk[0].1;
        let mut totals = BTreeMap::from([(window(first.0), total)]);
        for pair in of_chunk.windows(2) {
            let (before, after) = (pair[0].1, pair[1].1);
            total += if after < before { after } else { after - before };
            totals.insert(window(pair[1].0), total);
        }
        for (at, value) in &counter[1..counter.len() - 1] {
            let expected = totals[&window(*at)];
            assert!((value - expected).abs() <= expected.abs() * 1e-12, "{value} and {expected} at {at}");
        }
    }
    assert_eq!(found.len(), windows.len());
    for (number, (count, sum, min, max)) in found {
        let values = &windows[&number];
        let (least, most) = (f64::INFINITY, f64::NEG_INFINITY);
        assert_eq!(count, values.len() as f64);
        assert_eq!(
            (min, max),
            (values.iter().copied().fold(least, f64::min), values.iter().copied().fold(most, f64::max))
        );
        let expected: f64 = values.iter().sum();
        assert!((sum - expected).abs() <= expected.abs() * 1e-12, "{sum} and {expected}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregates_of_a_block_of_thanos_are_those_of_the_raw_samples() {
    let raw = served_series(Duration::ZERO, &[Aggregate::Raw]).await;
    let all = [Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max, Aggregate::Counter];
    for resolution in [FIVE_MINUTES, HOUR] {
        for (raw, series) in raw.iter().zip(served_series(resolution, &all).await) {
            assert_eq!(raw.labels, series.labels);
            let samples: Vec<(i64, f64)> =
                raw.chunks.iter().flat_map(|chunk| floats(chunk.raw.as_ref().unwrap())).collect();
            assert_eq!(samples.len(), 246 * 12);
            check_floats(&samples, &series, resolution);
        }
    }
}

#[test]
fn our_chunks_of_floats_are_those_of_thanos() {
    let blocks = [Duration::ZERO, FIVE_MINUTES, HOUR].map(bucket_of_thanos);
    let blocks = blocks.each_ref().map(|(_, folder)| Block::open(folder).unwrap());
    for (from, to) in [(0, 1), (1, 2)] {
        let (source, expected) = (&blocks[from], &blocks[to]);
        let mut compared = 0;
        let select = |block: &'_ Block| -> Vec<(Labels, Vec<tsdb::Chunk>)> {
            let series = block.select(&[], TimeRange::ALL).unwrap().map(Result::unwrap);
            series.map(|series| (series.labels, block.chunks(&series.chunks).unwrap())).collect()
        };
        for ((labels, chunks), (_, expected)) in select(source).into_iter().zip(select(expected)) {
            let resolution = |block: &Block| block.meta().resolution();
            let mut downsampler = Downsampler::new(resolution(source), resolution(&blocks[to]));
            let made = downsampler.series(&chunks).unwrap();
            assert_eq!(made, expected, "{labels}");
            compared += 1;
        }
        assert_eq!(compared, 3);
    }
}
