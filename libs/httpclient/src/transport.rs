//! One request and its answer, directly or through a proxy.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use promapi::{ConnectionUses, Connector, ProxyUrl, http_cause};
use tls::{ClientTls, ClientTlsOptions};
use url::Url;

use crate::proxy::{NoProxy, Proxies, ProxyConfig};

/// The time to establish a connection, which the timeout of a request usually makes shorter.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections are closed after this time, which is longer than most intervals of scrapes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
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
pub(crate) struct Failed {
    pub(crate) may_repeat: bool,
    pub(crate) error: HttpError,
}

/// Notes a request on its connection; whether there were others on it before.
fn is_reused(captured: &CaptureConnection) -> bool {
    let mut extras = http::Extensions::new();
    if let Some(connected) = captured.connection_metadata().as_ref() {
        connected.get_extras(&mut extras);
    }
    extras.get::<ConnectionUses>().is_some_and(ConnectionUses::note)
}

/// Connections with one way of TLS, directly and through proxies. Clones share them.
#[derive(Clone)]
pub(crate) struct Transport {
    direct: Sender,
    http_proxy: Option<(ProxyUrl, Sender)>,
    https_proxy: Option<(ProxyUrl, Sender)>,
    except: NoProxy,
}

impl Transport {
    /// It connects at the first request. `what` describes it in log lines about files that change.
    ///
    /// # Errors
    /// A file of the TLS settings, or a proxy of the environment, cannot be used.
    pub(crate) fn new(what: &str, tls: &ClientTlsOptions, proxy: &ProxyConfig) -> Result<Self, String> {
        let tls = ClientTls::load(what, tls.clone())?;
        let proxies = Proxies::of(proxy)?;
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
        })
    }

    /// Sends a request with the headers `own` beside `headers`, and waits for the head of its answer.
    pub(crate) async fn send_one(
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
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// It is longer, or does not arrive completely.
pub(crate) async fn read_body(response: HttpResponse, limit: usize) -> Result<Bytes, HttpError> {
    match Limited::new(response.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(HttpError::Body(format!("the answer is longer than {limit} bytes")))
        }
        Err(error) => Err(HttpError::Body(http_cause(&*error))),
    }
}

/// A URL of this client.
///
/// # Errors
/// The text is not one.
pub(crate) fn parse(text: &str) -> Result<Url, HttpError> {
    let wrong = |why: &str| HttpError::Url { url: text.to_owned(), why: why.to_owned() };
    let url = Url::parse(text).map_err(|why| wrong(&why.to_string()))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err(wrong("is not of the form http://HOST:PORT/PATH")),
    }
}
