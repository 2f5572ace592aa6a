//! `tools bucket ls`: lists the blocks.

use tsdb::BlockMeta;

use crate::bucket::select::SelectFlags;
use crate::bucket::view;
use crate::error::{CommandOutcome, Result};
use crate::output::{Output, Table, TableCell, TableFormat};
use crate::text;

/// Flags of `tools bucket ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct LsArgs {
    /// Format of the list
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "id")]
    output: LsFormat,

    /// Leave out blocks that are marked for deletion
    #[arg(long)]
    exclude_delete: bool,

    #[command(flatten)]
    select: SelectFlags,

    #[command(flatten)]
    view: view::ListFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LsFormat {
    /// The id of each block
    Id,
    /// One line for each block with times, level, resolution and source
    Wide,
    /// The meta.json of each block, one document after the other
    Json,
    /// A table with one row for each block
    Table,
}

pub(super) async fn run(
    args: LsArgs,
    bucket: &::bucket::Bucket,
    output: &mut Output,
) -> Result<CommandOutcome> {
    let view = args.view.fetch(bucket, args.select.options(args.exclude_delete)?).await?;
    print(args.output, view.blocks.values().map(AsRef::as_ref), output)?;
    view::note_hidden(&view);
    Ok(CommandOutcome::Fine)
}

fn print<'a>(
    format: LsFormat,
    metas: impl Iterator<Item = &'a BlockMeta>,
    output: &mut Output,
) -> Result<()> {
    let mut table = Table::new(&[
        ("ULID", "ulid"),
        ("FROM", "from"),
        ("UNTIL", "until"),
        ("RANGE", "rangeMillis"),
        ("LEVEL", "level"),
        ("RESOLUTION", "resolutionMillis"),
        ("SOURCE", "source"),
        ("LABELS", "labels"),
    ]);
    for meta in metas {
        let (from, until) = (text::instant(meta.min_time), text::instant(meta.max_time));
        let range = meta.max_time.millis_since(meta.min_time);
        let (id, level) = (meta.ulid, meta.compaction.level);
        let (resolution, source) = (meta.resolution().as_millis() as i64, view::source(meta));
        match format {
            LsFormat::Id => output.line(id)?,
            LsFormat::Json => output.bytes(&meta.to_json())?,
            LsFormat::Wide => output.line(format_args!(
                "{id} -- {from} - {until} Diff: {}, Compaction: {level}, Downsample: {}, Source: {source}",
                text::length(range),
                text::length(resolution),
            ))?,
            LsFormat::Table => table.push(vec![
                TableCell::text(id.to_string()),
                TableCell::text(from),
                TableCell::text(until),
                TableCell::Length(range),
                TableCell::Number(level.into()),
                TableCell::Length(resolution),
                TableCell::text(source),
                TableCell::Labels(view::labels(meta).clone()),
            ]),
        }
    }
    match format {
        LsFormat::Table => output.table(&table, TableFormat::Table),
        _ => Ok(()),
    }
}
