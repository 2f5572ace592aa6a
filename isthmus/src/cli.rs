//! The command line: `isthmus COMMAND`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::agent::{self, AgentArgs};
use crate::doctor::{self, DoctorArgs};
use crate::quickstart::{self, QuickstartArgs};
use crate::usage::UsageError;

/// A global, long-term view of the metrics of many Prometheus servers, over a mesh that issues its own
/// certificates
#[derive(Debug, Parser)]
#[command(name = "isthmus", bin_name = "isthmus", version = version(), propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: IsthmusCommand,
}

#[derive(Debug, Subcommand)]
enum IsthmusCommand {
    /// Serve the data of one Prometheus as StoreAPI, and upload its blocks
    Sidecar(Box<sidecar::SidecarArgs>),
    /// Serve the blocks of buckets as StoreAPI
    Store(Box<store::StoreArgs>),
    /// Merge, downsample and retire the blocks of buckets
    Compact(Box<compactor::CompactArgs>),
    /// Evaluate PromQL over all stores, and serve the Prometheus HTTP API
    Query(Box<querier::QueryArgs>),
    /// Evaluate rules over all stores, serve and upload what they record, and send alerts
    Rule(Box<ruler::RuleArgs>),
    /// Scrape what a prometheus.yml says, and serve, query and upload the samples
    Scrape(Box<scraper::ScrapeArgs>),
    /// Scrape this cluster and connect it to the mesh: scrape and gateway in one process
    Agent(Box<AgentArgs>),
    /// Connect this cluster to the mesh
    Gateway(Box<gateway::cli::GatewayArgs>),
    /// Manage roots, the issuing CA, join tokens and certificates
    #[command(subcommand)]
    Pki(pki::cli::PkiCommand),
    /// Inspect, verify, copy, rewrite and clean blocks and buckets
    Tools(Box<tools::ToolsArgs>),
    Doctor(DoctorArgs),
    /// Run a complete system on this machine: two client clusters, queried over the mesh
    Quickstart(QuickstartArgs),
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write a man page for each command
    Man {
        /// Directory for the pages; it is created if it does not exist
        dir: PathBuf,
    },
}

/// The version text that `--version` prints after the name.
fn version() -> &'static str {
    static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    TEXT.get_or_init(|| runtime::BuildVersion::current().to_string())
}

/// Parses the arguments. Switches can be negated as in Thanos (`--no-query.partial-response`).
fn parse() -> Cli {
    let command = Cli::command();
    let args = runtime::kingpin_args(&command, std::env::args_os());
    Cli::from_arg_matches(&command.get_matches_from(args)).unwrap_or_else(|error| error.exit())
}

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    let done = |outcome: anyhow::Result<ExitCode>| {
        outcome.unwrap_or_else(|error| {
            if is_closed_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            eprintln!("error: {error:#}");
            if error.is::<UsageError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        })
    };
    match parse().command {
        IsthmusCommand::Sidecar(args) => sidecar::run(*args),
        IsthmusCommand::Store(args) => store::run(*args),
        IsthmusCommand::Compact(args) => compactor::run(*args),
        IsthmusCommand::Query(args) => querier::run(*args),
        IsthmusCommand::Rule(args) => ruler::run(*args),
        IsthmusCommand::Scrape(args) => scraper::run(*args),
        IsthmusCommand::Agent(args) => agent::run(*args),
        IsthmusCommand::Gateway(args) => gateway::cli::run(*args),
        IsthmusCommand::Pki(command) => pki::cli::run(command),
        IsthmusCommand::Tools(args) => tools::run(*args),
        IsthmusCommand::Doctor(args) => done(doctor::run(&args, Cli::command())),
        IsthmusCommand::Quickstart(args) => done(quickstart::run(&args)),
        IsthmusCommand::Completions { shell } => done(completions(shell)),
        IsthmusCommand::Man { dir } => done(man_pages(&dir)),
    }
}

/// Whether the reader of the output has closed the pipe, as `| head` does. This is not a failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>().map(|e| e.kind()));
    kinds.into_iter().any(|kind| kind == std::io::ErrorKind::BrokenPipe)
}

fn completions(shell: Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "isthmus", &mut script);
    let mut stdout = std::io::stdout();
    stdout.write_all(&script)?;
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn man_pages(dir: &std::path::Path) -> anyhow::Result<ExitCode> {
    let refused = |error: std::io::Error| UsageError(format!("DIR {}: {error}", dir.display()));
    std::fs::create_dir_all(dir).map_err(refused)?;
    // The full version has several lines, and the title of a page must be one.
    clap_mangen::generate_to(Cli::command().version(env!("CARGO_PKG_VERSION")), dir)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod thanos_flags;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }
}
