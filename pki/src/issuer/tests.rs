use std::{collections::HashSet, sync::Barrier, thread};

use identity::{CLOCK_SKEW, CredentialStore, RefusalReason, certificate_pem};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rcgen::{CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, SanType};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::{
    CsrRefusal, TokenRefusal,
    init::{RenewIssuerOptions, renew_issuer},
    inventory::StateDir,
    testing::{TestPki, new_token},
};

const SECOND: Duration = Duration::from_secs(1);

fn csr() -> Vec<u8> {
    KeyAndCsr::generate().unwrap().csr_der().to_vec()
}

fn refusal(outcome: Result<Enrolment, PkiError>) -> TokenRefusal {
    match outcome {
        Err(PkiError::Token(refusal)) => refusal,
        other => panic!("expected a refused token, found {other:?}"),
    }
}

fn peer_of(issuer: &Issuer, enrolment: &Enrolment, now: SystemTime) -> PeerIdentity {
    verify_peer(&enrolment.chain, &issuer.bundle(), now, &Expectations::default()).unwrap()
}

#[test]
fn a_token_gives_one_certificate_for_the_registered_cluster() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let token = pki.token("eu-1");
    let enrolment = issuer.enrol(token.secret(), &csr(), pki.now).unwrap();
    assert_eq!(enrolment.spiffe_id, token.subject());
    assert_eq!((enrolment.cluster.as_str(), enrolment.environment.as_str()), ("eu-1", "production"));
    assert_eq!(enrolment.bundle, issuer.bundle());

    let peer = peer_of(&issuer, &enrolment, pki.now);
    assert_eq!(peer.serial.len(), 32);
    let life = peer.not_after.duration_since(peer.not_before).unwrap();
    assert!(life.abs_diff(DEFAULT_LEAF_TTL + Duration::from_secs(60)) <= SECOND, "{life:?}");
    let on_record = pki.inventory().certificates().unwrap();
    assert_eq!((on_record[0].serial.as_str(), on_record.len()), (peer.serial.as_str(), 1));
    let chain_bytes: usize = enrolment.chain.iter().map(|cert| cert.len()).sum();
    assert!(chain_bytes < 2560, "a chain of {chain_bytes} bytes does not fit into the first flight of QUIC");
}

#[test]
fn a_token_is_refused_when_wrong_used_expired_or_revoked() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    assert_eq!(refusal(issuer.enrol(&[7; 32], &csr(), pki.now)), TokenRefusal::Unknown);
    assert_eq!(refusal(issuer.enrol(b"", &csr(), pki.now)), TokenRefusal::Unknown);

    let used = pki.token("eu-1");
    issuer.enrol(used.secret(), &csr(), pki.now).unwrap();
    let later = pki.now + 2000 * SECOND;
    assert_eq!(refusal(issuer.enrol(used.secret(), &csr(), later)), TokenRefusal::Used(utc(pki.now)));
    assert_eq!(refusal(pki.issuer().enrol(used.secret(), &csr(), pki.now)), TokenRefusal::Used(utc(pki.now)));

    let expired = pki.token("eu-1");
    let end = pki.now + 900 * SECOND;
    assert_eq!(refusal(issuer.enrol(expired.secret(), &csr(), end)), TokenRefusal::Expired(utc(end)));
    let last_moment = pki.token("eu-1");
    issuer.enrol(last_moment.secret(), &csr(), end - SECOND).unwrap();

    let revoked = pki.token("eu-1");
    let id = pki.inventory().tokens().unwrap().last().unwrap().id.clone();
    assert!(pki.inventory().revoke_token(&id, pki.now).unwrap());
    assert!(!pki.inventory().revoke_token(&id, pki.now).unwrap(), "revoking again changes nothing");
    assert_eq!(refusal(issuer.enrol(revoked.secret(), &csr(), pki.now)), TokenRefusal::Revoked);

    let events: Vec<_> = pki.inventory().audit_tail(100).unwrap().into_iter().map(|e| e.event).collect();
    assert_eq!(events.iter().filter(|event| *event == "token refused").count(), 4);
    pki.inventory().verify_audit(None).unwrap();
}

