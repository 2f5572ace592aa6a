//! Every command that changes something, with `--dry-run`: it says what it would do, and no file changes.

use std::{collections::BTreeMap, path::Path};

use clap::CommandFactory;

use super::*;

/// The content of each file below a folder.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.insert(path.display().to_string(), Vec::new());
                folders.push(path);
            } else {
                files.insert(path.display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// The commands that only read.
const READING: [&str; 15] = [
    "issuer show",
    "bundle show",
    "bundle verify",
    "token inspect",
    "token list",
    "cert list",
    "cert inspect",
    "cert verify",
    "cluster list",
    "cluster bundle verify",
    "denylist show",
    "denylist status",
    "audit verify",
    "audit tail",
    "doctor",
];

/// All commands of the program, each with its path.
fn commands(command: &clap::Command, path: &str, found: &mut Vec<String>) {
    for below in command.get_subcommands() {
        let path = format!("{path} {}", below.get_name()).trim().to_owned();
        if below.has_subcommands() && !below.get_arguments().any(|arg| arg.get_id() == "dry_run") {
            commands(below, &path, found);
        } else {
            found.push(path.clone());
            commands(below, &path, found);
        }
    }
}

#[test]
fn with_dry_run_no_command_changes_a_file() {
    let test = TestPki::new();
    let dir = test.dir.path();
    fs::write(dir.join("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
    // Something to change: tokens, a cluster that has joined, one that is paused, files from earlier steps.
    let token = test.token("eu-1");
    test.issuer().enrol(token.secret(), KeyAndCsr::generate().unwrap().csr_der(), test.now).unwrap();
    test.token("eu-2");
    let words = |line: &str| -> Vec<String> {
        let folder = dir.display().to_string();
        let list = |list: &str| object(&["token", list, "--state", &format!("{folder}/state"), "--json"]);
        let id = list("list")["tokens"][1]["id"].as_str().unwrap().to_owned();
        let line = line
            .replace("ROOT", "--root-out DIR/offline --root-passphrase-file DIR/passphrase")
            .replace("STATE", "--state DIR/state")
            .replace("TOKEN", &id);
        line.replace("DIR", &folder).split_whitespace().map(str::to_owned).collect()
    };
    let run = |line: &str| {
        let words = words(line);
        pki(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    for line in [
        "cluster pause STATE eu-2 --yes",
        "issuer request STATE --out DIR/first.csr",
        "issuer sign ROOT --trust-domain test.example --request DIR/first.csr --out DIR/first.pem",
        "bundle sign ROOT --trust-domain test.example --bundle DIR/state/bundle.pem --out DIR/next-bundle.pem",
        "cert revoke STATE --issuer 9c3f5be1a86f4d0b7a52c7d1e0b3948f6ad2c05e81b7f3946d20c8a5e7194b3f --yes ROOT",
        "denylist export STATE --out DIR/root-list.bin",
        "backup STATE --out DIR/first.backup --passphrase-file DIR/passphrase",
    ] {
        let (code, printed) = run(line);
        assert_eq!(code, 0, "{line}: {printed}");
    }
    let lines = [
        "init --state DIR/other --root-out DIR/other-roots --trust-domain test.example --root-passphrase-file DIR/passphrase",
        "issuer renew STATE ROOT",
        "issuer request STATE --out DIR/next.csr",
        "issuer sign ROOT --trust-domain test.example --request DIR/first.csr --out DIR/second.pem",
        "issuer install STATE DIR/first.pem",
        "bundle sign ROOT --trust-domain test.example --bundle DIR/state/bundle.pem --out DIR/third.pem",
        "bundle install STATE DIR/next-bundle.pem",
        "root create ROOT --label next --trust-domain test.example",
        "token create STATE --cluster eu-3 --environment production --address gw:10943 --out DIR/token",
        "token revoke STATE TOKEN",
        "cert revoke STATE --cluster eu-1",
        "cert revoke STATE --issuer 0c3f5be1a86f4d0b7a52c7d1e0b3948f6ad2c05e81b7f3946d20c8a5e7194b3f ROOT",
        "cluster add STATE eu-4 --environment production",
        "cluster remove STATE eu-1",
        "cluster pause STATE eu-1",
        "cluster resume STATE eu-2",
        "cluster bundle STATE --cluster eu-1 --environment production --address gw:10943 --out DIR/eu-1.yaml",
        "denylist push STATE",
        "denylist install STATE DIR/root-list.bin",
        "denylist export STATE --out DIR/list.bin",
        "backup STATE --out DIR/pki.backup --passphrase-file DIR/passphrase",
        "restore --state DIR/restored --from DIR/first.backup --passphrase-file DIR/passphrase",
        "prune STATE",
    ];
    let before = tree(dir);
    for line in lines {
        let (code, printed) = run(&format!("{line} --dry-run"));
        assert_eq!(code, 0, "{line}: {printed}");
        let says = ["would", "nothing", "can be restored"].iter().any(|word| printed.contains(word));
        assert!(says || line.starts_with("bundle sign"), "{line} does not say what it would do: {printed}");
        let (code, json) = run(&format!("{line} --dry-run --json"));
        let json: Value =
            serde_json::from_str(&json).unwrap_or_else(|error| panic!("{line}: {error}: {json}"));
        assert_eq!((code, &json["dry_run"]), (0, &true.into()), "{line}: {json}");
        let after = tree(dir);
        let differ: Vec<_> = before.iter().filter(|(path, bytes)| after.get(*path) != Some(bytes)).collect();
        let names: Vec<_> = differ.iter().map(|(path, _)| path.as_str()).collect();
        assert!(names.is_empty() && after.len() == before.len(), "{line} changes {names:?}");
    }
    // The table has every command of the program that is not known as reading.
    let mut all = Vec::new();
    commands(&Program::command(), "", &mut all);
    assert!(all.len() > 30, "{all:?}");
    for command in all.iter().filter(|command| !READING.contains(&command.as_str())) {
        let listed = lines.iter().any(|line| line.starts_with(&format!("{command} ")));
        assert!(listed, "{command} is neither in the table nor known to only read");
    }
}

#[test]
fn what_takes_something_away_asks_unless_it_is_told_not_to() {
    let test = TestPki::new();
    let token = test.token("eu-1");
    test.issuer().enrol(token.secret(), KeyAndCsr::generate().unwrap().csr_der(), test.now).unwrap();
    test.token("eu-1");
    let state = test.state();
    let state = state.to_str().unwrap();
    let tokens = object(&["token", "list", "--state", state, "--json"]);
    let id = tokens["tokens"][1]["id"].as_str().unwrap();
    // After the certificate has expired.
    let later = test.now + std::time::Duration::from_secs(100 * 86_400);
    for (line, now) in [
        (&["token", "revoke", id][..], test.now),
        (&["cert", "revoke", "--cluster", "eu-1"], test.now),
        (&["cluster", "pause", "eu-1"], test.now),
        (&["cluster", "remove", "eu-1"], test.now),
        (&["prune"], later),
    ] {
        // Standard input of a test is not a terminal.
        let (code, printed) = pki_at(&[line, &["--state", state]].concat(), now);
        assert!(code == 2 && printed.contains("give --yes"), "{line:?}: {printed}");
        let (code, printed) = pki_at(&[line, &["--state", state, "--yes"]].concat(), now);
        assert_eq!(code, 0, "{line:?}: {printed}");
    }
}
