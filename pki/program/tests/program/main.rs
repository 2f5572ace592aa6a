//! The program as its user runs it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test is a panic")]

use std::process::Command;

fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[test]
fn the_version_has_the_commit_of_a_checkout() {
    let version = run(env!("CARGO_BIN_EXE_isthmus-pki"), &["--version"]).expect("a version");
    assert!(
        version.starts_with(concat!("isthmus-pki version ", env!("CARGO_PKG_VERSION"), " (")),
        "{version}"
    );
    match run("git", &["rev-parse", "--short=12", "HEAD"]) {
        Some(head) => assert!(version.contains(&format!("revision: {head}")), "{version}"),
        None => println!("skipped: this is not a git checkout"),
    }
}
