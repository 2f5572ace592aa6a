//! The HTTP API of Prometheus, for servers and for clients.
//!
//! *For a server*: [`Params`] reads the parameters of a request; [`ResultWriter`] and the writers of
//! [`float`](write_float) and [`json`](write_string) print results as Prometheus does; [`Envelope`] and
//! [`ApiError`] wrap them. The crate has no web framework.
//!
//! *For a client*: [`PrometheusClient`] asks a real Prometheus for its configuration and labels,
//! [`ReadStream`] for its chunks by remote read. [`ReadFrameDecoder`] decodes the frames of that stream
//! without I/O.
//!
//! Not here: PromQL, evaluation, StoreAPI.

mod client;
mod duration;
mod envelope;
mod float;
mod frames;
mod json;
mod multipart;
mod params;
mod read;
mod result;

pub use client::{
    ClientError, ClientOptions, Configuration, MetadataEntry, PrometheusClient, RuntimeInfo, SeriesSelection,
    UrlError, WithWarnings,
};
pub use duration::{InvalidDuration, parse_prometheus_duration};
pub use envelope::{ApiError, Envelope, ErrorType};
pub use float::{format_float, write_float, write_timestamp};
pub use frames::{MAX_FRAME_BYTES, ReadFrameDecoder, ReadFrameError};
pub use json::{write_labels, write_string, write_string_plain};
pub use params::{MAX_TIME, MIN_TIME, ParamError, Params, RangeQuery};
pub use read::{ChunkEncoding, ReadChunk, ReadData, ReadError, ReadQuery, ReadSeries, ReadStream};
pub use result::{Boundaries, HistogramBucket, HistogramPoint, ResultWriter};
