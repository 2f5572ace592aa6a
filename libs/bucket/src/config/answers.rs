//! Checks that what answers is an object store. A proxy, a login page or a wrong endpoint may answer 200 with HTML to any
//! request, which would look like an object, a mark, or an empty bucket.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use http::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use http::{Method, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

use crate::config::listing;
use crate::error::NO_CONDITIONS;

/// Largest page of a listing. A page has at most 5,000 names of at most 1 KiB.
const LISTING_BYTES: usize = 64 << 20;
/// Names that cannot be used are logged once each, at most this many.
const LOGGED_NAMES: usize = 100;

/// Connects to a store, and checks its answers. Answers of other hosts, such as those that issue credentials, are passed
/// on unchecked.
#[derive(Debug)]
pub(super) struct CheckedConnector {
    /// Host and port of the store, as in the URLs of requests.
    host: String,
}

impl CheckedConnector {
    /// A connector to the store at `endpoint`, a host with or without scheme, port and path.
    pub(super) fn new(endpoint: &str) -> Self {
        let host = endpoint.split_once("://").map_or(endpoint, |(_, host)| host);
        Self { host: host.split('/').next().unwrap_or(host).to_owned() }
    }
}

impl HttpConnector for CheckedConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        let skipped = Arc::default();
        Ok(HttpClient::new(CheckedService { client, host: self.host.clone(), skipped }))
    }
}

#[derive(Debug)]
struct CheckedService {
    client: HttpClient,
    host: String,
    /// The names that were skipped and logged.
    skipped: Arc<Mutex<BTreeSet<String>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("{NO_CONDITIONS}")]
struct NoConditions;

/// An answer that no object store gives.
#[derive(Debug, thiserror::Error)]
#[error("{host} answered with {found}; check the endpoint, and the proxies before it")]
struct NotAStore {
    host: String,
    found: String,
}

#[async_trait]
impl HttpService for CheckedService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_checked =
            is_host(request.uri(), &self.host) && matches!(*request.method(), Method::GET | Method::HEAD);
        let is_listing = is_checked && is_listing(request.uri());
        let is_conditional = *request.method() == Method::PUT
            && [IF_NONE_MATCH, IF_MATCH].iter().any(|name| request.headers().contains_key(name));
        let response = self.client.execute(request).await?;
        if is_conditional && response.status() == StatusCode::NOT_IMPLEMENTED {
            // As a status, the client would repeat the request.
            return Err(HttpError::new(HttpErrorKind::Decode, NoConditions));
        }
        if !is_checked || !response.status().is_success() {
            return Ok(response);
        }
        let content_type = response.headers().get(CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes());
        let is_html = [&b"text/html"[..], b"application/xhtml"].iter().any(|html| {
            content_type.len() >= html.len() && content_type[..html.len()].eq_ignore_ascii_case(html)
        });
        if is_html {
            return Err(self.refuse("an HTML page instead of an object or a listing"));
        }
        if !is_listing {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LISTING_BYTES).collect().await.map_err(|error| {
            match error.downcast::<HttpError>() {
                Ok(error) => *error,
                Err(_) => self.refuse(format!("a listing of more than {LISTING_BYTES} bytes")),
            }
        })?;
        let listing = listing::check(&body.to_bytes())
            .map_err(|found| self.refuse(format!("something else than a listing: it {found}")))?;
        self.log_skipped(&listing.skipped);
        Ok(HttpResponse::from_parts(head, listing.body.into()))
    }
}

impl CheckedService {
    fn refuse(&self, found: impl Into<String>) -> HttpError {
        HttpError::new(HttpErrorKind::Decode, NotAStore { host: self.host.clone(), found: found.into() })
    }

    fn log_skipped(&self, names: &[String]) {
        let mut logged = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            if logged.len() < LOGGED_NAMES && logged.insert(name.clone()) {
                tracing::warn!(
                    host = self.host,
                    object = ?name,
                    "an object or a folder has a name that cannot be used (an empty part, '..' or a control character), it is skipped"
                );
            }
        }
    }
}

fn is_host(uri: &Uri, host: &str) -> bool {
    uri.authority().is_some_and(|authority| {
        let authority = authority.as_str();
        let given = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        // The client leaves out the port of the scheme.
        let without_port = host.strip_suffix(":443").or(host.strip_suffix(":80")).unwrap_or(host);
        given.eq_ignore_ascii_case(host) || given.eq_ignore_ascii_case(without_port)
    })
}

/// Whether a request is one for a listing: by S3's or GCS' parameter, or by Azure's.
fn is_listing(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or("");
    query.split('&').any(|parameter| matches!(parameter, "list-type=2" | "comp=list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_store_is_checked() {
        let check = |endpoint: &str, url: &str, expected: bool| {
            let uri: Uri = url.parse().expect("a URL");
            assert_eq!(is_host(&uri, &CheckedConnector::new(endpoint).host), expected, "{endpoint} {url}");
        };
        check("https://b.s3.eu-1.amazonaws.com", "https://B.s3.eu-1.amazonaws.com/x?list-type=2", true);
        check("http://127.0.0.1:9000/path", "http://127.0.0.1:9000/b/x", true);
        check("https://store:443", "https://store/b/x", true);
        check("https://store", "http://169.254.169.254/latest/meta-data", false);
        check("https://store:9000", "https://store:9001/b", false);
    }
}
