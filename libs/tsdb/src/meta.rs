//! `meta.json`: the description of a block.
//!
//! ```text
//! ulid minTime maxTime stats compaction version     Prometheus' part
//! thanos { labels downsample source files ... }     Thanos' part, absent in a Prometheus' own directory
//! ```
//!
//! Specified by `BlockMeta` in `tsdb/block.go` of Prometheus and `pkg/block/metadata/meta.go` of Thanos. The file has no
//! checksum. So a missing id, time or version is an error here, not zero.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use model::{TimeRange, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use ulid::Ulid;

/// The name of the file inside a block's directory.
pub const META_FILE: &str = "meta.json";

/// The id of a block whose directory has this `name`; `None` when it is not the name of a block.
///
/// Strict, as Prometheus is (`ulid.ParseStrict`): exactly 26 characters of Crockford's base 32, the first at most `7`.
/// Stricter in one point: lower case is rejected, because the id would be written as another name.
pub fn parse_block_id(name: &str) -> Option<Ulid> {
    let id = Ulid::from_string(name).ok()?;
    (id.to_string() == name).then_some(id)
}

/// A `meta.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// It is not JSON, or a field is missing or has another type.
    #[error("meta.json: {0}")]
    Json(#[from] serde_json::Error),
    /// The version is unknown.
    #[error("meta.json: version {0} is unknown; this program reads version 1")]
    Version(u32),
    /// The version of the `thanos` section is unknown.
    #[error("meta.json: version {0} of the thanos section is unknown; this program reads version 1")]
    ThanosVersion(u32),
    /// The minimum time is after the maximum time.
    #[error("meta.json: minTime {min} is after maxTime {max}")]
    Times {
        /// `minTime`.
        min: Timestamp,
        /// `maxTime`.
        max: Timestamp,
    },
}

/// The content of `meta.json`.
///
/// Unknown fields are kept, at each level, and written back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockMeta {
    /// The block's id, which is also the name of its directory.
    #[serde(with = "ulid_text")]
    pub ulid: Ulid,
    /// No sample is earlier: inclusive.
    #[serde(rename = "minTime", with = "millis")]
    pub min_time: Timestamp,
    /// All samples are earlier: exclusive.
    #[serde(rename = "maxTime", with = "millis")]
    pub max_time: Timestamp,
    /// Counts of its content.
    #[serde(default)]
    pub stats: BlockStats,
    /// Where the block comes from.
    #[serde(default)]
    pub compaction: Compaction,
    /// Version of this format: 1.
    pub version: u32,
    /// Thanos' section: present in a bucket, absent in the directory of a Prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thanos: Option<ThanosMeta>,
    /// Unknown fields.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Counts of the content of a block. A count of 0 is not written. Old blocks do not have the counts of samples by kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockStats {
    /// Samples of all kinds.
    #[serde(rename = "numSamples", skip_serializing_if = "is_zero")]
    pub samples: u64,
    /// Samples that are floats.
    #[serde(rename = "numFloatSamples", skip_serializing_if = "is_zero")]
    pub float_samples: u64,
    /// Samples that are native histograms.
    #[serde(rename = "numHistogramSamples", skip_serializing_if = "is_zero")]
    pub histogram_samples: u64,
    /// Series.
    #[serde(rename = "numSeries", skip_serializing_if = "is_zero")]
    pub series: u64,
    /// Chunks of all series.
    #[serde(rename = "numChunks", skip_serializing_if = "is_zero")]
    pub chunks: u64,
    /// Deleted intervals in `tombstones`.
    #[serde(rename = "numTombstones", skip_serializing_if = "is_zero")]
    pub tombstones: u64,
    /// Unknown fields.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// How a block was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compaction {
    /// 1 for a block cut from memory, otherwise one more than the highest level of its parents.
    pub level: u32,
    /// Sorted ids of all blocks of level 1 that it was made from; its own id for a block of level 1.
    #[serde(with = "ulid_texts", skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Ulid>,
    /// Whether it was the input of a compaction that left no sample: it should be deleted.
    #[serde(skip_serializing_if = "is_false")]
    pub deletable: bool,
    /// The blocks that it was made from directly.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<BlockDesc>,
    /// Whether a compaction of it failed: planning ignores it.
    #[serde(skip_serializing_if = "is_false")]
    pub failed: bool,
    /// Sorted remarks: `from-out-of-order`, `from-stale-series`, `from-selected-series`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// Unknown fields.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// A block that another was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockDesc {
    /// Its id.
    #[serde(with = "ulid_text")]
    pub ulid: Ulid,
    /// No sample was earlier.
    #[serde(rename = "minTime", with = "millis")]
    pub min_time: Timestamp,
    /// All samples were earlier: exclusive.
    #[serde(rename = "maxTime", with = "millis")]
    pub max_time: Timestamp,
}

/// The `thanos` section: what readers of a bucket need to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThanosMeta {
    /// Version of this section: 1, or 0 when it is absent, which means the same.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub version: u32,
    /// The external labels of the producer of the block. Empty when it has none; uploads reject such a block.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Resolution of the samples.
    pub downsample: Downsample,
    /// Which program uploaded it: `sidecar`, `compactor`, `bucket.upload` ...
    pub source: String,
    /// Sorted names of the files in `chunks/`; empty when unknown (superseded by `files`).
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub segment_files: Vec<String>,
    /// All files of the block, sorted by path; empty in blocks of old versions.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileMeta>,
    /// Rewrites that were applied (deletions, relabelling), as their tool wrote them.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub rewrites: Vec<Value>,
    /// The largest parts of the index, a hint for readers of ranges.
    pub index_stats: IndexStats,
    /// Data of other programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Value>,
    /// When `meta.json` was uploaded, in RFC 3339; [`ThanosMeta::NOT_UPLOADED`] before the upload.
    pub upload_time: String,
    /// Unknown fields.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Resolution of a block's samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Downsample {
    /// Milliseconds between aggregates: 0 for raw samples; downsampling makes 300,000 and 3,600,000.
    #[serde(rename = "resolution")]
    pub resolution_millis: i64,
}

