mod book;
mod bundles;
mod dry_run;

use std::{fs, os::unix::fs::PermissionsExt};

use clap::Parser;
use serde_json::Value;

use super::*;
use crate::{
    JoinToken, KeyAndCsr, TOKEN_PREFIX,
    testing::{PASSPHRASE, TestPki},
};

#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: PkiCommand,
}

/// Runs a command line; returns the exit code and the printed text, or the error line after a failure.
fn pki(line: &[&str]) -> (u8, String) {
    pki_at(line, SystemTime::now())
}

fn pki_at(line: &[&str], now: SystemTime) -> (u8, String) {
    let command =
        Program::try_parse_from(["pki"].iter().chain(line)).unwrap_or_else(|e| panic!("{e}")).command;
    let mut printed = Vec::new();
    match execute(command, &mut CommandOutput::new(&mut printed, None), now) {
        Ok(code) => (code, String::from_utf8(printed).unwrap()),
        Err(e) => (e.exit_code(), e.to_string()),
    }
}

fn object(line: &[&str]) -> Value {
    let (code, printed) = pki(line);
    assert_eq!(code, 0, "{printed}");
    let object: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(object["v"], 1);
    object
}

fn create(state: &str, more: &[&str]) -> Vec<String> {
    let line = ["token", "create", "--state", state, "--cluster", "eu-1", "--environment", "production"];
    line.iter().chain(["--address", "gw:10943"].iter()).chain(more).map(|s| (*s).to_owned()).collect()
}

