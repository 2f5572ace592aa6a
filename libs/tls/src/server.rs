//! The server's side.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::pem::PemSource;
use crate::provider::{CipherSuite, Curve, crypto_provider};
use crate::trust::{ClientVerifier, TrustedCertificates};
use crate::version::TlsVersion;
use crate::watched::Loaded;
use crate::words::{HANDSHAKE_TIMEOUT, in_words, timed_out};

/// Which certificates clients present, with the names of Go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// None.
    #[default]
    NoClientCert,
    /// One if they have one; it is not verified.
    RequestClientCert,
    /// One; it is not verified.
    RequireAnyClientCert,
    /// One if they have one; it is verified.
    VerifyClientCertIfGiven,
    /// One; it is verified.
    RequireAndVerifyClientCert,
}

impl ClientAuth {
    /// Whether certificates are compared with those of `client_ca`.
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyClientCertIfGiven | Self::RequireAndVerifyClientCert)
    }

    fn is_mandatory(self) -> bool {
        matches!(self, Self::RequireAnyClientCert | Self::RequireAndVerifyClientCert)
    }
}

/// Settings of a port with TLS.
#[derive(Clone, Debug)]
pub struct ServerTlsOptions {
    /// The certificate of the server, and those that connect it with a CA.
    pub cert: PemSource,
    /// Its private key.
    pub key: PemSource,
    /// Which certificates clients present.
    pub client_auth: ClientAuth,
    /// The CAs of clients.
    pub client_ca: Option<PemSource>,
    /// Names of which a client's certificate must have one; empty for any name.
    pub client_names: Vec<String>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// The newest version that is spoken.
    pub max_version: TlsVersion,
    /// Cipher suites of TLS 1.2; empty for all that are secure.
    pub cipher_suites: Vec<CipherSuite>,
    /// Groups for the key exchange, the preferred first; empty for all.
    pub curves: Vec<Curve>,
    /// The protocols above TLS, the preferred first.
    pub alpn: Vec<&'static [u8]>,
}

/// The settings of a port, ready for handshakes.
#[derive(Clone, Debug)]
pub struct ServerHandshake {
    config: Arc<ServerConfig>,
    verifies_clients: bool,
}

impl ServerHandshake {
    /// Whether the certificate of a client, if it has one, was verified.
    pub fn verifies_clients(&self) -> bool {
        self.verifies_clients
    }

    /// Does the handshake with a client, in at most 10 seconds.
    ///
    /// # Errors
    /// The client was refused or refused us; the text says why.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Ok(stream.into()),
            Ok(Err(error)) => Err(in_words("client", error)),
            Err(_) => Err(timed_out("client")),
        }
    }
}

/// The certificate of the peer of a connection, if it presented one.
pub fn peer_certificate<S>(stream: &TlsStream<S>) -> Option<CertificateDer<'static>> {
    stream.get_ref().1.peer_certificates()?.first().cloned().map(CertificateDer::into_owned)
}

impl ServerTlsOptions {
    /// The settings of Thanos' flags: a certificate, and verified clients if there is a CA for them.
    pub fn new(cert: PathBuf, key: PathBuf, client_ca: Option<PathBuf>, min_version: TlsVersion) -> Self {
        let client_auth = match client_ca {
            Some(_) => ClientAuth::RequireAndVerifyClientCert,
            None => ClientAuth::NoClientCert,
        };
        Self {
            cert: PemSource::File(cert),
            key: PemSource::File(key),
            client_auth,
            client_ca: client_ca.map(PemSource::File),
            client_names: Vec::new(),
            min_version,
            max_version: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
            curves: Vec::new(),
            alpn: vec![b"h2"],
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let sources = [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        sources.into_iter().flatten().filter_map(PemSource::file).map(Into::into).collect()
    }

    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be used; the error names it.
    pub fn load(&self) -> Result<Loaded<ServerHandshake>, String> {
        let provider = crypto_provider(&self.cipher_suites, &self.curves);
        let versions = TlsVersion::range(self.min_version, self.max_version);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(|error| format!("TLS {} to {}: {error}", self.min_version, self.max_version))?;
        let builder = match self.client_auth {
            ClientAuth::NoClientCert => builder.with_no_client_auth(),
            auth => {
                let trusted = match self.client_ca.as_ref().filter(|_| auth.verifies()) {
                    Some(ca) => Some(TrustedCertificates::new(&ca.to_string(), ca.certificates()?)?),
                    None => None,
                };
                let names = self.client_names.clone();
                let verifier =
                    ClientVerifier::new(trusted, auth.is_mandatory(), names, Arc::clone(&provider))?;
                builder.with_client_cert_verifier(Arc::new(verifier))
            }
        };
        let (chain, key) = key_pair(&self.cert, &self.key)?;
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| format!("{} and {}: {}", self.cert, self.key, mismatch(&error)))?;
        config.alpn_protocols = self.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        // A resumed connection would skip the verification of the client.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let handshake =
            ServerHandshake { config: Arc::new(config), verifies_clients: self.client_auth.verifies() };
        Ok(Loaded { value: handshake, files: self.files() })
    }
}

pub(crate) fn key_pair(
    cert: &PemSource,
    key: &PemSource,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    Ok((cert.certificates()?, key.private_key()?))
}

pub(crate) fn mismatch(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "the private key does not belong to the certificate".to_owned(),
        other => format!("the certificate and its key cannot be used: {other}"),
    }
}
