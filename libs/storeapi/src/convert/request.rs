//! Requests, and all answers but Series.

use std::time::Duration;

use model::{TimeRange, Timestamp};
use proto::thanos as wire;
use series::{AggrChunk, Aggregate, Series};
use tsdb::Encoding;

use crate::convert::hints::{self, HintsOf};
use crate::convert::matchers::{matchers_from_wire, matchers_to_wire};
use crate::{
    LabelNamesRequest, LabelValuesRequest, MetadataAnswer, MetadataRequest, MetricMetadata, PartialResponse,
    QueryHints, SeriesRequest, Shard, StoreError,
};

fn range(min: i64, max: i64) -> TimeRange {
    TimeRange::new(Timestamp::from_millis(min), Timestamp::from_millis(max))
}

pub(super) fn partial_from_wire(disabled: bool, strategy: i32) -> PartialResponse {
    if disabled || strategy == wire::PartialResponseStrategy::Abort as i32 {
        PartialResponse::Abort
    } else {
        PartialResponse::Warn
    }
}

pub(super) fn partial_to_wire(partial: PartialResponse) -> (bool, i32) {
    match partial {
        PartialResponse::Warn => (false, wire::PartialResponseStrategy::Warn.into()),
        PartialResponse::Abort => (true, wire::PartialResponseStrategy::Abort.into()),
    }
}

fn limit_from_wire(limit: i64) -> Option<usize> {
    usize::try_from(limit).ok().filter(|limit| *limit > 0)
}

