//! The program: one command for each role, and the wiring between the crates.

mod agent;
mod cli;
mod doctor;
mod quickstart;
mod usage;

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::BuildVersion::set_checkout(
        option_env!("ISTHMUS_GIT_REVISION"),
        option_env!("ISTHMUS_GIT_BRANCH"),
    );
    cli::run()
}
