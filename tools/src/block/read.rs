//! The samples of a block, series by series.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use model::{Labels, Matcher, TimeRange};
use series::{Aggregate, ChunkSample, decode_chunk};
use tsdb::{Block, BlockSeries, Encoding};

use crate::error::{Cause, Result, ToolError};

/// The aggregates of a downsampled block, each with its help.
const AGGREGATES: [(Aggregate, &str); 5] = [
    (Aggregate::Count, "Number of raw samples"),
    (Aggregate::Sum, "Sum of raw samples"),
    (Aggregate::Min, "Smallest raw sample"),
    (Aggregate::Max, "Largest raw sample"),
    (Aggregate::Counter, "Counter value, with resets applied"),
];

/// Parses the name of an aggregate of downsampled blocks.
pub(super) fn aggregate_parser() -> impl TypedValueParser<Value = Aggregate> {
    let values = AGGREGATES.map(|(aggregate, help)| PossibleValue::new(aggregate.name()).help(help));
    PossibleValuesParser::new(values).try_map(|name| {
        let found = Aggregate::STORED.into_iter().find(|aggregate| aggregate.name() == name);
        found.ok_or("there is no such aggregate")
    })
}

/// The series of `block` that match, sorted by their labels, with their samples in `range`. Series without such samples and
/// deleted samples are left out. One series is in memory at a time.
pub(super) fn series<'a>(
    block: &'a Block,
    matchers: &[Matcher],
    range: TimeRange,
    aggregate: Aggregate,
) -> Result<impl Iterator<Item = Result<(Labels, Vec<ChunkSample>)>> + 'a> {
    let selected = block.select(matchers, range)?;
    let read = move |series: Result<BlockSeries, tsdb::BlockError>| {
        let series = series?;
        let samples = samples(block, &series, range, aggregate)?;
        Ok((!samples.is_empty()).then_some((series.labels, samples)))
    };
    Ok(selected.map(read).filter_map(Result::transpose))
}

fn samples(
    block: &Block,
    series: &BlockSeries,
    range: TimeRange,
    aggregate: Aggregate,
) -> Result<Vec<ChunkSample>> {
    let mut samples = Vec::new();
    for meta in &series.chunks {
        let chunk = block.chunk(meta)?;
        let damaged = |error: tsdb::ChunkError| {
            ToolError::new(
                Cause::Damaged,
                format!("block {}: series {}: {error}", block.meta().ulid, series.labels),
            )
        };
        let chunk = match chunk.encoding {
            Encoding::Aggregates => match chunk.aggregates().map_err(damaged)?.get(aggregate) {
                Some(part) => part.clone(),
                None => continue,
            },
            _ => chunk,
        };
        decode_chunk(&chunk, &mut samples).map_err(damaged)?;
    }
    samples.retain(|sample| {
        range.contains(sample.at) && !series.deleted.iter().any(|gone| gone.contains(sample.at))
    });
    Ok(samples)
}
