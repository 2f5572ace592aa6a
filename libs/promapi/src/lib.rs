//! The HTTP API of Prometheus, for servers and for clients.
//!
//! *For a server*: [`Params`] reads the parameters of a request; [`ResultWriter`] and the writers of
//! [`float`](write_float) and [`json`](write_string) print results as Prometheus does; [`Envelope`] and
//! [`ApiError`] wrap them; [`ReadRequest`] and [`encode_read_frames`] are remote read. The crate has no web framework.
//!
//! *For a client*: [`PrometheusClient`] asks a real Prometheus for its configuration and labels,
//! [`ReadStream`] for its chunks by remote read. [`ReadFrameDecoder`] decodes the frames of that stream
//! without I/O.
//!
//! *For other clients*: [`Connector`] opens connections with TLS and through proxies.
//!
//! *For both*: rules ([`RuleGroup`]), targets ([`TargetDiscovery`]), exemplars ([`ExemplarSeries`]) and statistics
//! ([`TsdbStatus`]), which are read from and printed as the JSON of Prometheus.
//!
//! Not here: PromQL, evaluation, StoreAPI.

mod alertmanagers;
mod api_time;
mod client;
mod duration;
mod envelope;
mod exemplars;
mod float;
mod frames;
mod histogram_message;
mod json;
mod multipart;
mod params;
mod read;
mod read_server;
mod result;
mod rules;
mod targets;
mod tsdb_status;

pub use alertmanagers::{Alertmanager, AlertmanagerDiscovery};
pub use api_time::ApiTime;
pub use client::{
    AnswerError, AnsweredSample, AnsweredSeries, Authorization, ClientError, ClientOptions, Configuration,
    ConnectionUses, Connector, Credential, HttpConnection, MetadataEntry, PrometheusClient, ProxyUrl,
    RuntimeInfo, SeriesSelection, UrlError, WithWarnings, http_cause, parse_instant_answer,
};
pub use duration::{InvalidDuration, parse_prometheus_duration};
pub use envelope::{ApiError, Envelope, ErrorType};
pub use exemplars::{Exemplar, ExemplarSeries};
pub use float::{format_float, write_float, write_timestamp};
pub use frames::{MAX_FRAME_BYTES, ReadFrameDecoder, ReadFrameError};
pub use histogram_message::histogram_message;
pub use json::{write_labels, write_string, write_string_plain};
pub use params::{MAX_STEPS, MAX_TIME, MIN_TIME, ParamError, Params, RangeQuery, parse_time};
pub use read::{ChunkEncoding, ReadChunk, ReadData, ReadError, ReadQuery, ReadSeries, ReadStream};
pub use read_server::{
    MAX_READ_REQUEST_BYTES, ReadForm, ReadRequest, ReadRequestError, ReadSamples, encode_read_frames,
};
pub use result::{Boundaries, HistogramBucket, HistogramPoint, ResultWriter};
pub use rules::{Alert, AlertState, AlertingRule, RecordingRule, Rule, RuleGroup, RuleStrategy};
pub use targets::{ActiveTarget, DroppedTarget, TargetDiscovery, TargetHealth};
pub use tsdb_status::{HeadStats, TsdbStat, TsdbStatus};
