//! The TLS settings of the mesh, the same for QUIC and TCP.
//!
//! What is absent matters most. No ticket, no session store and no resumption: a resumed connection skips the
//! verifier, and with it expiry and denial. No early data: it can be replayed. No TLS 1.2. The configurations
//! come inside an `Arc`, so that nobody turns these on by the way.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::verify_tls13_signature,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};

use crate::{
    crypto::crypto_provider,
    store::CredentialStore,
    verify::{Expectations, verify_peer},
};

/// The settings of a listener: presents the store's chain, demands and verifies the client's.
///
/// `alpn` lists the protocols spoken, best first; a client that offers others only is refused by rustls. One that
/// offers none at all is let through over TCP, so look at what was negotiated before speaking.
///
/// # Errors
/// None in practice: only if the crypto provider lacked TLS 1.3.
pub fn server_config(
    store: &Arc<CredentialStore>,
    expectations: Expectations,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, Error> {
    let verifier = Arc::new(PeerVerifier { store: store.clone(), expectations });
    let config = ServerConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(store.clone());
    Ok(harden_server(config, alpn))
}

/// The settings of a dialer: presents the store's chain, verifies the server's against the expectations.
///
/// The server is known by its SPIFFE id, not by a host name, so any `ServerName` will do to connect with
/// ([`SpiffeId::dns_name`](crate::SpiffeId::dns_name) is a good one); it is neither checked nor sent (no SNI).
///
/// # Errors
/// None in practice: only if the crypto provider lacked TLS 1.3.
pub fn client_config(
    store: &Arc<CredentialStore>,
    expectations: Expectations,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, Error> {
    let verifier = Arc::new(PeerVerifier { store: store.clone(), expectations });
    let config = ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(store.clone());
    Ok(harden_client(config, alpn))
}

pub(crate) fn harden_server(mut config: ServerConfig, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Arc::new(config)
}

pub(crate) fn harden_client(mut config: ClientConfig, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Arc::new(config)
}

/// Brings rustls, in both roles, to [`verify_peer`] with the bundle held at that moment.
#[derive(Debug)]
struct PeerVerifier {
    store: Arc<CredentialStore>,
    expectations: Expectations,
}

impl PeerVerifier {
    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let chain: Vec<_> =
            std::iter::once(leaf).chain(others).map(|der| CertificateDer::from(&**der)).collect();
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs());
        verify_peer(&chain, &self.store.current().bundle, now, &self.expectations)?;
        Ok(())
    }
}

impl ServerCertVerifier for PeerVerifier {
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

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify_chain(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
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

pub(crate) fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerIncompatible::Tls12NotOffered.into())
}

pub(crate) fn verify_handshake(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature(message, cert, dss, &crypto_provider().signature_verification_algorithms)
}

pub(crate) fn handshake_schemes() -> Vec<SignatureScheme> {
    crypto_provider().signature_verification_algorithms.supported_schemes()
}

#[cfg(test)]
pub(crate) mod tests;
