//! Sends one HTTP request to Prometheus, and defines the errors that can result.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use model::{causes, root_cause};
use serde::de::DeserializeOwned;
use tls::{ClientTls, ClientTlsOptions, TlsVersion};
use tokio::time::timeout;

use crate::client::answers::{ApiResponse, WithWarnings};
use crate::client::authorization::Authorization;
use crate::client::connector::{Connector, ProxyUrl};
use crate::client::query_string::QueryString;
use crate::read::ReadError;

/// The `User-Agent` header.
const USER_AGENT: &str = concat!("isthmus/", env!("CARGO_PKG_VERSION"));

/// Maximum bytes of an error page that are read, and maximum characters that are shown.
const MAX_ERROR_BYTES: usize = 64 << 10;
const MAX_SHOWN_CHARS: usize = 512;

/// Longer parameters are sent with POST, where Prometheus accepts that. Proxies often limit URLs to 8 KiB.
const MAX_GET_BYTES: usize = 4 << 10;

/// The content type of a form.
const FORM: &str = "application/x-www-form-urlencoded";

/// A request that is being answered.
type RequestFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, ClientError>> + Send + 'a>>;

/// Limits and connections of a client.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Maximum time to establish a connection (default 5 s).
    pub connect_timeout: Duration,
    /// Maximum time of a small request, including its answer (default 30 s).
    pub timeout: Duration,
    /// Maximum time without data in remote read, before the answer and between frames (default 2 min).
    pub stream_timeout: Duration,
    /// Maximum size of the answer to a small request, in bytes (default 64 MiB).
    pub max_body_bytes: usize,
    /// Time after which idle connections are closed (default 90 s). Prometheus itself closes them after 5 minutes.
    pub idle_timeout: Duration,
    /// How the client proves who it is; `None` if it does not.
    pub authorization: Option<Authorization>,
    /// The proxy in between; `None` for none.
    pub proxy: Option<ProxyUrl>,
    /// The TLS for a URL with `https`; `None` for the CAs of the system and no client certificate.
    pub tls: Option<ClientTls>,
    /// Maximum size of a remote read answer in the old form (samples), in bytes, both before and after
    /// decompression (default 256 MiB). Such an answer is kept in memory as a whole. The streamed form has no
    /// such limit.
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
            idle_timeout: Duration::from_secs(90),
            authorization: None,
            proxy: None,
            tls: None,
        }
    }
}

/// A base URL that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The text is not a URL with a host.
    #[error("Prometheus URL {0:?} is not of the form http://HOST:PORT/PATH")]
    Malformed(String),
    /// The scheme is HTTPS, and TLS cannot be used.
    #[error("Prometheus URL {url:?}: {cause}")]
    Https {
        /// The URL.
        url: String,
        /// Why TLS cannot be used.
        cause: String,
    },
    /// The URL has a user, password, query or fragment.
    #[error("Prometheus URL {0:?}: user, password, query and fragment are not supported; remove them")]
    Extra(String),
}

/// A request to Prometheus that failed. Every variant names the URL.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The request cannot be built, for example because the URL is too long.
    #[error("request to {url}: {cause}")]
    Request {
        /// The URL without parameters.
        url: String,
        /// The cause.
        cause: http::Error,
    },
    /// The connection failed.
    #[error("{url}: {cause}")]
    Transport {
        /// The URL without parameters.
        url: String,
        /// The innermost cause.
        cause: String,
    },
    /// The answer did not arrive in time.
    #[error("{url}: no answer within {limit:?}")]
    Timeout {
        /// The URL without parameters.
        url: String,
        /// The time limit.
        limit: Duration,
    },
    /// The status of the answer is not a success.
    #[error("{url} answered {status}: {message}")]
    Status {
        /// The URL without parameters.
        url: String,
        /// The status.
        status: StatusCode,
        /// The message of the server, shortened.
        message: String,
    },
    /// The answer cannot be decoded, or is too large.
    #[error("answer of {url}: {cause}")]
    Unreadable {
        /// The URL without parameters.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The answer of remote read is not a stream.
    #[error("{url}: {cause}")]
    Read {
        /// The URL.
        url: String,
        /// The cause.
        cause: ReadError,
    },
}

impl ClientError {
    /// The error for those who must not learn the address of the server: the path stands for the URL.
    pub fn without_address(&self) -> String {
        let path = |url: &str| {
            let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
            let path = after_scheme.find('/').map_or("/", |at| &after_scheme[at..]);
            format!("Prometheus {path}")
        };
        match self {
            Self::Request { url, cause } => format!("request to {}: {cause}", path(url)),
            Self::Transport { url, cause } => {
                // A cause may begin with the address of a proxy.
                let of_proxy = cause.strip_prefix("proxy ").and_then(|rest| rest.split_once(": "));
                match of_proxy {
                    Some((_, cause)) => format!("{}: proxy: {cause}", path(url)),
                    None => format!("{}: {cause}", path(url)),
                }
            }
            Self::Timeout { url, limit } => format!("{}: no answer within {limit:?}", path(url)),
            Self::Status { url, status, message } => format!("{} answered {status}: {message}", path(url)),
            Self::Unreadable { url, cause } => format!("answer of {}: {cause}", path(url)),
            Self::Read { url, cause } => format!("{}: {cause}", path(url)),
        }
    }

