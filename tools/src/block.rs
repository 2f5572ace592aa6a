//! `tools block ...`: single blocks, in a folder or in a bucket.
//!
//! ```text
//! dump      dump.rs (what is printed), text.rs (how)
//! verify    verify.rs
//! diff      diff.rs (what is printed), compare.rs (what differs)
//! generate  generate.rs
//! salvage   salvage.rs (flags and report), salvage of the crate (what is done)
//! ```
//! `place.rs` opens the block of an argument, `read.rs` decodes its series.

mod compare;
mod diff;
mod dump;
mod generate;
mod place;
mod read;
mod salvage;
mod text;
mod verify;

use clap::Subcommand;

use crate::error::{CommandOutcome, Result};
use crate::output::Output;

pub(crate) use verify::problems;

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum BlockCommand {
    /// Print the samples of a block
    Dump(dump::DumpArgs),
    /// Read whole blocks and report every problem
    Verify(verify::BlockVerifyArgs),
    /// Compare two blocks, series by series and sample by sample
    Diff(diff::DiffArgs),
    /// Generate blocks of synthetic series; the same seed gives the same blocks
    Generate(generate::GenerateArgs),
    /// Write what can be read of a damaged block as a new block, and report what is lost
    Salvage(salvage::SalvageArgs),
}

pub(crate) async fn run(command: BlockCommand, output: &mut Output) -> Result<CommandOutcome> {
    match command {
        BlockCommand::Dump(args) => dump::run(args, output).await,
        BlockCommand::Verify(args) => verify::run(args, output).await,
        BlockCommand::Diff(args) => diff::run(args, output).await,
        BlockCommand::Generate(args) => generate::run(args, output).await,
        BlockCommand::Salvage(args) => salvage::run(args, output).await,
    }
}
