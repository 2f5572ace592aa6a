//! A client of a real Prometheus, over plain HTTP.

mod answers;
mod request;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use model::{Labels, Matcher, TimeRange, Timestamp};

pub use answers::{Answer, Configuration, MetadataEntry, RuntimeInfo};
use answers::{BuildInfo, LabelSet, StatusConfig};
pub use request::ClientError;
use request::{Query, selector};

use crate::float::write_timestamp;
use crate::read::{self, ReadError, ReadQuery, ReadStream};

/// Time until an idle connection is given up; Prometheus itself closes them after 5 minutes.
const POOL_IDLE: Duration = Duration::from_secs(90);

/// Limits of a client.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long a connection may take to come about (default 5 s).
    pub connect_timeout: Duration,
    /// How long a small request may take as a whole (default 30 s).
    pub timeout: Duration,
    /// How long remote read may be silent, before its answer and between its frames (default 2 min).
    pub stream_timeout: Duration,
    /// Largest answer of a small request, in bytes (default 64 MiB).
    pub max_body_bytes: usize,
    /// Largest answer of remote read in the old form, before and after decompression, in bytes (default
    /// 256 MiB). It is held in memory as a whole. The streamed form has no such limit.
    pub max_samples_bytes: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            stream_timeout: Duration::from_secs(120),
            max_body_bytes: 64 << 20,
            max_samples_bytes: 256 << 20,
        }
    }
}

/// A base URL that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL with a host.
    #[error("Prometheus URL {0:?} is not of the form http://HOST:PORT/PATH")]
    Malformed(String),
    /// HTTPS is asked for.
    #[error(
        "Prometheus URL {0:?}: HTTPS is not supported, use http:// and let the sidecar stand on the host of its Prometheus"
    )]
    Https(String),
    /// Name and password, query or fragment in the URL.
    #[error("Prometheus URL {0:?}: leave out user, password, query and fragment")]
    Extra(String),
}

/// What label and series requests select.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// Conditions that all must hold; none selects everything where Prometheus permits that.
    pub matchers: &'a [Matcher],
    /// Time range, both ends included.
    pub range: TimeRange,
    /// Most results; `None` for all. Prometheus before 2.51 ignores it.
    pub limit: Option<usize>,
}

/// Asks one Prometheus. Clones share connections.
///
/// Nothing is retried here. Dropping a call cancels it.
#[derive(Clone, Debug)]
pub struct Client {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    /// Scheme, authority and path without a slash at its end.
    base: Arc<str>,
    options: ClientOptions,
}

