//! `tools bucket ...`: commands for the blocks of a bucket.
//!
//! ```text
//! ls inspect analyze                    show blocks
//! verify                                finds problems of blocks
//! upload-blocks replicate               add blocks
//! mark cleanup rewrite delete-series    change and remove blocks
//! compact downsample retention progress   run the compactor once, and show what is left
//! ```
//! There is one file for each command, and a folder for a command with parts. `view.rs` and `select.rs`
//! select blocks.

mod analyze;
mod cleanup;
mod compaction;
mod delete_series;
mod inspect;
mod ls;
mod mark;
mod replicate;
mod rewrite;
mod select;
mod upload;
mod verify;
mod view;

use std::path::PathBuf;

use ::bucket::ObjstoreArgs;
use clap::{Args, Subcommand};

use crate::connect::open;
use crate::error::{CommandOutcome, Result};
use crate::output::Output;

/// Flags of `isthmus tools bucket`.
#[derive(Debug, Args)]
pub(crate) struct BucketArgs {
    /// Object storage configuration as YAML, in Thanos' format; $(NAME) is replaced by the environment variable NAME
    #[arg(long = "objstore.config", value_name = "YAML", global = true, help_heading = "Bucket")]
    objstore_config: Option<String>,

    /// File with the YAML of --objstore.config; give only one of the two flags
    #[arg(long = "objstore.config-file", value_name = "FILE", global = true, help_heading = "Bucket")]
    objstore_config_file: Option<PathBuf>,

    #[command(subcommand)]
    command: BucketCommand,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum BucketCommand {
    #[command(flatten)]
    Blocks(BlocksCommand),
    #[command(flatten)]
    Compactor(CompactorCommand),
}

/// Commands for the blocks of one bucket.
#[derive(Debug, Subcommand)]
enum BlocksCommand {
    /// List the blocks
    Ls(ls::LsArgs),
    /// Show the metadata of all blocks as a table
    Inspect(inspect::InspectArgs),
    /// Count series by metric, label, and label value
    Analyze(analyze::AnalyzeArgs),
    /// Find problems of the blocks
    Verify(verify::BucketVerifyArgs),
    /// Upload the blocks of a local folder
    UploadBlocks(upload::UploadArgs),
    /// Mark blocks for deletion, or exclude them from compaction or downsampling; or remove marks
    Mark(mark::MarkArgs),
    /// Remove blocks whose deletion mark is old enough, and abandoned uploads
    Cleanup(cleanup::CleanupArgs),
    /// Copy blocks to another bucket
    Replicate(Box<replicate::ReplicateArgs>),
    /// Delete or relabel series of blocks; each block is replaced by a new block
    Rewrite(rewrite::RewriteArgs),
    /// Delete series in a range of time from all blocks: stores mask them at once, the compactor removes them
    DeleteSeries(delete_series::DeleteSeriesArgs),
}

/// Commands that run the compactor once. It opens its buckets itself: there may be several.
#[derive(Debug, Subcommand)]
enum CompactorCommand {
    /// Merge the blocks that are due, once, as `isthmus compact` does
    Compact(Box<compaction::CompactionArgs>),
    /// Downsample the blocks that are due, once
    Downsample(Box<compaction::CompactionArgs>),
    /// Mark blocks for deletion that are older than they are kept, once
    Retention(Box<compaction::RetentionArgs>),
    /// Show what is left to merge and to downsample, and blocks that a person should look at
    Progress(Box<compaction::ProgressArgs>),
}

pub(crate) async fn run(args: BucketArgs, output: &mut Output) -> Result<CommandOutcome> {
    let BucketArgs { objstore_config, objstore_config_file, .. } = args;
    let objstore = ObjstoreArgs { objstore_config, objstore_config_file };
    let command = match args.command {
        BucketCommand::Compactor(command) => return run_compactor(command, &objstore, output).await,
        BucketCommand::Blocks(command) => command,
    };
    let bucket = open(&objstore).await?;
    match command {
        BlocksCommand::Ls(args) => ls::run(args, &bucket, output).await,
        BlocksCommand::Inspect(args) => inspect::run(args, &bucket, output).await,
        BlocksCommand::Analyze(args) => analyze::run(args, &bucket, output).await,
        BlocksCommand::Verify(args) => verify::run(args, &bucket, output).await,
        BlocksCommand::UploadBlocks(args) => upload::run(args, &bucket, output).await,
        BlocksCommand::Mark(args) => mark::run(args, &bucket, output).await,
        BlocksCommand::Cleanup(args) => cleanup::run(args, &bucket, output).await,
        BlocksCommand::Replicate(args) => replicate::run(*args, &bucket, output).await,
        BlocksCommand::Rewrite(args) => rewrite::run(args, &bucket, output).await,
        BlocksCommand::DeleteSeries(args) => delete_series::run(args, &bucket, output).await,
    }
}

async fn run_compactor(
    command: CompactorCommand,
    objstore: &ObjstoreArgs,
    output: &mut Output,
) -> Result<CommandOutcome> {
    match command {
        CompactorCommand::Compact(args) => compaction::compact(*args, objstore, output).await,
        CompactorCommand::Downsample(args) => compaction::downsample(*args, objstore, output).await,
        CompactorCommand::Retention(args) => compaction::retention(*args, objstore, output).await,
        CompactorCommand::Progress(args) => compaction::progress(*args, objstore, output).await,
    }
}
