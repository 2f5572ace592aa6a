//! The TLS settings of the mesh, the same for QUIC and TCP.
//!
//! Three features are off on purpose. There are no tickets, no session store and no resumption, because a
//! resumed connection skips the verifier and with it the checks of expiry and denylist. There is no early
//! data, because it can be replayed. There is no TLS 1.2. The configurations are returned inside an `Arc`, so
//! that a caller cannot turn these features on by accident.

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

/// Returns the TLS settings of a listener. It presents the chain of the store, and requires and verifies a
/// client certificate.
///
/// `alpn` lists the supported protocols, the preferred first. rustls refuses a client that offers only other
/// protocols. Over TCP it accepts a client that offers none, so check the negotiated protocol before using
/// the connection.
///
/// # Errors
/// Only if the crypto provider did not support TLS 1.3, which cannot happen with ours.
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

/// Returns the TLS settings of a dialer. It presents the chain of the store, and verifies the server's chain
/// against the expectations.
///
/// The server is identified by its SPIFFE id and not by a host name. Any `ServerName` can be used to connect,
/// such as [`SpiffeId::dns_name`](crate::SpiffeId::dns_name); it is neither checked nor sent (no SNI).
///
/// # Errors
/// Only if the crypto provider did not support TLS 1.3, which cannot happen with ours.
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

/// Makes rustls call [`verify_peer`], as client and as server, with the bundle that is in use at that moment.
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
