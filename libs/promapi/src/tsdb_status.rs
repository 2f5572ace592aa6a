//! Statistics of a TSDB, as `/api/v1/status/tsdb` has them.

use serde::{Deserialize, Serialize};

use crate::json::null_is_default;

/// Statistics of the head of a TSDB, and its largest labels and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TsdbStatus {
    /// Statistics of the head.
    pub head_stats: HeadStats,
    /// The metrics with most series.
    #[serde(deserialize_with = "null_is_default")]
    pub series_count_by_metric_name: Vec<TsdbStat>,
    /// The labels with most values.
    #[serde(deserialize_with = "null_is_default")]
    pub label_value_count_by_label_name: Vec<TsdbStat>,
    /// The labels whose values need most memory, in bytes.
    #[serde(deserialize_with = "null_is_default")]
    pub memory_in_bytes_by_label_name: Vec<TsdbStat>,
    /// The labels and values, as `name=value`, with most series.
    #[serde(deserialize_with = "null_is_default")]
    pub series_count_by_label_value_pair: Vec<TsdbStat>,
}

/// Statistics of the head of a TSDB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeadStats {
    /// Number of series.
    pub num_series: u64,
    /// Number of pairs of a label and a value.
    pub num_label_pairs: i64,
    /// Number of chunks.
    pub chunk_count: i64,
    /// Time of the earliest sample, in milliseconds since the epoch; the greatest number if there is none.
    pub min_time: i64,
    /// Time of the latest sample, in milliseconds since the epoch; the least number if there is none.
    pub max_time: i64,
}

/// A name and its number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TsdbStat {
    /// The name of a metric or label, or `name=value`.
    pub name: String,
    /// Its number of series, values or bytes.
    pub value: u64,
}