#[test]
fn repeated_refusals_of_one_token_do_not_fill_the_audit_log() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let token = pki.token("eu-1");
    issuer.enrol(token.secret(), &csr(), pki.now).unwrap();
    let csr = csr();
    for _ in 0..50 {
        refusal(issuer.enrol(token.secret(), &csr, pki.now));
    }
    let entries = pki.inventory().audit_tail(1000).unwrap();
    assert_eq!(entries.iter().filter(|entry| entry.event == "token refused").count(), 10);
    assert_eq!(pki.inventory().tokens().unwrap()[0].refusals, 50);
}

#[test]
fn exactly_one_of_64_concurrent_uses_of_a_token_gets_a_certificate() {
    let pki = TestPki::new();
    for round in 0..3 {
        let token = pki.token("eu-1");
        let barrier = Barrier::new(64);
        let outcomes: Vec<_> = thread::scope(|scope| {
            let redeem = || {
                let issuer = pki.issuer(); // a connection of its own, as in another process
                let csr = csr();
                barrier.wait();
                issuer.enrol(token.secret(), &csr, pki.now)
            };
            let threads: Vec<_> = (0..64).map(|_| scope.spawn(redeem)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 63), "round {round}");
        assert!(lost.into_iter().all(|outcome| matches!(refusal(outcome), TokenRefusal::Used(_))));
    }
    assert_eq!(pki.inventory().certificates().unwrap().len(), 3);
    pki.inventory().verify_audit(None).unwrap();
}

/// A thief has copied the key and the certificate of a gateway.
#[test]
fn two_renewals_of_one_certificate_lock_both_once_the_first_is_in_use() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let token = pki.token("eu-1");
    let first = issuer.enrol(token.secret(), &csr(), pki.now).unwrap();
    let first = peer_of(&issuer, &first, pki.now);

    // The answer was lost: the gateway asks again, and what it never got is revoked.
    let lost = peer_of(&issuer, &issuer.renew(&first, &csr(), pki.now).unwrap(), pki.now);
    let second = peer_of(&issuer, &issuer.renew(&first, &csr(), pki.now).unwrap(), pki.now);
    let lists = issuer.denylists(pki.now).unwrap();
    assert!(lists.denies(&lost).is_some() && lists.denies(&second).is_none());
    issuer.certificate_seen(&second.serial, &second.spiffe_id, pki.now).unwrap();
    let third = peer_of(&issuer, &issuer.renew(&second, &csr(), pki.now).unwrap(), pki.now);
    let generations: Vec<_> =
        pki.inventory().certificates().unwrap().iter().map(|known| known.generation).collect();
    assert_eq!(generations, [0, 1, 1, 2]);

    // The first one is still in use elsewhere.
    let error = issuer.renew(&first, &csr(), pki.now).unwrap_err();
    assert!(matches!(error, PkiError::Clone(_)), "{error}");
    let lists = issuer.denylists(pki.now).unwrap();
    for peer in [&first, &second, &third] {
        assert!(lists.denies(peer).is_some(), "{}", peer.serial);
        assert!(issuer.renew(peer, &csr(), pki.now).is_err());
    }
    let events = pki.inventory().audit_tail(1).unwrap();
    assert_eq!(events[0].event, "clone locked");
    // Another gateway of the cluster, with a token of its own, is not concerned.
    let other = issuer.enrol(pki.token("eu-1").secret(), &csr(), pki.now).unwrap();
    assert!(issuer.denylists(pki.now).unwrap().denies(&peer_of(&issuer, &other, pki.now)).is_none());
    pki.inventory().verify_audit(None).unwrap();
}

