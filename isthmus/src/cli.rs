//! The command line: `isthmus COMMAND`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::quickstart::{self, QuickstartArgs};

/// A global, long-term view of the metrics of many Prometheus servers, over a mesh that issues its own certificates
#[derive(Debug, Parser)]
#[command(name = "isthmus", bin_name = "isthmus", version = version(), propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the data of the Prometheus beside it as StoreAPI
    Sidecar(Box<sidecar::SidecarArgs>),
    /// Answers PromQL over all stores, and serves them as one
    Query(Box<querier::QueryArgs>),
    /// Connects this cluster to the mesh
    Gateway(Box<gateway::cli::GatewayArgs>),
    /// Roots, issuing CA, join tokens and certificates
    #[command(subcommand)]
    Pki(pki::cli::PkiCommand),
    /// Looks after blocks and buckets
    Tools(Box<tools::ToolsArgs>),
    /// Shows the whole on this machine: two client clusters, one PromQL answer over the mesh
    Quickstart(QuickstartArgs),
    /// Prints the completions of a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Writes a man page for each command
    Man {
        /// Folder to write to; created when absent
        dir: PathBuf,
    },
}

/// What `--version` prints behind the name.
fn version() -> &'static str {
    static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    TEXT.get_or_init(|| runtime::BuildVersion::CURRENT.to_string())
}

/// Reads the arguments; switches may be negated as Thanos' are (`--no-query.partial-response`).
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
            ExitCode::FAILURE
        })
    };
    match parse().command {
        Command::Sidecar(args) => sidecar::run(*args),
        Command::Query(args) => querier::run(*args),
        Command::Gateway(args) => gateway::cli::run(*args),
        Command::Pki(command) => pki::cli::run(command),
        Command::Tools(args) => tools::run(*args),
        Command::Quickstart(args) => done(quickstart::run(&args)),
        Command::Completions { shell } => done(completions(shell)),
        Command::Man { dir } => done(man_pages(&dir)),
    }
}

/// Whether nobody reads the output any more, as behind `| head`: the end, but no failure.
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
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
