//! `tools block generate`: writes blocks of synthetic series.

use std::path::PathBuf;
use std::time::Duration;

use runtime::{TimeArg, parse_duration};
use tsdb::{BlockOptions, GenerateError, ThanosMeta, Ulid, Workload};

use crate::blocking::blocking;
use crate::error::{CommandOutcome, DescribeAction, Result, ToolError};
use crate::output::{Output, Table, TableCell, TableFormat};
use crate::progress::{TaskProgress, Unit};
use crate::text;

/// Progress is reported after this many series.
const REPORTED_SERIES: u64 = 512;

/// Flags of `tools block generate`.
#[derive(Debug, clap::Args)]
pub(crate) struct GenerateArgs {
    /// Folder for the blocks; created if it does not exist
    #[arg(long, value_name = "DIR")]
    output_dir: PathBuf,

    /// Number of blocks; each begins where the previous one ends
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    blocks: u32,

    /// Number of series in each block
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    series: u64,

    /// Number of series of each target: a small number gives many label values, a large one long postings lists
    #[arg(long, value_name = "N", default_value_t = 100)]
    series_per_target: u64,

    /// Number of labels of each series, including its name; 2 to 64
    #[arg(long, value_name = "N", default_value_t = 8)]
    labels: usize,

    /// Share of targets that exist for only a part of the time, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    churn: f64,

    /// Start of the first block: RFC 3339, or relative to now, such as -2h
    #[arg(long, value_name = "TIME", default_value = "2025-01-01T00:00:00Z", allow_hyphen_values = true)]
    start: TimeArg,

    /// Length of each block
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = parse_duration)]
    duration: Duration,

    /// Interval between two samples of a series
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    interval: Duration,

    /// Maximum deviation of a sample from its time; less than half of the interval
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    jitter: Duration,

    /// Share of metrics that are gauges, 0 to 1; metrics that are neither gauges nor histograms are counters
    #[arg(long, value_name = "SHARE", default_value_t = 0.3)]
    gauges: f64,

    /// Share of metrics that are native histograms, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    histograms: f64,

    /// Seed of labels and values
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// External label of the blocks, as if a sidecar had uploaded them (repeatable)
    #[arg(long, value_name = "NAME=\"VALUE\"", value_parser = text::label)]
    label: Vec<(String, String)>,

    /// Format of the list of blocks
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,
}

pub(super) async fn run(args: GenerateArgs, output: &mut Output) -> Result<CommandOutcome> {
    let dir = args.output_dir.clone();
    std::fs::create_dir_all(&dir).context(format_args!("--output-dir: create folder {}", dir.display()))?;
    let mut table = Table::new(&[
        ("ULID", "ulid"),
        ("FROM", "from"),
        ("UNTIL", "until"),
        ("#SERIES", "series"),
        ("#SAMPLES", "samples"),
        ("#CHUNKS", "chunks"),
    ]);
    let progress =
        TaskProgress::new("generate", Unit::Count("series"), args.series.saturating_mul(args.blocks.into()));
    let first = args.start.at(text::now());
    for number in 0..args.blocks {
        let workload = Workload {
            seed: args.seed,
            series: args.series,
            series_per_target: args.series_per_target,
            labels: args.labels,
            churn: args.churn,
            start: first + args.duration * number,
            duration: args.duration,
            interval: args.interval,
            jitter: args.jitter,
            gauges: args.gauges,
            histograms: args.histograms,
        };
        let mut options = BlockOptions::new(block_id(&workload, &args.label));
        options.thanos = (!args.label.is_empty()).then(|| ThanosMeta {
            version: 1,
            labels: args.label.iter().cloned().collect(),
            source: "test".to_owned(),
            ..ThanosMeta::default()
        });
        let (dir, bar) = (dir.clone(), progress.clone());
        let meta = blocking(move || {
            let mut reported = 0;
            let meta = workload.write(&dir, options, &mut |series| {
                if series - reported >= REPORTED_SERIES {
                    bar.add(series - reported);
                    reported = series;
                }
            })?;
            bar.add(meta.stats.series - reported);
            Ok(meta)
        })
        .await?;
        table.push(vec![
            TableCell::text(meta.ulid.to_string()),
            TableCell::text(text::instant(meta.min_time)),
            TableCell::text(text::instant(meta.max_time)),
            TableCell::Number(meta.stats.series),
            TableCell::Number(meta.stats.samples),
            TableCell::Number(meta.stats.chunks),
        ]);
    }
    progress.finish();
    output.table(&table, args.output)?;
    Ok(CommandOutcome::Fine)
}

impl From<GenerateError> for ToolError {
    fn from(error: GenerateError) -> Self {
        match error {
            GenerateError::Option(what) => Self::usage(what),
            GenerateError::Write(error) => error.into(),
        }
    }
}

/// An id that is derived from the content, so that generating twice gives equal blocks. Its time is the block's end.
fn block_id(workload: &Workload, labels: &[(String, String)]) -> Ulid {
    // FNV-1a with 128 bits over everything that determines the content.
    let text = format!("{workload:?}{labels:?}");
    let hash = text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    let end = (workload.start + workload.duration).as_millis();
    Ulid::from_parts(u64::try_from(end).unwrap_or(0), hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_derived_from_the_workload() {
        let workload = Workload::default();
        let other = Workload { seed: 2, ..workload.clone() };
        assert_eq!(block_id(&workload, &[]), block_id(&workload, &[]));
        assert_ne!(block_id(&workload, &[]), block_id(&other, &[]));
        assert_ne!(block_id(&workload, &[]), block_id(&workload, &[("a".into(), "b".into())]));
    }
}
