//! The flags for TLS on gRPC ports, with the names of Thanos.

use std::path::PathBuf;

use tls::{CipherSuite, Curve, ServerHandshake, ServerTlsOptions, TlsVersion, Watched};

use crate::role_error::ConfigMistakes;

/// The flags for TLS on gRPC ports. An empty value is the same as no flag, as in Thanos.
#[derive(Clone, Debug, clap::Args)]
pub struct GrpcTlsArgs {
    /// Serve gRPC with TLS and this certificate, a PEM file that is read again when it changes; without TLS if
    /// not set
    #[arg(id = "grpc_server_tls_cert", long = "grpc-server-tls-cert", value_name = "FILE")]
    cert: Option<String>,

    /// Private key of --grpc-server-tls-cert, a PEM file
    #[arg(id = "grpc_server_tls_key", long = "grpc-server-tls-key", value_name = "FILE")]
    key: Option<String>,

    /// Require a client certificate that one of the CAs in this PEM file signed; clients need none if not set
    #[arg(id = "grpc_server_tls_client_ca", long = "grpc-server-tls-client-ca", value_name = "FILE")]
    client_ca: Option<String>,

    /// Reject gRPC clients with an older TLS version: 1.2 or 1.3; 1.0 and 1.1 are accepted and mean 1.2
    #[arg(
        id = "grpc_server_tls_min_version",
        long = "grpc-server-tls-min-version",
        value_name = "VERSION",
        default_value = "1.3"
    )]
    min_version: TlsVersion,

    /// Offer only this cipher suite with TLS 1.2, by its name in Go; repeatable; all secure ones if not set
    #[arg(id = "grpc_server_tls_ciphers", long = "grpc-server-tls-ciphers", value_name = "NAME")]
    ciphers: Vec<CipherSuite>,

    /// Offer only this group for the key exchange: X25519MLKEM768, X25519, CurveP256 or CurveP384; repeatable;
    /// all if not set
    #[arg(id = "grpc_server_tls_curves", long = "grpc-server-tls-curves", value_name = "NAME")]
    curves: Vec<Curve>,
}

impl GrpcTlsArgs {
    /// Whether a certificate, a key or a CA is given.
    pub fn is_given(&self) -> bool {
        [&self.cert, &self.key, &self.client_ca].into_iter().flatten().any(|file| !file.is_empty())
    }

    /// Reads the files; `None` if gRPC is served without TLS.
    ///
    /// # Errors
    /// The flags do not fit together, or a file cannot be used.
    pub(crate) fn load(&self) -> Result<Option<Watched<ServerHandshake>>, ConfigMistakes> {
        let path = |text: &Option<String>| text.as_ref().filter(|text| !text.is_empty()).map(PathBuf::from);
        let client_ca = path(&self.client_ca);
        let (cert, key) = match (path(&self.cert), path(&self.key)) {
            (Some(cert), Some(key)) => (cert, key),
            (None, None) if client_ca.is_none() => return Ok(None),
            (None, None) => {
                return Err("--grpc-server-tls-client-ca is given without --grpc-server-tls-cert and --grpc-server-tls-key: give all three".to_owned().into());
            }
            _ => {
                return Err(
                    "--grpc-server-tls-cert and --grpc-server-tls-key: only one of them is given, give both"
                        .to_owned()
                        .into(),
                );
            }
        };
        let options = ServerTlsOptions {
            cipher_suites: self.ciphers.clone(),
            curves: self.curves.clone(),
            ..ServerTlsOptions::new(cert, key, client_ca, self.min_version)
        };
        let watched = Watched::load("--grpc-server-tls-cert", move || options.load());
        Ok(Some(
            watched.map_err(|mistake| ConfigMistakes::from(format!("--grpc-server-tls-cert: {mistake}")))?,
        ))
    }
}
