use super::*;
use crate::{
    Expectations, PeerIdentity, SpkiPin, TrustBundle,
    testing::{HOUR, TestCa, mutations, now, td},
    verify_peer,
};

fn entry(subject: DenySubject) -> DenyEntry {
    DenyEntry { subject, issued_until: None, reason: "revoked".into() }
}

fn list(ca: &TestCa, number: u64, at: SystemTime, entries: &[DenyEntry]) -> Vec<u8> {
    let content = SignedDenylist::content(&td(), number, at, entries, &ca.issuing).unwrap();
    let signature = ca.issuing_signs(&SignedDenylist::statement(&content));
    SignedDenylist::join(content, &signature).unwrap()
}

fn root_list(ca: &TestCa, number: u64, entries: &[DenyEntry]) -> Vec<u8> {
    let content = SignedDenylist::content(&td(), number, now(), entries, &ca.root_der()).unwrap();
    let signature = ca.root_signs(&SignedDenylist::statement(&content));
    SignedDenylist::join(content, &signature).unwrap()
}

fn parse(bytes: &[u8], bundle: &TrustBundle) -> Result<SignedDenylist, DenylistError> {
    SignedDenylist::parse(bytes, bundle, Some(now()))
}

fn peer(ca: &TestCa) -> PeerIdentity {
    verify_peer(ca.leaf("gateway").chain(), &ca.bundle(), now(), &Expectations::default()).unwrap()
}

#[test]
fn each_kind_of_entry_denies_its_certificates_and_no_others() {
    let ca = TestCa::new("a");
    let (denied, other) = (peer(&ca), peer(&ca));
    let issuing = SpkiPin::of_certificate(&ca.issuing).unwrap();
    let another: PeerIdentity = {
        let credentials = ca.leaf("querier");
        verify_peer(credentials.chain(), &ca.bundle(), now(), &Expectations::default()).unwrap()
    };
    let check = |subject, expected: [bool; 3]| {
        let list = parse(&list(&ca, 1, now(), &[entry(subject)]), &ca.bundle()).unwrap();
        let mut held = HeldDenylists::default();
        assert!(held.offer(list).unwrap());
        assert_eq!([&denied, &other, &another].map(|peer| held.denies(peer).is_some()), expected);
    };
    check(DenySubject::Serial(denied.serial.clone()), [true, false, false]);
    check(DenySubject::Key(denied.spki), [true, false, false]);
    check(DenySubject::Id(denied.spiffe_id.clone()), [true, true, false]);
    check(DenySubject::Cluster(denied.spiffe_id.cluster().clone()), [true, true, true]);
    check(DenySubject::Cluster("us-1".parse().unwrap()), [false, false, false]);
    check(DenySubject::Issuer(issuing), [true, true, true]);
    check(DenySubject::Issuer(denied.spki), [false, false, false]);
}

#[test]
fn an_entry_with_a_time_spares_certificates_that_were_issued_later() {
    let ca = TestCa::new("a");
    let peer = peer(&ca);
    let check = |until: SystemTime, expected: bool| {
        let subject = DenySubject::Id(peer.spiffe_id.clone());
        let entries = [DenyEntry { issued_until: Some(until), ..entry(subject) }];
        let list = parse(&list(&ca, 1, now(), &entries), &ca.bundle()).unwrap();
        assert!(list.entries()[0].issued_until.is_some());
        assert_eq!(list.index.denies(&peer).is_some(), expected);
    };
    check(peer.issued_at(), true);
    check(now(), true);
    check(peer.issued_at() - Duration::from_secs(1), false);
}

#[test]
fn a_list_is_replaced_only_by_a_later_one() {
    let ca = TestCa::new("a");
    let bundle = ca.bundle();
    let of = |number| parse(&list(&ca, number, now(), &[]), &bundle).unwrap();
    let mut held = HeldDenylists::default();
    let fifth = of(5);
    assert!(held.offer(fifth.clone()).unwrap());
    assert!(!held.offer(fifth).unwrap(), "the same list again");
    assert_eq!(held.offer(of(4)).unwrap_err(), DenylistError::Old { held: 5, offered: 4 });
    assert!(held.offer(of(6)).unwrap());
    assert_eq!(held.issuer().unwrap().number(), 6);
    assert!(held.stale_at().unwrap() > now() + 23 * HOUR);
}

