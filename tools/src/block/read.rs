//! The samples of a block, series by series.

use model::{Labels, Matcher, TimeRange, Timestamp};
use tsdb::{Aggregates, Block, BlockSeries, Chunk, Encoding};

use crate::error::{Cause, Context, Result, ToolError};
use crate::samples::{self, Point};

/// Which aggregate of a downsampled block stands for its samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Aggregate {
    /// Number of raw samples
    #[default]
    Count,
    /// Sum of raw samples
    Sum,
    /// Least raw sample
    Min,
    /// Greatest raw sample
    Max,
    /// The counter with resets applied
    Counter,
}

impl Aggregate {
    fn of(self, aggregates: Aggregates) -> Option<Chunk> {
        match self {
            Self::Count => aggregates.count,
            Self::Sum => aggregates.sum,
            Self::Min => aggregates.min,
            Self::Max => aggregates.max,
            Self::Counter => aggregates.counter,
        }
    }
}

/// The series of `block` that match, in the order of their labels, with their samples in `range`; series without
/// any are left out. Deleted samples are not shown. Holds one series at a time.
pub(super) fn series<'a>(
    block: &'a Block,
    matchers: &[Matcher],
    range: TimeRange,
    aggregate: Aggregate,
) -> Result<impl Iterator<Item = Result<(Labels, Vec<Point>)>> + 'a> {
    let selected = block.select(matchers, range)?;
    let read = move |series: Result<BlockSeries, tsdb::BlockError>| {
        let series = series?;
        let points = points(block, &series, range, aggregate)?;
        Ok((!points.is_empty()).then_some((series.labels, points)))
    };
    Ok(selected.map(read).filter_map(Result::transpose))
}

fn points(block: &Block, series: &BlockSeries, range: TimeRange, aggregate: Aggregate) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for meta in &series.chunks {
        let chunk = block.chunk(meta)?;
        let damaged = |error: tsdb::ChunkError| {
            ToolError::new(
                Cause::Damaged,
                format!("block {}: series {}: {error}", block.meta().ulid, series.labels),
            )
        };
        let chunk = match chunk.encoding {
            Encoding::Aggregates => match aggregate.of(chunk.aggregates().map_err(damaged)?) {
                Some(part) => part,
                None => continue,
            },
            _ => chunk,
        };
        samples::decode(&chunk, &mut points).map_err(damaged)?;
    }
    points.retain(|point| {
        let at = Timestamp::from_millis(point.millis);
        range.contains(at) && !series.deleted.iter().any(|gone| gone.contains(at))
    });
    Ok(points)
}

/// Runs `work` where it may block, because a block's bytes come one read after the other.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ToolError::new(Cause::Failed, error.to_string())).context("read blocks")?
}
