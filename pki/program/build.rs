//! Tells a program which commit it is built from, if it is built in a git checkout.

use std::path::Path;
use std::process::Command;

fn main() {
    // Without a condition, it would run again after each change of a file of the program.
    println!("cargo::rerun-if-env-changed=ISTHMUS_REVISION");
    let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) else { return };
    // Git adds a line for each commit and each checkout.
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    for (variable, arguments) in [
        ("ISTHMUS_GIT_REVISION", &["rev-parse", "--short=12", "HEAD"][..]),
        ("ISTHMUS_GIT_BRANCH", &["rev-parse", "--abbrev-ref", "HEAD"][..]),
    ] {
        if let Some(value) = git(arguments) {
            println!("cargo::rustc-env={variable}={value}");
        }
    }
}

/// The output of a git command; `None` without git or outside of a checkout.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