fn limit_to_wire(limit: Option<usize>) -> i64 {
    limit.map_or(0, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

fn millis_from_wire(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn millis_to_wire(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn series_request_from_wire(request: wire::SeriesRequest) -> Result<SeriesRequest, StoreError> {
    let aggregate = |number: &i32| match wire::Aggr::try_from(*number) {
        Ok(wire::Aggr::Raw) => Ok(Aggregate::Raw),
        Ok(wire::Aggr::Count) => Ok(Aggregate::Count),
        Ok(wire::Aggr::Sum) => Ok(Aggregate::Sum),
        Ok(wire::Aggr::Min) => Ok(Aggregate::Min),
        Ok(wire::Aggr::Max) => Ok(Aggregate::Max),
        Ok(wire::Aggr::Counter) => Ok(Aggregate::Counter),
        Err(_) => Err(StoreError::invalid(format!("unknown aggregate {number}"))),
    };
    let shard = match request.shard_info {
        Some(shard) if shard.total_shards >= 1 => {
            let (Ok(index), Ok(total)) =
                (u64::try_from(shard.shard_index), u64::try_from(shard.total_shards))
            else {
                return Err(StoreError::invalid(format!("shard index {} is negative", shard.shard_index)));
            };
            Some(Shard { index, total, by: shard.by, labels: shard.labels })
        }
        _ => None,
    };
    let block_hints = hints::from_wire(HintsOf::Series, request.hints)?;
    let hints = request.query_hints.map(|hints| {
        let grouping = hints.grouping.unwrap_or_default();
        QueryHints {
            step: millis_from_wire(hints.step_millis),
            function: hints.func.unwrap_or_default().name,
            range: millis_from_wire(hints.range.unwrap_or_default().millis),
            grouping: grouping.labels,
            by: grouping.by,
        }
    });
    Ok(SeriesRequest {
        range: range(request.min_time, request.max_time),
        matchers: matchers_from_wire(&request.matchers)?,
        max_resolution: millis_from_wire(request.max_resolution_window),
        coarser_if_needed: request.coarser_if_needed,
        aggregates: request.aggregates.iter().map(aggregate).collect::<Result<_, _>>()?,
        partial_response: partial_from_wire(
            request.partial_response_disabled,
            request.partial_response_strategy,
        ),
        skip_chunks: request.skip_chunks,
        shard,
        without_replica_labels: request.without_replica_labels,
        limit: limit_from_wire(request.limit),
        batch_size: usize::try_from(request.response_batch_size).unwrap_or(0),
        hints,
        block_hints,
    })
}

pub(crate) fn series_request_to_wire(request: &SeriesRequest) -> wire::SeriesRequest {
    let aggregate = |aggregate: &Aggregate| match aggregate {
        Aggregate::Raw => wire::Aggr::Raw.into(),
        Aggregate::Count => wire::Aggr::Count.into(),
        Aggregate::Sum => wire::Aggr::Sum.into(),
        Aggregate::Min => wire::Aggr::Min.into(),
        Aggregate::Max => wire::Aggr::Max.into(),
        Aggregate::Counter => wire::Aggr::Counter.into(),
    };
    let (partial_response_disabled, partial_response_strategy) = partial_to_wire(request.partial_response);
    let shard_info = request.shard.as_ref().map(|shard| wire::ShardInfo {
        shard_index: i64::try_from(shard.index).unwrap_or(i64::MAX),
        total_shards: i64::try_from(shard.total).unwrap_or(i64::MAX),
        by: shard.by,
        labels: shard.labels.clone(),
    });
    let query_hints = request.hints.as_ref().map(|hints| wire::QueryHints {
        step_millis: millis_to_wire(hints.step),
        func: Some(wire::Func { name: hints.function.clone() }),
        grouping: Some(wire::Grouping { by: hints.by, labels: hints.grouping.clone() }),
        range: Some(wire::Range { millis: millis_to_wire(hints.range) }),
        ..Default::default()
    });
    wire::SeriesRequest {
        min_time: request.range.min.as_millis(),
        max_time: request.range.max.as_millis(),
        matchers: matchers_to_wire(&request.matchers),
        max_resolution_window: millis_to_wire(request.max_resolution),
        coarser_if_needed: request.coarser_if_needed,
        aggregates: request.aggregates.iter().map(aggregate).collect(),
        partial_response_disabled,
        partial_response_strategy,
        skip_chunks: request.skip_chunks,
        hints: hints::to_wire(HintsOf::Series, request.block_hints.as_ref()),
        query_hints,
        shard_info,
        without_replica_labels: request.without_replica_labels.clone(),
        limit: limit_to_wire(request.limit),
        response_batch_size: i64::try_from(request.batch_size).unwrap_or(i64::MAX),
        accepted_encodings: START_ENCODINGS.map(|(number, _)| number.into()).to_vec(),
        ..Default::default()
    }
}

/// Encodings that not every client of StoreAPI can decode.
const START_ENCODINGS: [(wire::chunk::Encoding, Encoding); 3] = [
    (wire::chunk::Encoding::Xor2, Encoding::Xor2),
    (wire::chunk::Encoding::HistogramSt, Encoding::HistogramSt),
    (wire::chunk::Encoding::FloatHistogramSt, Encoding::FloatHistogramSt),
];

/// Which chunk encodings a client can decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcceptedEncodings(Vec<Encoding>);

impl AcceptedEncodings {
    /// The encodings that every client can decode, and those that the request names. Unknown numbers are ignored.
    pub(crate) fn of(request: &wire::SeriesRequest) -> Self {
        let named = START_ENCODINGS.iter();
        let named = named.filter(|(number, _)| request.accepted_encodings.contains(&(*number).into()));
        Self(named.map(|(_, encoding)| *encoding).collect())
    }

    /// Converts the chunks of a series to encodings that the client can decode, without start timestamps if it cannot decode
    /// them.
    ///
    /// # Errors
    /// When a chunk that has to be converted is damaged.
    pub(crate) fn apply(&self, series: &mut Series) -> Result<(), StoreError> {
        for part in series.chunks.iter_mut().flat_map(AggrChunk::parts_mut) {
            let basic = [Encoding::Xor, Encoding::Histogram, Encoding::FloatHistogram];
            if !basic.contains(&part.encoding) && !self.0.contains(&part.encoding) {
                *part = part.without_starts().map_err(|problem| {
                    let (labels, range) = (&series.labels, part.range);
                    let (min, max) = (range.min, range.max);
                    StoreError::internal(format!("series {labels}: chunk from {min} to {max} ms: {problem}"))
                })?;
            }
        }
        Ok(())
    }
}

pub(crate) fn label_names_from_wire(
    request: wire::LabelNamesRequest,
) -> Result<LabelNamesRequest, StoreError> {
    Ok(LabelNamesRequest {
        range: range(request.start, request.end),
        matchers: matchers_from_wire(&request.matchers)?,
        partial_response: partial_from_wire(
            request.partial_response_disabled,
            request.partial_response_strategy,
        ),
        without_replica_labels: request.without_replica_labels,
        limit: limit_from_wire(request.limit),
        block_hints: hints::from_wire(HintsOf::LabelNames, request.hints)?,
    })
}

pub(crate) fn label_names_to_wire(request: &LabelNamesRequest) -> wire::LabelNamesRequest {
    let (partial_response_disabled, partial_response_strategy) = partial_to_wire(request.partial_response);
    wire::LabelNamesRequest {
        partial_response_disabled,
        partial_response_strategy,
        start: request.range.min.as_millis(),
        end: request.range.max.as_millis(),
        hints: hints::to_wire(HintsOf::LabelNames, request.block_hints.as_ref()),
        matchers: matchers_to_wire(&request.matchers),
        without_replica_labels: request.without_replica_labels.clone(),
        limit: limit_to_wire(request.limit),
    }
}

pub(crate) fn label_values_from_wire(
    request: wire::LabelValuesRequest,
) -> Result<LabelValuesRequest, StoreError> {
    if request.label.is_empty() {
        return Err(StoreError::invalid("label values: the label name must not be empty"));
    }
    Ok(LabelValuesRequest {
        label: request.label,
        range: range(request.start, request.end),
        matchers: matchers_from_wire(&request.matchers)?,
        partial_response: partial_from_wire(
            request.partial_response_disabled,
            request.partial_response_strategy,
        ),
        without_replica_labels: request.without_replica_labels,
        limit: limit_from_wire(request.limit),
        block_hints: hints::from_wire(HintsOf::LabelValues, request.hints)?,
    })
}

pub(crate) fn label_values_to_wire(request: &LabelValuesRequest) -> wire::LabelValuesRequest {
    let (partial_response_disabled, partial_response_strategy) = partial_to_wire(request.partial_response);
    wire::LabelValuesRequest {
        label: request.label.clone(),
        partial_response_disabled,
        partial_response_strategy,
        start: request.range.min.as_millis(),
        end: request.range.max.as_millis(),
        hints: hints::to_wire(HintsOf::LabelValues, request.block_hints.as_ref()),
        matchers: matchers_to_wire(&request.matchers),
        without_replica_labels: request.without_replica_labels.clone(),
        limit: limit_to_wire(request.limit),
    }
}

pub(crate) fn metadata_request_from_wire(request: wire::MetricMetadataRequest) -> MetadataRequest {
    MetadataRequest {
        metric: Some(request.metric).filter(|metric| !metric.is_empty()),
        limit: usize::try_from(request.limit).ok(),
        partial_response: partial_from_wire(false, request.partial_response_strategy),
    }
}

pub(crate) fn metadata_request_to_wire(request: &MetadataRequest) -> wire::MetricMetadataRequest {
    wire::MetricMetadataRequest {
        metric: request.metric.clone().unwrap_or_default(),
        limit: request.limit.map_or(-1, |limit| i32::try_from(limit).unwrap_or(i32::MAX)),
        partial_response_strategy: partial_to_wire(request.partial_response).1,
    }
}

/// Adds one frame of a metadata answer.
pub(crate) fn add_metadata(answer: &mut MetadataAnswer, frame: wire::MetricMetadataResponse) {
    use wire::metric_metadata_response::Result as Frame;
    match frame.result {
        None => {}
        Some(Frame::Warning(text)) => answer.warnings.push(text),
        Some(Frame::Metadata(metadata)) => {
            for (metric, entry) in metadata.metadata {
                let metas = entry.metas.into_iter();
                let entries = metas.map(|m| MetricMetadata { kind: m.r#type, help: m.help, unit: m.unit });
                answer.metadata.entry(metric).or_default().extend(entries);
            }
        }
    }
}

/// A metadata answer as its frames.
pub(crate) fn metadata_to_wire(answer: MetadataAnswer) -> Vec<wire::MetricMetadataResponse> {
    use wire::metric_metadata_response::Result as Frame;
    let entry = |entries: Vec<MetricMetadata>| wire::MetricMetadataEntry {
        metas: entries
            .into_iter()
            .map(|m| wire::Meta { r#type: m.kind, help: m.help, unit: m.unit })
            .collect(),
    };
    let metadata = wire::MetricMetadata {
        metadata: answer.metadata.into_iter().map(|(metric, entries)| (metric, entry(entries))).collect(),
    };
    let warnings = answer.warnings.into_iter().map(Frame::Warning);
    std::iter::once(Frame::Metadata(metadata))
        .chain(warnings)
        .map(|result| wire::MetricMetadataResponse { result: Some(result) })
        .collect()
}
