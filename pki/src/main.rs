//! `isthmus-pki`: only the `pki` commands, so that the people who sign certificates can read the whole
//! program.

use std::process::ExitCode;

use clap::Parser;

/// Manage the PKI of the mesh: roots, issuing CA, join tokens, inventory
#[derive(Debug, Parser)]
#[command(name = "isthmus-pki", version, propagate_version = true)]
struct IsthmusPki {
    #[command(subcommand)]
    command: pki::cli::PkiCommand,
}

fn main() -> ExitCode {
    pki::cli::run(IsthmusPki::parse().command)
}