/// A file of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    /// Path below the block's directory, with `/`.
    pub rel_path: String,
    /// Its size; absent for `meta.json` itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// A hash of its content, if the uploader was configured to compute it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<FileHash>,
}

/// A hash of a file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// The hash function; only `SHA256` is in use.
    #[serde(rename = "hashFunc")]
    pub func: String,
    /// The hash in hexadecimal digits.
    pub value: String,
}

/// The largest parts of an index. `None` where unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IndexStats {
    /// Size of the largest entry of a series with its length, checksum and padding, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series_max_size: Option<u64>,
    /// Size of the largest chunk, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_max_size: Option<u64>,
}

impl BlockMeta {
    /// The meta of a new block of level 1 without samples. Its only source is itself.
    pub fn new(ulid: Ulid, min_time: Timestamp, max_time: Timestamp) -> Self {
        Self {
            ulid,
            min_time,
            max_time,
            stats: BlockStats::default(),
            compaction: Compaction { level: 1, sources: vec![ulid], ..Compaction::default() },
            version: 1,
            thanos: None,
            unknown: Map::new(),
        }
    }

    /// The newest version, of the file and of its `thanos` section, that this program reads.
    pub const NEWEST_VERSION: u32 = 1;

    /// Reads the content of a `meta.json`.
    ///
    /// # Errors
    /// When it is not JSON, has no `ulid`, `minTime`, `maxTime` or `version`, has a field of another type, a `minTime` after
    /// `maxTime`, or an unknown version.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetaError> {
        let meta: Self = serde_json::from_slice(bytes)?;
        meta.check().map(|()| meta)
    }

    /// Whether its versions and times can be used.
    ///
    /// # Errors
    /// An unknown version, or a `minTime` after `maxTime`.
    pub fn check(&self) -> Result<(), MetaError> {
        if self.version != Self::NEWEST_VERSION {
            return Err(MetaError::Version(self.version));
        }
        if let Some(thanos) = &self.thanos
            && thanos.version > Self::NEWEST_VERSION
        {
            return Err(MetaError::ThanosVersion(thanos.version));
        }
        if self.min_time > self.max_time {
            return Err(MetaError::Times { min: self.min_time, max: self.max_time });
        }
        Ok(())
    }

    /// The content of a `meta.json`: indented with tabs, with a newline at the end, the same bytes for the same meta.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let indented = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, indented);
        self.serialize(&mut serializer).expect("maps have text keys and a vector takes all bytes");
        out.push(b'\n');
        out
    }

    /// All instants that a sample of the block can have, both ends included; empty where the times are equal.
    pub fn time_range(&self) -> TimeRange {
        TimeRange::new(self.min_time, self.max_time.offset_millis(-1))
    }

    /// Time between samples of a downsampled block; zero for raw samples.
    pub fn resolution(&self) -> Duration {
        let millis = self.thanos.as_ref().map_or(0, |thanos| thanos.downsample.resolution_millis);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

impl ThanosMeta {
    /// The value of [`ThanosMeta::upload_time`] before the upload: the zero time of Go.
    pub const NOT_UPLOADED: &'static str = "0001-01-01T00:00:00Z";
}

impl Default for ThanosMeta {
    fn default() -> Self {
        Self {
            version: 0,
            labels: BTreeMap::new(),
            downsample: Downsample::default(),
            source: String::new(),
            segment_files: Vec::new(),
            files: Vec::new(),
            rewrites: Vec::new(),
            index_stats: IndexStats::default(),
            extensions: None,
            upload_time: Self::NOT_UPLOADED.to_owned(),
            unknown: Map::new(),
        }
    }
}

impl fmt::Display for BlockMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}, {})", self.ulid, self.min_time, self.max_time)
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn is_zero_u32(version: &u32) -> bool {
    *version == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Go reads `null` as nothing.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Instants as a number of milliseconds.
mod millis {
    use model::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(at.as_millis())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp::from_millis)
    }
}

/// An id as text.
mod ulid_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use ulid::Ulid;

    use crate::meta::parse_block_id;

    pub(super) fn serialize<S: Serializer>(id: &Ulid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ulid, D::Error> {
        parse(&String::deserialize(deserializer)?)
    }

    pub(super) fn parse<E: serde::de::Error>(text: &str) -> Result<Ulid, E> {
        parse_block_id(text).ok_or_else(|| E::custom(format_args!("{text:?} is not a ULID")))
    }
}

/// Several ids as texts.
mod ulid_texts {
    use serde::{Deserializer, Serializer};
    use ulid::Ulid;

    use crate::meta::{or_default, ulid_text};

    pub(super) fn serialize<S: Serializer>(ids: &[Ulid], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ids.iter().map(Ulid::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ulid>, D::Error> {
        let texts: Vec<String> = or_default(deserializer)?;
        texts.iter().map(|text| ulid_text::parse(text)).collect()
    }
}

#[cfg(test)]
mod tests;
