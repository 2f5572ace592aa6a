//! Object storage: how to reach a bucket, what lies in it, and how blocks get in and out of it whole.
//!
//! * [`BucketConfig`] reads Thanos' objstore YAML; [`Bucket`] is what it opens.
//! * [`layout`] names the objects; [`marks`] are the small ones that say what is to be done with a block.
//! * [`publish`] puts a block into a bucket.
//!
//! Not here: what is inside a block (`tsdb`), when to upload, compact or delete (the components).

mod bucket;
mod config;
mod error;
pub mod layout;
mod manifest;
pub mod marks;
mod metrics;
mod publish;
mod retry;
mod upload;

pub use bucket::{Bucket, Listing, ObjectInfo, Version};
pub use config::{ArgsError, BucketConfig, ConfigError, ObjstoreArgs};
pub use error::{BucketError, ErrorKind};
pub use manifest::{ManifestFile, manifest_of};
pub use metrics::BucketMetrics;
pub use publish::{Progress, PublishError, PublishOptions, Published, publish};
pub use retry::Retry;
