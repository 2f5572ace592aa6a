//! TLS for enrolment: the joiner has no certificate yet and trusts only the root pins in its token.
//!
//! The server sends its roots after its chain. The joiner accepts the roots whose key is pinned and then runs
//! [`verify_peer`] with these roots as the bundle. It expects the issuer that the token names: a gateway of
//! another cluster has a certificate under the same root, and must not be able to pose as the issuer and
//! collect tokens. In TLS 1.3 the client sends no application data before it has verified the server, so a
//! wrong server never gets the token.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};

use crate::{
    bundle::TrustBundle,
    crypto::crypto_provider,
    pin::SpkiPin,
    spiffe::SpiffeId,
    store::CredentialStore,
    tls::{handshake_schemes, harden_client, harden_server, no_tls12, verify_handshake},
    verify::{Expectations, RefusalReason, RefusedCertificate, verify_peer},
};

/// Returns the TLS settings of the enrolment listener. It presents its chain and the roots, and does not ask
/// for a client certificate.
///
/// # Errors
/// Only if the crypto provider did not support TLS 1.3, which cannot happen with ours.
pub fn enrolment_server_config(
    store: &Arc<CredentialStore>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, Error> {
    let config = ServerConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(WithRoots(store.clone())));
    Ok(harden_server(config, alpn))
}

/// Returns the TLS settings of a joiner. It trusts only the named issuer, under a root with one of these
/// pins.
///
/// # Errors
/// Only if the crypto provider did not support TLS 1.3, which cannot happen with ours.
pub fn enrolment_client_config(
    issuer: &SpiffeId,
    root_pins: &[SpkiPin],
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, Error> {
    let verifier = Arc::new(PinnedVerifier { issuer: issuer.clone(), root_pins: root_pins.to_vec() });
    let config = ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(harden_client(config, alpn))
}

/// Presents the chain of the store, followed by the roots of the store.
#[derive(Debug)]
struct WithRoots(Arc<CredentialStore>);

impl ResolvesServerCert for WithRoots {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let active = self.0.current();
        let mut certified = CertifiedKey::clone(active.credentials.certified());
        certified.cert.extend(active.bundle.roots().cloned());
        Some(Arc::new(certified))
    }
}

#[derive(Debug)]
struct PinnedVerifier {
    issuer: SpiffeId,
    root_pins: Vec<SpkiPin>,
}

/// Most certificates of a server's chain and bundle together; a longer list is refused without parsing it.
const MAX_PRESENTED: usize = 24;

impl PinnedVerifier {
    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), RefusedCertificate> {
        let domain = self.issuer.trust_domain();
        let refuse = |reason| RefusedCertificate::new(&self.issuer, reason);
        if others.len() > MAX_PRESENTED {
            return Err(refuse(RefusalReason::LongChain(others.len() + 1)));
        }
        let is_pinned = |der: &&CertificateDer<'_>| {
            SpkiPin::of_certificate(der).is_ok_and(|pin| self.root_pins.contains(&pin))
        };
        let roots: Vec<_> = others.iter().filter(is_pinned).map(|der| der.clone().into_owned()).collect();
        let bundle =
            TrustBundle::new(domain.clone(), roots).map_err(|_| refuse(RefusalReason::UnpinnedRoot))?;
        // Drop all roots from the chain, pinned or not: the chain that is verified below has none.
        let is_root = |der: &CertificateDer<'_>| is_self_issued(der);
        let chain: Vec<CertificateDer<'_>> = std::iter::once(leaf)
            .chain(others.iter().filter(|der| !is_root(der)))
            .map(|der| CertificateDer::from(&**der))
            .collect();
        let expectations = Expectations {
            cluster: Some(self.issuer.cluster().clone()),
            component: Some(self.issuer.component().clone()),
            ..Expectations::default()
        };
        verify_peer(&chain, &bundle, UNIX_EPOCH + Duration::from_secs(now.as_secs()), &expectations)?;
        Ok(())
    }
}

fn is_self_issued(der: &[u8]) -> bool {
    use x509_parser::prelude::{FromDer, X509Certificate};
    X509Certificate::from_der(der).is_ok_and(|(_, cert)| cert.subject() == cert.issuer())
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_chain(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_handshake(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        handshake_schemes()
    }
}

#[cfg(test)]
mod tests;