    /// The HTTP status of the answer, if the status is the error.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// Sends HTTP requests to one Prometheus. Clones share their connections.
#[derive(Clone, Debug)]
pub(super) struct HttpTransport {
    http: legacy::Client<Connector, Full<Bytes>>,
    /// Scheme, authority and path without a slash at its end.
    base: Arc<str>,
    options: ClientOptions,
}

impl HttpTransport {
    pub(super) fn new(url: &str, options: ClientOptions) -> Result<Self, UrlError> {
        let malformed = || UrlError::Malformed(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| malformed())?;
        let authority = uri.authority().ok_or_else(malformed)?;
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(match &options.tls {
                Some(tls) => tls.clone(),
                None => ClientTls::load("HTTPS to Prometheus", default_tls())
                    .map_err(|cause| UrlError::Https { url: url.to_owned(), cause })?,
            }),
            _ => return Err(malformed()),
        };
        if authority.as_str().contains('@') || uri.query().is_some() || url.contains('#') {
            return Err(UrlError::Extra(url.to_owned()));
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        let base = format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/'));
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(options.connect_timeout));
        connector.set_nodelay(true);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(options.idle_timeout)
            .pool_timer(TokioTimer::new())
            .build(Connector::new(connector, options.proxy.clone(), tls));
        Ok(Self { http, base: base.into(), options })
    }

    /// The base URL, without a slash at its end.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    pub(super) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// Sends a request and waits for the headers of a successful answer.
    ///
    /// The future is boxed: the crate that polls a plain one would compile hyper's client again.
    pub(super) fn send<'a>(
        &'a self,
        method: Method,
        path: &'a str,
        query: QueryString,
        body: Bytes,
        headers: &'a [(HeaderName, &'static str)],
        limit: Duration,
    ) -> RequestFuture<'a, Response<Incoming>> {
        Box::pin(self.send_unboxed(method, path, query, body, headers, limit))
    }

    async fn send_unboxed(
        &self,
        method: Method,
        path: &str,
        query: QueryString,
        body: Bytes,
        headers: &[(HeaderName, &'static str)],
        limit: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let url = format!("{}{path}", self.base);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{url}{}", query.as_str()))
            .header(header::USER_AGENT, USER_AGENT);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let unusable = |cause| ClientError::Request { url: url.clone(), cause };
        if let Some(authorization) = &self.options.authorization {
            request = request.header(header::AUTHORIZATION, authorization.header().map_err(unusable)?);
        }
        let for_proxy =
            self.options.proxy.as_ref().and_then(|proxy| proxy.authorization_of_requests(&self.base));
        if let Some(authorization) = for_proxy {
            request = request.header(header::PROXY_AUTHORIZATION, authorization);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|cause| ClientError::Request { url: url.clone(), cause })?;
        let response = match timeout(limit, self.http.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                return Err(ClientError::Transport { url, cause: http_cause(&error) });
            }
            Err(_) => return Err(ClientError::Timeout { url, limit }),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let page = Limited::new(response.into_body(), MAX_ERROR_BYTES).collect();
        let page = match timeout(self.options.timeout, page).await {
            Ok(Ok(page)) => page.to_bytes(),
            // The error page is optional: the status is reported without it.
            _ => Bytes::new(),
        };
        Err(ClientError::Status { url, status, message: error_message(&page) })
    }

    /// Sends a GET request and reads the whole answer.
    pub(super) fn get_bytes<'a>(&'a self, path: &'a str, query: QueryString) -> RequestFuture<'a, Bytes> {
        Box::pin(self.ask_bytes(path, query, None))
    }

    /// Sends a GET request with these parameters, or a POST request with this form, and reads the whole answer.
    async fn ask_bytes(
        &self,
        path: &str,
        query: QueryString,
        form: Option<QueryString>,
    ) -> Result<Bytes, ClientError> {
        let limit = self.options.timeout;
        let asking = async {
            let response = match form {
                None => self.send(Method::GET, path, query, Bytes::new(), &[], limit).await?,
                Some(form) => {
                    let headers = [(header::CONTENT_TYPE, FORM)];
                    self.send(Method::POST, path, query, form.into_form(), &headers, limit).await?
                }
            };
            let body = Limited::new(response.into_body(), self.options.max_body_bytes).collect().await;
            body.map(|body| body.to_bytes()).map_err(|cause| self.unreadable(path, cause))
        };
        match timeout(limit, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Timeout { url: format!("{}{path}", self.base), limit }),
        }
    }

    /// Sends a GET request and decodes the data from the JSON envelope of the answer.
    pub(super) async fn get_json<T: DeserializeOwned>(
        &self,
        path: &str,
        query: QueryString,
    ) -> Result<WithWarnings<T>, ClientError> {
        let body = self.get_bytes(path, query).await?;
        self.data_of(path, &body)
    }

    /// Like [`get_json`](Self::get_json), but sends long parameters with POST. The path must accept both methods.
    pub(super) async fn ask_json<T: DeserializeOwned>(
        &self,
        path: &str,
        query: QueryString,
    ) -> Result<WithWarnings<T>, ClientError> {
        let (query, form) = match query.len() > MAX_GET_BYTES {
            true => (QueryString::new(), Some(query)),
            false => (query, None),
        };
        // Boxed for the same reason as the future of `send`.
        let asking: RequestFuture<'_, Bytes> = Box::pin(self.ask_bytes(path, query, form));
        self.data_of(path, &asking.await?)
    }

    fn data_of<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<WithWarnings<T>, ClientError> {
        let reply: ApiResponse<T> =
            serde_json::from_slice(body).map_err(|cause| self.unreadable(path, cause))?;
        if reply.status != "success" {
            return Err(self.unreadable(path, format!("{}: {}", reply.error_type, reply.error)));
        }
        let data = reply.data.ok_or_else(|| self.unreadable(path, "the field \"data\" is missing"))?;
        Ok(WithWarnings { data, warnings: reply.warnings })
    }

    pub(super) fn unreadable(&self, path: &str, cause: impl ToString) -> ClientError {
        ClientError::Unreadable { url: format!("{}{path}", self.base), cause: cause.to_string() }
    }
}