#[test]
fn an_invalid_request_does_not_use_up_the_token() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let token = pki.token("eu-1");
    let good = csr();
    let mut other_signature = good.clone();
    *other_signature.last_mut().unwrap() ^= 1;
    let rsa = include_bytes!("rsa-request.der");
    for (bad, expected) in [
        (b"garbage".to_vec(), CsrRefusal::Unreadable),
        ([&good[..], b"x"].concat(), CsrRefusal::Unreadable),
        (vec![0x30; 100_000], CsrRefusal::TooLarge(100_000)),
        (other_signature, CsrRefusal::Signature),
        (rsa.to_vec(), CsrRefusal::KeyType),
    ] {
        match issuer.enrol(token.secret(), &bad, pki.now) {
            Err(PkiError::Csr(refusal)) => assert_eq!(refusal, expected),
            other => panic!("expected {expected:?}, found {other:?}"),
        }
    }
    issuer.enrol(token.secret(), &good, pki.now).unwrap();
    let next = pki.token("eu-1");
    let reused = issuer.enrol(next.secret(), &good, pki.now);
    assert!(matches!(reused, Err(PkiError::Csr(CsrRefusal::KeyReused))), "{reused:?}");
}

#[test]
fn a_renewal_certifies_a_new_key_for_the_same_identity() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let first = issuer.enrol(pki.token("eu-1").secret(), &csr(), pki.now).unwrap();
    let peer = peer_of(&issuer, &first, pki.now);
    let later = pki.now + 12 * 3600 * SECOND;
    let request = csr();
    let second = issuer.renew(&peer, &request, later).unwrap();
    assert_eq!((&second.spiffe_id, &second.environment), (&first.spiffe_id, &first.environment));
    assert!(second.not_after > first.not_after);
    let renewed = peer_of(&issuer, &second, later);
    assert_ne!(renewed.spki, peer.spki);
    assert!(matches!(issuer.renew(&renewed, &request, later), Err(PkiError::Csr(CsrRefusal::KeyReused))));

    let error = issuer.renew(&peer, &csr(), peer.not_after + CLOCK_SKEW + 2 * SECOND).unwrap_err();
    assert!(error.to_string().contains("expired; it must join again"), "{error}");
    assert_eq!(error.exit_code(), 4);
}

#[test]
fn only_certificates_of_this_issuer_are_renewed() {
    let (pki, other) = (TestPki::new(), TestPki::new());
    let (issuer, other_issuer) = (pki.issuer(), other.issuer());
    issuer.enrol(pki.token("eu-1").secret(), &csr(), pki.now).unwrap();
    let foreign = other_issuer.enrol(other.token("eu-1").secret(), &csr(), pki.now).unwrap();
    let stranger = peer_of(&other_issuer, &foreign, pki.now);
    let error = issuer.renew(&stranger, &csr(), pki.now).unwrap_err();
    assert!(error.to_string().contains("not issued by this issuer"), "{error}");

    let ours = issuer.enrol(pki.token("eu-1").secret(), &csr(), pki.now).unwrap();
    let mut forged = peer_of(&issuer, &ours, pki.now);
    forged.spiffe_id = "spiffe://test.example/cluster/us-1/gateway".parse().unwrap();
    assert!(issuer.renew(&forged, &csr(), pki.now).is_err());
}

#[test]
fn the_issuers_own_cluster_gets_certificates_but_no_tokens() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let error = issuer.create_token(&new_token("observability"), pki.now).unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
    let own = issuer.issue_own(&"gateway".parse().unwrap(), pki.now).unwrap();
    assert_eq!(own.spiffe_id(), pki.token("eu-1").issuer());
    CredentialStore::new(own, issuer.bundle(), pki.now).unwrap();
}

