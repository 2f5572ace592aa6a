//! The wire types: messages and services generated from the `.proto` files of this crate.
//!
//! The code in `src/gen` is committed and a test regenerates it, so that a build needs no `protoc`.
//! Components use these types only at their edges: each crate converts them to domain types in one file. All
//! `bytes` fields are [`bytes::Bytes`], so that a decoded chunk shares the buffer of its frame.

#![allow(missing_docs, clippy::all, clippy::too_many_lines, reason = "generated code")]

/// Thanos' StoreAPI, Info, Metadata, Rules, Targets, Exemplars, Status and Query.
pub mod thanos {
    include!("gen/thanos.rs");
    /// Info: what a component serves.
    pub mod info {
        include!("gen/thanos.info.rs");
    }
}

/// The content of hints of Thanos' StoreAPI.
pub mod hintspb {
    include!("gen/hintspb.rs");
}

/// Results of Thanos' Query.
pub mod prometheus_copy {
    include!("gen/prometheus_copy.rs");
}

/// Prometheus' remote read, and remote write 1.0.
pub mod prometheus {
    include!("gen/prometheus.rs");
    /// Remote write 2.0.
    pub mod write_v2 {
        include!("gen/io.prometheus.write.v2.rs");
    }
}

/// Our own services.
pub mod isthmus {
    /// Between gateways, and from a gateway to the components in its cluster.
    pub mod mesh {
        /// Version 1.
        pub mod v1 {
            include!("gen/isthmus.mesh.v1.rs");
        }
    }
    /// Joining a cluster to the mesh.
    pub mod pki {
        /// Version 1.
        pub mod v1 {
            include!("gen/isthmus.pki.v1.rs");
        }
    }
}

/// The encoded `FileDescriptorSet` of all services, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");
