//! `tools block diff`: prints the differences between two blocks.

use model::{Labels, Matcher, TimeRange};
use runtime::TimeArg;
use serde_json::json;
use series::{Aggregate, ChunkSample};

use crate::block::compare::{DiffSide, Difference, Totals, compare};
use crate::block::place::PlaceFlags;
use crate::block::read::{self, aggregate_parser};
use crate::block::text as forms;
use crate::blocking::blocking;
use crate::error::{CommandOutcome, Result};
use crate::output::Output;
use crate::text;

/// Flags of `tools block diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// Folder of a block, or ULID of a block in the bucket
    #[arg(value_name = "LEFT")]
    left: String,

    /// Block to compare it with
    #[arg(value_name = "RIGHT")]
    right: String,

    /// Number of differences that are printed; the totals count all of them
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,

    /// Only series that match the selector
    #[arg(long = "match", value_name = "SELECTOR", default_value = "")]
    selector: String,

    /// Only samples at or after this time: RFC 3339, or relative to now, such as -2h
    #[arg(long, value_name = "TIME", default_value = "0000-01-01T00:00:00Z", allow_hyphen_values = true)]
    min_time: TimeArg,

    /// Only samples at or before this time
    #[arg(long, value_name = "TIME", default_value = "9999-12-31T23:59:59Z", allow_hyphen_values = true)]
    max_time: TimeArg,

    /// Aggregate of downsampled blocks that is compared
    #[arg(long, value_name = "AGGREGATE", value_parser = aggregate_parser(), default_value = "count")]
    aggregate: Aggregate,

    /// Format of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    output: DiffFormat,

    #[command(flatten)]
    place: PlaceFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DiffFormat {
    /// One line for each difference, then totals
    Text,
    /// One JSON object
    Json,
}

pub(super) async fn run(args: DiffArgs, output: &mut Output) -> Result<CommandOutcome> {
    let matchers: Vec<Matcher> = text::matchers("--match", &args.selector)?;
    let now = text::now();
    let range = TimeRange::new(args.min_time.at(now), args.max_time.at(now));
    let left = args.place.open(&args.left).await?;
    let right = args.place.open(&args.right).await?;
    let (limit, aggregate) = (args.limit, args.aggregate);
    let (first, totals) = blocking(move || {
        let mut first = Vec::new();
        let left = read::series(&left, &matchers, range, aggregate)?;
        let right = read::series(&right, &matchers, range, aggregate)?;
        let totals = compare(left, right, |difference| {
            if first.len() < limit {
                first.push(difference);
            }
            Ok(())
        })?;
        Ok((first, totals))
    })
    .await?;
    match args.output {
        DiffFormat::Text => print(&first, &totals, output)?,
        DiffFormat::Json => output.json(&json!({
            "equal": totals.is_equal(),
            "totals": totals,
            "differences": first.iter().map(object).collect::<Vec<_>>(),
        }))?,
    }
    Ok(if totals.is_equal() { CommandOutcome::Fine } else { CommandOutcome::Found })
}

/// Prints `<` before a series or sample that only the left block has, `>` if only the right block has it, `!` if values differ.
fn print(first: &[Difference], totals: &Totals, output: &mut Output) -> Result<()> {
    for difference in first {
        match difference {
            Difference::Series { labels, side, samples } => output.line(format_args!(
                "{} {} ({})",
                mark(*side),
                name(labels),
                text::count(*samples, "sample")
            ))?,
            Difference::Sample { labels, side, sample } => {
                output.line(format_args!("{} {} {}", mark(*side), name(labels), line(sample)))?;
            }
            Difference::Value { labels, left, right } => {
                let at = left.at;
                output.line(format_args!(
                    "! {} {} {} at {at}",
                    name(labels),
                    forms::value(left),
                    forms::value(right)
                ))?;
            }
        }
    }
    let all = totals.left_only_series
        + totals.right_only_series
        + totals.different_samples
        + totals.left_only_samples
        + totals.right_only_samples;
    if all > 0 && !first.is_empty() {
        output.line("")?;
    }
    let t = totals;
    let series = [t.equal_series, t.different_series, t.left_only_series, t.right_only_series];
    let samples = [t.equal_samples, t.different_samples, t.left_only_samples, t.right_only_samples];
    output.line(format_args!("series:  {}", counts(series)))?;
    output.line(format_args!("samples: {}", counts(samples)))
}

/// The totals of series or of samples.
fn counts(numbers: [u64; 4]) -> String {
    let [equal, different, left, right] = numbers.map(|number| text::grouped(&number.to_string()));
    format!("{equal} equal, {different} different, {left} only left, {right} only right")
}

fn mark(side: DiffSide) -> char {
    match side {
        DiffSide::Left => '<',
        DiffSide::Right => '>',
    }
}

fn name(labels: &Labels) -> String {
    forms::labels(labels, ", ", true)
}

fn line(sample: &ChunkSample) -> String {
    format!("{} {}", forms::value(sample), sample.at)
}

fn object(difference: &Difference) -> serde_json::Value {
    let side = |side: DiffSide| if side == DiffSide::Left { "left" } else { "right" };
    match difference {
        Difference::Series { labels, side: only, samples } => {
            json!({ "series": name(labels), "only": side(*only), "samples": samples })
        }
        Difference::Sample { labels, side: only, sample } => {
            json!({ "series": name(labels), "only": side(*only), "timestamp": sample.at.as_millis(), "value": forms::value(sample) })
        }
        Difference::Value { labels, left, right } => json!({
            "series": name(labels),
            "timestamp": left.at.as_millis(),
            "left": forms::value(left),
            "right": forms::value(right),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_grouped_for_people() {
        assert_eq!(
            counts([225_216, 0, 4_704, 7]),
            "225,216 equal, 0 different, 4,704 only left, 7 only right"
        );
    }
}
