//! `tools bucket ls`: which blocks there are.

use tsdb::BlockMeta;

use crate::bucket::select::SelectFlags;
use crate::bucket::view;
use crate::error::{Outcome, Result};
use crate::output::{Cell, Output, Table, TableFormat};
use crate::text;

/// Flags of `tools bucket ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct LsArgs {
    /// What is printed of each block: its id alone, a line, its meta.json, or a table of all
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "id")]
    output: LsFormat,

    /// Leaves out blocks that are marked for deletion
    #[arg(long)]
    exclude_delete: bool,

    #[command(flatten)]
    select: SelectFlags,

    #[command(flatten)]
    view: view::ViewFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LsFormat {
    /// Its id
    Id,
    /// A line with times, level, resolution and source
    Wide,
    /// Its meta.json, one document after the other
    Json,
    /// A row of a table
    Table,
}

pub(super) async fn run(args: LsArgs, bucket: &::bucket::Bucket, output: &mut Output) -> Result<Outcome> {
    let view = args.view.fetch(bucket, args.select.options(args.exclude_delete)?).await?;
    print(args.output, view.blocks.values().map(AsRef::as_ref), output)?;
    view::note_hidden(&view);
    Ok(Outcome::Fine)
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
                Cell::text(id.to_string()),
                Cell::text(from),
                Cell::text(until),
                Cell::Length(range),
                Cell::Number(level.into()),
                Cell::Length(resolution),
                Cell::text(source),
                Cell::Labels(view::labels(meta).clone()),
            ]),
        }
    }
    match format {
        LsFormat::Table => output.table(&table, TableFormat::Table),
        _ => Ok(()),
    }
}
