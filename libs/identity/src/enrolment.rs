//! TLS for joining: the joiner has no certificate yet and trusts only the pins of the roots in its token.
//!
//! The server sends its roots after its chain. The joiner takes those roots whose key it has a pin for, and from
//! there on it is [`verify_peer`] as always, expecting the very issuer that the token names: a gateway of another
//! cluster holds a certificate under the same root, and must not be able to pose as the issuer and collect tokens.
//! In TLS 1.3 the client sends nothing before it has verified the server, so neither leaves the token the joiner.

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
    CredentialStore, Expectations, RefusedCertificate, SpiffeId, SpkiPin, TrustBundle, crypto_provider,
    tls::{handshake_schemes, harden_client, harden_server, no_tls12, verify_handshake},
    verify::Reason,
    verify_peer,
};

/// The settings of the enrolment listener: shows chain and roots, asks for no client certificate.
///
/// # Errors
/// None in practice: only if the crypto provider lacked TLS 1.3.
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

/// The settings of a joiner: trusts the issuer named, under a root with one of these pins, and nobody else.
///
/// # Errors
/// None in practice: only if the crypto provider lacked TLS 1.3.
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

/// Resolves to the store's chain followed by its roots.
#[derive(Debug)]
struct WithRoots(Arc<CredentialStore>);

impl ResolvesServerCert for WithRoots {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let held = self.0.current();
        let mut certified = CertifiedKey::clone(held.credentials.certified());
        certified.cert.extend(held.bundle.roots().cloned());
        Some(Arc::new(certified))
    }
}

#[derive(Debug)]
struct PinnedVerifier {
    issuer: SpiffeId,
    root_pins: Vec<SpkiPin>,
}

/// Chain and bundle together; more certificates are not looked at.
const MAX_PRESENTED: usize = 24;

impl PinnedVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), RefusedCertificate> {
        let domain = self.issuer.trust_domain();
        let refuse = |reason| RefusedCertificate::new(&self.issuer, reason);
        if others.len() > MAX_PRESENTED {
            return Err(refuse(Reason::LongChain(others.len() + 1)));
        }
        let is_pinned = |der: &&CertificateDer<'_>| {
            SpkiPin::of_certificate(der).is_ok_and(|pin| self.root_pins.contains(&pin))
        };
        let roots: Vec<_> = others.iter().filter(is_pinned).map(|der| der.clone().into_owned()).collect();
        let bundle = TrustBundle::new(domain.clone(), roots).map_err(|_| refuse(Reason::UnpinnedRoot))?;
        // Roots of the bundle without a pin are left out like the pinned ones: neither belongs to the path below.
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
        self.verify(end_entity, intermediates, now)?;
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
