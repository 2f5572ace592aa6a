//! Commands that inspect and maintain blocks, buckets and rules: `isthmus tools bucket ...`, `isthmus tools block ...` and
//! `isthmus tools rules ...`.
//!
//! There is one file for each command. A command reads its flags, does its work and prints. Tables and results go to
//! standard output, progress and failures to standard error. [`run`] lists the exit codes.
//!
//! Reading order: `error`, `output`, `progress`, `text`, `salvage`; then `bucket`, `block` and `rules`, whose first
//! lines list their commands.
//!
//! Not here: the formats of blocks (`tsdb`), and the rules of buckets, such as publishing and marking (`bucket`).

mod block;
mod blocking;
mod bucket;
mod causes;
mod connect;
mod digest;
mod error;
mod folder;
mod output;
mod progress;
mod rules;
mod salvage;
mod text;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use runtime::{LogFormat, LogLevel, init_logs};

use crate::error::{Cause, CommandOutcome, DescribeAction, Result, ToolError};
use crate::output::Output;

/// Flags of `isthmus tools`.
#[derive(Debug, Args)]
pub struct ToolsArgs {
    #[command(subcommand)]
    command: ToolsCommand,

    /// Minimum level of log lines: debug, info, warn or error
    #[arg(
        long = "log.level",
        value_name = "LEVEL",
        default_value = "error",
        value_enum,
        hide_possible_values = true,
        global = true,
        help_heading = "Logs"
    )]
    log_level: LogLevel,

    /// Format of log lines: logfmt or json
    #[arg(
        long = "log.format",
        value_name = "FORMAT",
        default_value = "logfmt",
        value_enum,
        hide_possible_values = true,
        global = true,
        help_heading = "Logs"
    )]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum ToolsCommand {
    /// Inspect and change the blocks of a bucket
    Bucket(Box<bucket::BucketArgs>),
    /// Inspect single blocks, and generate blocks
    #[command(subcommand)]
    Block(block::BlockCommand),
    /// Check and test rules
    #[command(subcommand)]
    Rules(rules::RulesCommand),
}

/// Runs a command. Results go to standard output, a failure is one line on standard error.
///
/// Exit codes: 0 success · 1 a check found problems, or any other failure · 2 wrong flags or configuration · 3 a bucket,
/// block or file does not exist · 4 credentials or permissions · 5 a different object or file exists already · 6 the
/// object store does not answer · 7 damaged data · 130 interrupted. A closed pipe is not a failure.
pub fn run(args: ToolsArgs) -> ExitCode {
    let mut output = Output::stdout();
    let outcome = init_logs(args.log_level, args.log_format)
        .map_err(|error| ToolError::new(Cause::Failed, error.to_string()))
        .and_then(|()| {
            let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let outcome = tokio.block_on(interruptible(execute(args.command, &mut output)));
            // Blocked threads only read, so the program does not wait for them.
            tokio.shutdown_background();
            outcome
        });
    let flushed = output.flush();
    match outcome.and_then(|outcome| flushed.map(|()| outcome)) {
        Ok(Some(outcome)) => outcome.into(),
        Ok(None) => ExitCode::from(130),
        Err(error) => {
            if error.cause() != Cause::ClosedPipe {
                eprintln!("error: {}", text::printable(&error.to_string(), false));
            }
            error.exit_code()
        }
    }
}

/// `None` if the user interrupts the command with Ctrl-C. Temporary files are removed then; finished work is kept.
async fn interruptible(work: impl Future<Output = Result<CommandOutcome>>) -> Result<Option<CommandOutcome>> {
    tokio::select! {
        outcome = work => outcome.map(Some),
        caught = tokio::signal::ctrl_c() => caught.context("wait for Ctrl-C").map(|()| None),
    }
}

async fn execute(command: ToolsCommand, output: &mut Output) -> Result<CommandOutcome> {
    match command {
        ToolsCommand::Bucket(args) => bucket::run(*args, output).await,
        ToolsCommand::Block(command) => block::run(command, output).await,
        ToolsCommand::Rules(command) => rules::run(command, output).await,
    }
}

#[cfg(test)]
mod tests;
