//! The system as a whole, and what holds for the workspace rather than for one crate.
//!
//! One binary, so that it links once. Tests that need a real Prometheus look for it on the `PATH`; `./tests/run` installs
//! it, and a test that does without says so in one line.

mod circles;
mod docs;
mod end_to_end;
mod tools;
mod uploads;
mod workspace;
mod world;
