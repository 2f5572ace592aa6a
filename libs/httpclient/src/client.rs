//! Sends requests.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use promapi::{ConnectionUses, Connector, ProxyUrl, http_cause};
use tls::ClientTls;
use url::Url;

use crate::config::{AuthorizationConfig, HttpClientConfig};
use crate::proxy::{NoProxy, Proxies};

/// The time to establish a connection, which the timeout of a request usually makes shorter.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections are closed after this time, which is longer than most intervals of scrapes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Most redirects that are followed, as in Prometheus.
const MAX_REDIRECTS: usize = 10;

type Sender = legacy::Client<Connector, Full<Bytes>>;

/// An answer: its status and headers, and a body that is still to be read.
pub type HttpResponse = Response<Incoming>;

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The URL cannot be used.
    #[error("URL {url:?}: {why}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A credential or header cannot be sent.
    #[error("{0}")]
    Credential(String),
    /// There is no answer.
    #[error("{url}: {cause}")]
    Transport {
        /// The URL.
        url: String,
        /// The innermost cause.
        cause: String,
    },
    /// The answer is a redirect that cannot be followed.
    #[error("{url}: {why}")]
    Redirect {
        /// The URL that was asked last.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The body is longer than allowed, or ends too early.
    #[error("{0}")]
    Body(String),
}

/// A request that failed, and whether it may be sent again because it was not answered.
struct Failed {
    may_repeat: bool,
    error: HttpError,
}

/// Notes a request on its connection; whether there were others on it before.
fn is_reused(captured: &CaptureConnection) -> bool {
    let mut extras = http::Extensions::new();
    if let Some(connected) = captured.connection_metadata().as_ref() {
        connected.get_extras(&mut extras);
    }
    extras.get::<ConnectionUses>().is_some_and(ConnectionUses::note)
}

/// Sends requests with the settings of one configuration. Clones share their connections.
#[derive(Clone)]
pub struct HttpClient {
    config: HttpClientConfig,
    direct: Sender,
    http_proxy: Option<(ProxyUrl, Sender)>,
    https_proxy: Option<(ProxyUrl, Sender)>,
    except: NoProxy,
}

impl HttpClient {
    /// A client. `what` describes it in log lines about files that change. It connects at the first request.
    ///
    /// # Errors
    /// A file of the TLS settings, or a proxy of the environment, cannot be used.
    pub fn new(what: &str, config: HttpClientConfig) -> Result<Self, String> {
        let tls = ClientTls::load(what, config.tls.clone())?;
        let proxies = Proxies::of(&config.proxy)?;
        let sender = |proxy: Option<ProxyUrl>| {
            let mut tcp = HttpConnector::new();
            tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
            tcp.set_nodelay(true);
            legacy::Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(2)
                .pool_timer(TokioTimer::new())
                .build(Connector::new(tcp, proxy, Some(tls.clone())))
        };
        let through = |proxy: Option<ProxyUrl>| proxy.map(|proxy| (proxy.clone(), sender(Some(proxy))));
        Ok(Self {
            direct: sender(None),
            http_proxy: through(proxies.http),
            https_proxy: through(proxies.https),
            except: proxies.except,
            config,
        })
    }

    /// Sends a request and waits for the head of the answer, whatever its status is. Redirects of GET requests are followed, if
    /// the settings say so; credentials and configured headers are sent to the first host only.
    ///
    /// A GET request is sent once more if its connection was used before and ends without an answer: servers close connections that
    /// are idle, also while a request is on its way.
    ///
    /// The future is boxed: the crate that polls a plain one would compile hyper's client again.
    ///
    /// # Errors
    /// See [`HttpError`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub fn send<'a>(
        &'a self,
        method: Method,
        url: &'a str,
        headers: HeaderMap,
        body: Bytes,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>> {
        Box::pin(self.send_unboxed(method, url, headers, body))
    }

