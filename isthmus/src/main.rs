//! The program: one command for each role, and the wiring between the crates.

mod cli;
mod quickstart;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
