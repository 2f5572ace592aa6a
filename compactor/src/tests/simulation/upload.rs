//! Blocks as uploaders write them.

use std::path::{Path, PathBuf};

use series::{ChunkSample, ChunkSampleValue, encode_chunks};
use tsdb::{BlockMeta, BlockOptions, BlockWriter, Encoding, ThanosMeta, Ulid};

use super::super::random::Random;
use super::super::{Timestamp, labels};
use super::REPLICA_LABEL;
use super::oracle::Published;
use crate::group::GroupKey;
use crate::plan::HOUR;

/// A block that is being uploaded.
pub(super) struct Upload {
    pub(super) folder: PathBuf,
    pub(super) meta: BlockMeta,
    pub(super) block: Published,
}

impl Upload {
    /// Writes a block of two hours of a replica of one of two clusters, in the hours before `now`.
    pub(super) fn write(parent: &Path, id: Ulid, now: i64, random: &mut Random) -> Self {
        let (replica, cluster) = (["0", "1"][random.below(2)], ["a", "b"][random.below(2)]);
        let last = now / (2 * HOUR) * 2 * HOUR;
        let from = last - (1 + random.below(8) as i64) * 2 * HOUR;
        let step = 20 * 60_000;
        let phase = if replica == "0" { 0 } else { 7_000 };
        let sample = |at: i64| ChunkSample {
            at: Timestamp::from_millis(at),
            start: Timestamp::EPOCH,
            value: ChunkSampleValue::Float((at / step) as f64),
            encoding: Encoding::Xor,
        };
        let times = (0..6).map(|n| from + phase + n * step);
        let mut samples: Vec<ChunkSample> = times.filter(|_| random.below(4) > 0).map(sample).collect();
        if samples.is_empty() {
            samples.push(sample(from + phase));
        }
        let mut thanos = ThanosMeta { source: "sidecar".to_owned(), ..ThanosMeta::default() };
        let mut external = vec![("cluster", cluster), ("replica", replica)];
        external.extend((cluster == "b").then_some(("zone", "z")));
        thanos.labels = external.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let options = BlockOptions {
            times: Some((Timestamp::from_millis(from), Timestamp::from_millis(from + 2 * HOUR))),
            thanos: Some(thanos),
            ..BlockOptions::new(id)
        };
        std::fs::create_dir_all(parent).unwrap();
        let mut writer = BlockWriter::create(parent, options).unwrap();
        let labels = labels(&[("__name__", "m")]);
        let bits = |sample: &ChunkSample| match &sample.value {
            ChunkSampleValue::Float(value) => (sample.at.as_millis(), value.to_bits()),
            ChunkSampleValue::Histogram(_) => unreachable!("all samples are floats"),
        };
        let all = samples.iter().map(bits).collect();
        writer.add_series(&labels, encode_chunks(&samples).unwrap()).unwrap();
        let meta = writer.finish().unwrap();
        let series = (GroupKey::of(&meta, &[REPLICA_LABEL.to_owned()]), labels);
        Self { folder: parent.join(meta.ulid.to_string()), meta, block: Published { series, samples: all } }
    }
}
