//! The command line as a user types it.

use std::process::{Command, Output};

fn isthmus(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isthmus")).args(args).output().expect("isthmus runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_lists_every_command() {
    let output = isthmus(&["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for command in ["sidecar", "query", "gateway", "pki", "tools", "quickstart", "completions", "man"] {
        assert!(help.contains(&format!("\n  {command} ")), "no {command} in:\n{help}");
    }
}

#[test]
fn an_unknown_flag_is_named_and_ends_with_code_2() {
    let output = isthmus(&["query", "--no-such-flag"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--no-such-flag"), "{}", text(&output.stderr));
}

#[test]
fn the_version_names_program_and_number() {
    let output = isthmus(&["--version"]);
    assert!(
        text(&output.stdout).starts_with(concat!("isthmus version ", env!("CARGO_PKG_VERSION"))),
        "{}",
        text(&output.stdout)
    );
}
