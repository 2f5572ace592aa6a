//! `isthmus-pki`: only the `pki` commands, so that the people who sign certificates can read the whole
//! program.

use std::process::ExitCode;
use std::sync::OnceLock;

use clap::Parser;

/// Manage the PKI of the mesh: roots, issuing CA, join tokens, inventory
#[derive(Debug, Parser)]
#[command(name = "isthmus-pki", version = version(), propagate_version = true)]
struct IsthmusPki {
    #[command(subcommand)]
    command: pki::cli::PkiCommand,
}

/// The version text that `--version` prints after the name: as that of `isthmus`, without how it was built.
fn version() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    let or_unknown = |given: Option<&'static str>, checkout| given.or(checkout).unwrap_or("unknown");
    let branch = or_unknown(option_env!("ISTHMUS_BRANCH"), option_env!("ISTHMUS_GIT_BRANCH"));
    let revision = or_unknown(option_env!("ISTHMUS_REVISION"), option_env!("ISTHMUS_GIT_REVISION"));
    TEXT.get_or_init(|| {
        format!("version {} (branch: {branch}, revision: {revision})", env!("CARGO_PKG_VERSION"))
    })
}

fn main() -> ExitCode {
    pki::cli::run(IsthmusPki::parse().command)
}
