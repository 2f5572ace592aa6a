use std::{fs, os::unix::fs::PermissionsExt};

use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::{Issuer, authority::CertificateAuthority, testing::TestPki};

fn again(pki: &TestPki) -> Result<InitOutcome, PkiError> {
    init_at_cost(&pki.options(), pki.now, Argon2Cost::WEAK)
}

#[test]
fn root_keys_are_not_in_the_state_directory() {
    let pki = TestPki::new();
    let mut names: Vec<_> = fs::read_dir(pki.root_out())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["root-active.key.sealed", "root-active.pem", "root-standby.key.sealed", "root-standby.pem"]
    );
    for name in names.iter().filter(|name| name.ends_with("sealed")) {
        let path = pki.root_out().join(name);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(&path).unwrap().contains("PRIVATE"));
    }
    assert_eq!(fs::metadata(pki.root_out()).unwrap().permissions().mode() & 0o777, 0o700);
    let options = pki.options();
    let (path, trust_domain, passphrase) = (pki.root_out(), options.trust_domain, options.passphrase);
    let active = RootFolder { path, trust_domain, passphrase }.load("active");
    let key = active.unwrap().key_der();
    let key = key.expose();
    for entry in fs::read_dir(pki.state()).unwrap() {
        let content = fs::read(entry.unwrap().path()).unwrap();
        assert!(
            !content.windows(32).any(|window| window == &key[key.len() - 32..]),
            "the root key is in the state directory"
        );
    }
}

#[test]
fn the_issuing_ca_may_sign_only_leaves_and_has_no_name_constraints() {
    let pki = TestPki::new();
    let authority = CertificateAuthority::load(&StateDir::new(&pki.state()).issuer()).unwrap();
    let (_, cert) = X509Certificate::from_der(authority.cert()).unwrap();
    let constraints = cert.basic_constraints().unwrap().unwrap().value;
    assert_eq!((constraints.ca, constraints.path_len_constraint), (true, Some(0)));
    assert!(cert.name_constraints().unwrap().is_none());
    let left = authority.not_after().duration_since(pki.now).unwrap();
    assert!(left.as_secs().abs_diff(30 * 86_400) <= 1, "{left:?}");
}

#[test]
fn a_second_run_changes_nothing() {
    let pki = TestPki::new();
    let before = fs::read(pki.state().join("issuer.pem")).unwrap();
    assert_eq!(again(&pki).unwrap(), InitOutcome::AlreadyComplete);
    assert_eq!(fs::read(pki.state().join("issuer.pem")).unwrap(), before);
    // The roots are offline when it is run again.
    fs::remove_dir_all(pki.root_out()).unwrap();
    assert_eq!(again(&pki).unwrap(), InitOutcome::AlreadyComplete);
    assert!(!pki.root_out().exists());
}

#[test]
fn an_interrupted_run_is_completed_by_the_next() {
    // Each prefix of the list of files, in the order in which they are written, simulates a crash at that
    // point.
    let order = [
        "offline/root-active.key.sealed",
        "offline/root-active.pem",
        "offline/root-standby.key.sealed",
        "offline/root-standby.pem",
        "state/bundle.pem",
        "state/issuer.pem",
        "state/inventory.db",
    ];
    for written in 0..order.len() {
        let pki = TestPki::new();
        for name in &order[written..] {
            fs::remove_file(pki.dir.path().join(name)).unwrap();
        }
        let pins_before = (written >= 4).then(|| {
            ["active", "standby"]
                .map(|label| fs::read(pki.root_out().join(format!("root-{label}.pem"))).unwrap())
        });
        assert_eq!(again(&pki).unwrap(), InitOutcome::Created, "after {written} files");
        let issuer = Issuer::open(&pki.state()).unwrap();
        issuer.issue_own(&"gateway".parse().unwrap(), pki.now).unwrap();
        if let Some(before) = pins_before {
            let after = ["active", "standby"]
                .map(|label| fs::read(pki.root_out().join(format!("root-{label}.pem"))).unwrap());
            assert_eq!(before, after, "the roots were created again");
        }
    }
    let pki = TestPki::new();
    fs::write(pki.state().join("inventory.db"), "").unwrap();
    assert_eq!(again(&pki).unwrap(), InitOutcome::Created, "an empty database file");
}

#[test]
fn the_directories_of_another_pki_are_rejected() {
    let pki = TestPki::new();
    let mut options = pki.options();
    options.trust_domain = "other.example".parse().unwrap();
    let error = init_at_cost(&options, pki.now, Argon2Cost::WEAK).unwrap_err();
    assert!(error.to_string().contains("already contains the PKI of trust domain test.example"), "{error}");
    assert_eq!(error.exit_code(), 5);

    options.state = pki.dir.path().join("second");
    let error = init_at_cost(&options, pki.now, Argon2Cost::WEAK).unwrap_err();
    assert!(error.to_string().contains("belongs to another trust domain"), "{error}");
    assert_eq!(error.exit_code(), 5);

    let mut options = pki.options();
    options.state = pki.dir.path().join("second");
    options.passphrase = Secret::new("another passphrase".into());
    let error = init_at_cost(&options, pki.now, Argon2Cost::WEAK).unwrap_err();
    assert!(error.to_string().contains("the passphrase does not decrypt the root key"), "{error}");
    assert_eq!(error.exit_code(), 4);
    assert!(!error.to_string().contains("another passphrase"));
}

#[test]
fn roots_inside_the_state_and_short_passphrases_are_rejected() {
    let pki = TestPki::empty();
    let mut options = pki.options();
    options.root_out = pki.state().join("roots");
    assert_eq!(init(&options, pki.now).unwrap_err().exit_code(), 2);
    let mut options = pki.options();
    options.passphrase = Secret::new("short".into());
    let error = init(&options, pki.now).unwrap_err();
    assert!(error.to_string().contains("at least 8 characters"), "{error}");
    assert!(!pki.state().exists() && !pki.root_out().exists(), "a rejected init created a directory");
}

#[test]
fn certificates_of_the_old_issuing_ca_stay_valid_after_a_renewal() {
    let pki = TestPki::new();
    let own = Issuer::open(&pki.state()).unwrap().issue_own(&"gateway".parse().unwrap(), pki.now).unwrap();
    let options = |root_out| RenewIssuerOptions {
        state: pki.state(),
        root_out,
        passphrase: Secret::new(crate::testing::PASSPHRASE.into()),
    };
    let later = pki.now + std::time::Duration::from_secs(25 * 86_400);
    let until = renew_issuer(&options(pki.root_out()), false, later).unwrap();
    let issuer = Issuer::open(&pki.state()).unwrap();
    assert_eq!(until, issuer.not_after());
    assert!(until > later + ISSUING_LIFE - std::time::Duration::from_secs(2));
    own.check(&issuer.bundle(), pki.now).unwrap();
    let next = issuer.issue_own(&"gateway".parse().unwrap(), later).unwrap();
    assert_ne!(next.chain()[1], own.chain()[1]);
    pki.inventory().verify_audit(None).unwrap();

    let other = TestPki::new();
    let error = renew_issuer(&options(other.root_out()), false, later).unwrap_err();
    assert!(error.to_string().contains("is not in the trust bundle"), "{error}");
    let error = renew_issuer(&options(pki.dir.path().join("nowhere")), false, later).unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
}
