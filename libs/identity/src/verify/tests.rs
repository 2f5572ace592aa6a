use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, SanType,
    SignatureAlgorithm,
};

use super::*;
use crate::testing::{HOUR, TestCa, ca_params, dns_name, leaf_params, now, td, uri_name};

const GATEWAY: &str = "spiffe://test.example/cluster/eu-1/gateway";

fn refusal(chain: &[CertificateDer<'_>], bundle: &TrustBundle) -> String {
    verify_peer(chain, bundle, now(), &Expectations::default()).unwrap_err().to_string()
}

/// Checks that a leaf that differs from a valid one by `change` is refused with this text.
fn check(change: impl FnOnce(&mut CertificateParams), expected: &str) {
    let ca = TestCa::new("a");
    let mut params = leaf_params("gateway");
    change(&mut params);
    let error = refusal(&ca.sign(&params).0, &ca.bundle());
    assert!(error.contains(expected), "{error:?} does not contain {expected:?}");
    assert!(error.starts_with("certificate of ") && !error.contains('\n'), "{error:?}");
}

#[test]
fn a_valid_chain_gives_the_identity_of_the_peer() {
    let ca = TestCa::new("a");
    let credentials = ca.leaf("gateway");
    let peer = verify_peer(credentials.chain(), &ca.bundle(), now(), &Expectations::default()).unwrap();
    assert_eq!(peer.spiffe_id.to_string(), GATEWAY);
    assert_eq!(&peer, credentials.identity());
    assert_eq!(peer.spki, SpkiPin::of_certificate(&credentials.chain()[0]).unwrap());
    assert!(peer.not_before < now() && now() < peer.not_after);
}

#[test]
fn a_chain_to_another_root_is_refused() {
    let (ours, theirs) = (TestCa::new("a"), TestCa::new("a")); // same subjects, other keys
    let error = refusal(theirs.leaf("gateway").chain(), &ours.bundle());
    assert!(error.starts_with(&format!("certificate of {GATEWAY} refused: ")), "{error}");
    assert!(error.contains("test.example") || error.contains("signature"), "{error}");

    let named_otherwise = TestCa::new("b");
    let error = refusal(named_otherwise.leaf("gateway").chain(), &ours.bundle());
    assert!(error.contains("it does not chain to a valid root of trust domain test.example"), "{error}");
}

#[test]
fn a_forged_leaf_is_refused_even_beside_trusted_certificates() {
    let (ours, theirs) = (TestCa::new("a"), TestCa::new("b"));
    let forged = theirs.leaf("gateway").chain()[0].clone();
    let chain = [forged, ours.issuing.clone(), ours.root_der(), ours.leaf("gateway").chain()[0].clone()];
    refusal(&chain, &ours.bundle());
}

#[test]
fn a_chain_without_its_issuing_ca_is_refused() {
    let ca = TestCa::new("a");
    let error = refusal(&ca.leaf("gateway").chain()[..1], &ca.bundle());
    assert!(error.contains("does not chain to a valid root"), "{error}");
    assert!(refusal(&[], &ca.bundle()).contains("no certificate was sent"));
    let mut long = ca.leaf("gateway").chain().to_vec();
    long.extend([ca.issuing.clone(), ca.issuing.clone(), ca.issuing.clone()]);
    assert!(refusal(&long, &ca.bundle()).contains("5 certificates"));
}

#[test]
fn a_leaf_of_another_trust_domain_is_refused_even_under_our_root() {
    check(
        |p| {
            p.subject_alt_names =
                vec![uri_name("spiffe://evil/cluster/eu-1/gateway"), dns_name("gateway.eu-1.evil")]
        },
        "it does not belong to trust domain test.example",
    );
}

#[test]
fn names_must_be_one_uri_and_its_dns_mirror() {
    let uri = || uri_name(GATEWAY);
    let dns = || dns_name("gateway.eu-1.test.example");
    let only = "exactly one URI name and one DNS name";
    let cases: Vec<(Vec<SanType>, &str)> = vec![
        (vec![], only),
        (vec![uri()], only),
        (vec![dns()], only),
        (vec![uri(), uri()], only),
        (vec![uri(), dns(), dns()], only),
        (vec![uri(), uri_name("spiffe://test.example/cluster/us-1/gateway"), dns()], only),
        (vec![uri(), dns(), SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))], only),
        (vec![uri(), SanType::Rfc822Name("a@b".try_into().unwrap())], only),
        (
            vec![uri(), dns_name("gateway.us-1.test.example")],
            "its DNS name must be gateway.eu-1.test.example",
        ),
        (vec![uri(), dns_name("gateway.eu-1.test.example.")], "its DNS name must be"),
        (vec![uri(), dns_name("GATEWAY.eu-1.test.example")], "its DNS name must be"),
        (vec![uri(), dns_name("*.eu-1.test.example")], "its DNS name must be"),
        (vec![uri(), dns_name("gateway.eu-1.test.example\0.evil")], "its DNS name must be"),
        (vec![uri_name("spiffe://test.example/cluster/EU-1/gateway"), dns()], "use only a-z"),
        (vec![uri_name("spiffe://test.example/cluster/eu-1"), dns()], "must be spiffe://"),
        (vec![uri_name("https://test.example/cluster/eu-1/gateway"), dns()], "must be spiffe://"),
    ];
    for (names, expected) in cases {
        check(|p| p.subject_alt_names = names, expected);
    }
}

