//! `tools bucket analyze`: counts the series of metrics, labels, and pairs of label and value.
//!
//! Only the postings offset tables are read, which are a few per cent of the indexes: the offsets of two lists give the
//! length of the first. Several blocks are counted together; a series that is in several blocks counts in each.

use std::collections::BTreeMap;

use ::bucket::{Bucket, OpenBlockOptions};
use model::METRIC_NAME;
use serde_json::json;
use tsdb::{Index, Ulid};

use crate::blocking::blocking;
use crate::bucket::select::SelectFlags;
use crate::bucket::view;
use crate::error::{Cause, CommandOutcome, Result, ToolError};
use crate::output::{Output, Table, TableCell, TableFormat};
use crate::progress::{TaskProgress, Unit};
use crate::text;

/// Minimum number of pairs of each block that are counted, largest first. A pair that is not among them in a block is not
/// counted for that block.
const PAIRS_OF_BLOCK: usize = 10_000;

/// Flags of `tools bucket analyze`.
#[derive(Debug, clap::Args)]
pub(crate) struct AnalyzeArgs {
    /// Only this block (repeatable)
    #[arg(long, value_name = "ULID", value_parser = text::block_id)]
    id: Vec<Ulid>,

    /// Number of rows of each table
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,

    /// Format of the output
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,

    #[command(flatten)]
    select: SelectFlags,

    #[command(flatten)]
    view: view::ListFlags,
}

/// A number of series: in all blocks together, and in the block with most of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    series: u64,
    most: u64,
    blocks: u64,
}

impl Count {
    fn add(&mut self, series: u64) {
        self.series += series;
        self.most = self.most.max(series);
        self.blocks += 1;
    }
}

/// A label name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LabelCount {
    count: Count,
    /// Number of values, in the block with most of them.
    values: u64,
}

/// All counts.
#[derive(Debug, Default)]
struct Analysis {
    blocks: u64,
    series: Count,
    metrics: BTreeMap<String, Count>,
    labels: BTreeMap<String, LabelCount>,
    pairs: BTreeMap<(String, String), Count>,
}

impl Analysis {
    fn add(&mut self, index: &Index, limit: usize) -> Result<()> {
        self.blocks += 1;
        let mut of_block: Vec<(u64, String, String)> = Vec::new();
        let keep = PAIRS_OF_BLOCK.max(limit);
        for (name, values) in index.label_names() {
            let counts = index.series_by_value(name)?;
            let series = counts.iter().map(|(_, series)| series).sum();
            let label = self.labels.entry(name.to_owned()).or_default();
            label.count.add(series);
            label.values = label.values.max(values);
            if name == METRIC_NAME {
                self.series.add(series);
                for (metric, series) in counts {
                    self.metrics.entry(metric).or_default().add(series);
                }
                continue;
            }
            of_block.extend(counts.into_iter().map(|(value, series)| (series, name.to_owned(), value)));
            if of_block.len() > keep {
                of_block.select_nth_unstable_by(keep - 1, |a, b| b.0.cmp(&a.0).then_with(|| a.cmp(b)));
                of_block.truncate(keep);
            }
        }
        for (series, name, value) in of_block {
            self.pairs.entry((name, value)).or_default().add(series);
        }
        Ok(())
    }
}

pub(super) async fn run(args: AnalyzeArgs, bucket: &Bucket, output: &mut Output) -> Result<CommandOutcome> {
    let ids = match args.id.is_empty() {
        false => args.id.clone(),
        true => {
            let view = args.view.fetch(bucket, args.select.options(true)?).await?;
            view::note_hidden(&view);
            view.blocks.keys().copied().collect()
        }
    };
    let progress = TaskProgress::new("analyze", Unit::Count("blocks"), ids.len() as u64);
    let mut analysis = Analysis::default();
    for id in ids {
        progress.at(id.to_string());
        let block = bucket.open_block(id, &OpenBlockOptions::default()).await?.into_block();
        let limit = args.limit;
        analysis = blocking(move || {
            analysis.add(block.index(), limit)?;
            Ok(analysis)
        })
        .await?;
        progress.add(1);
    }
    progress.finish();
    if analysis.blocks == 0 {
        return Err(ToolError::new(
            Cause::Missing,
            format!("bucket {:?} has no block that the flags select", bucket.name()),
        ));
    }
    print(&analysis, &args, output)?;
    Ok(CommandOutcome::Fine)
}

fn print(analysis: &Analysis, args: &AnalyzeArgs, output: &mut Output) -> Result<()> {
    let of_metrics = analysis.metrics.iter().map(|(name, count)| (vec![TableCell::text(name)], *count));
    let of_pairs = analysis
        .pairs
        .iter()
        .map(|((name, value), count)| (vec![TableCell::text(name), TableCell::text(value)], *count));
    let metrics = largest(&[("METRIC", "metric")], of_metrics.collect(), args.limit);
    let pairs = largest(&[("LABEL", "label"), ("VALUE", "value")], of_pairs.collect(), args.limit);

    let mut sorted: Vec<(&String, &LabelCount)> = analysis.labels.iter().collect();
    sorted.sort_by_key(|(name, label)| (std::cmp::Reverse(label.values), *name));
    let mut labels = Table::new(&[
        ("LABEL", "label"),
        ("#VALUES", "values"),
        ("#SERIES", "series"),
        ("#MAX PER BLOCK", "seriesOfLargestBlock"),
        ("#BLOCKS", "blocks"),
    ]);
    for (name, LabelCount { count, values }) in sorted.into_iter().take(args.limit) {
        let mut row = vec![TableCell::text(name), TableCell::Number(*values)];
        row.extend(count.cells());
        labels.push(row);
    }

    if args.output == TableFormat::Json {
        return output.json(&json!({
            "blocks": analysis.blocks,
            "series": analysis.series.series,
            "seriesOfLargestBlock": analysis.series.most,
            "metricNames": analysis.metrics.len(),
            "labelNames": analysis.labels.len(),
            "metrics": metrics.json(),
            "labels": labels.json(),
            "pairs": pairs.json(),
        }));
    }
    output.line(format_args!(
        "{}: {} of {} with {}",
        text::count(analysis.blocks, "block"),
        text::count(analysis.series.series, "series"),
        text::count(analysis.metrics.len() as u64, "metric"),
        text::count(analysis.labels.len() as u64, "label name"),
    ))?;
    for (title, table) in [
        ("Metrics with most series", &metrics),
        ("Labels with most values", &labels),
        ("Pairs of label and value with most series", &pairs),
    ] {
        output.line(format_args!("\n{title}\n"))?;
        output.table(table, args.output)?;
    }
    Ok(())
}

impl Count {
    fn cells(self) -> [TableCell; 3] {
        [TableCell::Number(self.series), TableCell::Number(self.most), TableCell::Number(self.blocks)]
    }
}

/// The rows with most series.
fn largest(
    columns: &[(&'static str, &'static str)],
    mut rows: Vec<(Vec<TableCell>, Count)>,
    limit: usize,
) -> Table {
    // The sort is stable: rows with equal numbers of series are in the order of their names.
    rows.sort_by_key(|(_, count)| std::cmp::Reverse(count.series));
    let counts = [("#SERIES", "series"), ("#MAX PER BLOCK", "seriesOfLargestBlock"), ("#BLOCKS", "blocks")];
    let mut table = Table::new(&[columns, &counts].concat());
    for (mut row, count) in rows.into_iter().take(limit) {
        row.extend(count.cells());
        table.push(row);
    }
    table
}