#[test]
fn invalid_arguments_of_a_token_are_rejected() {
    let pki = TestPki::new();
    let check = |change: &dyn Fn(&mut NewToken), code: u8, expected: &str| {
        let mut new = new_token("eu-1");
        change(&mut new);
        let error = pki.issuer().create_token(&new, pki.now).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} does not contain {expected:?}");
        assert_eq!(error.exit_code(), code, "{error}");
    };
    check(&|new| new.ttl = 86_401 * SECOND, 2, "1s to 24h");
    check(&|new| new.ttl = Duration::ZERO, 2, "1s to 24h");
    check(&|new| new.environment = "pro\nduction".into(), 2, "printable");
    check(&|new| new.environment = String::new(), 2, "1 to 63");
    check(&|new| new.addresses = vec!["nowhere".into()], 2, "must be HOST:PORT");
    check(&|new| new.addresses.clear(), 2, "expected 1 to 8");
    assert!(pki.inventory().clusters().unwrap().is_empty(), "a refused token registered its cluster");
    pki.token("eu-1");
    check(&|new| new.environment = "testing".into(), 5, "registered with environment \"production\"");
}

#[test]
fn leaves_have_the_configured_lifetime_and_never_outlive_the_issuing_ca() {
    let pki = TestPki::new();
    let issuer = pki.issuer().with_leaf_ttl(20 * SECOND);
    let short = issuer.enrol(pki.token("eu-1").secret(), &csr(), pki.now).unwrap();
    let left = short.not_after.duration_since(pki.now).unwrap();
    assert!(left <= 20 * SECOND && left >= 19 * SECOND, "{left:?}");
    let late = peer_of(&issuer, &short, pki.now).recheck(pki.now + 90 * SECOND, &identity::NoDenylist);
    assert!(matches!(late.unwrap_err().reason(), RefusalReason::Expired { .. }));

    let near_end = issuer.not_after() - 3600 * SECOND;
    let issuer = pki.issuer();
    let own = issuer.issue_own(&"gateway".parse().unwrap(), near_end).unwrap();
    assert_eq!(own.not_after(), issuer.not_after());
    let error = issuer.issue_own(&"gateway".parse().unwrap(), issuer.not_after() + SECOND).unwrap_err();
    assert!(error.to_string().contains("issuing CA expired at"), "{error}");
}

#[test]
fn openssl_accepts_a_leaf_as_client_and_server_under_its_dns_name() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let enrolment = issuer.enrol(pki.token("eu-1").secret(), &csr(), pki.now).unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = pki.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let pem = |index: usize| certificate_pem(&enrolment.chain[index]);
    let bundle = file("bundle.pem", enrolment.bundle.to_pem().as_bytes());
    let (leaf, issuing) = (file("leaf.pem", pem(0).as_bytes()), file("issuing.pem", pem(1).as_bytes()));
    for purpose in ["sslserver", "sslclient"] {
        let mut openssl = std::process::Command::new("openssl");
        openssl.args([
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-verify_hostname",
            "gateway.eu-1.test.example",
        ]);
        match openssl.arg("-CAfile").arg(&bundle).arg("-untrusted").arg(&issuing).arg(&leaf).output() {
            Ok(output) => assert!(output.status.success(), "{purpose}: {output:?}"),
            Err(e) => println!("skipped: openssl: {e}"),
        }
    }
}

/// A request with names, usages and extensions that a joiner must not get.
fn csr_with_forbidden_names(rng: &mut StdRng, key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    for _ in 0..rng.random_range(0..4) {
        let cluster = ["us-1", "observability", "eu-1"][rng.random_range(0..3)];
        params.subject_alt_names.push(match rng.random_range(0..3) {
            0 => SanType::URI(format!("spiffe://test.example/cluster/{cluster}/gateway").try_into().unwrap()),
            1 => SanType::DnsName(format!("gateway.{cluster}.test.example").try_into().unwrap()),
            _ => SanType::IpAddress([127, 0, 0, 1].into()),
        });
    }
    params.distinguished_name.push(DnType::CommonName, "observability");
    if rng.random() {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    }
    if rng.random() {
        params.is_ca = IsCa::ExplicitNoCa;
    }
    params.serialize_request(key).unwrap().der().to_vec()
}

