//! `tools rules ...`: rule files.
//!
//! ```text
//! check     check.rs
//! test      test.rs
//! backfill  backfill.rs (what is asked for, and when), recorded.rs (what is recorded)
//! ```
//! `language.rs` has the flags that all share, `report.rs` reads files.

mod backfill;
mod check;
mod language;
mod recorded;
mod report;
mod test;

use clap::Subcommand;

use crate::error::{CommandOutcome, Result};
use crate::output::Output;

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum RulesCommand {
    /// Check rule files, and report every mistake
    Check(check::CheckArgs),
    /// Run unit tests of rules, in the format of promtool
    Test(test::TestArgs),
    /// Write blocks of what recording rules would have recorded in the past
    Backfill(backfill::BackfillArgs),
}

pub(crate) async fn run(command: RulesCommand, output: &mut Output) -> Result<CommandOutcome> {
    match command {
        RulesCommand::Check(args) => check::run(args, output).await,
        RulesCommand::Test(args) => test::run(args, output).await,
        RulesCommand::Backfill(args) => backfill::run(args, output).await,
    }
}
