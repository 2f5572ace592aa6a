//! `tools bucket inspect`: what all blocks are, side by side.

use clap::ValueEnum;
use tsdb::BlockMeta;

use crate::bucket::view;
use crate::error::{Outcome, Result};
use crate::output::{Cell, Output, Table, TableFormat};
use crate::text;

/// A block of 5m resolution is made from raw ones at least this long.
const FIRST_DOWNSAMPLING_MILLIS: i64 = 40 * 3_600_000;
/// A block of 1h resolution is made from 5m ones at least this long.
const SECOND_DOWNSAMPLING_MILLIS: i64 = 10 * 86_400_000;

/// Flags of `tools bucket inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Only blocks with this external label; all must match (repeatable)
    #[arg(short = 'l', long, value_name = "NAME=\"VALUE\"", value_parser = text::label)]
    selector: Vec<(String, String)>,

    /// Sort by this column, then by the next one given (repeatable)
    #[arg(long, value_name = "COLUMN", value_enum, default_values = ["FROM", "UNTIL"], ignore_case = true)]
    sort_by: Vec<Column>,

    /// Form of the output
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,

    #[command(flatten)]
    view: view::ViewFlags,
}

/// The columns, under Thanos' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Column {
    Ulid,
    From,
    Until,
    Range,
    #[value(name = "UNTIL-DOWN")]
    UntilDown,
    #[value(name = "#SERIES", alias = "SERIES")]
    Series,
    #[value(name = "#SAMPLES", alias = "SAMPLES")]
    Samples,
    #[value(name = "#CHUNKS", alias = "CHUNKS")]
    Chunks,
    #[value(name = "COMP-LEVEL")]
    CompLevel,
    #[value(name = "COMP-FAILED")]
    CompFailed,
    Labels,
    Resolution,
    Source,
    #[value(name = "SIZE")]
    SizeBytes,
}

pub(super) async fn run(
    args: InspectArgs,
    bucket: &::bucket::Bucket,
    output: &mut Output,
) -> Result<Outcome> {
    let view = args.view.fetch(bucket, view::all(false)).await?;
    let is_selected = |meta: &&BlockMeta| {
        args.selector.iter().all(|(name, value)| view::labels(meta).get(name) == Some(value))
    };
    let mut metas: Vec<&BlockMeta> = view.blocks.values().map(AsRef::as_ref).filter(is_selected).collect();
    sort(&mut metas, &args.sort_by);
    output.table(&table(&metas), args.output)?;
    view::note_hidden(&view);
    Ok(Outcome::Fine)
}

/// Sorts by values rather than by what is printed of them: 10 chunks are more than 9.
fn sort(metas: &mut [&BlockMeta], by: &[Column]) {
    let compare = |a: &&BlockMeta, b: &&BlockMeta| {
        let order = by.iter().map(|column| match column {
            Column::Ulid => a.ulid.cmp(&b.ulid),
            Column::From => a.min_time.cmp(&b.min_time),
            Column::Until => a.max_time.cmp(&b.max_time),
            Column::Range => range(a).cmp(&range(b)),
            Column::UntilDown => until_downsampling(a).cmp(&until_downsampling(b)),
            Column::Series => a.stats.series.cmp(&b.stats.series),
            Column::Samples => a.stats.samples.cmp(&b.stats.samples),
            Column::Chunks => a.stats.chunks.cmp(&b.stats.chunks),
            Column::CompLevel => a.compaction.level.cmp(&b.compaction.level),
            Column::CompFailed => a.compaction.failed.cmp(&b.compaction.failed),
            Column::Labels => view::labels(a).cmp(view::labels(b)),
            Column::Resolution => a.resolution().cmp(&b.resolution()),
            Column::Source => view::source(a).cmp(view::source(b)),
            Column::SizeBytes => view::size_bytes(a).cmp(&view::size_bytes(b)),
        });
        order.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then).then(a.ulid.cmp(&b.ulid))
    };
    metas.sort_by(compare);
}