#[test]
fn names_in_12000_random_requests_never_reach_a_certificate() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let keys: Vec<_> = (0..8).map(|_| KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap()).collect();
    let id: SpiffeId = "spiffe://test.example/cluster/eu-1/gateway".parse().unwrap();
    let (mut issued, mut refused) = (0, 0);
    for n in 0..12_000 {
        let mut request = csr_with_forbidden_names(&mut rng, &keys[n % keys.len()]);
        if n % 10 != 0 {
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..request.len());
                request[at] = rng.random();
            }
        }
        let Ok(key) = ProvenKey::from_csr(&request) else {
            refused += 1;
            continue;
        };
        // Sign without writing to disk, which other tests cover, and check every certificate.
        let leaf = issuer.authority.get().leaf(&id, &key.spki, pki.now, DEFAULT_LEAF_TTL).unwrap();
        let chain = [leaf.der.clone(), issuer.authority.get().cert().clone()];
        let peer = verify_peer(&chain, &issuer.bundle(), pki.now, &Expectations::default()).unwrap();
        assert_eq!((&peer.spiffe_id, peer.spki), (&id, key.pin));
        let (_, cert) = X509Certificate::from_der(&leaf.der).unwrap();
        let oids: HashSet<_> =
            cert.extensions().iter().map(|extension| extension.oid.to_id_string()).collect();
        // Authority key id, SAN, key usage, extended key usage, basic constraints, and nothing else.
        let ours = ["2.5.29.35", "2.5.29.17", "2.5.29.15", "2.5.29.37", "2.5.29.19", "2.5.29.14"];
        assert!(oids.iter().all(|oid| ours.contains(&oid.as_str())), "{oids:?}");
        assert_eq!(cert.subject().to_string(), "CN=eu-1");
        issued += 1;
    }
    assert!(issued >= 1200 && refused >= 9000, "{issued} issued, {refused} refused");
}

#[test]
fn serials_are_random_and_of_full_length() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let key = ProvenKey::from_csr(&csr()).unwrap();
    let id = issuer.own_id(&"gateway".parse().unwrap());
    let serial = || issuer.authority.get().leaf(&id, &key.spki, pki.now, SECOND).unwrap().serial;
    let serials: HashSet<_> = (0..200).map(|_| serial()).collect();
    assert_eq!(serials.len(), 200);
    assert!(serials.iter().all(|serial| serial.len() == 32));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_are_rejected_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(ProvenKey::from_csr(&bytes).is_err());
    }
}

#[test]
fn a_running_issuer_loads_a_renewed_ca_and_ignores_a_damaged_one() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let file = StateDir::new(&pki.state()).issuer();
    let old_end = issuer.not_after();
    let later = pki.now + 31 * 86_400 * SECOND;
    let error = issuer.issue_own(&"gateway".parse().unwrap(), later).unwrap_err().to_string();
    assert!(error.contains("pki issuer renew"), "{error}");

    let options = RenewIssuerOptions {
        state: pki.state(),
        root_out: pki.root_out(),
        passphrase: Secret::new(crate::testing::PASSPHRASE.to_owned()),
    };
    let new_end = renew_issuer(&options, false, later).unwrap();
    assert!(new_end > old_end);
    let leaf = issuer.issue_own(&"gateway".parse().unwrap(), later).unwrap();
    leaf.check(&issuer.bundle(), later).unwrap();
    assert_eq!(issuer.not_after(), new_end);

    for damage in [&b""[..], b"-----BEGIN CERTIFICATE-----\ngarbage"] {
        std::fs::write(&file, damage).unwrap();
        issuer.issue_own(&"gateway".parse().unwrap(), later).unwrap();
    }
    std::fs::remove_file(&file).unwrap();
    issuer.issue_own(&"gateway".parse().unwrap(), later).unwrap();
}
