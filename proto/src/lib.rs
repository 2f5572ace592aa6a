//! The wire: messages and services as generated from the `.proto` files beside this crate.
//!
//! The code in `src/gen` is committed and a test regenerates it, so that building needs no `protoc`. Nothing here
//! leaves the edges of a component: each crate converts to domain types in one file. All `bytes` fields are
//! [`bytes::Bytes`], so that a decoded chunk shares its frame's buffer.

#![allow(missing_docs, clippy::all, reason = "generated code")]

/// Thanos' StoreAPI, Info and Metadata.
pub mod thanos {
    include!("gen/thanos.rs");
    /// What a component serves.
    pub mod info {
        include!("gen/thanos.info.rs");
    }
}

/// Prometheus' remote read.
pub mod prometheus {
    include!("gen/prometheus.rs");
}

/// Our own services.
pub mod isthmus {
    /// Between gateways, and from a gateway to the components beside it.
    pub mod mesh {
        /// Version 1.
        pub mod v1 {
            include!("gen/isthmus.mesh.v1.rs");
        }
    }
    /// Joining.
    pub mod pki {
        /// Version 1.
        pub mod v1 {
            include!("gen/isthmus.pki.v1.rs");
        }
    }
}

/// The encoded `FileDescriptorSet` of all services, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");