#[test]
fn only_a_root_or_an_issuing_ca_of_the_bundle_can_sign_a_list() {
    let (ours, theirs) = (TestCa::new("a"), TestCa::new("b"));
    let check = |bytes: &[u8], expected: &str| {
        let error = parse(bytes, &ours.bundle()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&list(&theirs, 1, now(), &[]), "no root of the trust domain has signed it");
    check(&root_list(&theirs, 1, &[]), "no root of the trust domain");
    check(&list(&ours, 1, now() + HOUR, &[]), "in the future");
    check(&list(&ours, 1, now() - 2000 * HOUR, &[])[..100], "is incomplete");
    // The certificate is public. Its key is needed.
    let content = SignedDenylist::content(&td(), 1, now(), &[], &ours.issuing).unwrap();
    let forged = theirs.issuing_signs(&SignedDenylist::statement(&content));
    check(&SignedDenylist::join(content, &forged).unwrap(), "signature is wrong");
    // A leaf has a key, too.
    let leaf = ours.leaf("gateway");
    let content = SignedDenylist::content(&td(), 1, now(), &[], &leaf.chain()[0]).unwrap();
    let signature = ours.issuing_signs(&SignedDenylist::statement(&content));
    check(&SignedDenylist::join(content, &signature).unwrap(), "it is not an issuing CA");
    let other = "other.example".parse().unwrap();
    let content = SignedDenylist::content(&other, 1, now(), &[], &ours.issuing).unwrap();
    let signature = ours.issuing_signs(&SignedDenylist::statement(&content));
    check(&SignedDenylist::join(content, &signature).unwrap(), "for another trust domain");
}

#[test]
fn a_stolen_issuing_ca_is_denied_by_a_root_and_can_lift_nothing() {
    let ca = TestCa::new("a");
    let issuing = SpkiPin::of_certificate(&ca.issuing).unwrap();
    let bundle = ca.bundle();
    let mut held = HeldDenylists::default();
    // The thief's list has the highest number and no entry.
    held.offer(parse(&list(&ca, u64::MAX, now(), &[]), &bundle).unwrap()).unwrap();
    let denial = parse(&root_list(&ca, 1, &[entry(DenySubject::Issuer(issuing))]), &bundle).unwrap();
    assert_eq!(denial.signer(), DenylistSigner::Root(SpkiPin::of_certificate(&ca.root_der()).unwrap()));
    assert!(held.offer(denial).unwrap());
    assert!(held.denies(&peer(&ca)).is_some());
    let again = parse(&list(&ca, u64::MAX, now() - HOUR, &[]), &bundle).unwrap();
    assert_eq!(held.offer(again).unwrap_err(), DenylistError::DeniedSigner);
    // The next issuing CA under the same root counts from its own number.
    let next = ca.with_next_issuing("next");
    assert!(held.offer(parse(&list(&next, 2, now(), &[]), &bundle).unwrap()).unwrap());
    assert!(held.denies(&peer(&next)).is_none() && held.denies(&peer(&ca)).is_some());
}

#[test]
fn changed_bytes_are_never_accepted_and_never_panic() {
    let ca = TestCa::new("a");
    let entries = [
        entry(DenySubject::Serial("4a".repeat(16))),
        DenyEntry { issued_until: Some(now()), ..entry(DenySubject::Cluster("eu-1".parse().unwrap())) },
    ];
    let bytes = list(&ca, 3, now(), &entries);
    let bundle = ca.bundle();
    assert_eq!(parse(&bytes, &bundle).unwrap().entries().len(), 2);
    for len in 0..bytes.len() {
        assert!(parse(&bytes[..len], &bundle).is_err(), "cut at {len}");
    }
    for (index, changed) in mutations(&bytes, 7, 2000).iter().enumerate() {
        if *changed != bytes {
            assert!(parse(changed, &bundle).is_err(), "seed 7, number {index}");
        }
    }
    let mut many = SignedDenylist::content(&td(), 1, now(), &[], &ca.issuing).unwrap();
    let count_at = 1 + 8 + 8 + 2 + td().as_str().len();
    many[count_at..count_at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(parse(&many, &bundle).unwrap_err(), DenylistError::TooLarge);
}