fn range(meta: &BlockMeta) -> i64 {
    meta.max_time.millis_since(meta.min_time)
}

/// How much longer a block has to grow until it is downsampled; 0 when it can be now, `None` when it never will.
fn until_downsampling(meta: &BlockMeta) -> Option<i64> {
    match meta.resolution().as_millis() {
        0 => Some((FIRST_DOWNSAMPLING_MILLIS - range(meta)).max(0)),
        300_000 => Some((SECOND_DOWNSAMPLING_MILLIS - range(meta)).max(0)),
        _ => None,
    }
}

fn table(metas: &[&BlockMeta]) -> Table {
    let mut table = Table::new(&[
        ("ULID", "ulid"),
        ("FROM", "from"),
        ("UNTIL", "until"),
        ("RANGE", "rangeMillis"),
        ("UNTIL-DOWN", "untilDownsamplingMillis"),
        ("#SERIES", "series"),
        ("#SAMPLES", "samples"),
        ("#CHUNKS", "chunks"),
        ("COMP-LEVEL", "compactionLevel"),
        ("COMP-FAILED", "compactionFailed"),
        ("LABELS", "labels"),
        ("RESOLUTION", "resolutionMillis"),
        ("SOURCE", "source"),
        ("SIZE", "sizeBytes"),
    ]);
    for meta in metas {
        table.push(vec![
            Cell::text(meta.ulid.to_string()),
            Cell::text(text::instant(meta.min_time)),
            Cell::text(text::instant(meta.max_time)),
            Cell::Length(range(meta)),
            until_downsampling(meta).map_or(Cell::Absent, Cell::Length),
            Cell::Number(meta.stats.series),
            Cell::Number(meta.stats.samples),
            Cell::Number(meta.stats.chunks),
            Cell::Number(meta.compaction.level.into()),
            Cell::Flag(meta.compaction.failed),
            Cell::Labels(view::labels(meta).clone()),
            Cell::Length(meta.resolution().as_millis() as i64),
            Cell::text(view::source(meta)),
            view::size_bytes(meta).map_or(Cell::Absent, Cell::Bytes),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use model::Timestamp;
    use tsdb::{ThanosMeta, Ulid};

    use super::*;

    fn meta(id: u128, from_hours: i64, until_hours: i64, series: u64) -> BlockMeta {
        let at = |hours: i64| Timestamp::from_millis(hours * 3_600_000);
        let mut meta = BlockMeta::new(Ulid::from(id), at(from_hours), at(until_hours));
        meta.stats.series = series;
        meta.thanos = Some(ThanosMeta::default());
        meta
    }

    #[test]
    fn blocks_are_sorted_by_values_in_the_order_of_columns() {
        let (a, b, c) = (meta(1, 0, 2, 10), meta(2, 0, 4, 9), meta(3, 2, 4, 9));
        let order = |by: &[Column]| {
            let mut metas = vec![&c, &b, &a];
            sort(&mut metas, by);
            metas.iter().map(|meta| u128::from(meta.ulid)).collect::<Vec<_>>()
        };
        assert_eq!(order(&[Column::From, Column::Until]), [1, 2, 3]);
        assert_eq!(order(&[Column::Series, Column::Range]), [3, 2, 1]);
        assert_eq!(order(&[]), [1, 2, 3]);
    }

    #[test]
    fn a_block_tells_how_long_it_must_grow_to_be_downsampled() {
        let until = |hours: i64, resolution: i64| {
            let mut meta = meta(1, 0, hours, 0);
            meta.thanos.as_mut().unwrap().downsample.resolution_millis = resolution;
            until_downsampling(&meta).map(text::length)
        };
        assert_eq!(until(2, 0).as_deref(), Some("1d14h"));
        assert_eq!(until(48, 0).as_deref(), Some("0s"));
        assert_eq!(until(48, 300_000).as_deref(), Some("8d"));
        assert_eq!(until(48, 3_600_000), None);
    }
}
