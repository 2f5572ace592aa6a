use identity::Credentials;

use super::*;
use crate::{DEFAULT_LEAF_TTL, KeyAndCsr, TokenRefusal, inventory::Revocation, testing::TestPki};

const DAY: Duration = Duration::from_secs(86_400);

struct Weekend {
    pki: TestPki,
    expired: Credentials,
    end: SystemTime,
}

/// A cluster that joined, and could not be renewed until its certificate had expired.
fn weekend() -> Weekend {
    let pki = TestPki::new();
    let (token, key) = (pki.token("eu-1"), KeyAndCsr::generate().unwrap());
    let enrolment = pki.issuer().enrol(token.secret(), key.csr_der(), pki.now).unwrap();
    let expired = token.accept(key, enrolment.chain, &enrolment.bundle, pki.now).unwrap();
    let end = pki.now + DEFAULT_LEAF_TTL;
    Weekend { pki, expired, end }
}

impl Weekend {
    fn recover(&self, at: SystemTime) -> Result<Enrolment, PkiError> {
        let csr = KeyAndCsr::generate().unwrap();
        let signature = self.expired.sign(&recovery_statement(csr.csr_der())).unwrap();
        self.pki.issuer().with_actor("gateway").recover(
            self.expired.chain(),
            csr.csr_der(),
            &signature,
            "192.0.2.1",
            at,
        )
    }

    fn refused(&self, at: SystemTime, expected: &str) {
        let error = self.recover(at).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_registered_key_comes_back_for_a_week_after_its_certificate_expired() {
    let weekend = weekend();
    weekend.refused(weekend.end, "has not expired");
    weekend.refused(weekend.end + 8 * DAY, "too long ago; join again with a token");
    let enrolment = weekend.recover(weekend.end + 3 * DAY).unwrap();
    assert_eq!(enrolment.spiffe_id, *weekend.expired.spiffe_id());
    let events = weekend.pki.inventory().audit_tail(3).unwrap();
    let exchanged = events.iter().find(|entry| entry.event == "expired certificate exchanged").unwrap();
    assert!(exchanged.detail.contains("gateway, for 192.0.2.1"), "{exchanged:?}");
    let csr = KeyAndCsr::generate().unwrap();
    let signature = weekend.expired.sign(&recovery_statement(csr.csr_der())).unwrap();
    let off = weekend.pki.issuer().with_recovery(Duration::ZERO);
    let at = weekend.end + DAY;
    assert!(
        off.recover(weekend.expired.chain(), csr.csr_der(), &signature, "192.0.2.1", at).is_err(),
        "switched off"
    );
}

#[test]
fn who_has_only_the_certificate_or_was_revoked_does_not_come_back() {
    let weekend = weekend();
    let (csr, at) = (KeyAndCsr::generate().unwrap(), weekend.end + DAY);
    let issuer = weekend.pki.issuer();
    let other = crate::key::KeyAndCsr::generate().unwrap();
    for signature in
        [Vec::new(), vec![0; 70], weekend.expired.sign(&recovery_statement(other.csr_der())).unwrap()]
    {
        let refused =
            issuer.recover(weekend.expired.chain(), csr.csr_der(), &signature, "192.0.2.1", at).unwrap_err();
        assert!(refused.to_string().contains("signature"), "{refused}");
    }
    assert!(issuer.recover(&[], csr.csr_der(), &[], "", at).is_err());
    let cluster = "eu-1".parse().unwrap();
    issuer.pause_cluster(&cluster, true, weekend.pki.now).unwrap();
    weekend.refused(at, "paused");
    issuer.pause_cluster(&cluster, false, weekend.pki.now).unwrap();
    issuer
        .revoke(&Revocation::Serial(weekend.expired.identity().serial.clone()), "x", weekend.pki.now)
        .unwrap();
    weekend.refused(at, "revoked");
    // Another PKI with the same names.
    let elsewhere = TestPki::new().issuer();
    let signature = weekend.expired.sign(&recovery_statement(csr.csr_der())).unwrap();
    assert!(elsewhere.recover(weekend.expired.chain(), csr.csr_der(), &signature, "192.0.2.1", at).is_err());
}

#[test]
fn a_token_is_not_used_while_nothing_can_be_issued_or_a_clock_is_wrong() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let csr = KeyAndCsr::generate().unwrap();
    let late = pki.now + 31 * DAY;
    let token = issuer.create_token(&crate::testing::new_token("eu-1"), pki.now).unwrap();
    let refused = issuer.enrol(token.secret(), csr.csr_der(), late).unwrap_err();
    assert!(matches!(&refused, PkiError::NotNow(why) if why.contains("issuing CA is valid")), "{refused}");
    let refused = issuer.create_token(&crate::testing::new_token("eu-1"), late).unwrap_err().to_string();
    assert!(refused.contains("pki issuer renew"), "{refused}");
    for (apart, fine) in [(0, true), (60, true), (61, false), (86_400, false)] {
        let apart = Duration::from_secs(apart);
        for theirs in [pki.now + apart, pki.now - apart] {
            assert_eq!(issuer.check_clock(theirs, pki.now).is_ok(), fine, "{apart:?}");
        }
    }
    issuer.enrol(token.secret(), csr.csr_der(), pki.now).unwrap();
    let again = issuer.enrol(token.secret(), KeyAndCsr::generate().unwrap().csr_der(), pki.now).unwrap_err();
    assert!(matches!(again, PkiError::Token(TokenRefusal::Used(_))), "{again}");
}

/// A clock that is ahead by half a lifetime finds that each new certificate is due at once.
#[test]
fn a_cluster_that_renews_without_end_is_stopped() {
    let pki = TestPki::new();
    let (token, issuer) = (pki.token("eu-1"), pki.issuer());
    let csr = || KeyAndCsr::generate().unwrap().csr_der().to_vec();
    let mut enrolment = issuer.enrol(token.secret(), &csr(), pki.now).unwrap();
    let mut issued = 1;
    let refused = loop {
        let peer =
            verify_peer(&enrolment.chain, &enrolment.bundle, pki.now, &Expectations::default()).unwrap();
        match issuer.renew(&peer, &csr(), pki.now) {
            Ok(next) => enrolment = next,
            Err(error) => break error.to_string(),
        }
        issued += 1;
        assert!(issued < 1000, "no end");
    };
    assert!(refused.contains("clock"), "{refused}");
    assert_eq!(issued, 64);
    // After an eighth of the lifetime it goes on.
    let later = pki.now + DEFAULT_LEAF_TTL / 8 + Duration::from_secs(1);
    let peer = verify_peer(&enrolment.chain, &enrolment.bundle, pki.now, &Expectations::default()).unwrap();
    issuer.renew(&peer, &csr(), later).unwrap();
}
