//! Connections to servers: directly or through a proxy, with or without TLS.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tls::{ClientTls, TcpOrTls};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower::Service;

type BoxError = Box<dyn StdError + Send + Sync>;

/// A proxy between a client and its server: `http://HOST:PORT` or `socks5://HOST:PORT`, with `USER:PASSWORD@` before
/// the host where it asks for them.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    /// Without user and password.
    uri: Uri,
    kind: ProxyKind,
    user: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProxyKind {
    Http,
    Socks5,
}

impl ProxyUrl {
    /// The header that shows user and password to a proxy of HTTP.
    fn authorization(&self) -> Option<HeaderValue> {
        let (user, password) = self.user.as_ref()?;
        let mut value =
            HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The address of the proxy, `HOST:PORT`.
    pub fn address(&self) -> &str {
        self.uri.authority().map_or("", Authority::as_str)
    }

    /// Turns a connection to the proxy into one to the host and port of `to`.
    ///
    /// # Errors
    /// The proxy refuses, or its answer is not understood.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn tunnel(&self, opened: TcpStream, to: Uri) -> Result<TcpStream, BoxError> {
        let opened = already(TokioIo::new(opened));
        let stream = match self.kind {
            ProxyKind::Http => {
                let mut tunnel = Tunnel::new(self.uri.clone(), opened);
                if let Some(authorization) = self.authorization() {
                    tunnel = tunnel.with_auth(authorization);
                }
                tunnel.call(to).await.map_err(|error| of_proxy(self, &error))?
            }
            ProxyKind::Socks5 => {
                let mut socks = SocksV5::new(self.uri.clone(), opened);
                if let Some((user, password)) = &self.user {
                    socks = socks.with_auth(user.clone(), password.clone());
                }
                socks.call(to).await.map_err(|error| of_proxy(self, &error))?
            }
        };
        Ok(stream.into_inner())
    }

    /// The same, for requests over plain HTTP, which the proxy reads itself.
    pub fn authorization_of_requests(&self, url: &str) -> Option<HeaderValue> {
        let reads_requests = self.kind == ProxyKind::Http && url.starts_with("http:");
        reads_requests.then(|| self.authorization()).flatten()
    }
}

impl FromStr for ProxyUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The text may contain a password, so the message does not.
        let refuse = || "is not of the form http://HOST:PORT or socks5://HOST:PORT".to_owned();
        let uri: Uri = text.parse().map_err(|_| refuse())?;
        let kind = match uri.scheme_str() {
            Some("http") => ProxyKind::Http,
            Some("socks5" | "socks5h") => ProxyKind::Socks5,
            Some("https") => {
                return Err("is a proxy with TLS, which is not supported; use one with http:// or socks5://"
                    .to_owned());
            }
            _ => return Err(refuse()),
        };
        let authority = uri.authority().ok_or_else(refuse)?.as_str();
        let (user, address) = match authority.rsplit_once('@') {
            None => (None, authority),
            Some((user, address)) => {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                (Some((decoded(name).ok_or_else(refuse)?, decoded(password).ok_or_else(refuse)?)), address)
            }
        };
        let address: Authority = address.parse().map_err(|_| refuse())?;
        let port = address.port_u16().unwrap_or(if kind == ProxyKind::Http { 80 } else { 1080 });
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(format!("{}:{port}", address.host()))
            .path_and_query("/")
            .build()
            .map_err(|_| refuse())?;
        Ok(Self { uri, kind, user })
    }
}

impl std::fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProxyUrl({:?} {})", self.kind, self.uri)
    }
}

/// Text of a URL without its `%XX`.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Opens connections for hyper's client.
#[derive(Clone, Debug)]
pub struct Connector {
    tcp: HttpConnector,
    proxy: Option<ProxyUrl>,
    tls: Option<ClientTls>,
}

impl Connector {
    /// Opens TCP connections with `tcp`, through a proxy if there is one. `tls` is for URLs with `https`, which fail without it.
    pub fn new(mut tcp: HttpConnector, proxy: Option<ProxyUrl>, tls: Option<ClientTls>) -> Self {
        tcp.enforce_http(false);
        Self { tcp, proxy, tls }
    }

