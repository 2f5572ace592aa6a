//! Secrets are overwritten in memory. The test searches the memory of its own process.
//!
//! It is alone in its program, so that no other test changes the memory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test is a panic")]

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    time::{Duration, SystemTime},
};

use identity::{Credentials, Secret};
use pki::{InitOptions, Issuer, JoinToken, KeyAndCsr, NewToken};

const MASK: u8 = 0x5a;

/// A secret to search for, which is itself nowhere in memory: each byte is changed.
struct Wanted(Vec<u8>);

impl Wanted {
    fn new(secret: &[u8]) -> Self {
        Self(secret.iter().map(|byte| byte ^ MASK).collect())
    }

    fn is_at(&self, window: &[u8]) -> bool {
        window.iter().zip(&self.0).all(|(byte, masked)| byte ^ MASK == *masked)
    }

    /// How often it is in the memory that this process can write.
    fn copies(&self) -> usize {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let mut memory = File::open("/proc/self/mem").unwrap();
        let mut buffer = vec![0; 1 << 20];
        let own = buffer.as_ptr() as u64..buffer.as_ptr() as u64 + buffer.len() as u64;
        let (mut copies, length) = (0, self.0.len());
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let (mut at, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            while at + (length as u64) <= to {
                let size = usize::try_from((to - at).min(buffer.len() as u64)).unwrap();
                let read =
                    memory.seek(SeekFrom::Start(at)).and_then(|_| memory.read_exact(&mut buffer[..size]));
                if read.is_err() {
                    break;
                }
                for start in 0..=size - length {
                    let address = at + start as u64;
                    if !own.contains(&address) && self.is_at(&buffer[start..start + length]) {
                        copies += 1;
                    }
                }
                // The parts overlap, so that a secret at the end of one of them is found.
                at += (size - length + 1) as u64;
            }
        }
        buffer.fill(0);
        std::hint::black_box(&buffer);
        copies
    }
}

#[test]
fn tokens_and_keys_that_were_dropped_are_not_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let options = InitOptions {
        state: dir.path().join("state"),
        root_out: dir.path().join("roots"),
        trust_domain: "test.example".parse().unwrap(),
        cluster: "obs".parse().unwrap(),
        passphrase: Secret::new("a long passphrase".to_owned()),
    };
    pki::init(&options, now).unwrap();
    let issuer = Issuer::open(&options.state).unwrap();
    let new = NewToken {
        cluster: "eu-1".parse().unwrap(),
        environment: "test".into(),
        addresses: vec!["gw:1".into()],
        ttl: Duration::from_secs(60),
    };
    let token = issuer.create_token(&new, now).unwrap();
    let (secret, text) = {
        let text = token.to_text();
        // The middle of the text: its beginning is not secret.
        let length = text.expose().len();
        (Wanted::new(token.secret()), Wanted::new(&text.expose().as_bytes()[length - 48..length - 8]))
    };
    assert!(secret.copies() >= 1, "the search finds a secret that is there");

    // It is read from a file, cloned, moved, used and dropped.
    let file = dir.path().join("token");
    identity::write_private(&file, token.to_text().expose().as_bytes()).unwrap();
    drop(token);
    let bytes = Secret::new(identity::read_private(&file, 4096).unwrap());
    let parsed = JoinToken::parse(std::str::from_utf8(bytes.expose()).unwrap()).unwrap();
    drop(bytes);
    let key = KeyAndCsr::generate().unwrap();
    let enrolment = issuer.enrol(parsed.secret(), key.csr_der(), now).unwrap();
    let moved = Box::new(parsed.clone());
    let credentials = parsed.accept(key, enrolment.chain, &enrolment.bundle, now).unwrap();
    drop((parsed, moved));
    assert_eq!(secret.copies(), 0, "copies of the secret of a token");
    assert_eq!(text.copies(), 0, "copies of the text of a token");

    // The private key of a certificate, as it is in the file.
    let file = dir.path().join("credentials.pem");
    credentials.store(&file).unwrap();
    let pem = {
        let pem = Secret::new(identity::read_private(&file, 1 << 16).unwrap());
        let lines: Vec<&str> = std::str::from_utf8(pem.expose()).unwrap().lines().collect();
        // The second line of the key: the first one begins with what all keys have.
        Wanted::new(lines[2].as_bytes())
    };
    let loaded = Credentials::load(&file).unwrap();
    drop((credentials, loaded));
    assert_eq!(pem.copies(), 0, "copies of the text of a private key");
    drop(issuer);
}
