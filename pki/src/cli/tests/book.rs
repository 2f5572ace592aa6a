//! Runs every command of the book for the security team, in its order, as a reader does.

use std::{collections::BTreeMap, path::PathBuf};

use super::*;
use crate::{inventory::StateDir, issuer::Issuer};

const BOOK: &str = include_str!("../../../../docs/security-team.md");

/// The serial number and the pin in the book, which stand for those of the reader.
const SERIAL: &str = "4f1c9ad07b2e4c55a1d3e2f4b5c60718";
const PIN: &str = "9c3f5be1a86f4d0b7a52c7d1e0b3948f6ad2c05e81b7f3946d20c8a5e7194b3f";

/// The reader of the book: where the files are, and what the words in capitals mean.
struct Reader {
    dir: tempfile::TempDir,
    values: BTreeMap<&'static str, String>,
    /// A token that its cluster has not used yet.
    token: Option<String>,
}

impl Reader {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The words of a command line, with the reader's folders, files and values.
    fn words(&self, line: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (index, part) in line.split('"').enumerate() {
            match index % 2 {
                0 => words.extend(part.split_whitespace().map(str::to_owned)),
                _ => words.push(part.to_owned()),
            }
        }
        let folder = self.dir.path().display().to_string();
        let of_reader = |word: String| {
            let file =
                [".csr", ".pem", ".token", ".backup", ".bin", ".yaml"].iter().any(|end| word.ends_with(end));
            match self.values.get(word.as_str()) {
                Some(value) => value.clone(),
                None if word.starts_with('/') => format!("{folder}{word}"),
                None if file || word == "passphrase" => format!("{folder}/{word}"),
                None => word,
            }
        };
        words.into_iter().map(of_reader).collect()
    }

    fn issuer(&self) -> Issuer {
        Issuer::open(&self.path("var/lib/isthmus/pki")).unwrap()
    }

    /// What the cluster's owner does with a token.
    fn join(&mut self) {
        let Some(token) = self.token.take() else { return };
        let token = JoinToken::parse(&fs::read_to_string(token).unwrap()).unwrap();
        let csr = KeyAndCsr::generate().unwrap();
        let now = SystemTime::now();
        let enrolment = self.issuer().enrol(token.secret(), csr.csr_der(), now).unwrap();
        let peer =
            identity::verify_peer(&enrolment.chain, &enrolment.bundle, now, &Default::default()).unwrap();
        let credentials = token.accept(csr, enrolment.chain, &enrolment.bundle, now).unwrap();
        credentials.store(&self.path("eu-1-credentials.pem")).unwrap();
        self.values.insert(SERIAL, peer.serial.clone());
        self.values.insert(PIN, peer.issuers[0].to_string());
    }

    /// What changes outside of the commands before one of them.
    fn before(&mut self, words: &[String]) {
        // Its owner has looked at the token first.
        if !words.starts_with(&["token".to_owned(), "inspect".to_owned()]) {
            self.join();
        }
        if words.iter().any(|word| word == "restore") {
            // The list that a gateway has stored.
            let held = self.issuer().denylists(SystemTime::now()).unwrap();
            fs::write(self.path("denylist.bin"), held.issuer().unwrap().as_bytes()).unwrap();
        }
        if words.contains(&"--head".to_owned()) {
            return;
        }
        let state = self.path("var/lib/isthmus/pki");
        if let Ok(inventory) = crate::inventory::Inventory::open(&StateDir::new(&state)) {
            self.values.insert("HEAD", inventory.verify_audit(None).unwrap().to_string());
        }
    }
}

#[test]
fn every_command_of_the_book_works_in_its_order() {
    let mut reader = Reader { dir: tempfile::tempdir().unwrap(), values: BTreeMap::new(), token: None };
    fs::write(reader.path("passphrase"), "a long passphrase\n").unwrap();
    fs::create_dir_all(reader.path("var/lib/isthmus")).unwrap();
    fs::create_dir_all(reader.path("media")).unwrap();
    let lines: Vec<_> = BOOK.lines().filter_map(|line| line.strip_prefix("$ isthmus pki ")).collect();
    assert!(lines.len() > 30, "only {} commands", lines.len());
    for line in lines {
        let line_words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        reader.before(&line_words);
        let words = reader.words(line);
        let (code, printed) = pki(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(code, 0, "{line}\n{printed}");
        if let Some(at) = words.iter().position(|word| word == "--out").filter(|_| words[0] == "token") {
            reader.token = Some(words[at + 1].clone());
        }
    }
    // What the last chapter says about the first ones.
    let events =
        crate::inventory::Inventory::open(&StateDir::new(&reader.path("var/lib/isthmus/pki"))).unwrap();
    let events: Vec<_> = events.audit_tail(1000).unwrap().into_iter().map(|entry| entry.event).collect();
    for event in [
        "cluster registered",
        "token used",
        "issuing CA installed",
        "certificates revoked",
        "cluster paused",
        "cluster resumed",
        "cluster removed",
        "root denylist installed",
        "trust bundle installed",
    ] {
        assert!(events.iter().any(|found| found == event), "{event}: {events:?}");
    }
}