    async fn open(mut self, uri: Uri) -> Result<HttpConnection, BoxError> {
        let tls = match (uri.scheme() == Some(&Scheme::HTTPS), &self.tls) {
            (false, _) => None,
            (true, Some(tls)) => Some(tls.clone()),
            (true, None) => return Err("TLS is not configured for URLs with https".into()),
        };
        let through_proxy = tls.is_none() && self.proxy.as_ref().is_some_and(|p| p.kind == ProxyKind::Http);
        let stream: TcpStream = match &self.proxy {
            None => self.tcp.call(uri.clone()).await?.into_inner(),
            Some(proxy) => {
                let opened =
                    self.tcp.call(proxy.uri.clone()).await.map_err(|error| of_proxy(proxy, &error))?;
                match through_proxy {
                    true => opened.into_inner(),
                    false => proxy.tunnel(opened.into_inner(), uri.clone()).await?,
                }
            }
        };
        let stream = match tls {
            None => stream.into(),
            Some(tls) => tls.connect(uri.host().unwrap_or_default(), stream).await?.into(),
        };
        Ok(HttpConnection { stream, through_proxy, uses: ConnectionUses::default() })
    }
}

/// A connector that gives away a connection that is open already. The errors of the crate's proxies do not say why a
/// connection cannot be opened.
fn already(
    opened: TokioIo<TcpStream>,
) -> impl Service<Uri, Response = TokioIo<TcpStream>, Error = io::Error, Future: Send + 'static> {
    let mut opened = Some(opened);
    tower::service_fn(move |_: Uri| {
        std::future::ready(opened.take().ok_or_else(|| io::Error::other("the connection is already used")))
    })
}

fn of_proxy(proxy: &ProxyUrl, error: &(dyn StdError + 'static)) -> BoxError {
    format!("proxy {}: {}", proxy.address(), model::root_cause(error)).into()
}

impl Service<Uri> for Connector {
    type Response = TokioIo<HttpConnection>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.open(uri).await.map(TokioIo::new) })
    }
}

/// A connection, and what hyper's client has to know about it.
#[derive(Debug)]
pub struct HttpConnection {
    stream: TcpOrTls,
    /// A proxy reads the requests, so that they name the whole URL.
    through_proxy: bool,
    uses: ConnectionUses,
}

/// The number of requests that were sent on a connection, which is among its [extras](Connected::extra). A request on a connection that
/// is not new may fail only because the server has just closed it.
#[derive(Clone, Debug, Default)]
pub struct ConnectionUses(Arc<AtomicUsize>);

impl ConnectionUses {
    /// Notes a request; whether there were others before.
    pub fn note(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) > 0
    }
}

impl Connection for HttpConnection {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.through_proxy).extra(self.uses.clone())
    }
}

impl AsyncRead for HttpConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for HttpConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_and_passwords_are_not_shown() {
        let proxy: ProxyUrl = "http://me:p%40ss@proxy.example:3128".parse().unwrap();
        assert_eq!(proxy.uri, "http://proxy.example:3128/");
        assert_eq!(proxy.user, Some(("me".to_owned(), "p@ss".to_owned())));
        assert_eq!(proxy.authorization_of_requests("http://p").unwrap(), "Basic bWU6cEBzcw==");
        assert_eq!(proxy.authorization_of_requests("https://p"), None, "the tunnel gets it");
        assert!(!format!("{proxy:?}").contains("ss"), "{proxy:?}");
        let socks: ProxyUrl = "socks5://[::1]".parse().unwrap();
        assert_eq!((socks.uri.to_string().as_str(), socks.kind), ("http://[::1]:1080/", ProxyKind::Socks5));
        for wrong in ["", "proxy:3128", "ftp://me:secret@x", "http://", "https://x", "http://a%zz@x"] {
            let error = wrong.parse::<ProxyUrl>().unwrap_err();
            assert!(!error.contains("secret") && error.contains("http://"), "{wrong}: {error}");
        }
    }
}
