//! Hints as `Any` messages of the package `hintspb` of Thanos.

use std::time::Duration;

use prost::Message;
use prost_types::Any;
use proto::hintspb as wire;

use crate::convert::matchers::{matchers_from_wire, matchers_to_wire};
use crate::{AnswerHints, BlockHints, QueryStats, StoreError};

/// The kinds of requests that have hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HintsOf {
    Series,
    LabelNames,
    LabelValues,
}

impl HintsOf {
    fn request(self) -> &'static str {
        match self {
            Self::Series => "hintspb.SeriesRequestHints",
            Self::LabelNames => "hintspb.LabelNamesRequestHints",
            Self::LabelValues => "hintspb.LabelValuesRequestHints",
        }
    }

    fn answer(self) -> &'static str {
        match self {
            Self::Series => "hintspb.SeriesResponseHints",
            Self::LabelNames => "hintspb.LabelNamesResponseHints",
            Self::LabelValues => "hintspb.LabelValuesResponseHints",
        }
    }
}

fn any(name: &str, value: Vec<u8>) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value }
}

/// The hints of a request.
///
/// # Errors
/// When they are of another kind, or damaged.
pub(super) fn from_wire(kind: HintsOf, hints: Option<Any>) -> Result<Option<BlockHints>, StoreError> {
    let Some(hints) = hints else { return Ok(None) };
    let found = hints.type_url.rsplit('/').next().unwrap_or_default();
    if found != kind.request() {
        let found: String = found.chars().take(100).collect();
        return Err(StoreError::invalid(format!(
            "hints of the type {found:?} are unknown, expected {}",
            kind.request()
        )));
    }
    // The messages for labels have the first field of the one for series.
    let read = wire::SeriesRequestHints::decode(hints.value.as_slice())
        .map_err(|error| StoreError::invalid(format!("{}: {error}", kind.request())))?;
    let matchers = matchers_from_wire(&read.block_matchers)?;
    Ok(Some(BlockHints { matchers, wants_stats: read.enable_query_stats && kind == HintsOf::Series }))
}

pub(super) fn to_wire(kind: HintsOf, hints: Option<&BlockHints>) -> Option<Any> {
    hints.map(|hints| {
        let message = wire::SeriesRequestHints {
            block_matchers: matchers_to_wire(&hints.matchers),
            enable_query_stats: hints.wants_stats && kind == HintsOf::Series,
        };
        any(kind.request(), message.encode_to_vec())
    })
}

/// The hints of an answer.
pub(crate) fn answer_to_wire(kind: HintsOf, hints: &AnswerHints) -> Any {
    // The messages for labels have the first field of the one for series.
    let message = wire::SeriesResponseHints {
        queried_blocks: hints.blocks.iter().map(|id| wire::Block { id: id.clone() }).collect(),
        query_stats: hints.stats.as_ref().filter(|_| kind == HintsOf::Series).map(stats_to_wire),
    };
    any(kind.answer(), message.encode_to_vec())
}

fn stats_to_wire(stats: &QueryStats) -> wire::QueryStats {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let duration = |time: Duration| prost_types::Duration::try_from(time).ok();
    wire::QueryStats {
        blocks_queried: count(stats.blocks),
        merged_series_count: count(stats.merged_series),
        merged_chunks_count: count(stats.merged_chunks),
        series_touched: count(stats.series),
        series_fetched: count(stats.series),
        chunks_touched: count(stats.chunks),
        chunks_touched_size_sum: count(stats.chunk_bytes),
        chunks_fetched: count(stats.chunks),
        data_downloaded_size_sum: count(stats.downloaded_bytes),
        get_all_duration: duration(stats.first_read),
        merge_duration: duration(stats.merge),
        ..wire::QueryStats::default()
    }
}

#[cfg(test)]
mod tests {
    use model::{MatchOp, Matcher};

    use super::*;

    fn hints() -> BlockHints {
        let matchers = vec![
            Matcher::equal("__block_id", "01JGG0ADG08DAYCAAY5RNFFBDX"),
            Matcher::new(MatchOp::Regex, "cluster", "eu-.*").unwrap(),
        ];
        BlockHints { matchers, wants_stats: true }
    }

    #[test]
    fn hints_of_requests_are_read_back() {
        assert_eq!(from_wire(HintsOf::Series, to_wire(HintsOf::Series, Some(&hints()))), Ok(Some(hints())));
        let of_labels = from_wire(HintsOf::LabelNames, to_wire(HintsOf::LabelNames, Some(&hints()))).unwrap();
        assert_eq!(of_labels, Some(BlockHints { wants_stats: false, ..hints() }));
        assert_eq!(from_wire(HintsOf::Series, None), Ok(None));
        // What Thanos writes: field 1 with a matcher of the type RE, field 2.
        let bytes = b"\x0a\x08\x08\x02\x12\x01a\x1a\x01b\x10\x01".to_vec();
        let read =
            from_wire(HintsOf::Series, Some(any("hintspb.SeriesRequestHints", bytes))).unwrap().unwrap();
        let expected = vec![Matcher::new(MatchOp::Regex, "a", "b").unwrap()];
        assert_eq!(read, BlockHints { matchers: expected, wants_stats: true });
    }

    #[test]
    fn hints_of_another_kind_and_damaged_ones_are_refused() {
        let error = from_wire(HintsOf::LabelValues, to_wire(HintsOf::Series, Some(&hints()))).unwrap_err();
        assert!(error.to_string().contains("\"hintspb.SeriesRequestHints\" are unknown"), "{error}");
        let sound = to_wire(HintsOf::Series, Some(&hints())).unwrap();
        for cut in 1..sound.value.len() {
            let value = sound.value[..cut].to_vec();
            // Some cuts are between two fields.
            drop(from_wire(HintsOf::Series, Some(Any { value, ..sound.clone() })));
            let mut flipped = sound.value.clone();
            flipped[cut] ^= 0x55;
            drop(from_wire(HintsOf::Series, Some(Any { value: flipped, ..sound.clone() })));
        }
        let bad = Any { value: vec![0xff; 9], ..sound };
        assert!(
            from_wire(HintsOf::Series, Some(bad)).unwrap_err().to_string().contains("SeriesRequestHints")
        );
    }

    #[test]
    fn hints_of_answers_have_the_fields_of_thanos() {
        let stats = QueryStats {
            blocks: 2,
            merged_series: 7,
            merge: Duration::from_millis(1500),
            ..QueryStats::default()
        };
        let answer = AnswerHints { blocks: vec!["A".to_owned(), "B".to_owned()], stats: Some(stats) };
        let sent = answer_to_wire(HintsOf::Series, &answer);
        assert_eq!(sent.type_url, "type.googleapis.com/hintspb.SeriesResponseHints");
        let read = wire::SeriesResponseHints::decode(sent.value.as_slice()).unwrap();
        assert_eq!(read.queried_blocks.iter().map(|block| block.id.as_str()).collect::<Vec<_>>(), ["A", "B"]);
        let stats = read.query_stats.unwrap();
        assert_eq!((stats.blocks_queried, stats.merged_series_count), (2, 7));
        assert_eq!(stats.merge_duration.map(|time| (time.seconds, time.nanos)), Some((1, 500_000_000)));
        let of_labels = answer_to_wire(HintsOf::LabelValues, &answer);
        let read = wire::LabelValuesResponseHints::decode(of_labels.value.as_slice()).unwrap();
        assert_eq!(read.queried_blocks.len(), 2);
    }
}
