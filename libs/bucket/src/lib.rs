//! Object storage: how to reach a bucket, what lies in it, and how blocks get in and out of it whole.
//!
//! * [`BucketConfig`] reads Thanos' objstore YAML; [`Bucket`] is what it opens.
//! * [`layout`] names the objects.
//!
//! Not here: what is inside a block (`tsdb`), when to upload, compact or delete (the components).

mod bucket;
mod config;
mod error;
pub mod layout;
mod metrics;

pub use bucket::{Bucket, Listing, ObjectInfo, Version};
pub use config::{ArgsError, BucketConfig, ConfigError, ObjstoreArgs};
pub use error::{BucketError, ErrorKind};
pub use metrics::BucketMetrics;
