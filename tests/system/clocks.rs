//! Gateways whose clock is wrong, as processes. Where libfaketime is not installed, a line says that the test was skipped.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tests::{GatewayCommand, Mesh, PkiCommands, free_port, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);

/// The library that changes what the clock says (Debian package `libfaketime`).
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.is_file())
}

/// The values of a field in the list that a command prints.
fn listed(pki: &PkiCommands, line: &str, list: &str, field: &str) -> Vec<String> {
    let (_, printed) = pki.run(line);
    let printed: Value = serde_json::from_str(&printed).unwrap_or_else(|why| panic!("{why}: {printed}"));
    let rows = printed[list].as_array().unwrap_or_else(|| panic!("{printed}"));
    rows.iter().map(|row| row[field].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_gateway_whose_clock_is_a_day_off_says_so_and_uses_no_token() {
    let Some(library) = library() else {
        println!("skipped: libfaketime is not installed");
        return;
    };
    let clock = |offset: &str| {
        [
            format!("LD_PRELOAD={}", library.display()),
            format!("FAKETIME={offset}"),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mesh = Mesh::start(dir.path(), "auto", &[]);
    let pki = mesh.pki();
    let token = mesh.token("eu-1", "eu-1.token");
    let yaml = format!("role: cluster\ndata_dir: eu-1\ntargets: [{{name: x, address: '{}'}}]\n", free_port());
    let command = GatewayCommand::new(dir.path(), "eu-1", &yaml, Some(&token));
    let tokens = || listed(&pki, "token list --json STATE", "tokens", "state");
    let serials = || listed(&pki, "cert list --json STATE", "certificates", "serial");
    for offset in ["+1d", "-1d", "+2d"] {
        println!("it joins with a clock that is off by {offset}");
        let mut process = command.start_with(&clock(offset));
        assert_ne!(process.wait_end(), Some(0), "{}", process.output());
        let output = process.output();
        let error =
            output.lines().find(|line| line.contains("cannot join")).unwrap_or_else(|| panic!("{output}"));
        assert!(error.contains("clock") && error.contains("the token was not used"), "{error}");
        assert_eq!(tokens(), ["open"], "{offset}");
    }

    println!("the clock is set, and the same token is used");
    drop(command.start_ready());
    assert_eq!(tokens(), ["used"]);
    let before = serials();

    println!("the clock of the gateway that has joined is two days ahead");
    let process = command.start_with(&clock("+2d"));
    wait_for("the log to name the clock", PATIENCE, || {
        let output = process.output();
        if output.contains("the local clock is at") { Ok(()) } else { Err(output) }
    });
    drop(process);
    assert_eq!(serials(), before, "no certificate is issued meanwhile");
    drop(command.start_ready());
}