impl Client {
    /// A client of the Prometheus at `url`, such as `http://localhost:9090/prefix`. Connects when asked.
    ///
    /// # Errors
    /// Not a plain HTTP URL.
    pub fn new(url: &str, options: ClientOptions) -> Result<Self, UrlError> {
        let malformed = || UrlError::Malformed(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| malformed())?;
        let authority = uri.authority().ok_or_else(malformed)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(UrlError::Https(url.to_owned())),
            _ => return Err(malformed()),
        }
        if authority.as_str().contains('@') || uri.query().is_some() || url.contains('#') {
            return Err(UrlError::Extra(url.to_owned()));
        }
        let base = format!("http://{authority}{}", uri.path().trim_end_matches('/'));
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(options.connect_timeout));
        connector.set_nodelay(true);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self { http, base: base.into(), options })
    }

    /// The URL asked, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Asks `/-/ready`.
    ///
    /// # Errors
    /// Prometheus is not there or not ready.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.get_bytes("/-/ready", Query::new()).await.map(drop)
    }

    /// The external labels of its configuration; empty where it has none.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn external_labels(&self) -> Result<Labels, ClientError> {
        self.configuration().await.map(|configuration| configuration.external_labels)
    }

    /// What its configuration says.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn configuration(&self) -> Result<Configuration, ClientError> {
        let path = "/api/v1/status/config";
        let config: StatusConfig = self.get_json(path, Query::new()).await?.data;
        Configuration::parse(&config.yaml).map_err(|cause| self.unreadable(path, cause))
    }

    /// Its flags by name; `None` from a Prometheus too old to tell.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn flags(&self) -> Result<Option<BTreeMap<String, String>>, ClientError> {
        match self.get_json("/api/v1/status/flags", Query::new()).await {
            Ok(answer) => Ok(Some(answer.data)),
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its version, such as `2.42.0`; `None` from a Prometheus too old to tell.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn version(&self) -> Result<Option<String>, ClientError> {
        match self.get_json::<BuildInfo>("/api/v1/status/buildinfo", Query::new()).await {
            Ok(answer) => Ok(Some(answer.data.version)),
            Err(error)
                if matches!(error.status(), Some(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether it took its configuration, and when it last did.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn runtime_info(&self) -> Result<RuntimeInfo, ClientError> {
        self.get_json("/api/v1/status/runtimeinfo", Query::new()).await.map(|answer| answer.data)
    }

    /// Has it read its configuration and rules again. When this returns, it has taken them.
    ///
    /// # Errors
    /// See [`ClientError`]: status 500 with its complaint where it kept the old ones, 403 where it runs without
    /// `--web.enable-lifecycle`.
    pub async fn reload(&self) -> Result<(), ClientError> {
        let limit = self.options.stream_timeout;
        self.send(Method::POST, "/-/reload", Query::new(), Bytes::new(), &[], limit).await.map(drop)
    }

    /// The earliest instant of which it has data, from its own metrics; may be up to a second early.
    ///
    /// `None` when it has no data yet or does not tell: then it may have data of any time.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lowest_timestamp(&self) -> Result<Option<Timestamp>, ClientError> {
        let body = self.get_bytes("/metrics", Query::new()).await?;
        Ok(answers::lowest_timestamp(&body))
    }

    /// The label sets of the series selected, in no promised order. At least one matcher must not match
    /// the empty string.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn series(&self, selection: Selection<'_>) -> Result<Answer<Vec<Labels>>, ClientError> {
        let answer = self.get_json("/api/v1/series", select(selection)).await?;
        Ok(answer.map(|sets: Vec<LabelSet>| sets.into_iter().map(|set| set.0).collect()))
    }

    /// The names of the labels of the series selected, sorted.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn label_names(&self, selection: Selection<'_>) -> Result<Answer<Vec<String>>, ClientError> {
        self.get_json("/api/v1/labels", select(selection)).await
    }

    /// The values of label `name` in the series selected, sorted.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn label_values(
        &self,
        name: &str,
        selection: Selection<'_>,
    ) -> Result<Answer<Vec<String>>, ClientError> {
        let path = format!("/api/v1/label/{}/values", request::escape(name));
        self.get_json(&path, select(selection)).await
    }

    /// Type, help and unit of `metric`, or of all metrics; at most `limit` metrics.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn metadata(
        &self,
        metric: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Answer<BTreeMap<String, Vec<MetadataEntry>>>, ClientError> {
        let mut query = Query::new();
        if let Some(metric) = metric {
            query.add("metric", metric);
        }
        if let Some(limit) = limit {
            query.add("limit", &limit.to_string());
        }
        self.get_json("/api/v1/metadata", query).await
    }

    /// Reads chunks by remote read: series in the order of their own labels, chunks as they are stored.
    ///
    /// Asks for streamed chunks and takes samples from a Prometheus too old for them.
    ///
    /// # Errors
    /// See [`ClientError`]; what fails later is told by the stream.
    pub async fn read(&self, query: &ReadQuery) -> Result<ReadStream, ClientError> {
        let path = "/api/v1/read";
        let body = read::encode_request(query);
        let headers = [
            (header::CONTENT_ENCODING, "snappy"),
            (header::CONTENT_TYPE, "application/x-protobuf"),
            (read::VERSION_HEADER, read::VERSION),
        ];
        let response =
            self.send(Method::POST, path, Query::new(), body, &headers, self.options.stream_timeout).await?;
        let limits = read::Limits {
            silence: self.options.stream_timeout,
            max_samples_bytes: self.options.max_samples_bytes,
        };
        ReadStream::open(response, limits).await.map_err(|cause| self.read_failed(path, cause))
    }

    fn read_failed(&self, path: &str, cause: ReadError) -> ClientError {
        ClientError::Read { url: format!("{}{path}", self.base), cause }
    }
}

/// The parameters of a selection.
fn select(selection: Selection<'_>) -> Query {
    let mut query = Query::new();
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
