//! A client of a real Prometheus.

mod answers;
mod authorization;
mod connector;
mod instant_query;
mod listings;
mod query_string;
mod range_query;
mod request;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::{Method, StatusCode, header};
use model::{Labels, Matcher, TimeRange, Timestamp};

use answers::{BuildInfo, JsonLabelSet, StatusConfig};
pub use answers::{Configuration, MetadataEntry, RuntimeInfo, WithWarnings};
pub use authorization::{Authorization, Credential};
pub use connector::{ConnectionUses, Connector, HttpConnection, ProxyUrl};
pub use instant_query::{AnswerError, AnsweredSample, parse_instant_answer};
use query_string::{QueryString, escape, selector};
pub use range_query::AnsweredSeries;
use request::HttpTransport;
pub use request::{ClientError, ClientOptions, UrlError, http_cause};

use crate::float::write_timestamp;
use crate::read::{self, ReadError, ReadQuery, ReadStream};

/// Longer paths with parameters cannot be sent: the type of URLs has a limit of 64 KiB.
const MAX_URL_BYTES: usize = 60 << 10;

/// The series that a request for labels or series selects.
#[derive(Clone, Copy, Debug)]
pub struct SeriesSelection<'a> {
    /// Matchers that must all match. An empty list selects everything, where Prometheus permits that.
    pub matchers: &'a [Matcher],
    /// Time range, including both ends.
    pub range: TimeRange,
    /// Maximum number of results; `None` for all. Prometheus before 2.51 ignores it.
    pub limit: Option<usize>,
}

/// Sends requests to one Prometheus. Clones share their connections.
///
/// The client never retries. Dropping a call cancels its request.
#[derive(Clone, Debug)]
pub struct PrometheusClient {
    transport: HttpTransport,
}

impl PrometheusClient {
    /// Creates a client of the Prometheus at `url`, such as `http://localhost:9090/prefix`. It connects at
    /// the first request.
    ///
    /// # Errors
    /// The URL is not one of HTTP or HTTPS, or TLS cannot be used.
    pub fn new(url: &str, options: ClientOptions) -> Result<Self, UrlError> {
        Ok(Self { transport: HttpTransport::new(url, options)? })
    }

    /// The base URL, without a slash at its end.
    pub fn url(&self) -> &str {
        self.transport.base()
    }

