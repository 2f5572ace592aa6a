//! The logical name of the target of a request, and the tower layer that writes it into requests.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Uri, uri::Scheme};
use identity::Name;
use tower::{Layer, Service};

/// The name of a target, `<target>.<cluster>`, such as `scraper-0.eu-1`; it travels as HTTP's `:authority`.
///
/// It is read as DNS reads names: upper case means the same, and a dot may follow. Both parts are DNS labels (`a-z 0-9 -`, 1 to 63 characters). The name never contains a port or an address: those exist
/// only in the configuration of the cluster that owns the target.
///
/// ```
/// let name: mesh::Authority = "scraper-0.eu-1".parse()?;
/// assert_eq!((name.target().as_str(), name.cluster().as_str()), ("scraper-0", "eu-1"));
/// # Ok::<(), mesh::AuthorityError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Authority {
    text: Arc<str>,
    target: Name,
    cluster: Name,
}

/// A text is not the name of a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("target {text:?}: must be <target>.<cluster>, such as scraper-0.eu-1, both of a-z, 0-9 and '-'")]
pub struct AuthorityError {
    text: String,
}

impl Authority {
    /// The name of `target` in `cluster`.
    pub fn new(target: Name, cluster: Name) -> Self {
        Self { text: format!("{target}.{cluster}").into(), target, cluster }
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The target within its cluster.
    pub fn target(&self) -> &Name {
        &self.target
    }

    /// The cluster that owns the target.
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// The name as a type of the `http` crate.
    fn to_http(&self) -> http::uri::Authority {
        self.as_str().parse().expect("two DNS labels joined by a dot are a valid URI authority")
    }
}

impl FromStr for Authority {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        // The text may be foreign: shorten it, so that it cannot fill a log.
        let shown: String = text.chars().take(140).collect();
        let refuse = || AuthorityError { text: shown.clone() };
        // Names are compared as those of DNS: without regard to case, and a dot at the end says only that the name is whole.
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let (target, cluster) = text.split_once('.').ok_or_else(refuse)?;
        let (target, cluster) =
            (target.parse().map_err(|_| refuse())?, cluster.parse().map_err(|_| refuse())?);
        Ok(Self::new(target, cluster))
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Addresses every request to one target, and replaces the authority that it had before.
#[derive(Debug, Clone)]
pub struct AuthorityLayer {
    authority: http::uri::Authority,
}

impl AuthorityLayer {
    /// A layer that addresses requests to `authority`.
    pub fn new(authority: &Authority) -> Self {
        Self { authority: authority.to_http() }
    }
}

impl<S> Layer<S> for AuthorityLayer {
    type Service = WithAuthority<S>;

    fn layer(&self, inner: S) -> WithAuthority<S> {
        WithAuthority { inner, authority: self.authority.clone() }
    }
}

/// The service that [`AuthorityLayer`] makes.
#[derive(Debug, Clone)]
pub struct WithAuthority<S> {
    inner: S,
    authority: http::uri::Authority,
}

impl<S, B> Service<Request<B>> for WithAuthority<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme.get_or_insert(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query.get_or_insert_with(|| http::uri::PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path are all there");
        self.inner.call(request)
    }
}
