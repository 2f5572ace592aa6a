//! The HTTP API of Prometheus, in both directions.
//!
//! *As a server's toolbox* it knows no web framework: [`Params`] reads what a client asked, [`ResultWriter`]
//! and the writers of [`float`](write_float) and [`json`](write_string) print results as Prometheus does,
//! [`Envelope`] and [`ApiError`] wrap them.
//!
//! *As a client* it asks a real Prometheus: [`Client`] for its configuration and labels, [`ReadStream`] for
//! its chunks by remote read, with the sans-I/O [`FrameDecoder`] underneath.
//!
//! Not here: PromQL, the evaluation of anything, StoreAPI.

mod client;
mod duration;
mod envelope;
mod float;
mod frames;
mod json;
mod params;
mod read;
mod result;

pub use client::{
    Answer, Client, ClientError, ClientOptions, Configuration, MetadataEntry, RuntimeInfo, Selection,
    UrlError,
};
pub use duration::{InvalidDuration, parse_prometheus_duration};
pub use envelope::{ApiError, Envelope, ErrorType};
pub use float::{format_float, write_float, write_timestamp};
pub use frames::{FrameDecoder, FrameError, MAX_FRAME_BYTES};
pub use json::{write_labels, write_string, write_string_plain};
pub use params::{MAX_TIME, MIN_TIME, ParamError, Params, RangeQuery};
pub use read::{ChunkEncoding, ReadChunk, ReadData, ReadError, ReadQuery, ReadSeries, ReadStream};
pub use result::{Boundaries, Bucket, HistogramPoint, ResultWriter};
