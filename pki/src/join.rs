//! The last step of joining: credentials from the issuer's response.

use std::time::SystemTime;

use identity::{Credentials, TrustBundle};
use rustls_pki_types::CertificateDer;

use crate::{error::PkiError, key::KeyAndCsr, token::JoinToken};

impl JoinToken {
    /// Makes credentials from the issuer's response, after checking the bundle against the pins and the chain
    /// against the bundle.
    ///
    /// # Errors
    /// When a root of the bundle is not pinned, and those of [`KeyAndCsr::into_credentials`].
    pub fn accept(
        &self,
        key: KeyAndCsr,
        chain: Vec<CertificateDer<'static>>,
        bundle: &TrustBundle,
        now: SystemTime,
    ) -> Result<Credentials, PkiError> {
        if let Some(unpinned) = bundle.pins().find(|pin| !self.pins().contains(pin)) {
            return Err(PkiError::Refused(format!(
                "the issuer's trust bundle contains root {unpinned}, which the join token does not pin"
            )));
        }
        key.into_credentials(chain, bundle, &self.subject(), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::TokenRefusal, testing::TestPki};

    #[test]
    fn a_joiner_accepts_only_pinned_roots_and_its_own_identity() {
        let (pki, other) = (TestPki::new(), TestPki::new());
        let issuer = pki.issuer();
        let enrol = |token: &JoinToken| {
            let key = KeyAndCsr::generate().unwrap();
            let enrolment = issuer.enrol(token.secret(), key.csr_der(), pki.now).unwrap();
            (key, enrolment)
        };
        let token = pki.token("eu-1");
        let (key, enrolment) = enrol(&token);
        let credentials = token.accept(key, enrolment.chain.clone(), &enrolment.bundle, pki.now).unwrap();
        assert_eq!(credentials.spiffe_id(), &token.subject());

        let other_key = KeyAndCsr::generate().unwrap();
        let error = token.accept(other_key, enrolment.chain.clone(), &enrolment.bundle, pki.now).unwrap_err();
        assert!(error.to_string().contains("does not belong"), "{error}");

        let token = pki.token("eu-1");
        let (key, enrolment) = enrol(&token);
        let error = token.accept(key, enrolment.chain, &other.issuer().bundle(), pki.now).unwrap_err();
        assert!(error.to_string().contains("which the join token does not pin"), "{error}");

        let (token, wrong) = (pki.token("eu-1"), pki.token("us-1"));
        let (key, enrolment) = enrol(&wrong);
        let error = token.accept(key, enrolment.chain, &enrolment.bundle, pki.now).unwrap_err();
        assert!(error.to_string().contains("expected gateway.eu-1"), "{error}");
        assert_eq!(error.exit_code(), 4);
    }

    #[test]
    fn a_token_of_another_trust_domain_is_refused() {
        let (pki, other) = (TestPki::new(), TestPki::new());
        let key = KeyAndCsr::generate().unwrap();
        let error = pki.issuer().enrol(other.token("eu-1").secret(), key.csr_der(), pki.now).unwrap_err();
        assert!(matches!(error, PkiError::Token(TokenRefusal::Unknown)), "{error}");
    }
}
