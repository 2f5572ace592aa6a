//! `tools bucket inspect`: shows the metadata of all blocks as a table.

use clap::ValueEnum;
use tsdb::BlockMeta;

use crate::bucket::view;
use crate::error::{CommandOutcome, Result};
use crate::output::{Output, Table, TableCell, TableFormat};
use crate::text;

/// Minimum length of a raw block that is downsampled to 5m.
const FIRST_DOWNSAMPLING_MILLIS: i64 = 40 * 3_600_000;
/// Minimum length of a 5m block that is downsampled to 1h.
const SECOND_DOWNSAMPLING_MILLIS: i64 = 10 * 86_400_000;

/// Flags of `tools bucket inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Only blocks with this external label; of several, all must match (repeatable)
    #[arg(short = 'l', long, value_name = "NAME=\"VALUE\"", value_parser = text::label)]
    selector: Vec<(String, String)>,

    /// Column to sort by; further columns sort equal rows (repeatable)
    #[arg(long, value_name = "COLUMN", value_enum, default_values = ["FROM", "UNTIL"], ignore_case = true)]
    sort_by: Vec<InspectColumn>,

    /// Format of the output
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,

    #[command(flatten)]
    view: view::ListFlags,
}

/// The columns, under Thanos' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum InspectColumn {
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
) -> Result<CommandOutcome> {
    let view = args.view.fetch(bucket, view::all(false)).await?;
    let is_selected = |meta: &&BlockMeta| {
        args.selector.iter().all(|(name, value)| view::labels(meta).get(name) == Some(value))
    };
    let mut metas: Vec<&BlockMeta> = view.blocks.values().map(AsRef::as_ref).filter(is_selected).collect();
    sort(&mut metas, &args.sort_by);
    output.table(&table(&metas), args.output)?;
    view::note_hidden(&view);
    Ok(CommandOutcome::Fine)
}

/// Sorts by values, not by their printed text: 10 chunks are more than 9.
fn sort(metas: &mut [&BlockMeta], by: &[InspectColumn]) {
    let compare = |a: &&BlockMeta, b: &&BlockMeta| {
        let order = by.iter().map(|column| match column {
            InspectColumn::Ulid => a.ulid.cmp(&b.ulid),
            InspectColumn::From => a.min_time.cmp(&b.min_time),
            InspectColumn::Until => a.max_time.cmp(&b.max_time),
            InspectColumn::Range => range(a).cmp(&range(b)),
            InspectColumn::UntilDown => until_downsampling(a).cmp(&until_downsampling(b)),
            InspectColumn::Series => a.stats.series.cmp(&b.stats.series),
            InspectColumn::Samples => a.stats.samples.cmp(&b.stats.samples),
            InspectColumn::Chunks => a.stats.chunks.cmp(&b.stats.chunks),
            InspectColumn::CompLevel => a.compaction.level.cmp(&b.compaction.level),
            InspectColumn::CompFailed => a.compaction.failed.cmp(&b.compaction.failed),
            InspectColumn::Labels => view::labels(a).cmp(view::labels(b)),
            InspectColumn::Resolution => a.resolution().cmp(&b.resolution()),
            InspectColumn::Source => view::source(a).cmp(view::source(b)),
            InspectColumn::SizeBytes => view::size_bytes(a).cmp(&view::size_bytes(b)),
        });
        order.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then).then(a.ulid.cmp(&b.ulid))
    };
    metas.sort_by(compare);
}

fn range(meta: &BlockMeta) -> i64 {
    meta.max_time.millis_since(meta.min_time)
}

/// How much longer a block must become before it is downsampled; 0 if it is long enough, `None` if it is never downsampled.
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
            TableCell::text(meta.ulid.to_string()),
            TableCell::text(text::instant(meta.min_time)),
            TableCell::text(text::instant(meta.max_time)),
            TableCell::Length(range(meta)),
            until_downsampling(meta).map_or(TableCell::Absent, TableCell::Length),
            TableCell::Number(meta.stats.series),
            TableCell::Number(meta.stats.samples),
            TableCell::Number(meta.stats.chunks),
            TableCell::Number(meta.compaction.level.into()),
            TableCell::Flag(meta.compaction.failed),
            TableCell::Labels(view::labels(meta).clone()),
            TableCell::Length(meta.resolution().as_millis() as i64),
            TableCell::text(view::source(meta)),
            view::size_bytes(meta).map_or(TableCell::Absent, TableCell::Bytes),
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
        let order = |by: &[InspectColumn]| {
            let mut metas = vec![&c, &b, &a];
            sort(&mut metas, by);
            metas.iter().map(|meta| u128::from(meta.ulid)).collect::<Vec<_>>()
        };
        assert_eq!(order(&[InspectColumn::From, InspectColumn::Until]), [1, 2, 3]);
        assert_eq!(order(&[InspectColumn::Series, InspectColumn::Range]), [3, 2, 1]);
        assert_eq!(order(&[]), [1, 2, 3]);
    }

    #[test]
    fn the_length_missing_for_downsampling_depends_on_the_resolution() {
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
