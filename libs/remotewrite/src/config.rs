//! Where samples are sent, and how. A component reads it from its file.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use httpclient::HttpClientConfig;
use model::RelabelConfig;

/// A place that samples are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteWriteConfig {
    /// The URL.
    pub url: String,
    /// Its name in metrics and logs; `None` for one of its own.
    pub name: Option<String>,
    /// The most time of a request: 30 seconds by default.
    pub remote_timeout: Duration,
    /// Headers of each request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Relabelling of what is sent.
    pub write_relabel_configs: Vec<RelabelConfig>,
    /// Whether exemplars are sent.
    pub send_exemplars: bool,
    /// Whether native histograms are sent.
    pub send_native_histograms: bool,
    /// The message.
    pub message: RemoteWriteMessage,
    /// The client.
    pub http: HttpClientConfig,
    /// The queue.
    pub queue: RemoteWriteQueue,
    /// Whether type, help and unit of metrics are sent, and how often: each minute by default.
    pub metadata_interval: Option<Duration>,
    /// Most metrics of a message with metadata: 2,000 by default.
    pub metadata_per_send: usize,
}

impl RemoteWriteConfig {
    /// The defaults, for a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            name: None,
            remote_timeout: Duration::from_secs(30),
            headers: Vec::new(),
            write_relabel_configs: Vec::new(),
            send_exemplars: false,
            send_native_histograms: false,
            message: RemoteWriteMessage::default(),
            http: HttpClientConfig::default(),
            queue: RemoteWriteQueue::default(),
            metadata_interval: Some(Duration::from_secs(60)),
            metadata_per_send: 2_000,
        }
    }
}

/// A version of remote write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoteWriteMessage {
    /// Version 1.0.
    #[default]
    V1,
    /// Version 2.0.
    V2,
}

/// The queue in front of a place that samples are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteWriteQueue {
    /// Most samples in memory for each shard: 10,000 by default.
    pub capacity: usize,
    /// Most requests at once: 50 by default.
    pub max_shards: usize,
    /// Least requests at once: 1 by default.
    pub min_shards: usize,
    /// Most samples of a request: 2,000 by default.
    pub max_samples_per_send: usize,
    /// A request is sent after this time, even if it is not full: 5 seconds by default.
    pub batch_send_deadline: Duration,
    /// The first wait before a request is repeated: 30 milliseconds by default.
    pub min_backoff: Duration,
    /// The longest wait, unless the receiver asks for a longer one: 5 seconds by default.
    pub max_backoff: Duration,
    /// Whether a request is repeated that was refused with status 429.
    pub retry_on_http_429: bool,
    /// Samples that are older are dropped; `None` for [`DEFAULT_AGE_LIMIT`].
    pub sample_age_limit: Option<Duration>,
}

/// Samples that are older are dropped, because the log cannot grow without end while a receiver does not answer.
pub const DEFAULT_AGE_LIMIT: Duration = Duration::from_secs(24 * 3_600);

impl Default for RemoteWriteQueue {
    fn default() -> Self {
        Self {
            capacity: 10_000,
            max_shards: 50,
            min_shards: 1,
            max_samples_per_send: 2_000,
            batch_send_deadline: Duration::from_secs(5),
            min_backoff: Duration::from_millis(30),
            max_backoff: Duration::from_secs(5),
            retry_on_http_429: false,
            sample_age_limit: None,
        }
    }
}
