//! Object storage: opening a bucket, its layout, and how blocks are published, found, read, downloaded and removed.
//!
//! * [`BucketConfig`] reads Thanos' objstore YAML and opens a [`Bucket`].
//! * [`layout`] names the objects; [`marks`] mark blocks for deletion, or exclude them from compaction or downsampling.
//! * [`deletions`] are samples that readers mask until a compactor removes them.
//! * [`publish`] uploads a block, [`download`] downloads it, [`delete_block`] removes it; [`judge_partial`] decides whether
//!   an unfinished upload was abandoned.
//! * [`Fetcher`] finds the blocks of a bucket; [`bucket_index`] is one object that lists them for many readers.
//! * [`Bucket::open_block`] opens a block for reading by ranges; [`BlockFault`] says what to do about one that cannot be
//!   read. [`BucketFile`] reads a single object by ranges.
//! * [`readers`] acknowledge what they have seen, before blocks are removed.
//! * [`Leases`] give a piece of work to one process at a time.
//! * `fault` and `clocked`, with the feature `test-util`, are a store that injects faults and one with another clock, for tests.
//!
//! Not here: the content of a block's files (`tsdb`), and when to upload, compact or delete (the components).

mod args;
mod block_selection;
mod bucket;
pub mod bucket_index;
#[cfg(feature = "test-util")]
pub mod clocked;
mod config;
mod create;
mod data_folder;
pub mod deletions;
mod derived;
mod download;
mod error;
#[cfg(feature = "test-util")]
pub mod fault;
mod fetch;
mod file;
pub mod layout;
mod lease;
mod list;
mod local_list;
mod manifest;
pub mod marks;
mod metrics;
mod open;
mod pieces;
mod probe;
mod publish;
pub mod readers;
mod remove;
mod retry;
mod upload;

pub use args::{ObjstoreArgs, ObjstoreArgsError};
pub use block_selection::BlockSelectionArgs;
pub use bucket::{Bucket, FolderListing, ObjectInfo, ObjectVersion};
pub use config::{BucketConfig, ObjstoreConfigError, ServedBucket};
pub use data_folder::{DataFolder, DataFolderError};
pub use derived::derived_id;
pub use download::{DownloadError, DownloadOptions, download};
pub use error::{BucketError, ErrorKind};
pub use fetch::{
    BLOCK_ID_LABEL, BlockState, BucketView, Discovery, FetchError, FetchMetrics, FetchOptions, Fetcher,
    Filters, SelectorError, covered_blocks, parse_selector,
};
pub use file::BucketFile;
pub use lease::{Lease, LeaseAttempt, LeaseError, Leases};
pub use manifest::{ManifestFile, manifest_of};
pub use metrics::BucketMetrics;
pub use open::{BlockFault, OpenBlockError, OpenBlockOptions, RemoteBlock};
pub use probe::Probe;
pub use publish::{PublishError, PublishOptions, Published, UploadProgress, publish};
pub use remove::{
    PARTIAL_UPLOAD_AGE, PartialVerdict, delete_block, delete_partial, judge_partial, store_time,
};
pub use retry::Retry;
