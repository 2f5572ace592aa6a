//! Compression of gRPC messages: gzip, snappy and zstd, for servers and clients.
//!
//! tonic supports no snappy, which Thanos uses, so this crate compresses and decompresses messages below tonic, which sees
//! plain messages only.
//!
//! Format: <https://github.com/grpc/grpc/blob/v1.60.0/doc/PROTOCOL-HTTP2.md> and
//! <https://github.com/grpc/grpc/blob/v1.60.0/doc/compression.md>.
//!
//! Reading order: `error`, `memory`, `messages`, `plain`, `snappy`, `encoding`, `decoded`, `encoded`, `server`, `client`.

mod client;
mod decoded;
mod encoded;
mod encoding;
mod error;
mod memory;
mod messages;
mod plain;
mod server;
mod snappy;

#[cfg(test)]
mod tests;

pub use client::{ClientCompression, ClientCompressionLayer};
pub use encoding::{MessageEncoding, UnknownEncoding};
pub use memory::MessageMemory;
pub use server::{ServerCompression, ServerCompressionLayer};
