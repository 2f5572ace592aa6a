use identity::{Expectations, verify_peer};

use super::*;
use crate::{KeyAndCsr, authority::ISSUING_LIFE, roots::RootFolder, testing::TestPki};

fn root(pki: &TestPki) -> CertificateAuthority {
    let options = pki.options();
    let (path, trust_domain, passphrase) = (pki.root_out(), options.trust_domain, options.passphrase);
    RootFolder { path, trust_domain, passphrase }.load("standby").unwrap()
}

#[test]
fn the_next_issuing_ca_is_signed_offline_and_used_without_a_restart() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let (csr, cert) = (pki.dir.path().join("next.csr"), pki.dir.path().join("next.pem"));
    request(&pki.state(), &csr, false).unwrap();
    let key = || {
        let der = CertificateSigningRequestDer::from_pem_slice(&std::fs::read(&csr).unwrap()).unwrap();
        ProvenKey::from_csr(&der).unwrap().pin
    };
    let first = key();
    request(&pki.state(), &csr, false).unwrap();
    assert_eq!(key(), first, "written again, for the same key");
    let domain = issuer.trust_domain().clone();
    let until = sign(&root(&pki), &domain, &csr, Some(&cert), ISSUING_LIFE, None, pki.now).unwrap();
    assert!(until > pki.now + ISSUING_LIFE - Duration::from_secs(2));
    let signer = || issuer.issue_own(&"gateway".parse().unwrap(), pki.now).unwrap().chain()[1].clone();
    let before = signer();
    install(&pki.state(), &cert, true, pki.now).unwrap();
    assert_eq!(signer(), before, "a dry run changes nothing");
    install(&pki.state(), &cert, false, pki.now).unwrap();
    assert_ne!(signer(), before);
    let error = install(&pki.state(), &cert, false, pki.now).unwrap_err();
    assert!(error.to_string().contains("`pki issuer request` makes one"), "{error}");
    assert!(!StateDir::new(&pki.state()).next_issuer_key().exists());
    pki.inventory().verify_audit(None).unwrap();
}

#[test]
fn a_certificate_for_another_key_or_of_another_root_is_refused() {
    let (pki, other) = (TestPki::new(), TestPki::new());
    let (csr, cert) = (pki.dir.path().join("next.csr"), pki.dir.path().join("next.pem"));
    let domain = pki.issuer().trust_domain().clone();
    request(&pki.state(), &csr, false).unwrap();
    sign(&root(&other), &domain, &csr, Some(&cert), ISSUING_LIFE, None, pki.now).unwrap();
    let error = install(&pki.state(), &cert, false, pki.now).unwrap_err().to_string();
    assert!(error.contains("no root of the trust bundle has signed it"), "{error}");
    request(&other.state(), &csr, false).unwrap();
    sign(&root(&pki), &domain, &csr, Some(&cert), ISSUING_LIFE, None, pki.now).unwrap();
    let error = install(&pki.state(), &cert, false, pki.now).unwrap_err().to_string();
    assert!(error.contains("does not belong"), "{error}");
    std::fs::write(&csr, "hello").unwrap();
    assert!(sign(&root(&pki), &domain, &csr, Some(&cert), ISSUING_LIFE, None, pki.now).is_err());
}

/// A CA for one cluster is confined by DNS name constraints, which the verification of rustls applies.
#[test]
fn a_ca_for_one_cluster_cannot_sign_for_another() {
    let pki = TestPki::new();
    let (csr, cert) = (pki.dir.path().join("next.csr"), pki.dir.path().join("next.pem"));
    let issuer = pki.issuer();
    let (domain, only) = (issuer.trust_domain().clone(), "eu-1".parse().unwrap());
    request(&pki.state(), &csr, false).unwrap();
    sign(&root(&pki), &domain, &csr, Some(&cert), ISSUING_LIFE, Some(&only), pki.now).unwrap();
    let key = load_key(&StateDir::new(&pki.state()).next_issuer_key()).unwrap().unwrap();
    let der = CertificateDer::from_pem_slice(&std::fs::read(&cert).unwrap()).unwrap();
    let confined = CertificateAuthority::new(der, key).unwrap();
    let check = |id: &str, fine: bool| {
        let key = KeyAndCsr::generate().unwrap();
        let key = ProvenKey::from_csr(key.csr_der()).unwrap();
        let leaf = confined.leaf(&id.parse().unwrap(), &key.spki, pki.now, Duration::from_secs(60)).unwrap();
        let chain = [leaf.der, confined.cert().clone()];
        let verified = verify_peer(&chain, &issuer.bundle(), pki.now, &Expectations::default());
        assert_eq!(verified.is_ok(), fine, "{id}: {verified:?}");
    };
    check("spiffe://test.example/cluster/eu-1/gateway", true);
    check("spiffe://test.example/cluster/eu-2/gateway", false);
    check("spiffe://test.example/cluster/observability/gateway", false);
}
