//! The client's side.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, TlsStream};

use crate::pem::PemSource;
use crate::provider::crypto_provider;
use crate::server::{key_pair, mismatch};
use crate::trust::{ServerVerifier, TrustedCertificates};
use crate::version::TlsVersion;
use crate::watched::{Loaded, Watched};
use crate::words::{HANDSHAKE_TIMEOUT, in_words, timed_out};

/// Settings of a client with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTlsOptions {
    /// The CAs of servers; `None` for those of the system.
    pub ca: Option<PemSource>,
    /// The certificate of the client and its private key, for servers that ask for one.
    pub identity: Option<(PemSource, PemSource)>,
    /// The name that the server's certificate must have; `None` for the host that is connected to.
    pub server_name: Option<String>,
    /// Accepts every certificate.
    pub skip_verify: bool,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// The protocols above TLS, the preferred first.
    pub alpn: Vec<&'static [u8]>,
}

/// A client with TLS. Its files are read again when they have changed.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<Watched<Arc<ClientConfig>>>,
    server_name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Reads the files. `what` describes them in log lines, such as the flag that names them.
    ///
    /// # Errors
    /// A file cannot be used, or the name of the server is not a DNS name or an IP address.
    pub fn load(what: &str, options: ClientTlsOptions) -> Result<Self, String> {
        let server_name = options.server_name.as_deref().map(parse_name).transpose()?;
        let load = move || options.build();
        Ok(Self { config: Arc::new(Watched::load(what, load)?), server_name })
    }

    /// Does the handshake with the server `host`, in at most 10 seconds.
    ///
    /// # Errors
    /// The server was refused or refused us; the text says why.
    pub async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => parse_name(host).map_err(io::Error::other)?,
        };
        let connector = TlsConnector::from(Arc::clone(&*self.config.current()));
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(stream.into()),
            Ok(Err(error)) => Err(in_words("server", error)),
            Err(_) => Err(timed_out("server")),
        }
    }
}

fn parse_name(host: &str) -> Result<ServerName<'static>, String> {
    // An IPv6 address in a URL has brackets; a DNS name may end with a dot, which certificates do not have.
    let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    ServerName::try_from(bare.to_owned())
        .map_err(|_| format!("server name {host:?} is neither a DNS name nor an IP address"))
}

impl ClientTlsOptions {
    fn files(&self) -> Vec<PathBuf> {
        let identity = self.identity.iter().flat_map(|(cert, key)| [cert, key]);
        self.ca.iter().chain(identity).filter_map(|pem| pem.file().map(ToOwned::to_owned)).collect()
    }

    fn build(&self) -> Result<Loaded<Arc<ClientConfig>>, String> {
        let provider = crypto_provider(&[], &[]);
        let versions = TlsVersion::range(self.min_version, TlsVersion::Tls13);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(|error| format!("TLS from {}: {error}", self.min_version))?;
        let verifier = match (&self.ca, self.skip_verify) {
            (_, true) => ServerVerifier::Anyone(provider),
            (Some(ca), false) => {
                let trusted = TrustedCertificates::new(&ca.to_string(), ca.certificates()?)?;
                ServerVerifier::new(trusted, provider)?
            }
            (None, false) => ServerVerifier::new(TrustedCertificates::of_system()?, provider)?,
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let (chain, private) = key_pair(cert, key)?;
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|error| format!("{cert} and {key}: {}", mismatch(&error)))?
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::disabled();
        Ok(Loaded { value: Arc::new(config), files: self.files() })
    }
}
