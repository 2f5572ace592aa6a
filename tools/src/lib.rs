//! Commands that look after blocks and buckets: `isthmus tools bucket ...` and `isthmus tools block ...`.
//!
//! One file a command; each reads its flags, does its work and prints. Tables and results go to standard output,
//! progress and failures to standard error. Exit codes are those of [`run`].
//!
//! Reading order: `error`, `output`, `progress`, `text`, `samples`; then `bucket` and `block`, whose first lines
//! list their commands.
//!
//! Not here: formats of blocks (`tsdb`), rules of buckets such as publishing and marking (`bucket`).

mod block;
mod bucket;
mod causes;
mod digest;
mod error;
mod folder;
mod output;
mod progress;
mod text;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use runtime::{LogFormat, LogLevel, init_logs};

use crate::error::{Cause, Context, Outcome, Result, ToolError};
use crate::output::Output;

/// Flags of `isthmus tools`.
#[derive(Debug, Args)]
pub struct ToolsArgs {
    #[command(subcommand)]
    command: ToolsCommand,

    /// Least severe log lines that are written: debug, info, warn or error
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

    /// Form of the log lines: logfmt or json
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
    /// Looks at the blocks of a bucket, and changes them
    Bucket(Box<bucket::BucketArgs>),
    /// Looks at single blocks, and makes some
    #[command(subcommand)]
    Block(block::BlockCommand),
}

/// Runs a command to its end: results on standard output, a failure as one line on standard error.
///
/// Exit codes: 0 done · 1 a check found problems, or a failure that is none of the following · 2 wrong flags or
/// configuration · 3 a bucket, block or file is not there · 4 credentials or permissions · 5 something else is
/// there already · 6 the object store does not answer · 7 damaged data · 130 interrupted. A closed pipe is no
/// failure.
pub fn run(args: ToolsArgs) -> ExitCode {
    let mut output = Output::stdout();
    let outcome = init_logs(args.log_level, args.log_format)
        .map_err(|error| ToolError::new(Cause::Failed, error.to_string()))
        .and_then(|()| {
            let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let outcome = tokio.block_on(interruptible(execute(args.command, &mut output)));
            // Whatever still blocks a thread only reads; there is nobody left to wait for it.
            tokio.shutdown_background();
            outcome
        });
    let flushed = output.flush();
    match outcome.and_then(|outcome| flushed.map(|()| outcome)) {
        Ok(Some(outcome)) => outcome.into(),
        Ok(None) => ExitCode::from(130),
        Err(error) => {
            if error.cause() != Cause::ClosedPipe {
                eprintln!("error: {error}");
            }
            error.exit_code()
        }
    }
}

/// `None` when the user ends it with Ctrl-C: temporary files are removed then, all that was done stays.
async fn interruptible(work: impl Future<Output = Result<Outcome>>) -> Result<Option<Outcome>> {
    tokio::select! {
        outcome = work => outcome.map(Some),
        caught = tokio::signal::ctrl_c() => caught.context("wait for Ctrl-C").map(|()| None),
    }
}

async fn execute(command: ToolsCommand, output: &mut Output) -> Result<Outcome> {
    match command {
        ToolsCommand::Bucket(args) => bucket::run(*args, output).await,
        ToolsCommand::Block(command) => block::run(command, output).await,
    }
}

#[cfg(test)]
mod tests;
