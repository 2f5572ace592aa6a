//! Object storage: how to reach a bucket, what lies in it, and how blocks get in and out of it whole.
//!
//! * [`BucketConfig`] reads Thanos' objstore YAML; [`Bucket`] is what it opens.
//! * [`layout`] names the objects; [`marks`] are the small ones that say what is to be done with a block.
//! * [`publish`] puts a block into a bucket, [`download`] gets it out, [`delete_block`] removes it;
//!   [`judge_partial`] says what is to be done with an upload that never ended.
//! * [`Fetcher`] knows which blocks there are.
//! * [`BucketFile`] reads an object by ranges, for `tsdb`'s block reader.
//! * [`fault`] is a store that misbehaves, for tests of everything that uses one.
//!
//! Not here: what is inside a block (`tsdb`), when to upload, compact or delete (the components).

mod bucket;
mod config;
mod download;
mod error;
pub mod fault;
mod fetch;
mod file;
pub mod layout;
mod manifest;
pub mod marks;
mod metrics;
mod pieces;
mod probe;
mod publish;
mod remove;
mod retry;
mod upload;

pub use bucket::{Bucket, Listing, ObjectInfo, Version};
pub use config::{ArgsError, BucketConfig, ConfigError, ObjstoreArgs};
pub use download::{DownloadError, DownloadOptions, download};
pub use error::{BucketError, ErrorKind};
pub use fetch::{
    BlockState, Discovery, FetchError, FetchMetrics, FetchOptions, Fetcher, Filters, SelectorError, View,
    parse_selector,
};
pub use file::BucketFile;
pub use manifest::{ManifestFile, manifest_of};
pub use metrics::BucketMetrics;
pub use probe::Probe;
pub use publish::{Progress, PublishError, PublishOptions, Published, publish};
pub use remove::{
    PARTIAL_UPLOAD_AGE, PartialVerdict, delete_block, delete_partial, judge_partial, store_time,
};
pub use retry::Retry;
