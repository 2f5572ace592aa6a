//! `tools block ...`: single blocks, in a folder or in a bucket.
//!
//! ```text
//! dump      dump.rs (what is printed), text.rs (how)
//! verify    verify.rs
//! diff      diff.rs (what is printed), compare.rs (what differs)
//! generate  generate.rs
//! ```
//! `place.rs` finds the block that is meant, `read.rs` decodes its series.

mod compare;
mod diff;
mod dump;
mod generate;
mod place;
mod read;
mod text;
mod verify;

use clap::Subcommand;

use crate::error::{Outcome, Result};
use crate::output::Output;

pub(crate) use place::open_remote;
pub(crate) use read::blocking;
pub(crate) use verify::problems;

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum BlockCommand {
    /// Prints the samples of a block
    Dump(dump::DumpArgs),
    /// Reads blocks whole and reports everything that is wrong with them
    Verify(verify::VerifyArgs),
    /// Tells what differs between two blocks, series by series and sample by sample
    Diff(diff::DiffArgs),
    /// Makes blocks of invented series, the same ones for the same seed
    Generate(generate::GenerateArgs),
}

pub(crate) async fn run(command: BlockCommand, output: &mut Output) -> Result<Outcome> {
    match command {
        BlockCommand::Dump(args) => dump::run(args, output).await,
        BlockCommand::Verify(args) => verify::run(args, output).await,
        BlockCommand::Diff(args) => diff::run(args, output).await,
        BlockCommand::Generate(args) => generate::run(args, output).await,
    }
}