    /// Requests `/-/ready`.
    ///
    /// # Errors
    /// Prometheus does not answer, or is not ready.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.transport.get_bytes("/-/ready", QueryString::new()).await.map(drop)
    }

    /// The external labels in the configuration of Prometheus; empty if it has none.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn external_labels(&self) -> Result<Labels, ClientError> {
        self.configuration().await.map(|configuration| configuration.external_labels)
    }

    /// The parts of the configuration of Prometheus that are used here.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn configuration(&self) -> Result<Configuration, ClientError> {
        let path = "/api/v1/status/config";
        let config: StatusConfig = self.transport.get_json(path, QueryString::new()).await?.data;
        Configuration::parse(&config.yaml).map_err(|cause| self.transport.unreadable(path, cause))
    }

    /// The flags of Prometheus by name; `None` if its version has no flags endpoint.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn flags(&self) -> Result<Option<BTreeMap<String, String>>, ClientError> {
        match self.transport.get_json("/api/v1/status/flags", QueryString::new()).await {
            Ok(answer) => Ok(Some(answer.data)),
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The version of Prometheus, such as `2.42.0`; `None` if its version has no build information endpoint.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn version(&self) -> Result<Option<String>, ClientError> {
        match self.transport.get_json::<BuildInfo>("/api/v1/status/buildinfo", QueryString::new()).await {
            Ok(answer) => Ok(Some(answer.data.version)),
            Err(error)
                if matches!(error.status(), Some(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the last reload succeeded, the time of the last one that did, and the working directory.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn runtime_info(&self) -> Result<RuntimeInfo, ClientError> {
        self.transport
            .get_json("/api/v1/status/runtimeinfo", QueryString::new())
            .await
            .map(|answer| answer.data)
    }

    /// Makes Prometheus reload its configuration and rules. When this returns `Ok`, the reload is complete.
    ///
    /// # Errors
    /// See [`ClientError`]: status 500 with the message of Prometheus if it rejected the new files and kept
    /// the old ones, 403 if it runs without `--web.enable-lifecycle`.
    pub async fn reload(&self) -> Result<(), ClientError> {
        let limit = self.transport.options().stream_timeout;
        self.transport
            .send(Method::POST, "/-/reload", QueryString::new(), Bytes::new(), &[], limit)
            .await
            .map(drop)
    }

    /// The earliest time of which Prometheus has data, read from its own metrics. It may be up to one second
    /// too early.
    ///
    /// `None` if Prometheus has no data yet or does not report the time. It may then have data of any time.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lowest_timestamp(&self) -> Result<Option<Timestamp>, ClientError> {
        let body = self.transport.get_bytes("/metrics", QueryString::new()).await?;
        Ok(answers::lowest_timestamp(&body))
    }

    /// The label sets of the selected series, in no particular order. At least one matcher must not match the
    /// empty string.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn series(
        &self,
        selection: SeriesSelection<'_>,
    ) -> Result<WithWarnings<Vec<Labels>>, ClientError> {
        let answer = self.transport.ask_json("/api/v1/series", select(selection)).await?;
        Ok(answer.map(|sets: Vec<JsonLabelSet>| sets.into_iter().map(|set| set.0).collect()))
    }

    /// The label names of the selected series, sorted.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn label_names(
        &self,
        selection: SeriesSelection<'_>,
    ) -> Result<WithWarnings<Vec<String>>, ClientError> {
        self.transport.ask_json("/api/v1/labels", select(selection)).await
    }

    /// The values of label `name` in the selected series, sorted.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn label_values(
        &self,
        name: &str,
        selection: SeriesSelection<'_>,
    ) -> Result<WithWarnings<Vec<String>>, ClientError> {
        let path = format!("/api/v1/label/{}/values", escape(name));
        let query = select(selection);
        if path.len() + query.len() < MAX_URL_BYTES {
            return self.transport.get_json(&path, query).await;
        }
        // Prometheus accepts no POST here, and no longer URL can be sent. The series have the same values.
        let all = self.series(SeriesSelection { limit: None, ..selection }).await?;
        let values: BTreeSet<String> =
            all.data.iter().filter_map(|labels| labels.get(name)).map(str::to_owned).collect();
        let shown = selection.limit.unwrap_or(usize::MAX);
        Ok(WithWarnings { data: values.into_iter().take(shown).collect(), warnings: all.warnings })
    }

    /// Type, help text and unit of `metric`, or of all metrics; of at most `limit` metrics.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn metadata(
        &self,
        metric: Option<&str>,
        limit: Option<usize>,
    ) -> Result<WithWarnings<BTreeMap<String, Vec<MetadataEntry>>>, ClientError> {
        let mut query = QueryString::new();
        if let Some(metric) = metric {
            query.add("metric", metric);
        }
        if let Some(limit) = limit {
            query.add("limit", &limit.to_string());
        }
        self.transport.get_json("/api/v1/metadata", query).await
    }

    /// Reads series by remote read. Series are ordered by their own labels; chunks are passed on as they are
    /// stored.
    ///
    /// Requests streamed chunks, and accepts samples from a Prometheus that is too old for them.
    ///
    /// # Errors
    /// See [`ClientError`]. The stream reports errors that occur later.
    pub async fn read(&self, query: &ReadQuery) -> Result<ReadStream, ClientError> {
        let path = "/api/v1/read";
        let body = read::encode_request(query);
        let headers = [
            (header::CONTENT_ENCODING, "snappy"),
            (header::CONTENT_TYPE, "application/x-protobuf"),
            (read::VERSION_HEADER, read::VERSION),
        ];
        let response = self
            .transport
            .send(
                Method::POST,
                path,
                QueryString::new(),
                body,
                &headers,
                self.transport.options().stream_timeout,
            )
            .await?;
        let limits = read::ReadLimits {
            silence: self.transport.options().stream_timeout,
            max_samples_bytes: self.transport.options().max_samples_bytes,
        };
        ReadStream::open(response, limits).await.map_err(|cause| self.read_failed(path, cause))
    }

    fn read_failed(&self, path: &str, cause: ReadError) -> ClientError {
        ClientError::Read { url: format!("{}{path}", self.transport.base()), cause }
    }
}

/// The query parameters of a selection.
fn select(selection: SeriesSelection<'_>) -> QueryString {
    let mut query = QueryString::new();
    if !selection.matchers.is_empty() {
        query.add("match[]", &selector(selection.matchers));
    }
    // Unbounded ends are left out: Prometheus has its own least and greatest time.
    for (name, at) in [("start", selection.range.min), ("end", selection.range.max)] {
        if at > crate::MIN_TIME && at < crate::MAX_TIME {
            let mut text = Vec::new();
            write_timestamp(&mut text, at);
            query.add(name, &String::from_utf8_lossy(&text));
        }
    }
    if let Some(limit) = selection.limit {
        query.add("limit", &limit.to_string());
    }
    query
}