#[test]
fn the_two_names_may_be_in_either_order() {
    let ca = TestCa::new("a");
    let mut params = leaf_params("gateway");
    params.subject_alt_names.reverse();
    ca.credentials(&params).check(&ca.bundle(), now()).unwrap();
}

#[test]
fn a_leaf_with_the_wrong_usage_is_refused() {
    check(|p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained), "chain to the root is invalid");
    check(|p| p.key_usages.clear(), "lacks digitalSignature");
    check(|p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement], "lacks digitalSignature");
    check(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign), "allows it to sign certificates");
    check(|p| p.key_usages.push(KeyUsagePurpose::CrlSign), "allows it to sign certificates");
    check(|p| p.extended_key_usages.clear(), "both serverAuth and clientAuth");
    check(
        |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        "both serverAuth and clientAuth",
    );
    // webpki refuses this one in the check of the chain.
    check(
        |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        "chain to the root is invalid",
    );
}

#[test]
fn keys_of_other_types_are_refused() {
    let ca = TestCa::new("a");
    let outcome = |algorithm: &'static SignatureAlgorithm| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let leaf = leaf_params("gateway").signed_by(&key, &ca.signer).unwrap();
        let chain = [leaf.der().clone(), ca.issuing.clone()];
        verify_peer(&chain, &ca.bundle(), now(), &Expectations::default())
    };
    outcome(&PKCS_ECDSA_P384_SHA384).unwrap();
    outcome(&PKCS_ED25519).unwrap();
    let error = outcome(&PKCS_ECDSA_P521_SHA512).unwrap_err().to_string();
    assert!(error.contains("not P-256, P-384 or Ed25519"), "{error}");
    let ca = TestCa::with_issuing_key("a", ca_params("issuing"), &PKCS_ECDSA_P521_SHA512);
    refusal(ca.leaf("gateway").chain(), &ca.bundle());
}

#[test]
fn clocks_may_differ_by_at_most_a_minute() {
    let ca = TestCa::new("a");
    let credentials = ca.leaf("gateway");
    let (from, until) = (credentials.identity().not_before, credentials.not_after());
    let at = |time| verify_peer(credentials.chain(), &ca.bundle(), time, &Expectations::default());
    let second = Duration::from_secs(1);
    at(from - CLOCK_SKEW).unwrap();
    at(until + CLOCK_SKEW).unwrap();
    let early = at(from - CLOCK_SKEW - second).unwrap_err();
    assert!(matches!(early.reason(), RefusalReason::NotYetValid { .. }), "{early}");
    assert!(early.to_string().contains("check both clocks"), "{early}");
    let late = at(until + CLOCK_SKEW + second).unwrap_err();
    assert!(matches!(late.reason(), RefusalReason::Expired { .. }), "{late}");
    assert!(late.to_string().contains("it expired at ") && late.subject() == GATEWAY, "{late}");
    at(UNIX_EPOCH).unwrap_err();
}

#[test]
fn a_leaf_under_an_expired_issuer_or_root_is_refused() {
    let mut issuing = ca_params("issuing");
    issuing.not_after = (now() - HOUR).into();
    let ca = TestCa::with_issuing("a", issuing);
    let error = refusal(ca.leaf("gateway").chain(), &ca.bundle());
    assert!(error.contains("issuing certificate has expired"), "{error}");

    let ca = TestCa::new("a");
    let credentials = ca.leaf("gateway");
    let after_root = now() + 2000 * HOUR;
    let mut long_lived = leaf_params("gateway");
    long_lived.not_after = (after_root + HOUR).into();
    let chain = ca.sign(&long_lived).0;
    verify_peer(&chain, &ca.bundle(), after_root, &Expectations::default()).unwrap_err();
    assert!(ca.bundle().anchors_at(0).is_empty() && !credentials.chain().is_empty());
}

