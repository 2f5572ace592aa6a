//! The block that is served: 101,010 series of three metrics over two hours.

use std::fs;
use std::path::{Path, PathBuf};

use model::{Labels, Sample, TimeRange, Timestamp};
use series::AggrChunk;
use tsdb::{BlockOptions, BlockWriter, ThanosMeta, Ulid};

/// Begin of the block, a multiple of two hours.
const BEGIN: i64 = 1_699_999_200_000;
const SAMPLES: i64 = 240;
const INTERVAL: i64 = 30_000;
/// The metrics of the block, with the number of series of each.
pub(crate) const METRICS: [(&str, u32); 3] = [("ten", 10), ("thousand", 1_000), ("many", 100_000)];

pub(crate) fn range() -> TimeRange {
    let at = Timestamp::from_millis;
    TimeRange::new(at(BEGIN), at(BEGIN + SAMPLES * INTERVAL - 1))
}

pub(crate) fn id() -> Ulid {
    Ulid::from_parts(1_700_006_400_000, 1)
}

/// The `thanos` section of all blocks here.
pub(crate) fn thanos() -> ThanosMeta {
    let labels = [("cluster", "bench"), ("replica", "0")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    ThanosMeta { labels: labels.into(), source: "bench".to_owned(), ..ThanosMeta::default() }
}

/// Writes the block into `bucket`; without `large` it has ten series only. Returns its folder.
pub(crate) fn write(bucket: &Path, large: bool) -> PathBuf {
    fs::create_dir_all(bucket).expect("a folder");
    let options = BlockOptions { thanos: Some(thanos()), ..BlockOptions::new(id()) };
    let mut writer = BlockWriter::create(bucket, options).expect("a block");
    let mut sorted = METRICS;
    sorted.sort_unstable();
    for (name, series) in sorted.into_iter().filter(|(_, series)| large || *series == 10) {
        for number in 0..series {
            let pairs = [
                ("__name__", name.to_owned()),
                ("instance", format!("node-{:06}:9090", number / 10)),
                ("job", "bench".to_owned()),
                ("pod", format!("bench-{number:06}")),
            ];
            let labels = Labels::from_pairs(pairs).expect("labels");
            let mut value = f64::from(number);
            let samples: Vec<Sample> = (0..SAMPLES)
                .map(|at| {
                    value += f64::from((number.wrapping_mul(2_654_435_761) >> (at % 13)) % 97);
                    Sample::new(BEGIN + at * INTERVAL, value)
                })
                .collect();
            let chunks = AggrChunk::from_floats(&samples).expect("samples in order");
            let chunks: Vec<tsdb::Chunk> = chunks.into_iter().filter_map(|chunk| chunk.raw).collect();
            writer.add_series(&labels, chunks).expect("a series");
        }
    }
    writer.finish().expect("a block");
    bucket.join(id().to_string())
}