fn run_create(state: &str, more: &[&str]) -> (u8, String) {
    let line = create(state, more);
    pki(&line.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn the_commands_work_from_init_to_a_joined_cluster() {
    let test = TestPki::empty();
    let passphrase_file = test.dir.path().join("passphrase");
    fs::write(&passphrase_file, format!("{PASSPHRASE}\n")).unwrap();
    let (state, root_out) = (test.state(), test.root_out());
    let (state, root_out) = (state.to_str().unwrap(), root_out.to_str().unwrap());
    let init = ["init", "--state", state, "--root-out", root_out, "--trust-domain", "test.example"];
    let init = [&init[..], &["--root-passphrase-file", passphrase_file.to_str().unwrap()]].concat();

    let (code, printed) = pki(&[&init[..], &["--dry-run"]].concat());
    assert!(code == 0 && printed.starts_with("would create") && !test.state().exists(), "{printed}");
    let made = object(&[&init[..], &["--json"]].concat());
    assert_eq!((&made["created"], made["root_pins"].as_array().unwrap().len()), (&true.into(), 2));
    let (code, printed) = pki(&init);
    assert!(code == 0 && printed.contains("already complete; nothing was changed"), "{printed}");

    let (code, printed) = run_create(state, &["--dry-run"]);
    assert!(code == 0 && printed.starts_with("would create a token"), "{printed}");
    assert_eq!(object(&["token", "list", "--state", state, "--json"])["tokens"].as_array().unwrap().len(), 0);

    let (code, printed) = run_create(state, &[]);
    assert!(code == 0 && printed.lines().count() == 1, "{printed}");
    let token = JoinToken::parse(&printed).unwrap();
    let key = KeyAndCsr::generate().unwrap();
    test.issuer().enrol(token.secret(), key.csr_der(), test.now).unwrap();

    let tokens = object(&["token", "list", "--state", state, "--json"]);
    assert_eq!(tokens["tokens"][0]["state"], "used");
    let certificates = object(&["cert", "list", "--state", state, "--json"]);
    assert_eq!(certificates["certificates"][0]["spiffe_id"], "spiffe://test.example/cluster/eu-1/gateway");
    assert_eq!(certificates["certificates"][0]["state"], "valid");
    let clusters = object(&["cluster", "list", "--state", state, "--json"]);
    assert_eq!(clusters["clusters"][0]["environment"], "production");
    let head = object(&["audit", "verify", "--state", state, "--json"])["head"].as_str().unwrap().to_owned();
    let (code, printed) = pki(&["audit", "verify", "--state", state, "--head", &head]);
    assert!(code == 0 && printed.contains("intact"), "{printed}");
    for list in [["token", "list"], ["cert", "list"], ["cluster", "list"]] {
        let (code, printed) = pki(&[&list[..], &["--state", state]].concat());
        assert!(code == 0 && printed.lines().count() == 2, "{printed}");
    }
    let (code, printed) = pki(&["audit", "tail", "--state", state, "-n", "2"]);
    assert!(code == 0 && printed.lines().count() == 2 && printed.contains("certificate issued"), "{printed}");
    let (code, printed) = pki(&["doctor", "--state", state]);
    assert_eq!(code, 0, "{printed}");
    let renew = ["issuer", "renew", "--state", state, "--root-out", root_out, "--root-passphrase-file"];
    let (code, printed) = pki(&[&renew[..], &[passphrase_file.to_str().unwrap()]].concat());
    assert!(code == 0 && printed.contains("valid until"), "{printed}");
}

#[test]
fn a_root_is_replaced_by_commands_that_use_the_offline_roots() {
    let test = TestPki::new();
    let passphrase_file = test.dir.path().join("passphrase");
    fs::write(&passphrase_file, format!("{PASSPHRASE}\n")).unwrap();
    let (state, root_out) = (test.state(), test.root_out());
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (in_use, next) = (path(&state.join("bundle.pem")), path(&test.dir.path().join("next.pem")));
    let (state, root_out) = (path(&state), path(&root_out));
    let passphrase = path(&passphrase_file);
    let offline =
        ["--root-out", &root_out, "--root-passphrase-file", &passphrase, "--trust-domain", "test.example"];
    let shown = object(&["bundle", "show", "--state", &state, "--json"]);
    assert_eq!((&shown["sequence"], shown["roots"].as_array().unwrap().len()), (&1.into(), 2));
    let pins: Vec<_> =
        shown["roots"].as_array().unwrap().iter().map(|r| r["pin"].as_str().unwrap()).collect();

    let created = object(&[&["root", "create", "--label", "next", "--json"], &offline[..]].concat());
    let certificate = created["certificate"].as_str().unwrap();
    let sign = ["bundle", "sign", "--bundle", &in_use, "--out", &next, "--json"];
    let planned = object(&[&sign[..], &offline, &["--add", certificate, "--dry-run"]].concat());
    assert!(planned["sequence"] == 2 && !fs::exists(&next).unwrap());
    object(&[&sign[..], &offline, &["--add", certificate, "--remove", pins[1]]].concat());
    let install = ["bundle", "install", "--state", &state, &next];
    let (code, printed) = pki(&[&install[..], &["--dry-run"]].concat());
    assert!(code == 0 && printed.ends_with("would be installed\n"), "{printed}");
    assert!(pki(&install).1.contains("installed"));
    assert!(pki(&install).1.contains("nothing was changed"));
    let shown = object(&["bundle", "show", "--state", &state, "--json"]);
    assert_eq!((&shown["sequence"], &shown["roots"][1]["pin"]), (&2.into(), &created["pin"]));

    // The root above the issuing CA cannot go before the CA is renewed under another one.
    object(&[&sign[..], &offline, &["--root", "next", "--remove", pins[0]]].concat());
    let (code, printed) = pki(&install);
    assert!(code == 4 && printed.contains("renew the issuing CA under another root first"), "{printed}");
    let (code, printed) = pki(&[&sign[..], &offline, &["--remove", pins[1]]].concat());
    assert!(code == 3 && printed.contains("is not in the bundle"), "{printed}");
    // A bundle that only the foreign root signs, and one that is not signed.
    let (code, printed) = pki(&[&sign[..], &offline, &["--root", "standby"]].concat());
    assert!(code == 4 && printed.contains("the root that signs is not in use"), "{printed}");
    let unsigned = fs::read_to_string(&in_use).unwrap();
    fs::write(&next, unsigned.lines().skip(1).take(14).map(|line| format!("{line}\n")).collect::<String>())
        .unwrap();
    let (code, printed) = pki(&install);
    assert!(code == 4 && printed.contains("no root has signed it"), "{code} {printed}");
    assert!(pki(&["audit", "tail", "--state", &state]).1.contains("trust bundle installed"));
}

#[test]
fn a_token_is_written_only_to_the_private_file_given() {
    let test = TestPki::new();
    let (state, out) = (test.state(), test.dir.path().join("token"));
    let (state, out_text) = (state.to_str().unwrap(), out.to_str().unwrap());
    let (code, printed) = run_create(state, &["--out", out_text]);
    assert!(code == 0 && printed.starts_with(&format!("{out_text}: token for cluster ")), "{printed}");
    assert!(!printed.contains(TOKEN_PREFIX), "{printed}");
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    let token = JoinToken::parse(&fs::read_to_string(&out).unwrap()).unwrap();
    let (_, printed) = run_create(state, &["--out", out_text, "--json"]);
    assert!(!printed.contains(TOKEN_PREFIX), "{printed}");

    let secret = token.to_text();
    let shown: String = [&["token", "list"][..], &["audit", "tail"], &["cluster", "list"], &["doctor"]]
        .iter()
        .map(|list| pki(&[*list, &["--state", state, "--json"]].concat()).1)
        .collect();
    assert!(!shown.contains(TOKEN_PREFIX) && !shown.contains(&secret.expose()[60..90]), "{shown}");
}

#[test]
fn tokens_are_revoked_by_id_with_an_exit_code_for_each_case() {
    let test = TestPki::new();
    test.token("eu-1");
    let state = test.state();
    let state = state.to_str().unwrap();
    let tokens = object(&["token", "list", "--state", state, "--json"]);
    let id = tokens["tokens"][0]["id"].as_str().unwrap();
    let revoke = |id: &str| pki(&["token", "revoke", "--state", state, "--yes", id]);
    let (code, printed) = pki(&["token", "revoke", "--state", state, "--dry-run", id]);
    assert_eq!((code, printed.as_str()), (0, "would be revoked\n"));
    assert_eq!(revoke(id), (0, "revoked\n".into()));
    assert_eq!(revoke(id), (0, "already revoked; nothing was changed\n".into()));
    assert_eq!(revoke("0123").0, 3);
    let token = test.token("eu-1");
    test.issuer().enrol(token.secret(), KeyAndCsr::generate().unwrap().csr_der(), test.now).unwrap();
    let tokens = object(&["token", "list", "--state", state, "--json"]);
    let used = tokens["tokens"][1]["id"].as_str().unwrap();
    assert_eq!(revoke(used).0, 5);
}

#[test]
fn each_failure_has_its_exit_code_and_message() {
    let test = TestPki::new();
    let state = test.state();
    let state = state.to_str().unwrap();
    let check = |line: &[&str], code: u8, expected: &str| {
        let (found, printed) = pki(line);
        assert!(found == code && printed.contains(expected), "{line:?}: {found} {printed}");
        assert_eq!(printed.trim_end().lines().count(), 1, "{printed}");
    };
    check(&["token", "list", "--state", "/no/such/dir"], 3, "create one with `pki init`");
    check(&["doctor", "--state", "/no/such/dir"], 3, "not a state directory");
    check(&["audit", "verify", "--state", state, "--head", "x"], 2, "must be NUMBER:HASH");
    let other_head = format!("7:{}", "0".repeat(64));
    check(&["audit", "verify", "--state", state, "--head", &other_head], 7, "truncated or rewritten");
    let own = ["token", "create", "--state", state, "--cluster", "observability", "--environment", "x"];
    check(&[&own[..], &["--address", "a:1"]].concat(), 4, "the issuer's own cluster");
    let (code, printed) = run_create(state, &["--ttl", "25h"]);
    assert!(code == 2 && printed.contains("1s to 24h"), "{printed}");
    let missing = ["init", "--state", "/tmp/a", "--root-out", "/tmp/b", "--trust-domain", "t"];
    check(
        &[&missing[..], &["--root-passphrase-file", "/no/such/file"]].concat(),
        2,
        "--root-passphrase-file /no/such/file",
    );
}

#[test]
fn invalid_arguments_are_rejected_with_the_reason() {
    let refused = |line: &[&str], expected: &str| {
        let error = Program::try_parse_from(["pki"].iter().chain(line)).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.exit_code(), 2);
    };
    let create = ["token", "create", "--environment", "x", "--address", "a:1", "--cluster"];
    refused(&[&create[..], &["EU_1"]].concat(), "use only a-z");
    for ttl in ["15", "1d", "m", "99999999999s", "-1m", ""] {
        refused(&[&create[..], &["eu-1", &format!("--ttl={ttl}")]].concat(), "such as 15m");
    }
    refused(&["init", "--root-out", "r", "--trust-domain", "a..b"], "each part must have 1 to 63 characters");
    refused(&["frobnicate"], "unrecognized subcommand");
}
