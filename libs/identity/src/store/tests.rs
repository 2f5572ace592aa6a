use std::fs;

use super::*;
use crate::testing::{HOUR, TestCa, leaf_params, now, td};

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(credentials: &Credentials, bundle: &TrustBundle) -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        credentials.store(&files.credentials()).unwrap();
        fs::write(files.bundle(), bundle.to_pem()).unwrap();
        files
    }

    fn credentials(&self) -> std::path::PathBuf {
        self.dir.path().join("identity.pem")
    }

    fn bundle(&self) -> std::path::PathBuf {
        self.dir.path().join("bundle.pem")
    }

    fn load(&self) -> Arc<CredentialStore> {
        CredentialStore::load(&self.credentials(), &self.bundle(), now()).unwrap()
    }
}

#[test]
fn files_round_trip_and_a_reload_replaces_the_credentials() {
    let ca = TestCa::new("a");
    let first = ca.leaf("gateway");
    let files = Files::new(&first, &ca.bundle());
    let store = files.load();
    assert_eq!(store.current().credentials.identity(), first.identity());
    assert_eq!(store.current().bundle, ca.bundle());

    let second = ca.leaf("gateway");
    second.store(&files.credentials()).unwrap();
    store.reload(&files.credentials(), &files.bundle(), now()).unwrap();
    assert_eq!(store.current().credentials.identity(), second.identity());
}

#[test]
fn the_issuing_ca_has_an_end() {
    let mut params = crate::testing::ca_params("issuing");
    params.not_after = (now() + 500 * HOUR).into();
    let credentials = TestCa::with_issuing("a", params).leaf("gateway");
    let left = credentials.issuer_not_after().unwrap().duration_since(now()).unwrap();
    assert!(left > 499 * HOUR && left <= 500 * HOUR, "{left:?}");
    assert!(credentials.not_after() < now() + 24 * HOUR);
}

#[test]
fn bad_files_are_rejected_by_name_and_the_old_pair_stays_in_use() {
    let ca = TestCa::new("a");
    let good = ca.leaf("gateway");
    let files = Files::new(&good, &ca.bundle());
    let store = files.load();
    let good_pem = fs::read_to_string(files.credentials()).unwrap();
    let other_dir = tempfile::tempdir().unwrap();
    let other_path = other_dir.path().join("other.pem");
    ca.leaf("gateway").store(&other_path).unwrap();
    let other_pem = fs::read_to_string(&other_path).unwrap();
    let certificates_at = good_pem.find("-----BEGIN CERTIFICATE").unwrap();
    let (key, chain) = good_pem.split_at(certificates_at);
    let other_chain = &other_pem[other_pem.find("-----BEGIN CERTIFICATE").unwrap()..];
    let leaf_only = &chain[..chain[1..].find("-----BEGIN").unwrap() + 1];

    let expired = {
        let mut params = leaf_params("gateway");
        params.not_after = (now() - HOUR / 2).into();
        ca.credentials(&params).store(&other_path).unwrap();
        fs::read_to_string(&other_path).unwrap()
    };
    let foreign = {
        TestCa::new("b").leaf("gateway").store(&other_path).unwrap();
        fs::read_to_string(&other_path).unwrap()
    };
    let cases: [(String, &str); 10] = [
        (String::new(), "no private key"),
        ("garbage".into(), "no private key"),
        (chain.into(), "no private key"),
        (key.into(), "no certificate"),
        (format!("{key}{key}{chain}"), "more than one private key"),
        (format!("{key}{other_chain}"), "does not belong to the certificate of spiffe://test.example"),
        (format!("{key}{leaf_only}"), "does not chain to a valid root"),
        (good_pem[..good_pem.len() - 60].into(), "damaged PEM"),
        (expired, "expired at"),
        (foreign, "does not chain to a valid root"),
    ];
    for (pem, expected) in cases {
        fs::write(files.credentials(), &pem).unwrap();
        let error = store.reload(&files.credentials(), &files.bundle(), now()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not contain {expected:?}");
        assert!(!error.contains("PRIVATE") && !error.contains('\n'), "{error:?}");
        assert_eq!(store.current().credentials.identity(), good.identity());
    }
    fs::remove_file(files.credentials()).unwrap();
    let error = store.reload(&files.credentials(), &files.bundle(), now()).unwrap_err().to_string();
    assert!(error.contains("identity.pem"), "{error}");

    fs::write(files.credentials(), &good_pem).unwrap();
    fs::write(files.bundle(), "garbage").unwrap();
    assert!(store.reload(&files.credentials(), &files.bundle(), now()).is_err());
    assert_eq!(store.current().bundle, ca.bundle());
}

#[test]
fn a_thousand_damaged_files_are_rejected() {
    let ca = TestCa::new("a");
    let good = ca.leaf("gateway");
    let files = Files::new(&good, &ca.bundle());
    let store = files.load();
    let pem = fs::read(files.credentials()).unwrap();
    for i in 0..1000 {
        let cut = i * pem.len() / 1000;
        let content: Vec<u8> =
            if i % 2 == 0 { pem[..cut].to_vec() } else { pem[cut..].iter().map(|b| b ^ 0x15).collect() };
        let outcome = Credentials::from_pem(&content).and_then(|c| store.replace(c, ca.bundle(), now()));
        assert!(outcome.is_err(), "case {i} was accepted");
    }
    assert_eq!(store.current().credentials.identity(), good.identity());
}

#[test]
fn debug_output_does_not_contain_the_key() {
    let ca = TestCa::new("a");
    let (chain, key) = ca.sign(&leaf_params("gateway"));
    let credentials = Credentials::from_pkcs8(chain, &key).unwrap();
    let store = CredentialStore::new(credentials, ca.bundle(), now()).unwrap();
    let shown = format!("{store:?} {:#?}", store.current());
    let canary: Vec<String> = key[40..48].iter().map(|b| b.to_string()).collect();
    assert!(!shown.contains(&canary.join(", ")) && !shown.contains("PrivateKey"), "{shown}");
    assert_eq!(store.current().bundle.trust_domain(), &td());
}
