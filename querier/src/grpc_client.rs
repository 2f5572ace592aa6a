//! How the querier reaches stores and gateways over gRPC, with the flags of Thanos.

use mesh::{ChannelOptions, ClientTls, ClientTlsOptions, MessageEncoding, PemSource, TlsVersion};
use runtime::ConfigMistakes;

/// The flags. An empty value is the same as no flag, as in Thanos.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GrpcClientArgs {
    /// Compress requests to stores, and so their answers, which need less bandwidth and more CPU time; each
    /// store must support it, and Thanos supports only snappy
    #[arg(long = "grpc-compression", value_name = "ENCODING", default_value = "none", value_enum)]
    pub(crate) compression: Compression,

    /// Reach stores and gateways with TLS; --endpoint.sd-config can say otherwise for single endpoints
    #[arg(id = "grpc_client_tls_secure", long = "grpc-client-tls-secure")]
    secure: bool,

    /// Accept every certificate of a store, so that an attacker on the way can pretend to be one
    #[arg(id = "grpc_client_tls_skip_verify", long = "grpc-client-tls-skip-verify")]
    skip_verify: bool,

    /// Certificate to show to stores that ask for one, a PEM file that is read again when it changes
    #[arg(id = "grpc_client_tls_cert", long = "grpc-client-tls-cert", value_name = "FILE")]
    cert: Option<String>,

    /// Private key of --grpc-client-tls-cert, a PEM file
    #[arg(id = "grpc_client_tls_key", long = "grpc-client-tls-key", value_name = "FILE")]
    key: Option<String>,

    /// Accept only stores whose certificate a CA in this PEM file signed; the CAs of the system if not set
    #[arg(id = "grpc_client_tls_ca", long = "grpc-client-tls-ca", value_name = "FILE")]
    ca: Option<String>,

    /// Expect this name in the certificates of stores, instead of the host of their address
    #[arg(id = "grpc_client_server_name", long = "grpc-client-server-name", value_name = "NAME")]
    server_name: Option<String>,

    /// Reject stores with an older TLS version: 1.2 or 1.3; 1.0 and 1.1 are accepted and mean 1.2
    #[arg(
        id = "grpc_client_tls_min_version",
        long = "grpc-client-tls-min-version",
        value_name = "VERSION",
        default_value = "1.3"
    )]
    min_version: TlsVersion,
}

/// The values of `--grpc-compression`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Compression {
    None,
    Gzip,
    Snappy,
    Zstd,
}

impl Compression {
    fn encoding(self) -> Option<MessageEncoding> {
        match self {
            Self::None => None,
            Self::Gzip => Some(MessageEncoding::Gzip),
            Self::Snappy => Some(MessageEncoding::Snappy),
            Self::Zstd => Some(MessageEncoding::Zstd),
        }
    }
}

/// How endpoints are reached: the settings of the flags, or of a part of `--endpoint.sd-config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrpcClientConfig {
    /// Whether connections have TLS.
    pub(crate) secure: bool,
    /// The TLS of connections that have it.
    pub(crate) tls: ClientTlsOptions,
    /// The compression of requests.
    pub(crate) compression: Option<MessageEncoding>,
}

impl Default for GrpcClientConfig {
    fn default() -> Self {
        let tls = ClientTlsOptions {
            ca: None,
            identity: None,
            server_name: None,
            skip_verify: false,
            min_version: TlsVersion::Tls13,
            alpn: vec![b"h2"],
        };
        Self { secure: false, tls, compression: None }
    }
}

impl GrpcClientConfig {
    /// Reads the files of TLS. `what` describes the settings in log lines.
    ///
    /// # Errors
    /// A file cannot be used; the error names it.
    pub(crate) fn load(&self, what: &str) -> Result<ChannelOptions, String> {
        let tls = self.secure.then(|| ClientTls::load(what, self.tls.clone())).transpose()?;
        Ok(ChannelOptions { tls, compression: self.compression })
    }
}

impl GrpcClientArgs {
    /// The settings of the flags.
    ///
    /// # Errors
    /// Flags that do not fit together.
    pub(crate) fn check(&self) -> Result<GrpcClientConfig, ConfigMistakes> {
        let text = |flag: &Option<String>| flag.clone().filter(|text| !text.is_empty());
        let identity = match (text(&self.cert), text(&self.key)) {
            (Some(cert), Some(key)) => Some((PemSource::from(cert), PemSource::from(key))),
            (None, None) => None,
            _ => {
                let mistake =
                    "--grpc-client-tls-cert and --grpc-client-tls-key: only one of them is given, give both";
                return Err(mistake.to_owned().into());
            }
        };
        let tls = ClientTlsOptions {
            ca: text(&self.ca).map(PemSource::from),
            identity,
            server_name: text(&self.server_name),
            skip_verify: self.skip_verify,
            min_version: self.min_version,
            alpn: GrpcClientConfig::default().tls.alpn,
        };
        Ok(GrpcClientConfig { secure: self.secure, tls, compression: self.compression.encoding() })
    }

    /// Warns about flags that have no effect without another one.
    pub(crate) fn warn(&self) {
        let names = [
            ("--grpc-client-tls-skip-verify", self.skip_verify),
            ("--grpc-client-tls-cert", self.cert.as_ref().is_some_and(|text| !text.is_empty())),
            ("--grpc-client-tls-ca", self.ca.as_ref().is_some_and(|text| !text.is_empty())),
            ("--grpc-client-server-name", self.server_name.as_ref().is_some_and(|text| !text.is_empty())),
        ];
        for (flag, _) in names.into_iter().filter(|(_, given)| *given && !self.secure) {
            tracing::warn!(
                flag,
                "this flag has no effect without --grpc-client-tls-secure, stores are reached without TLS"
            );
        }
    }
}
