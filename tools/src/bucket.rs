//! `tools bucket ...`: the blocks of a bucket.
//!
//! ```text
//! ls inspect analyze                    look at blocks
//! verify                                looks for what is wrong with them
//! upload-blocks replicate               bring blocks in
//! mark cleanup rewrite                  change and remove them
//! ```
//! One file a command, and a folder for those that have parts. `other.rs` opens buckets, `view.rs` and `select.rs`
//! find the blocks that are meant.

mod analyze;
mod cleanup;
mod inspect;
mod ls;
mod mark;
mod other;
mod replicate;
mod rewrite;
mod select;
mod upload;
mod verify;
mod view;

use std::path::PathBuf;

use ::bucket::ObjstoreArgs;
use clap::{Args, Subcommand};

use crate::error::{Outcome, Result};
use crate::output::Output;

pub(crate) use other::open;

/// Flags of `isthmus tools bucket`.
#[derive(Debug, Args)]
pub(crate) struct BucketArgs {
    /// Object storage as YAML, in Thanos' form; $(NAME) is replaced from the environment
    #[arg(long = "objstore.config", value_name = "YAML", global = true, help_heading = "Bucket")]
    objstore_config: Option<String>,

    /// File with the YAML of --objstore.config
    #[arg(long = "objstore.config-file", value_name = "FILE", global = true, help_heading = "Bucket")]
    objstore_config_file: Option<PathBuf>,

    #[command(subcommand)]
    command: BucketCommand,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum BucketCommand {
    /// Lists the blocks
    Ls(ls::LsArgs),
    /// Shows what the blocks are, side by side
    Inspect(inspect::InspectArgs),
    /// Shows which metrics and labels have how many series
    Analyze(analyze::AnalyzeArgs),
    /// Looks for what is wrong with the blocks
    Verify(verify::VerifyArgs),
    /// Uploads the blocks of a local folder
    UploadBlocks(upload::UploadArgs),
    /// Marks blocks for deletion, against compaction or against downsampling; or takes the marks away
    Mark(mark::MarkArgs),
    /// Removes blocks whose deletion mark is old enough, and uploads that were given up
    Cleanup(cleanup::CleanupArgs),
    /// Copies blocks to another bucket
    Replicate(Box<replicate::ReplicateArgs>),
    /// Deletes or relabels series of blocks, each of which becomes a new block
    Rewrite(rewrite::RewriteArgs),
}

pub(crate) async fn run(args: BucketArgs, output: &mut Output) -> Result<Outcome> {
    let BucketArgs { objstore_config, objstore_config_file, .. } = args;
    let bucket = open(&ObjstoreArgs { objstore_config, objstore_config_file }).await?;
    match args.command {
        BucketCommand::Ls(args) => ls::run(args, &bucket, output).await,
        BucketCommand::Inspect(args) => inspect::run(args, &bucket, output).await,
        BucketCommand::Analyze(args) => analyze::run(args, &bucket, output).await,
        BucketCommand::Verify(args) => verify::run(args, &bucket, output).await,
        BucketCommand::UploadBlocks(args) => upload::run(args, &bucket, output).await,
        BucketCommand::Mark(args) => mark::run(args, &bucket, output).await,
        BucketCommand::Cleanup(args) => cleanup::run(args, &bucket, output).await,
        BucketCommand::Replicate(args) => replicate::run(*args, &bucket, output).await,
        BucketCommand::Rewrite(args) => rewrite::run(args, &bucket, output).await,
    }
}