#[test]
fn dns_name_constraints_of_an_issuing_ca_are_enforced() {
    let with = |subtree| {
        let mut params = ca_params("constrained");
        let constraints = NameConstraints { permitted_subtrees: vec![subtree], excluded_subtrees: vec![] };
        params.name_constraints = Some(constraints);
        let ca = TestCa::with_issuing("a", params);
        verify_peer(ca.leaf("gateway").chain(), &ca.bundle(), now(), &Expectations::default())
    };
    with(GeneralSubtree::DnsName("eu-1.test.example".into())).unwrap();
    with(GeneralSubtree::DnsName("us-1.test.example".into())).unwrap_err();
}

#[test]
fn expectations_and_denylist_are_enforced() {
    struct DenyUs;
    impl Denylist for DenyUs {
        fn denies(&self, peer: &PeerIdentity) -> Option<String> {
            (peer.spiffe_id.cluster().as_str() == "eu-1").then(|| "cluster eu-1 was removed".into())
        }
    }
    let ca = TestCa::new("a");
    let credentials = ca.leaf("gateway");
    let with = |cluster: &str, component: &str, denylist: Arc<dyn Denylist>| {
        let expectations = Expectations {
            cluster: Some(cluster.parse().unwrap()),
            component: Some(component.parse().unwrap()),
            denylist,
        };
        verify_peer(credentials.chain(), &ca.bundle(), now(), &expectations).map_err(|e| e.to_string())
    };
    let peer = with("eu-1", "gateway", Arc::new(NoDenylist)).unwrap();
    let error = with("us-1", "gateway", Arc::new(NoDenylist)).unwrap_err();
    assert!(error.ends_with("expected gateway.us-1"), "{error}");
    assert!(with("eu-1", "querier", Arc::new(NoDenylist)).is_err());
    let error = with("eu-1", "gateway", Arc::new(DenyUs)).unwrap_err();
    assert!(error.ends_with("denied: cluster eu-1 was removed"), "{error}");

    peer.recheck(now(), &NoDenylist).unwrap();
    assert!(matches!(peer.recheck(now(), &DenyUs).unwrap_err().reason(), RefusalReason::Denied(_)));
    let late = peer.recheck(peer.not_after + 2 * CLOCK_SKEW, &NoDenylist).unwrap_err();
    assert!(matches!(late.reason(), RefusalReason::Expired { .. }));
}

#[test]
fn an_untrusted_subject_cannot_add_a_line_to_the_error() {
    let ca = TestCa::new("a");
    let mut params = leaf_params("gateway");
    params.subject_alt_names.clear();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "x\nlevel=info msg=\"all is well\"".repeat(50));
    let error = refusal(&ca.sign(&params).0, &ca.bundle());
    assert!(!error.contains('\n') && error.len() < 500, "{error}");
}

#[test]
fn the_trust_domain_of_the_bundle_is_required() {
    let ca = TestCa::new("a");
    let bundle = TrustBundle::new("other.example".parse().unwrap(), [ca.root_der()]).unwrap();
    assert!(
        refusal(ca.leaf("gateway").chain(), &bundle)
            .contains("does not belong to trust domain other.example")
    );
    assert_eq!(ca.bundle().trust_domain(), &td());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_certificates_are_refused_and_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        static CHAIN: std::sync::LazyLock<(TrustBundle, Vec<CertificateDer<'static>>)> = std::sync::LazyLock::new(|| {
            let ca = TestCa::new("a");
            (ca.bundle(), ca.leaf("gateway").chain().to_vec())
        });
        let (bundle, chain) = &*CHAIN;
        let mut leaf = chain[0].to_vec();
        for (at, xor) in damage {
            let at = at.index(leaf.len());
            leaf[at] ^= xor;
        }
        if let Some(cut) = cut {
            leaf.truncate(cut.index(leaf.len()));
        }
        let same = leaf == *chain[0];
        let chain = [leaf.into(), chain[1].clone()];
        prop_assert_eq!(verify_peer(&chain, bundle, now(), &Expectations::default()).is_ok(), same);
    }

    #[test]
    fn arbitrary_bytes_are_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let bundle = TestCa::new("a").bundle();
        prop_assert!(verify_peer(&[bytes.into()], &bundle, now(), &Expectations::default()).is_err());
    }
}
