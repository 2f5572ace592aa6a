//! The program: one command a role, and the wiring between them.

mod cli;
mod quickstart;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
