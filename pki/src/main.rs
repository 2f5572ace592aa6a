//! `isthmus-pki`: the PKI's commands alone, so that those who sign can read all of what they run.

use std::process::ExitCode;

use clap::Parser;

/// The mesh's PKI: roots, issuer, join tokens, inventory
#[derive(Debug, Parser)]
#[command(name = "isthmus-pki", version, propagate_version = true)]
struct IsthmusPki {
    #[command(subcommand)]
    command: pki::cli::PkiCommand,
}

fn main() -> ExitCode {
    pki::cli::run(IsthmusPki::parse().command)
}
