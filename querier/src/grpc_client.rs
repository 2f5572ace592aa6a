//! How the querier reaches stores and gateways over gRPC, with the flags of Thanos.

use mesh::{ChannelOptions, MessageEncoding};

/// The flags.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GrpcClientArgs {
    /// Compress requests to stores, and so their answers, which need less bandwidth and more CPU time; each
    /// store must support it, and Thanos supports only snappy
    #[arg(long = "grpc-compression", value_name = "ENCODING", default_value = "none", value_enum)]
    pub(crate) compression: Compression,
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

impl GrpcClientArgs {
    /// The settings that the flags describe.
    pub(crate) fn options(&self) -> ChannelOptions {
        ChannelOptions { compression: self.compression.encoding() }
    }
}
