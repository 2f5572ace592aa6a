//! `tools block verify`: reports every problem of blocks.

use serde_json::json;
use tsdb::{Block, VerifyEvent};

use crate::block::place::PlaceFlags;
use crate::blocking::blocking;
use crate::error::{Cause, CommandOutcome, Result};
use crate::output::Output;
use crate::progress::{TaskProgress, Unit};
use crate::text;

/// Flags of `tools block verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct BlockVerifyArgs {
    /// Folders of blocks, or ULIDs of blocks in the bucket
    #[arg(value_name = "BLOCK", required = true)]
    blocks: Vec<String>,

    /// Format of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    output: BlockReportFormat,

    #[command(flatten)]
    place: PlaceFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum BlockReportFormat {
    /// A line for each block and each problem
    Text,
    /// A JSON array with an object for each block
    Json,
}

pub(super) async fn run(args: BlockVerifyArgs, output: &mut Output) -> Result<CommandOutcome> {
    let (mut outcome, mut reports) = (CommandOutcome::Fine, Vec::new());
    for place in &args.blocks {
        let (summary, problems) = match args.place.open(place).await {
            Ok(block) => {
                let of = block.meta().stats.series;
                let progress = TaskProgress::new(&format!("verify {place}"), Unit::Count("series"), of);
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
            // A block that cannot be opened is a problem to report.
            Err(error) if error.cause() == Cause::Damaged => (String::new(), vec![error.to_string()]),
            // The other blocks are verified nevertheless.
            Err(error) if error.cause() == Cause::Missing && args.blocks.len() > 1 => {
                (String::new(), vec![error.to_string()])
            }
            Err(error) => return Err(error),
        };
        if !problems.is_empty() {
            outcome = CommandOutcome::Found;
        }
        match args.output {
            BlockReportFormat::Json => reports.push(json!({ "block": place, "problems": problems })),
            BlockReportFormat::Text if problems.is_empty() => {
                output.line(format_args!("{place}: good: {summary}"))?
            }
            BlockReportFormat::Text => {
                let count = text::count(problems.len() as u64, "problem");
                output.line(format_args!("{place}: {count}"))?;
                problems.iter().try_for_each(|problem| output.line(format_args!("  {problem}")))?;
            }
        }
        output.flush()?;
    }
    if args.output == BlockReportFormat::Json {
        output.json(&reports)?;
    }
    Ok(outcome)
}

/// Every problem of a block, one line each.
pub(crate) fn problems(block: &Block) -> Vec<String> {
    let progress = TaskProgress::hidden();
    verify(block, &progress).1
}

fn verify(block: &Block, progress: &TaskProgress) -> (tsdb::Verification, Vec<String>) {
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
