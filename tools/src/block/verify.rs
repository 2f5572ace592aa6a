//! `tools block verify`: everything that is wrong with blocks.

use serde_json::json;
use tsdb::{Block, VerifyEvent};

use crate::block::place::PlaceFlags;
use crate::block::read::blocking;
use crate::error::{Cause, Outcome, Result};
use crate::output::Output;
use crate::progress::{Progress, Unit};
use crate::text;

/// Flags of `tools block verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The folders of blocks, or the ULIDs of blocks in the bucket
    #[arg(value_name = "BLOCK", required = true)]
    blocks: Vec<String>,

    /// Form of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    output: ReportFormat,

    #[command(flatten)]
    place: PlaceFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ReportFormat {
    /// A line for each block and each problem
    Text,
    /// A JSON list with an object for each block
    Json,
}

pub(super) async fn run(args: VerifyArgs, output: &mut Output) -> Result<Outcome> {
    let (mut outcome, mut reports) = (Outcome::Fine, Vec::new());
    for place in &args.blocks {
        let (summary, problems) = match args.place.open(place).await {
            Ok(block) => {
                let of = block.meta().stats.series;
                let progress = Progress::new(&format!("verify {place}"), Unit::Count("series"), of);
                blocking(move || {
                    let (verification, problems) = verify(&block, &progress);
                    progress.finish();
                    let stats = &verification.stats;
                    let summary = format!(
                        "{}, {}, {}",
                        text::count(stats.series, "series"),
                        text::count(stats.chunks, "chunk"),
                        text::count(stats.samples, "sample")
                    );
                    Ok((summary, problems))
                })
                .await?
            }
            // A block that cannot be opened is the first thing to report.
            Err(error) if error.cause() == Cause::Damaged => (String::new(), vec![error.to_string()]),
            Err(error) => return Err(error),
        };
        if !problems.is_empty() {
            outcome = Outcome::Found;
        }
        match args.output {
            ReportFormat::Json => reports.push(json!({ "block": place, "problems": problems })),
            ReportFormat::Text if problems.is_empty() => {
                output.line(format_args!("{place}: good: {summary}"))?
            }
            ReportFormat::Text => {
                let count = text::count(problems.len() as u64, "problem");
                output.line(format_args!("{place}: {count}"))?;
                problems.iter().try_for_each(|problem| output.line(format_args!("  {problem}")))?;
            }
        }
        output.flush()?;
    }
    if args.output == ReportFormat::Json {
        output.json(&reports)?;
    }
    Ok(outcome)
}

/// Everything that is wrong with a block, a line each.
pub(crate) fn problems(block: &Block) -> Vec<String> {
    let progress = Progress::hidden();
    verify(block, &progress).1
}

fn verify(block: &Block, progress: &Progress) -> (tsdb::Verification, Vec<String>) {
    let (mut problems, mut done) = (Vec::new(), 0);
    let verification = block.verify(&mut |event| match event {
        VerifyEvent::Problem(error) => problems.push(error.to_string()),
        VerifyEvent::Progress { series, .. } => {
            progress.add(series - done);
            done = series;
        }
    });
    (verification, problems)
}
