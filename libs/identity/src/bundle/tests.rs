use super::*;
use crate::testing::{TestCa, now, td};

#[test]
fn pem_round_trips_with_pins_in_order() {
    let (a, b) = (TestCa::new("a"), TestCa::new("b"));
    let bundle = TrustBundle::new(td(), [a.root_der(), b.root_der(), a.root_der()]).unwrap();
    assert_eq!(bundle.roots().count(), 2);
    let again = TrustBundle::from_pem(td(), bundle.to_pem().as_bytes()).unwrap();
    assert_eq!(again, bundle);
    let pins: Vec<_> = again.pins().collect();
    assert_eq!(pins, [a.root_der(), b.root_der()].map(|der| SpkiPin::of_certificate(&der).unwrap()));
}

#[test]
fn an_invalid_bundle_is_rejected_with_the_reason() {
    let ca = TestCa::new("a");
    let check = |pem: &str, expected: &str| {
        let error = TrustBundle::from_pem(td(), pem.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not contain {expected:?}");
    };
    check("", "no certificate");
    check("hello", "no certificate");
    let pem = certificate_pem(&ca.root_der());
    check(&pem[..pem.len() - 40], "damaged PEM");
    check(&certificate_pem(&ca.leaf("gateway").chain()[0]), "is not a CA certificate");
    check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "root number 1: not an X.509");
    let many: Vec<_> = (0..17).map(|n| TestCa::new(&n.to_string()).root_der()).collect();
    assert!(matches!(TrustBundle::new(td(), many), Err(BundleError::TooMany)));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle.pem");
    let error = TrustBundle::load(td(), &path).unwrap_err().to_string();
    assert!(error.contains("bundle.pem") && error.contains("No such file"), "{error}");
}

/// Signs a bundle with the root of a CA.
fn signed(bundle: TrustBundle, sequence: u64, ca: &TestCa) -> TrustBundle {
    let signature = ca.root_signs(&bundle.statement(sequence));
    bundle.signed(sequence, SpkiPin::of_certificate(&ca.root_der()).unwrap(), signature)
}

fn of(cas: &[&TestCa]) -> TrustBundle {
    TrustBundle::new(td(), cas.iter().map(|ca| ca.root_der())).unwrap()
}

#[test]
fn a_bundle_is_replaced_only_by_a_later_one_that_a_held_root_has_signed() {
    let (a, b, foreign) = (TestCa::new("a"), TestCa::new("b"), TestCa::new("foreign"));
    let held = signed(of(&[&a, &b]), 3, &a);
    let ask = |offered: &TrustBundle| held.successor(offered, now());

    assert_eq!(ask(&held), Ok(None));
    assert_eq!(ask(&of(&[&a, &b])), Ok(None), "the same roots, from a side that does not know signatures");
    for signer in [&a, &b] {
        let next = signed(of(&[&a, &b, &foreign]), 4, signer);
        assert_eq!(ask(&next).unwrap().map(|adopted| adopted.sequence()), Some(4));
    }
    assert_eq!(ask(&signed(of(&[&b]), 9, &b)).unwrap().unwrap().roots().count(), 1, "a root is removed");

    assert_eq!(ask(&of(&[&a, &b, &foreign])), Err(BundleRefusal::Unsigned));
    assert_eq!(ask(&of(&[&a])), Err(BundleRefusal::Unsigned), "a root cannot be taken away either");
    for old in [0, 2, 3] {
        let refused = ask(&signed(of(&[&a]), old, &a)).unwrap_err();
        assert_eq!(refused, BundleRefusal::Old { held: 3, offered: old });
    }
    let refused = ask(&signed(of(&[&a, &b, &foreign]), 4, &foreign)).unwrap_err();
    assert!(matches!(refused, BundleRefusal::UnknownSigner(_)), "the planted root signs for itself");
    let mut forged = signed(of(&[&a, &b]), 4, &a);
    forged = of(&[&a, &b, &foreign]).with_signature_bytes(&forged.signature_bytes().unwrap()).unwrap();
    assert_eq!(ask(&forged), Err(BundleRefusal::WrongSignature), "the signature of other roots");
    let renumbered = of(&[&a]).signed(5, a_pin(&a), a.root_signs(&of(&[&a]).statement(4)));
    assert_eq!(ask(&renumbered), Err(BundleRefusal::WrongSignature), "the signature of another number");
    let late = now() + 2000 * crate::testing::HOUR;
    let next = signed(of(&[&a]), 4, &a);
    assert!(matches!(held.successor(&next, late), Err(BundleRefusal::ExpiredSigner(_))));
    let elsewhere = TrustBundle::new("other.example".parse().unwrap(), [a.root_der()]).unwrap();
    assert!(matches!(ask(&elsewhere), Err(BundleRefusal::ForeignTrustDomain(_))));
}

#[test]
fn a_joiner_believes_a_sequence_only_if_a_root_of_the_bundle_vouches_for_it() {
    let (a, b) = (TestCa::new("a"), TestCa::new("b"));
    assert_eq!(signed(of(&[&a]), 4, &a).as_first(now()).sequence(), 4);
    assert_eq!(signed(of(&[&a]), u64::MAX, &b).as_first(now()).sequence(), 0);
    // The issuer offers the same bundle again, which is not worth an alarm.
    let first = signed(of(&[&a]), 4, &b).as_first(now());
    assert_eq!(first.successor(&signed(of(&[&a]), 4, &b), now()), Ok(None));
}

fn a_pin(ca: &TestCa) -> SpkiPin {
    SpkiPin::of_certificate(&ca.root_der()).unwrap()
}

#[test]
fn a_signed_bundle_is_read_as_written_and_damage_is_rejected() {
    let (a, b) = (TestCa::new("a"), TestCa::new("b"));
    let held = of(&[&a, &b]);
    let bundle = signed(of(&[&b]), 7, &a);
    let pem = bundle.to_pem();
    let again = TrustBundle::from_pem(td(), pem.as_bytes()).unwrap();
    assert_eq!((again.sequence(), again.to_pem()), (7, pem.clone()));
    assert!(held.successor(&again, now()).unwrap().is_some());
    let line_end = pem.find('\n').unwrap();
    for at in SIGNATURE_LINE.len()..line_end {
        let mut damaged = pem.clone().into_bytes();
        damaged[at] = if damaged[at] == b'0' { b'1' } else { b'0' };
        let read = TrustBundle::from_pem(td(), &damaged);
        let accepted = read.is_ok_and(|read| held.successor(&read, now()).is_ok_and(|new| new.is_some()));
        assert!(!accepted, "the changed digit {at} was accepted");
    }
    for bad in ["xyz", "0", "01", ""] {
        let damaged = format!("{SIGNATURE_LINE}{bad}{}", &pem[line_end..]);
        let error = TrustBundle::from_pem(td(), damaged.as_bytes()).unwrap_err();
        assert!(matches!(error, BundleError::Signature), "{error}");
    }
}
