use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use super::*;
use crate::{
    Issuer,
    authority::ISSUING_LIFE,
    init::{RenewIssuerOptions, renew_issuer},
    roots::{BundleChange, RootFolder, next_bundle},
    testing::TestPki,
};

/// A PKI whose issuing CA is delivered, and the state directory that takes it over.
struct Delivery {
    pki: TestPki,
    delivered: DeliveredIssuer,
}

impl Delivery {
    fn new() -> Self {
        let pki = TestPki::new();
        let options = pki.options();
        let folder = pki.dir.path().join("secret");
        let delivered =
            DeliveredIssuer { folder, trust_domain: options.trust_domain, cluster: options.cluster };
        let delivery = Self { pki, delivered };
        delivery.deliver();
        delivery
    }

    /// Copies what the PKI has now, readable for others as in a mounted Secret.
    fn deliver(&self) {
        fs::create_dir_all(&self.delivered.folder).unwrap();
        for file in ["issuer.pem", "bundle.pem"] {
            let copy = self.delivered.folder.join(file);
            fs::copy(self.pki.state().join(file), &copy).unwrap();
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).unwrap();
        }
    }

    fn root(&self) -> RootFolder {
        let options = self.pki.options();
        RootFolder {
            path: self.pki.root_out(),
            trust_domain: options.trust_domain,
            passphrase: options.passphrase,
        }
    }

    fn renew(&self, now: SystemTime) {
        let passphrase = self.pki.options().passphrase;
        let options =
            RenewIssuerOptions { state: self.pki.state(), root_out: self.pki.root_out(), passphrase };
        renew_issuer(&options, false, now).unwrap();
        self.deliver();
    }

    fn state(&self) -> PathBuf {
        self.pki.dir.path().join("claim/pki")
    }

    fn take_over(&self, now: SystemTime) -> Result<Delivered, PkiError> {
        self.delivered.take_over(&self.state(), now)
    }
}

#[test]
fn an_empty_state_directory_is_created_from_the_files() {
    let delivery = Delivery::new();
    let taken = delivery.take_over(delivery.pki.now).unwrap();
    assert!(taken.created);
    let issuer = Issuer::open(&delivery.state()).unwrap();
    assert_eq!(issuer.trust_domain().as_str(), "test.example");
    assert_eq!(Some(issuer.not_after()), taken.issuing_ca_until);
    let gateway = "gateway".parse().unwrap();
    issuer.issue_own(&gateway, delivery.pki.now).unwrap();
    let mode = fs::metadata(delivery.state().join("issuer.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The inventory stays, and nothing more is taken over.
    assert_eq!(delivery.take_over(delivery.pki.now).unwrap(), Delivered::default());
    assert_eq!(issuer.figures(delivery.pki.now).unwrap().leaves, 1);
    Inventory::open(&StateDir::new(&delivery.state())).unwrap().verify_audit(None).unwrap();
}

#[test]
fn a_newer_issuing_ca_is_used_also_after_the_old_one_has_expired() {
    let delivery = Delivery::new();
    delivery.take_over(delivery.pki.now).unwrap();
    let issuer = Issuer::open(&delivery.state()).unwrap();
    let later = delivery.pki.now + ISSUING_LIFE + Duration::from_secs(3600);
    let gateway = "gateway".parse().unwrap();
    assert!(issuer.issue_own(&gateway, later).is_err(), "it has expired");
    delivery.take_over(later).unwrap();
    let before = delivery.delivered.version();
    assert_eq!(delivery.delivered.version(), before);
    delivery.renew(later);
    assert_ne!(delivery.delivered.version(), before);
    let taken = delivery.take_over(later).unwrap();
    assert_eq!((taken.created, taken.issuing_ca_until.is_some()), (false, true));
    issuer.issue_own(&gateway, later).unwrap();
}

#[test]
fn an_older_issuing_ca_does_not_come_back() {
    let delivery = Delivery::new();
    delivery.take_over(delivery.pki.now).unwrap();
    let old = fs::read(delivery.delivered.folder.join("issuer.pem")).unwrap();
    let later = delivery.pki.now + Duration::from_secs(60);
    delivery.renew(later);
    delivery.take_over(later).unwrap();
    fs::write(delivery.delivered.folder.join("issuer.pem"), old).unwrap();
    assert_eq!(delivery.take_over(later).unwrap(), Delivered::default());
}

#[test]
fn a_bundle_and_an_issuing_ca_under_a_new_root_are_taken_over_together() {
    let delivery = Delivery::new();
    delivery.take_over(delivery.pki.now).unwrap();
    let later = delivery.pki.now + Duration::from_secs(60);
    // The standby root signs the next CA, and the active root is trusted no more.
    let (active, standby) =
        (delivery.root().load("active").unwrap(), delivery.root().load("standby").unwrap());
    let held = delivery.pki.issuer().bundle();
    let change = BundleChange { add: Vec::new(), remove: vec![active.pin()] };
    let next = next_bundle(&held, &change, &standby, later).unwrap();
    fs::write(delivery.delivered.folder.join("bundle.pem"), next.to_pem()).unwrap();
    let error = delivery.take_over(later).unwrap_err().to_string();
    assert!(error.contains("renew the issuing CA under another root first"), "{error}");
    let ca = standby.issuing(&delivery.delivered.trust_domain, later, ISSUING_LIFE).unwrap();
    ca.store(&delivery.delivered.folder.join("issuer.pem")).unwrap();
    let taken = delivery.take_over(later).unwrap();
    assert_eq!((taken.issuing_ca_until.is_some(), taken.bundle_sequence), (true, Some(next.sequence())));
}

#[test]
fn files_of_another_pki_and_damaged_files_are_refused_by_name() {
    let delivery = Delivery::new();
    let other = Delivery::new();
    let check = |delivery: &Delivery, expected: &str| {
        let error = delivery.take_over(delivery.pki.now).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let issuer = delivery.delivered.folder.join("issuer.pem");
    fs::copy(other.delivered.folder.join("issuer.pem"), &issuer).unwrap();
    check(&delivery, "issuer.pem: no root of the trust bundle has signed it");
    assert!(!delivery.state().exists(), "nothing was created");
    fs::write(&issuer, "-----BEGIN nonsense").unwrap();
    check(&delivery, "issuer.pem");
    fs::remove_file(&issuer).unwrap();
    check(&delivery, "issuer.pem");
    delivery.deliver();
    delivery.take_over(delivery.pki.now).unwrap();
    let mut foreign = delivery.delivered.clone();
    foreign.trust_domain = "prod.example".parse().unwrap();
    let error = foreign.take_over(&delivery.state(), delivery.pki.now).unwrap_err().to_string();
    assert!(error.contains("is the PKI of trust domain test.example"), "{error}");
    // A CA that has expired is not taken over into an empty directory.
    let late = other.pki.now + ISSUING_LIFE + Duration::from_secs(3600);
    let error = other.take_over(late).unwrap_err().to_string();
    assert!(error.contains("the issuing CA expired at"), "{error}");
}