/// The TLS of a URL with `https` without other settings.
fn default_tls() -> ClientTlsOptions {
    ClientTlsOptions {
        ca: None,
        identity: None,
        server_name: None,
        skip_verify: false,
        min_version: TlsVersion::Tls12,
        alpn: vec![b"http/1.1"],
    }
}

/// Why a request failed, without the layers that say no more than that it did.
pub fn http_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let of_tls = |cause: &(dyn std::error::Error + 'static)| tls::explain("server", cause.downcast_ref()?);
    let of_http = |cause: &(dyn std::error::Error + 'static)| words_of_http(cause.downcast_ref()?);
    causes(error)
        .find_map(of_tls)
        .or_else(|| causes(error).find_map(of_http))
        .unwrap_or_else(|| root_cause(error).to_string())
}

/// What HTTP says that is not the error of something below it.
fn words_of_http(error: &hyper::Error) -> Option<String> {
    if error.is_parse() {
        Some("the answer is not HTTP; check which program listens on this port".to_owned())
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        Some("the connection was closed before the answer was complete".to_owned())
    } else {
        None
    }
}

/// The message of an error page: the field `error` of a JSON envelope, or the text itself, shortened.
fn error_message(page: &[u8]) -> String {
    let text = match serde_json::from_slice::<ApiResponse<serde_json::Value>>(page) {
        Ok(reply) if !reply.error.is_empty() => reply.error,
        _ => String::from_utf8_lossy(page).trim().to_owned(),
    };
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_for_others_contains_no_address() {
        let url = || "http://prometheus.internal:9090/prefix/api/v1/read".to_owned();
        let transport = |cause: &str| ClientError::Transport { url: url(), cause: cause.to_owned() };
        for (error, expected) in [
            (transport("Connection refused"), "Prometheus /prefix/api/v1/read: Connection refused"),
            (transport("proxy 10.0.0.1:3128: timed out"), "Prometheus /prefix/api/v1/read: proxy: timed out"),
            (
                ClientError::Timeout { url: url(), limit: Duration::from_secs(2) },
                "Prometheus /prefix/api/v1/read: no answer within 2s",
            ),
            (
                ClientError::Status { url: url(), status: StatusCode::NOT_FOUND, message: "gone".into() },
                "Prometheus /prefix/api/v1/read answered 404 Not Found: gone",
            ),
            (
                ClientError::Unreadable { url: url(), cause: "not JSON".into() },
                "answer of Prometheus /prefix/api/v1/read: not JSON",
            ),
        ] {
            assert_eq!(error.without_address(), expected);
            assert!(error.to_string().contains("prometheus.internal"), "{error}");
        }
    }

    #[test]
    fn error_pages_are_reduced_to_their_message() {
        let page = br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        assert_eq!(error_message(page), "parse error");
        assert_eq!(error_message(b"Service Unavailable\n"), "Service Unavailable");
        assert_eq!(error_message("é".repeat(1000).as_bytes()).chars().count(), 515);
    }
}