    async fn send_unboxed(
        &self,
        method: Method,
        text: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<HttpResponse, HttpError> {
        let mut url = parse(text)?;
        let first = host_of(&url);
        let mut redirects = 0;
        loop {
            let own = if host_of(&url) == first { self.own_headers()? } else { HeaderMap::new() };
            let sent = self.send_one(method.clone(), &url, headers.clone(), own.clone(), body.clone()).await;
            let response = match sent {
                Err(failed) if failed.may_repeat && method == Method::GET => {
                    let again = self.send_one(method.clone(), &url, headers.clone(), own, body.clone()).await;
                    again.map_err(|failed| failed.error)?
                }
                sent => sent.map_err(|failed| failed.error)?,
            };
            let is_redirect = matches!(
                response.status(),
                StatusCode::MOVED_PERMANENTLY
                    | StatusCode::FOUND
                    | StatusCode::SEE_OTHER
                    | StatusCode::TEMPORARY_REDIRECT
                    | StatusCode::PERMANENT_REDIRECT
            );
            if !is_redirect || !self.config.follow_redirects || method != Method::GET {
                return Ok(response);
            }
            redirects += 1;
            let wrong = |why: &str| HttpError::Redirect { url: url.to_string(), why: why.to_owned() };
            if redirects > MAX_REDIRECTS {
                return Err(wrong("stopped after 10 redirects"));
            }
            let target = response.headers().get(header::LOCATION).and_then(|target| target.to_str().ok());
            let target = target.ok_or_else(|| wrong("the redirect has no Location"))?;
            let next = url.join(target).map_err(|_| wrong("the Location of the redirect is not a URL"))?;
            url = parse(next.as_str())?;
        }
    }

    /// The headers that the settings ask for.
    fn own_headers(&self) -> Result<HeaderMap, HttpError> {
        let mut headers = HeaderMap::new();
        for header in &self.config.headers {
            for value in &header.values {
                let text = value.text().map_err(HttpError::Credential)?;
                let value = HeaderValue::try_from(text).map_err(|_| {
                    HttpError::Credential(format!(
                        "header {}: the value has characters that are not allowed",
                        header.name
                    ))
                })?;
                headers.append(header.name.clone(), value);
            }
        }
        if let Some(authorization) = &self.config.authorization {
            headers.insert(header::AUTHORIZATION, value_of(authorization)?);
        }
        Ok(headers)
    }

    async fn send_one(
        &self,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        own: HeaderMap,
        body: Bytes,
    ) -> Result<HttpResponse, Failed> {
        // Appended, as a header may have several values.
        for (name, value) in own.iter() {
            headers.append(name.clone(), value.clone());
        }
        let sender = match self.proxy_of(url) {
            None => &self.direct,
            Some((proxy, sender)) => {
                if let Some(value) = proxy.authorization_of_requests(url.as_str()) {
                    headers.insert(header::PROXY_AUTHORIZATION, value);
                }
                sender
            }
        };
        let wrong = |why: http::uri::InvalidUri| Failed {
            may_repeat: false,
            error: HttpError::Url { url: url.to_string(), why: why.to_string() },
        };
        let uri: http::Uri = url[..url::Position::AfterQuery].parse().map_err(wrong)?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let captured = capture_connection(&mut request);
        match sender.request(request).await {
            Ok(response) => {
                is_reused(&captured);
                Ok(response)
            }
            Err(error) => Err(Failed {
                // The server may have closed the connection while the request was on its way. It was not answered then.
                may_repeat: !error.is_connect() && is_reused(&captured),
                error: HttpError::Transport { url: url.to_string(), cause: http_cause(&error) },
            }),
        }
    }

    fn proxy_of(&self, url: &Url) -> Option<&(ProxyUrl, Sender)> {
        let proxy = if url.scheme() == "https" { &self.https_proxy } else { &self.http_proxy };
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        proxy.as_ref().filter(|_| !self.except.has(host, url.port_or_known_default().unwrap_or_default()))
    }

    /// Reads a whole body of at most `limit` bytes.
    ///
    /// # Errors
    /// It is longer, or does not arrive completely.
    pub async fn body(response: HttpResponse, limit: usize) -> Result<Bytes, HttpError> {
        match Limited::new(response.into_body(), limit).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                Err(HttpError::Body(format!("the answer is longer than {limit} bytes")))
            }
            Err(error) => Err(HttpError::Body(http_cause(&*error))),
        }
    }
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient").field("config", &self.config).finish_non_exhaustive()
    }
}

fn parse(text: &str) -> Result<Url, HttpError> {
    let wrong = |why: &str| HttpError::Url { url: text.to_owned(), why: why.to_owned() };
    let url = Url::parse(text).map_err(|why| wrong(&why.to_string()))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err(wrong("is not of the form http://HOST:PORT/PATH")),
    }
}

fn host_of(url: &Url) -> (String, Option<u16>) {
    (url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default())
}

fn value_of(authorization: &AuthorizationConfig) -> Result<HeaderValue, HttpError> {
    let text = match authorization {
        AuthorizationConfig::Basic { username, password } => {
            let username = username.text().map_err(HttpError::Credential)?;
            let password = password.text().map_err(HttpError::Credential)?;
            format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
        }
        AuthorizationConfig::Other { kind, credentials: Some(credentials) } => {
            format!("{kind} {}", credentials.text().map_err(HttpError::Credential)?)
        }
        AuthorizationConfig::Other { kind, credentials: None } => kind.clone(),
    };
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        HttpError::Credential("the credentials have characters that are not allowed in a header".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}
