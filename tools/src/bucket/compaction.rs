//! `tools bucket compact`, `downsample`, `retention` and `progress`: the compactor, once, by hand.

use ::bucket::ObjstoreArgs;
use compactor::{OneRun, OneRunReport, OneRunRow, WorkArgs};
use runtime::RoleError;

use crate::error::{Cause, CommandOutcome, Result, ToolError};
use crate::output::{Output, Table, TableCell, TableFormat};
use crate::text;

/// Flags of `tools bucket compact` and `tools bucket downsample`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompactionArgs {
    #[command(flatten)]
    work: WorkArgs,

    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Format of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,
}

/// Flags of `tools bucket retention`.
#[derive(Debug, clap::Args)]
pub(crate) struct RetentionArgs {
    #[command(flatten)]
    run: CompactionArgs,

    /// Mark the blocks also if they are more than --retention.max-share permits
    #[arg(long)]
    approve: bool,
}

/// Flags of `tools bucket progress`.
#[derive(Debug, clap::Args)]
pub(crate) struct ProgressArgs {
    #[command(flatten)]
    work: WorkArgs,

    /// Format of the report
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    output: TableFormat,
}

pub(super) async fn compact(
    args: CompactionArgs,
    objstore: &ObjstoreArgs,
    output: &mut Output,
) -> Result<CommandOutcome> {
    let run = open(args.work, objstore).await?;
    print(run.compact(args.dry_run).await.map_err(failed)?, args.output, output)
}

pub(super) async fn downsample(
    args: CompactionArgs,
    objstore: &ObjstoreArgs,
    output: &mut Output,
) -> Result<CommandOutcome> {
    let run = open(args.work, objstore).await?;
    print(run.downsample(args.dry_run).await.map_err(failed)?, args.output, output)
}

pub(super) async fn retention(
    args: RetentionArgs,
    objstore: &ObjstoreArgs,
    output: &mut Output,
) -> Result<CommandOutcome> {
    let RetentionArgs { run: args, approve } = args;
    let run = open(args.work, objstore).await?;
    print(run.retention(args.dry_run, approve).await.map_err(failed)?, args.output, output)
}

pub(super) async fn progress(
    args: ProgressArgs,
    objstore: &ObjstoreArgs,
    output: &mut Output,
) -> Result<CommandOutcome> {
    let run = open(args.work, objstore).await?;
    let (groups, troubled) = run.progress().await.map_err(failed)?;
    let mut table = Table::new(&[
        ("GROUP", "group"),
        ("BUCKET", "bucket"),
        ("#BLOCKS", "blocks"),
        ("#MERGES", "merges"),
        ("#TO MERGE", "blocksToMerge"),
        ("BYTES", "bytesToMerge"),
        ("#TO DOWNSAMPLE", "blocksToDownsample"),
    ]);
    for group in groups {
        table.push(vec![
            TableCell::text(group.group),
            TableCell::text(group.bucket),
            TableCell::Number(group.blocks_now as u64),
            TableCell::Number(group.jobs as u64),
            TableCell::Number(group.blocks as u64),
            TableCell::Bytes(group.bytes),
            TableCell::Number(group.downsample_blocks as u64),
        ]);
    }
    output.table(&table, args.output)?;
    for [block, bucket, state, reason] in &troubled {
        eprintln!("{}", text::printable(&format!("block {block} in {bucket} is {state}: {reason}"), false));
    }
    Ok(if troubled.is_empty() { CommandOutcome::Fine } else { CommandOutcome::Found })
}

async fn open(work: WorkArgs, objstore: &ObjstoreArgs) -> Result<OneRun> {
    OneRun::open(work, objstore).await.map_err(|error: RoleError| {
        let cause = if error.exit_code() == runtime::EXIT_USAGE { Cause::Usage } else { Cause::Failed };
        ToolError::new(cause, error.to_string())
    })
}

fn failed(message: String) -> ToolError {
    ToolError::new(Cause::Failed, message)
}

fn print(report: OneRunReport, format: TableFormat, output: &mut Output) -> Result<CommandOutcome> {
    let mut table = Table::new(&[
        ("ACTION", "action"),
        ("GROUP", "group"),
        ("BLOCKS", "blocks"),
        ("NEW", "new"),
        ("WHY", "why"),
        ("BUCKET", "bucket"),
    ]);
    for OneRunRow { bucket, action, group, why, from, to } in report.rows {
        let ids = |ids: Vec<tsdb::Ulid>| {
            TableCell::text(ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        table.push(vec![
            TableCell::text(action),
            TableCell::text(group),
            ids(from),
            ids(to),
            TableCell::text(why),
            TableCell::text(bucket),
        ]);
    }
    output.table(&table, format)?;
    if report.waiting > 0 {
        eprintln!("another compactor works on {}", text::count(report.waiting as u64, "group"));
    }
    Ok(if report.failed == 0 { CommandOutcome::Fine } else { CommandOutcome::Found })
}
